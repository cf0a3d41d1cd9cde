/**
 * A key-value log's entries, as they cross: type, key length, key, value length, value; what a file holds between the
 * sequence and the checksum.
 *
 * ```text
 *   0      1          5       5+K        9+K
 *   ├──────┼──────────┼────────┼──────────┼─────────┤
 *   │ type │ K (u32)  │ key    │ V (u32)  │ value   │
 *   └──────┴──────────┴────────┴──────────┴─────────┘
 * ```
 */
import { invalidArgType, outOfRange } from './argument-errors.js'
import { byteLengthOf, bytesOf } from './staging.js'

/** What goes into a key-value log. */
export type KeyValueEntry =
  | {
      /** From now on `key` has `value`, which may be empty. */
      type: 'put'
      /** The key, which may be empty. */
      key: Uint8Array
      /** Its value. */
      value: Uint8Array
    }
  | {
      /** From now on `key` has no value. */
      type: 'delete'
      /** The key. */
      key: Uint8Array
    }

/** An entry that was read, with its number. */
export type KeyValueRecord = KeyValueEntry & {
  /** Its number in the log. */
  sequence: number
}

const put = 1
const remove = 2

/** Bytes around key and value. */
const entryOverhead = 9

const nothing = new Uint8Array(0)

/** An entry whose parts were checked and not yet copied. */
export interface Parts {
  type: typeof put | typeof remove
  key: Uint8Array
  value: Uint8Array
  /** Bytes of key and value. */
  size: number
}

/** A put. */
export function putOf(key: unknown, value: unknown, name = ''): Parts {
  return partsOf(put, bytesOf(key, `${name}key`), bytesOf(value, `${name}value`))
}

/** A delete. */
export function deleteOf(key: unknown, name = ''): Parts {
  return partsOf(remove, bytesOf(key, `${name}key`), nothing)
}

/**
 * A put or a delete. `name` says which argument it is.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE`, RangeError `ERR_OUT_OF_RANGE` if it is neither.
 */
export function entryOf(entry: unknown, name: string): Parts {
  if (typeof entry !== 'object' || entry === null) throw invalidArgType(name, 'of type object', entry)
  const { type, key, value } = entry as { type?: unknown; key?: unknown; value?: unknown }
  if (typeof type !== 'string') throw invalidArgType(`${name}.type`, 'of type string', type)
  if (type === 'put') return putOf(key, value, `${name}.`)
  if (type === 'delete') return deleteOf(key, `${name}.`)
  throw outOfRange(`${name}.type`, "one of 'put', 'delete'", type)
}

function partsOf(type: Parts['type'], key: Uint8Array, value: Uint8Array): Parts {
  return { type, key, value, size: byteLengthOf(key) + byteLengthOf(value) }
}

/** Its bytes: the one copy on this side but for the staging. */
export function encode({ type, key, value }: Parts): Buffer {
  const keyBytes = byteLengthOf(key)
  const valueBytes = byteLengthOf(value)
  const bytes = Buffer.allocUnsafe(entryOverhead + keyBytes + valueBytes)
  bytes[0] = type
  bytes.writeUInt32LE(keyBytes, 1)
  // An empty view may be a detached one, which `set` would refuse.
  if (keyBytes > 0) bytes.set(key, 5)
  bytes.writeUInt32LE(valueBytes, 5 + keyBytes)
  if (valueBytes > 0) bytes.set(value, entryOverhead + keyBytes)
  return bytes
}

/** The entry in these bytes, which core has checked. Key and value share their memory. */
export function decodeEntry(bytes: Buffer, sequence: number): KeyValueRecord {
  const keyEnd = 5 + bytes.readUInt32LE(1)
  const key = bytes.subarray(5, keyEnd)
  if (bytes[0] === remove) return { sequence, type: 'delete', key }
  return { sequence, type: 'put', key, value: bytes.subarray(keyEnd + 4) }
}
