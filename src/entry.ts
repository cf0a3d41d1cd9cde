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
import { invalidArgType, outOfRange } from './errors.js'
import { byteLengthOf, bytesOf } from './staging.js'

/** What goes into a key-value log. */
export type KeyValueEntry =
  | {
      /** From now on `key` has `value`, which may be empty. */
      type: 'put'
      key: Uint8Array
      value: Uint8Array
    }
  | {
      /** From now on `key` has no value. */
      type: 'delete'
      key: Uint8Array
    }

/** An entry that was read, with its number. */
export type KeyValueRecord = KeyValueEntry & { sequence: number }

const put = 1
const remove = 2

/** Bytes around key and value. */
export const entryOverhead = 9

const nothing = new Uint8Array(0)

/** A put's bytes. */
export function encodePut(key: unknown, value: unknown, name = ''): Buffer {
  return encode(put, bytesOf(key, `${name}key`), bytesOf(value, `${name}value`))
}

/** A delete's bytes. */
export function encodeDelete(key: unknown, name = ''): Buffer {
  return encode(remove, bytesOf(key, `${name}key`), nothing)
}

/**
 * An entry's bytes. `name` says which argument it is.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE`, RangeError `ERR_OUT_OF_RANGE` if it is none.
 */
export function encodeEntry(entry: unknown, name: string): Buffer {
  if (typeof entry !== 'object' || entry === null) throw invalidArgType(name, 'of type object', entry)
  const { type, key, value } = entry as { type?: unknown; key?: unknown; value?: unknown }
  if (typeof type !== 'string') throw invalidArgType(`${name}.type`, 'of type string', type)
  if (type === 'put') return encodePut(key, value, `${name}.`)
  if (type === 'delete') return encodeDelete(key, `${name}.`)
  throw outOfRange(`${name}.type`, "one of 'put', 'delete'", type)
}

function encode(type: number, key: Uint8Array, value: Uint8Array): Buffer {
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
