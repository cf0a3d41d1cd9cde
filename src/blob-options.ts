/**
 * Options and other arguments of blobs: what may be given, what is the default, and what is said about anything else.
 */
import { invalidArgType, outOfRange } from './argument-errors.js'
import { nameInvalid, offsetOverflow, partitionNameInvalid } from './blob-errors.js'
import {
  type Backend,
  backendOf,
  booleanOf,
  directoryOf,
  integerOf,
  millisecondsMax,
  objectOf,
  oneOf,
  signalOf,
} from './options.js'
import { byteLengthOf, bytesOf } from './staging.js'

/** How to open a store of blobs. Each is optional. */
export interface BlobStoreOptions {
  /**
   * What runs the store. `'auto'` takes `'io_uring'` where it can be had, else `'threads'`, and says why
   * (`backendReason`). A named backend is honoured or refused (`ERR_BACKEND_UNAVAILABLE`). The environment variable
   * `RINGBOLT_BACKEND` is stronger than this.
   *
   * @defaultValue `'auto'`
   */
  backend?: 'auto' | Backend
  /**
   * The layout of blobs made from now on; those that are there keep theirs. `'v1'`: the blob's first byte is at 4096 in
   * its file, so that it is aligned; `'v0'`: at 8, as older releases of commonware-runtime have it.
   *
   * @defaultValue `'v1'`
   */
  layout?: 'v1' | 'v0'
  /**
   * How many operations may be at the disk at a time, 1 to 4096; more are taken, and wait.
   *
   * @defaultValue 64
   */
  queueDepth?: number
  /**
   * How long to retry for the lock of a store that somebody else has open, in milliseconds.
   *
   * @defaultValue 250
   */
  lockTimeoutMs?: number
  /**
   * Make a store, and missing parent directories, where there is none. If false: `ERR_BLOB_STORE_NOT_FOUND`.
   *
   * @defaultValue `true`
   */
  create?: boolean
  /**
   * Permission bits of the files made, the umask applied; directories get the matching x bits.
   *
   * @defaultValue `0o600`
   */
  fileMode?: number
  /** Gives up waiting for open: the promise rejects with `signal.reason`, and the store is closed once it is open. */
  signal?: AbortSignal
}

/** How to open a blob. Each is optional. */
export interface BlobOpenOptions {
  /**
   * The least and the greatest version it may have, 0 to 65535, of whatever the program stores in it; else
   * `ERR_BLOB_VERSION_MISMATCH`. A new blob gets the greatest.
   *
   * @defaultValue `[0, 0]`
   */
  versions?: readonly [min: number, max: number]
  /**
   * Make the blob, and its partition, where there is none. If false: `ERR_BLOB_MISSING`, `ERR_BLOB_PARTITION_MISSING`.
   *
   * @defaultValue `true`
   */
  create?: boolean
}

/** Options of a read. */
export interface BlobReadOptions {
  /**
   * Leave what is read out of the page cache, where the system can do that: for bytes that will not be read again soon.
   *
   * @defaultValue false
   */
  dontCache?: boolean
}

/** Options of a write. */
export interface BlobWriteOptions {
  /**
   * Resolve once these bytes are durable. Says nothing about bytes written before: see {@link BlobHandle.sync}. Where
   * several such writes are under way at a time, whole pages (4096 bytes, at a multiple of them) that were written before
   * go past the page cache, side by side: the fastest way. They are not in the page cache then, so that the next read of
   * them goes to the disk.
   *
   * @defaultValue false
   */
  sync?: boolean
  /**
   * Leave what is written out of the page cache, where the system can do that.
   *
   * @defaultValue false
   */
  dontCache?: boolean
}

/** Some bytes of a blob. */
export interface BlobRange {
  /** Where they begin, in bytes. */
  offset: number | bigint
  /** How many there are. */
  length: number | bigint
}

/** What to read as a stream. */
export interface BlobReadStreamOptions {
  /**
   * The first byte.
   *
   * @defaultValue 0
   */
  start?: number | bigint
  /** The last byte, inclusive as in `node:fs`; the blob's last, where it is left out or lies past that. */
  end?: number | bigint
  /**
   * Bytes read at a time, and read ahead of who consumes them.
   *
   * @defaultValue 64 KiB
   */
  highWaterMark?: number
  /** Destroys the stream with an `AbortError`. */
  signal?: AbortSignal
}

/** What to write as a stream. */
export interface BlobWriteStreamOptions {
  /**
   * Where the first byte goes.
   *
   * @defaultValue 0
   */
  start?: number | bigint
  /**
   * Bytes that may wait before `write()` returns `false`.
   *
   * @defaultValue 64 KiB
   */
  highWaterMark?: number
  /** Destroys the stream with an `AbortError`. */
  signal?: AbortSignal
}

/** The largest offset, length or size. */
const offsetMax = Number.MAX_SAFE_INTEGER

const partitionCharactersMax = 255
const nameBytesMax = 127
const versionMax = 0xffff

/** Options of a store with nothing left out. */
export interface StoreRequest {
  readonly directory: string
  readonly backend: 'auto' | Backend
  readonly layout: 'v1' | 'v0'
  readonly queueDepth: number
  readonly lockTimeoutMs: number
  readonly create: boolean
  readonly fileMode: number
  readonly signal: AbortSignal | undefined
}

/** Check the arguments of a store's open and fill in the defaults. */
export function storeRequest(directory: unknown, options: unknown): StoreRequest {
  const path = directoryOf(directory)
  const given = objectOf<keyof BlobStoreOptions>('options', options)
  return {
    directory: path,
    backend: backendOf(given.backend),
    layout: oneOf('options.layout', given.layout, ['v1', 'v0'], 'v1'),
    queueDepth: integerOf('options.queueDepth', given.queueDepth, 1, 4096, 64),
    lockTimeoutMs: integerOf('options.lockTimeoutMs', given.lockTimeoutMs, 0, millisecondsMax, 250),
    create: booleanOf('options.create', given.create, true),
    fileMode: integerOf('options.fileMode', given.fileMode, 0, 0o777, 0o600),
    signal: signalOf('options.signal', given.signal),
  }
}

/** A partition's name. */
export function partitionOf(value: unknown): string {
  if (typeof value !== 'string') throw invalidArgType('partition', 'of type string', value)
  // It is a directory's name: nothing that leads elsewhere, and nothing that one file system takes and another does not.
  if (!/^[\w-]+$/.test(value) || value.length > partitionCharactersMax) throw partitionNameInvalid(value)
  return value
}

/** The bytes of a blob's name, copied. */
export function blobNameOf(value: unknown, partition: string): Uint8Array {
  let name: Uint8Array
  if (typeof value === 'string') {
    // Otherwise two strings would be one name: every lone surrogate has the same bytes.
    if (!value.isWellFormed()) throw nameInvalid('is a string with a lone surrogate', { partition })
    name = Buffer.from(value)
  } else {
    if (!ArrayBuffer.isView(value)) {
      throw invalidArgType('name', 'of type string or an instance of Uint8Array', value)
    }
    const view = bytesOf(value, 'name')
    // A detached one, which could not be copied from, is empty.
    name = byteLengthOf(view) === 0 ? Buffer.alloc(0) : Buffer.from(view)
  }
  const { length } = name
  if (length === 0 || length > nameBytesMax) {
    const details = { partition, blobName: name, size: length, limit: nameBytesMax }
    throw nameInvalid(`${length}`, details)
  }
  return name
}

/** Options of a blob's open with nothing left out. */
export interface BlobRequest {
  readonly least: number
  readonly most: number
  readonly create: boolean
}

/** Check the options of a blob's open and fill in the defaults. */
export function blobRequest(options: unknown): BlobRequest {
  const given = objectOf<keyof BlobOpenOptions>('options', options)
  const { versions = [0, 0] } = given
  if (!Array.isArray(versions)) throw invalidArgType('options.versions', 'an instance of Array', versions)
  if (versions.length !== 2) throw outOfRange('options.versions.length', '2', versions.length)
  const [least, most] = versions.map((version, index) => {
    const name = `options.versions[${index}]`
    if (version === undefined) throw invalidArgType(name, 'of type number', version)
    return integerOf(name, version, 0, versionMax, 0)
  }) as [number, number]
  if (most < least) throw outOfRange('options.versions[1]', `>= ${least}, the least version`, most)
  return { least, most, create: booleanOf('options.create', given.create, true) }
}

/** Whether the page cache may keep what is read. */
export function isReadCached(options: unknown): boolean {
  if (options === undefined) return true
  const given = objectOf<keyof BlobReadOptions>('options', options)
  return !booleanOf('options.dontCache', given.dontCache, false)
}

/** How to write. */
export function writeRequest(options: unknown): { sync: boolean; cached: boolean } {
  const given = objectOf<keyof BlobWriteOptions>('options', options)
  return {
    sync: booleanOf('options.sync', given.sync, false),
    cached: !booleanOf('options.dontCache', given.dontCache, false),
  }
}

/** An offset, a length or a size in bytes. */
export function offsetOf(name: string, value: unknown): number {
  if (typeof value === 'number') {
    if (Number.isSafeInteger(value) && value >= 0) return value
    if (value > offsetMax && value !== Number.POSITIVE_INFINITY) throw offsetOverflow(name, value)
    throw outOfRange(name, `an integer >= 0 and <= ${offsetMax}`, value)
  }
  if (typeof value === 'bigint') {
    if (value > offsetMax) throw offsetOverflow(name, value)
    if (value < 0n) throw outOfRange(name, `>= 0 and <= ${offsetMax}`, value)
    return Number(value)
  }
  throw invalidArgType(name, 'of type number or bigint', value)
}

/** @throws BlobError `ERR_BLOB_OFFSET_OVERFLOW` if so many bytes from there on end past the largest offset. */
export function checkEnd(offset: number, length: number, name = 'offset'): void {
  if (offset > offsetMax - length) throw offsetOverflow(name, BigInt(offset) + BigInt(length))
}

/** Ranges to read, checked. */
export function rangesOf(value: unknown): { offset: number; length: number }[] {
  if (!Array.isArray(value)) throw invalidArgType('ranges', 'an instance of Array', value)
  const ranges: { offset: number; length: number }[] = []
  for (let index = 0; index < value.length; index += 1) {
    const name = `ranges[${index}]`
    const range: unknown = value[index]
    if (typeof range !== 'object' || range === null) throw invalidArgType(name, 'of type object', range)
    const given = range as { offset?: unknown; length?: unknown }
    const offset = offsetOf(`${name}.offset`, given.offset)
    const length = offsetOf(`${name}.length`, given.length)
    checkEnd(offset, length, name)
    ranges.push({ offset, length })
  }
  return ranges
}

/** The bytes of one view, or of several; and how many there are. */
export function chunksOf(value: unknown, name: string): { chunks: Uint8Array[]; length: number } {
  const chunks: Uint8Array[] = []
  let length = 0
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1)
      chunks.push(bytesOf(value[index], `${name}[${index}]`))
  } else {
    chunks.push(bytesOf(value, name))
  }
  for (const chunk of chunks) length += byteLengthOf(chunk)
  return { chunks, length }
}

/** Which bytes a stream reads or writes, and how many at a time. */
export interface StreamRequest {
  readonly start: number
  /** Of a read stream: behind the last byte. */
  readonly end: number
  readonly highWaterMark: number
  readonly signal: AbortSignal | undefined
}

/** Check the options of a stream and fill in the defaults. */
export function streamRequest(options: unknown): StreamRequest {
  const given = objectOf<keyof BlobReadStreamOptions>('options', options)
  const start = given.start === undefined ? 0 : offsetOf('options.start', given.start)
  const last = given.end === undefined ? offsetMax : offsetOf('options.end', given.end)
  // As node:fs has it, but for the byte before the first: that asks for none.
  if (last < start - 1) throw outOfRange('options.start', `<= "end" (here: ${last})`, start)
  return {
    start,
    end: Math.min(last + 1, offsetMax),
    highWaterMark: integerOf('options.highWaterMark', given.highWaterMark, 1, 2 ** 30, 64 * 1024),
    signal: signalOf('options.signal', given.signal),
  }
}
