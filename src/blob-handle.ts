/**
 * An open blob as users see it: arguments are checked here, `Blob` does the rest.
 */
import type { Readable, Writable } from 'node:stream'
import type { Blob } from './blob.js'
import {
  type BlobRange,
  type BlobReadOptions,
  type BlobReadStreamOptions,
  type BlobWriteOptions,
  type BlobWriteStreamOptions,
  checkEnd,
  chunksOf,
  isReadCached,
  offsetOf,
  rangesOf,
  streamRequest,
  writeRequest,
} from './blob-options.js'
import { readStreamOf, writeStreamOf } from './blob-streams.js'
import { collectedBlobs } from './collected.js'

/** Memory of yours: a `Uint8Array`, a `Buffer`, or another view of a buffer, whose bytes it means. */
export type Bytes = Uint8Array | ArrayBufferView

/** A handle for users. Only stores make them, so its constructor is nobody else's. */
export let handleOf: (blob: Blob, store: unknown) => BlobHandle

/** Held, not used: a store that nobody holds is closed, and its handles with it. */
const stores = new WeakMap<BlobHandle, unknown>()

/**
 * An open blob: bytes that can be read and written at any offset, and are durable once {@link BlobHandle.sync} says so.
 * Get one from `BlobStore.open`.
 *
 * Offsets and lengths are in bytes, a `number` or a `bigint`, up to 2^53 - 1. Data is copied at the call; what the
 * caller does to its buffer afterwards changes nothing.
 *
 * Several handles of one blob share one order of events. Calls that change the same bytes take effect in the order they
 * were made; a read sees every write and resize that was settled before it began. One that overlaps them in time may
 * see any part of them.
 *
 * A bad argument rejects with a `TypeError` (`ERR_INVALID_ARG_TYPE`) or a `RangeError` (`ERR_OUT_OF_RANGE`) and changes
 * nothing. Other errors are a {@link BlobError}: match on its `code`. An open handle that nobody waits for does not keep
 * the process alive; a pending call does.
 *
 * @example
 * ```ts
 * await using blob = await store.open('images', 'logo.png')
 * await blob.write(0, bytes)
 * await blob.sync() // on the disk, whatever happens now
 * const first = await blob.read(0, 16)
 * ```
 */
export class BlobHandle implements AsyncDisposable {
  readonly #blob: Blob
  /** The partition it is in. */
  readonly partition: string
  /** The bytes of its name. */
  readonly name: Uint8Array
  /** The version it was made with, one of those that open asked for. */
  readonly version: number

  static {
    handleOf = (blob, store) => new BlobHandle(blob, store)
  }

  private constructor(blob: Blob, store: unknown) {
    this.#blob = blob
    stores.set(this, store)
    this.partition = blob.partition
    this.name = Buffer.from(blob.name)
    this.version = blob.version
    collectedBlobs.register(this, blob, this)
  }

  /** How many bytes it has, as of the last settled call through any handle; of a closed one, when it was closed. */
  get size(): number {
    return this.#blob.size
  }

  /** Whether {@link BlobHandle.close}, or its store's, was called. */
  get closed(): boolean {
    return this.#blob.isClosed
  }

  /**
   * Read exactly `length` bytes. At most as many as a `Buffer` can have: `ERR_OUT_OF_RANGE` beyond that.
   *
   * @throws BlobError `ERR_BLOB_INSUFFICIENT_LENGTH` (`offset`, `length`, `size`) if the blob ends before,
   * `ERR_BLOB_OFFSET_OVERFLOW`, `ERR_BLOB_READ_FAILED`, `ERR_BLOB_CLOSED`, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * const header = await blob.read(0, 512)
   * ```
   */
  read(offset: number | bigint, length: number | bigint, options?: BlobReadOptions): Promise<Uint8Array> {
    try {
      const from = offsetOf('offset', offset)
      const bytes = offsetOf('length', length)
      checkEnd(from, bytes)
      return this.#blob.read(from, bytes, isReadCached(options))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Read several ranges at once, in any order; resolves when all of them are there, and rejects when one of them fails.
   * Cheaper than as many calls of {@link BlobHandle.read}.
   *
   * @throws BlobError as {@link BlobHandle.read} does
   *
   * @example
   * ```ts
   * const [index, trailer] = await blob.readMany([{ offset: 0, length: 4096 }, { offset: blob.size - 16, length: 16 }])
   * ```
   */
  async readMany(ranges: readonly BlobRange[], options?: BlobReadOptions): Promise<Uint8Array[]> {
    return this.#blob.readMany(rangesOf(ranges), isReadCached(options))
  }

  /**
   * Fill the given memory, one view or several after one another, with the bytes from `offset` on. It is written to when
   * the read completes, and must have kept its size until then. After a rejection, what is in it is not defined.
   *
   * @throws Error `ERR_INVALID_STATE` if the memory was detached or shrank meanwhile
   * @throws BlobError as {@link BlobHandle.read} does
   *
   * @example
   * ```ts
   * const page = new Uint8Array(4096)
   * for (let offset = 0; offset < blob.size; offset += page.length) await blob.readInto(offset, page)
   * ```
   */
  async readInto(offset: number | bigint, target: Bytes | readonly Bytes[]): Promise<void> {
    const from = offsetOf('offset', offset)
    const { chunks, length } = chunksOf(target, 'target')
    checkEnd(from, length)
    return this.#blob.readInto(from, chunks, length)
  }

  /**
   * Write bytes, one view or several after one another, at `offset`; the blob grows where they reach past its end, and
   * what lies in between reads as zeros. Resolved, they survive a crash of the process, but not of the system: that is
   * what {@link BlobHandle.sync} is for, or `{ sync: true }` for these bytes alone. If it fails, any part of them may have
   * been written: `bytesDone` tells how many surely were.
   *
   * @throws BlobError `ERR_BLOB_OFFSET_OVERFLOW`, `ERR_BLOB_WRITE_FAILED`, `ERR_BLOB_SYNC_FAILED`, `ERR_BLOB_POISONED`,
   * `ERR_BLOB_CLOSED`, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * await blob.write(blob.size, [header, body], { sync: true })
   * ```
   */
  write(offset: number | bigint, data: Bytes | readonly Bytes[], options?: BlobWriteOptions): Promise<void> {
    try {
      const to = offsetOf('offset', offset)
      const { chunks, length } = chunksOf(data, 'data')
      checkEnd(to, length)
      return this.#blob.write(to, chunks, length, writeRequest(options))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Cut the blob to `length` bytes, or extend it with zeros. Durable once {@link BlobHandle.sync} says so.
   *
   * @throws BlobError `ERR_BLOB_OFFSET_OVERFLOW`, `ERR_BLOB_RESIZE_FAILED`, `ERR_BLOB_POISONED`, `ERR_BLOB_CLOSED`,
   * `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * await blob.resize(0)
   * ```
   */
  async resize(length: number | bigint): Promise<void> {
    return this.#blob.resize(offsetOf('length', length))
  }

  /**
   * Make every write and resize that was settled before this call, through any handle, durable: they survive a crash of
   * the process, the kernel and the power.
   *
   * If the disk refuses, what was written since the last sync may be lost, and nobody can tell which part: this call
   * rejects with `ERR_BLOB_SYNC_FAILED`, and later changes and syncs of this blob, through any handle, with
   * `ERR_BLOB_POISONED`, until it is removed or the store is opened again. It can still be read.
   *
   * @throws BlobError `ERR_BLOB_SYNC_FAILED`, `ERR_BLOB_POISONED`, `ERR_BLOB_CLOSED`, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * await Promise.all(parts.map(({ offset, bytes }) => blob.write(offset, bytes)))
   * await blob.sync()
   * ```
   */
  async sync(): Promise<void> {
    return this.#blob.sync()
  }

  /**
   * A stream of the bytes from `start` to `end`, both inclusive, or to the blob's end. It reads `highWaterMark` bytes at a
   * time, no further ahead than that of who consumes it. The handle stays open when it ends.
   *
   * @throws At the call, TypeError `ERR_INVALID_ARG_TYPE`, RangeError `ERR_OUT_OF_RANGE`, BlobError
   * `ERR_BLOB_OFFSET_OVERFLOW`; later the stream emits what {@link BlobHandle.read} rejects with
   *
   * @example
   * ```ts
   * await pipeline(blob.createReadStream({ start: 100, end: 199 }), response)
   * ```
   */
  createReadStream(options?: BlobReadStreamOptions): Readable {
    // Through this handle, which the stream so keeps from being collected.
    return readStreamOf(this, streamRequest(options))
  }

  /**
   * A stream that writes from `start` on. What waits to be written is gathered into one write; `write()` returns `false`
   * while more than `highWaterMark` bytes wait. `finish` says that everything was written, not that it is durable: see
   * {@link BlobHandle.sync}. The handle stays open, and the blob keeps what it had beyond the last byte.
   *
   * @throws At the call, TypeError `ERR_INVALID_ARG_TYPE`, RangeError `ERR_OUT_OF_RANGE`, BlobError
   * `ERR_BLOB_OFFSET_OVERFLOW`; later the stream emits what {@link BlobHandle.write} rejects with
   *
   * @example
   * ```ts
   * await pipeline(request, blob.createWriteStream())
   * await blob.sync()
   * ```
   */
  createWriteStream(options?: BlobWriteStreamOptions): Writable {
    return writeStreamOf(this, streamRequest(options))
  }

  /**
   * Close the handle, once the calls before it are settled. Does not sync: what was not synced may be lost in a crash of
   * the system. May be called again, and resolves at the same time.
   */
  close(): Promise<void> {
    collectedBlobs.unregister(this)
    return this.#blob.close()
  }

  /** The same as {@link BlobHandle.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
