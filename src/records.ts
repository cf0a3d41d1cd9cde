/**
 * Records on their way out: chunks are read on the thread pool, one ahead of what the caller looks at.
 */
import { markAsUntransferable } from 'node:worker_threads'
import { errorOf, type Failure } from './errors.js'
import { type NativeExtent, type NativeReader, native } from './native.js'
import { type ReadRequest, readRequest, throwIfAborted } from './options.js'
import { prefixBytes } from './staging.js'

/** A record, as it was appended. */
export interface WalRecord {
  /** Its number. */
  lsn: number
  /**
   * Its bytes: a `Buffer`, the caller's to keep. Records read together share the memory behind it, so `data.buffer`
   * holds more than this one; it cannot be transferred, copy the bytes instead.
   */
  data: Uint8Array
}

/**
 * What is handed over at once, in bytes; a larger record comes by itself. 1.25 times as many records of 100 B a second as
 * with half of it, and more than with twice as much.
 */
const chunkBytes = 512 * 1024

/** How reading goes on, and whom it tells what. */
export interface ReadingOptions {
  /** Where there is more to read once the end was reached: up to which LSN, or `undefined` for never. */
  following?: ((next: number) => Promise<number | undefined>) | undefined
  /** What LSNs in errors count from. */
  firstNumber?: 0 | 1
  /** Aborted when the reading ends, however it does: whoever `following` waits for need not any more. */
  leave?: AbortController
  /** Hears what there should be in a log that is salvaged, with each chunk and at the end. */
  onExtent?: (extent: NativeExtent) => void
}

/**
 * Everything that `reader` has, in batches as they are read. Ends, or fails, with it, and lets go of it in any case.
 * With `following` it goes on behind the end, whenever that answers.
 */
export async function* batches(
  reader: NativeReader,
  signal: AbortSignal | undefined,
  next: number,
  { following, firstNumber, leave, onExtent }: ReadingOptions = {},
): AsyncGenerator<WalRecord[], void, void> {
  let ahead = readAhead(reader)
  let due = next
  try {
    for (;;) {
      const { failure, bytes, firstLsn, count, extent } = await abortable(ahead, signal)
      if (extent !== undefined) onExtent?.(extent)
      if (failure !== undefined) throw errorOf(failure as Failure, firstNumber)
      if (bytes === undefined) {
        const to = following === undefined ? undefined : await abortable(following(due), signal)
        if (to === undefined) return
        native.extendReader(reader, to)
        ahead = readAhead(reader)
        continue
      }
      ahead = readAhead(reader)
      due = firstLsn + count
      // The user has this memory in hand from the first record on: what is needed of it is read before.
      markAsUntransferable(bytes.buffer)
      yield split(bytes, firstLsn, count)
      throwIfAborted(signal)
    }
  } finally {
    leave?.abort()
    // The reader is in use until then. Not awaited: who leaves, or aborts, does not wait for the disk.
    const close = () => native.closeReader(reader)
    ahead.then(close, close)
  }
}

/**
 * An iterator that can be left while it waits: `return()` of a generator alone would wait along. `generate` gets what
 * it has to hand to {@link batches}.
 */
export function leavable<T>(
  generate: (leave: AbortController) => AsyncGenerator<T, void, void>,
): AsyncIterableIterator<T> {
  const leave = new AbortController()
  const generator = generate(leave)
  return {
    next: () => generator.next(),
    return: () => {
      leave.abort()
      return generator.return()
    },
    throw: error => {
      leave.abort()
      return generator.throw(error)
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

/** The same, one record at a time. */
export async function* records(
  source: AsyncGenerator<WalRecord[], void, void>,
  signal: AbortSignal | undefined,
): AsyncGenerator<WalRecord, void, void> {
  for await (const batch of source) {
    for (const record of batch) {
      yield record
      throwIfAborted(signal)
    }
  }
}

/** The records in a chunk, each behind its length. */
function split(bytes: Buffer, firstLsn: number, count: number): WalRecord[] {
  const records: WalRecord[] = []
  // Looked up once: `subarray` does it each time, which took a tenth of all that a record takes here.
  const { buffer, byteOffset } = bytes
  let at = 0
  for (let index = 0; index < count; index += 1) {
    const start = at + prefixBytes
    const length = bytes.readUInt32LE(at)
    records.push({ lsn: firstLsn + index, data: Buffer.from(buffer, byteOffset + start, length) })
    at = start + length
  }
  return records
}

function readAhead(reader: NativeReader): ReturnType<typeof native.readChunk> {
  const chunk = native.readChunk(reader, chunkBytes)
  // Awaited later, or never if the caller leaves: no unhandled rejection meanwhile.
  chunk.catch(() => {})
  return chunk
}

/** Wait for `promise`, or until the signal says not to. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  if (signal.aborted) {
    // How it goes is of no interest any more.
    promise.catch(() => {})
    return Promise.reject(signal.reason)
  }
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** What was asked of a read, or why it cannot be had: that is told by the first step. */
export type Requested = ReadRequest & { failure?: unknown }

export function requested(options: unknown): Requested {
  try {
    return readRequest(options)
  } catch (failure) {
    return { from: undefined, to: undefined, follow: false, signal: undefined, failure }
  }
}
