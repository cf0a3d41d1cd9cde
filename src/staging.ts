/**
 * Where records are collected between two submissions: each behind its length as a little-endian u32, as a frame
 * holds them. The memory is private to this file; the native side copies it during the call that submits.
 */
import { invalidArgType } from './argument-errors.js'

/** Bytes in front of each record. */
export const prefixBytes = 4

export class Staging {
  readonly bytes: Uint8Array
  /** Bytes in use. */
  length = 0
  /** Records in use. */
  count = 0
  /** The LSN of the first of them; 0 while there is none. */
  firstLsn = 0
  /** Whether somebody waits for one of them to be durable. */
  durable = false

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity)
  }

  /** Whether records of so many bytes, prefixes included, can go in behind what is there. */
  fits(bytes: number): boolean {
    return this.length + bytes <= this.bytes.length
  }

  /** Take a copy of a record of `size` bytes, known to fit. Where that throws, nothing was taken. */
  push(record: Uint8Array, size: number): undefined {
    const { bytes, length } = this
    bytes[length] = size
    bytes[length + 1] = size >>> 8
    bytes[length + 2] = size >>> 16
    bytes[length + 3] = size >>> 24
    // An empty record may be a detached one, which `set` would refuse.
    if (size > 0) bytes.set(record, length + prefixBytes)
    this.length = length + prefixBytes + size
    this.count += 1
  }

  /** The same for several: all of them or, where that throws, none. */
  pushAll(records: readonly Uint8Array[], sizes: readonly number[]): undefined {
    const { length, count } = this
    try {
      for (const [index, record] of records.entries()) this.push(record, sizes[index] as number)
    } catch (error) {
      this.length = length
      this.count = count
      throw error
    }
  }

  clear(): void {
    this.length = 0
    this.count = 0
    this.firstLsn = 0
    this.durable = false
  }
}

const getter = (of: object, name: string): ((this: unknown) => unknown) =>
  Object.getOwnPropertyDescriptor(of, name)?.get as (this: unknown) => unknown

const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as object
const typedArrayTag = getter(typedArray, Symbol.toStringTag as unknown as string)
const typedArrayBytes = getter(typedArray, 'byteLength') as (this: Uint8Array) => number
const typedArrayBuffer = getter(typedArray, 'buffer') as (this: unknown) => ArrayBufferLike
const typedArrayOffset = getter(typedArray, 'byteOffset') as (this: unknown) => number
const dataViewBytes = getter(DataView.prototype, 'byteLength') as (this: unknown) => number
const dataViewBuffer = getter(DataView.prototype, 'buffer') as (this: unknown) => ArrayBufferLike
const dataViewOffset = getter(DataView.prototype, 'byteOffset') as (this: unknown) => number

/**
 * The bytes of any view, as a `Uint8Array`; a detached one has none.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE` if it is no view.
 */
export function bytesOf(record: unknown, name: string): Uint8Array {
  // A view of a plain kind is taken as it is. Its length is always asked of `byteLengthOf`: a subclass may lie.
  if (ArrayBuffer.isView(record)) {
    const tag = typedArrayTag.call(record)
    if (tag === 'Uint8Array') return record as Uint8Array
    try {
      return tag === undefined
        ? new Uint8Array(dataViewBuffer.call(record), dataViewOffset.call(record), dataViewBytes.call(record))
        : new Uint8Array(
            typedArrayBuffer.call(record),
            typedArrayOffset.call(record),
            typedArrayBytes.call(record as Uint8Array),
          )
    } catch {
      // Its memory was transferred or cut short: a view of nothing.
      return new Uint8Array(0)
    }
  }
  throw invalidArgType(name, 'an instance of Uint8Array or another ArrayBufferView', record)
}

/** How many bytes there really are, whatever a subclass says. */
export function byteLengthOf(record: Uint8Array): number {
  return typedArrayBytes.call(record)
}

/** The same bytes in memory that only this thread can change during a call. */
export function unshared(record: Uint8Array): Uint8Array {
  const size = byteLengthOf(record)
  if (size === 0) return new Uint8Array(0)
  const buffer = typedArrayBuffer.call(record)
  if (buffer instanceof ArrayBuffer) return record
  // Over a SharedArrayBuffer: copied once, since another thread may write while it is being read.
  const copy = new Uint8Array(size)
  copy.set(record)
  return copy
}
