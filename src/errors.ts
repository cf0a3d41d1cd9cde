/**
 * Errors that users match on, by `code` or by class. What comes from below is plain data and becomes one of
 * these here, nowhere else.
 */

/** What can go wrong with a log. */
export type WalErrorCode =
  | 'ERR_WAL_NOT_FOUND'
  | 'ERR_WAL_NOT_EMPTY'
  | 'ERR_WAL_LOCKED'
  | 'ERR_WAL_CLOSED'
  | 'ERR_WAL_DAMAGED'
  | 'ERR_WAL_UNSUPPORTED'
  | 'ERR_WAL_RECORD_TOO_LARGE'
  | 'ERR_WAL_QUEUE_FULL'
  | 'ERR_WAL_OUTCOME_UNKNOWN'
  | 'ERR_WAL_POISONED'
  | 'ERR_WAL_NO_SPACE'
  | 'ERR_WAL_TRUNCATED'
  | 'ERR_WAL_IO'

/** What can go wrong with blobs. */
export type BlobErrorCode =
  | 'ERR_BLOB_PARTITION_NAME_INVALID'
  | 'ERR_BLOB_NAME_INVALID'
  | 'ERR_BLOB_PARTITION_MISSING'
  | 'ERR_BLOB_PARTITION_CORRUPT'
  | 'ERR_BLOB_PARTITION_CREATION_FAILED'
  | 'ERR_BLOB_MISSING'
  | 'ERR_BLOB_OPEN_FAILED'
  | 'ERR_BLOB_CORRUPT'
  | 'ERR_BLOB_VERSION_MISMATCH'
  | 'ERR_BLOB_INSUFFICIENT_LENGTH'
  | 'ERR_BLOB_OFFSET_OVERFLOW'
  | 'ERR_BLOB_READ_FAILED'
  | 'ERR_BLOB_WRITE_FAILED'
  | 'ERR_BLOB_RESIZE_FAILED'
  | 'ERR_BLOB_SYNC_FAILED'
  | 'ERR_BLOB_POISONED'
  | 'ERR_BLOB_CLOSED'
  | 'ERR_BLOB_STORE_CLOSED'
  | 'ERR_BLOB_STORE_LOCKED'
  | 'ERR_BLOB_STORE_NOT_FOUND'
  | 'ERR_BLOB_STORE_IO'

/** What can go wrong with a backend. */
export type BackendErrorCode = 'ERR_BACKEND_UNAVAILABLE'

/** Every code of every class. */
export type RingboltErrorCode = WalErrorCode | BlobErrorCode | BackendErrorCode

/**
 * What is known about an error besides its code. Only what applies is there; which that is, the code tells
 * (see the fields).
 */
export interface ErrorDetails {
  /** The kernel's error number, negative as Node's own: `-28` for `ENOSPC`. */
  errno?: number
  /** The system call that failed, as its manual page has it. */
  syscall?: string
  /** The file or directory it is about. */
  path?: string
  /** What is wrong, in a few words. */
  reason?: string
  /** The number of the damaged segment. */
  segment?: number
  /** The offset in that file, or in that blob, in bytes. */
  offset?: number
  /** The partition of the blob. */
  partition?: string
  /** The name of the blob (`name` is the error's own). */
  blobName?: Uint8Array
  /** How many bytes were asked for, from `offset` on. */
  length?: number
  /** How many of them a write did before it failed. */
  bytesDone?: number
  /** The first LSN concerned: of damage, or the oldest that can still be read (`ERR_WAL_TRUNCATED`). */
  firstLsn?: number
  /** The last LSN concerned. */
  lastLsn?: number
  /** The size asked for, in bytes; of a read past the end (`ERR_BLOB_INSUFFICIENT_LENGTH`), the blob's size. */
  size?: number
  /** The limit it is above, in bytes. */
  limit?: number
  /** The process that holds the lock. */
  pid?: number
  /** What was found. */
  found?: string
  /** What was expected. */
  expected?: string
  /** The error behind this one. */
  cause?: unknown
}

/** An error as the crossing hands it over: data, the chain of its causes laid out nearest first. */
export interface Failure extends Omit<ErrorDetails, 'cause' | 'blobName'> {
  code: string
  message: string
  blobName?: ArrayLike<number>
  causes: readonly Failure[]
}

const ringboltBrand = Symbol.for('ringbolt.RingboltError')
const walBrand = Symbol.for('ringbolt.WalError')
const blobBrand = Symbol.for('ringbolt.BlobError')
const backendBrand = Symbol.for('ringbolt.BackendError')

/**
 * What every error of ringbolt is. A bad argument is none of these: it is a `TypeError` or a `RangeError`
 * with Node's own codes.
 *
 * @example
 * ```ts
 * try {
 *   await wal.append(record)
 * } catch (error) {
 *   if (error instanceof RingboltError && error.code === 'ERR_WAL_QUEUE_FULL') await wal.drained()
 *   else throw error
 * }
 * ```
 */
export class RingboltError extends Error implements ErrorDetails {
  /** What went wrong. */
  readonly code: RingboltErrorCode
  declare readonly errno?: number
  declare readonly syscall?: string
  declare readonly path?: string
  declare readonly reason?: string
  declare readonly segment?: number
  declare readonly offset?: number
  declare readonly partition?: string
  declare readonly blobName?: Uint8Array
  declare readonly length?: number
  declare readonly bytesDone?: number
  declare readonly firstLsn?: number
  declare readonly lastLsn?: number
  declare readonly size?: number
  declare readonly limit?: number
  declare readonly pid?: number
  declare readonly found?: string
  declare readonly expected?: string

  constructor(code: RingboltErrorCode, message: string, details: ErrorDetails = {}) {
    const { cause, ...rest } = details
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    // Few at a time and often none: a loop over what is there, since a refused append must stay cheap.
    for (const name in rest) {
      const value = rest[name as keyof typeof rest]
      if (value !== undefined) (this as Record<string, unknown>)[name] = value
    }
  }
}

/**
 * An error of a log.
 *
 * | code | when |
 * | --- | --- |
 * | `ERR_WAL_NOT_FOUND` | there is no log, and `create` is false |
 * | `ERR_WAL_NOT_EMPTY` | the directory holds something that is not a log |
 * | `ERR_WAL_LOCKED` | somebody else has it open: `pid` |
 * | `ERR_WAL_CLOSED` | called after `close()` |
 * | `ERR_WAL_DAMAGED` | acknowledged data is damaged: `segment`, `offset`, `firstLsn`, `lastLsn`, `reason` |
 * | `ERR_WAL_UNSUPPORTED` | a version or flag this release does not know, or another product's file |
 * | `ERR_WAL_RECORD_TOO_LARGE` | nothing was written: `size`, `limit` |
 * | `ERR_WAL_QUEUE_FULL` | nothing was written: `size`, `limit`; wait for `drained()` |
 * | `ERR_WAL_OUTCOME_UNKNOWN` | in flight when a write or flush failed: there after the next open, or not; `cause` |
 * | `ERR_WAL_POISONED` | called after that: `cause` is the first error; close, and open again |
 * | `ERR_WAL_NO_SPACE` | the next segment cannot be reserved; nothing was written |
 * | `ERR_WAL_TRUNCATED` | read from below the first LSN: `firstLsn` |
 * | `ERR_WAL_IO` | any other error of the system: `errno`, `syscall`, `path` |
 */
export class WalError extends RingboltError {
  declare readonly code: WalErrorCode

  constructor(code: WalErrorCode, message: string, details?: ErrorDetails) {
    super(code, message, details)
  }
}

/**
 * An error of a blob or of a store of blobs. Which blob it is about, `partition` and `blobName` tell.
 *
 * | code | when |
 * | --- | --- |
 * | `ERR_BLOB_PARTITION_NAME_INVALID` | not 1 to 255 of the characters `A-Z`, `a-z`, `0-9`, `_` and `-` |
 * | `ERR_BLOB_NAME_INVALID` | not 1 to 127 bytes, or a string with a lone surrogate |
 * | `ERR_BLOB_PARTITION_MISSING` | there is no such partition, and none was to be made |
 * | `ERR_BLOB_PARTITION_CORRUPT` | something lies in it that is no blob: `path` |
 * | `ERR_BLOB_PARTITION_CREATION_FAILED` | its directory cannot be made: `errno` |
 * | `ERR_BLOB_MISSING` | there is no such blob, and none was to be made |
 * | `ERR_BLOB_OPEN_FAILED` | its file cannot be opened: `errno` |
 * | `ERR_BLOB_CORRUPT` | its header is no blob's: `reason` |
 * | `ERR_BLOB_VERSION_MISMATCH` | it has another version than was asked for: `expected`, `found` |
 * | `ERR_BLOB_INSUFFICIENT_LENGTH` | a read past the end: `offset`, `length`, `size` |
 * | `ERR_BLOB_OFFSET_OVERFLOW` | an offset, a size or an end is past 2^53 - 1 |
 * | `ERR_BLOB_READ_FAILED` | nothing was read: `errno`, `syscall`, `offset` |
 * | `ERR_BLOB_WRITE_FAILED` | `errno`, `syscall`, `offset`, and `bytesDone` of them are written |
 * | `ERR_BLOB_RESIZE_FAILED`, `ERR_BLOB_SYNC_FAILED` | `errno`, `syscall` |
 * | `ERR_BLOB_POISONED` | a flush of this blob failed before, or the end of a write was not heard of: `cause`; see `BlobHandle.sync` |
 * | `ERR_BLOB_CLOSED` | called after the handle's `close()` |
 * | `ERR_BLOB_STORE_CLOSED` | called after the store's `close()` |
 * | `ERR_BLOB_STORE_LOCKED` | somebody else has the store open: `pid` |
 * | `ERR_BLOB_STORE_NOT_FOUND` | there is no store, and `create` is false |
 * | `ERR_BLOB_STORE_IO` | any other error of the system: `errno`, `syscall`, `path` |
 */
export class BlobError extends RingboltError {
  declare readonly code: BlobErrorCode

  constructor(code: BlobErrorCode, message: string, details?: ErrorDetails) {
    super(code, message, details)
  }
}

/** A backend, or the whole native part, cannot be had: `reason`, and `errno` where the kernel spoke. */
export class BackendError extends RingboltError {
  declare readonly code: BackendErrorCode

  constructor(code: BackendErrorCode, message: string, details?: ErrorDetails) {
    super(code, message, details)
  }
}

for (const [type, name, brand] of [
  [RingboltError, 'RingboltError', ringboltBrand],
  [WalError, 'WalError', walBrand],
  [BlobError, 'BlobError', blobBrand],
  [BackendError, 'BackendError', backendBrand],
] as const) {
  // On the prototype and not enumerable, as the built-in errors have it: `inspect` shows the name once, the brand never.
  Object.defineProperty(type.prototype, 'name', { value: name, writable: true, configurable: true })
  Object.defineProperty(type.prototype, brand, { value: true })
  // `instanceof` by brand, so that it holds across two copies of the package; subclasses keep the ordinary one.
  Object.defineProperty(type, Symbol.hasInstance, {
    value(this: unknown, value: unknown): boolean {
      if (this !== type) return Function.prototype[Symbol.hasInstance].call(this as never, value)
      return typeof value === 'object' && value !== null && brand in value
    },
  })
}

// A code without an entry does not compile, and the tests compare the list with the one below.
const classes = {
  ERR_BACKEND_UNAVAILABLE: BackendError,
  ERR_WAL_NOT_FOUND: WalError,
  ERR_WAL_NOT_EMPTY: WalError,
  ERR_WAL_LOCKED: WalError,
  ERR_WAL_CLOSED: WalError,
  ERR_WAL_DAMAGED: WalError,
  ERR_WAL_UNSUPPORTED: WalError,
  ERR_WAL_RECORD_TOO_LARGE: WalError,
  ERR_WAL_QUEUE_FULL: WalError,
  ERR_WAL_OUTCOME_UNKNOWN: WalError,
  ERR_WAL_POISONED: WalError,
  ERR_WAL_NO_SPACE: WalError,
  ERR_WAL_TRUNCATED: WalError,
  ERR_WAL_IO: WalError,
  ERR_BLOB_PARTITION_NAME_INVALID: BlobError,
  ERR_BLOB_NAME_INVALID: BlobError,
  ERR_BLOB_PARTITION_MISSING: BlobError,
  ERR_BLOB_PARTITION_CORRUPT: BlobError,
  ERR_BLOB_PARTITION_CREATION_FAILED: BlobError,
  ERR_BLOB_MISSING: BlobError,
  ERR_BLOB_OPEN_FAILED: BlobError,
  ERR_BLOB_CORRUPT: BlobError,
  ERR_BLOB_VERSION_MISMATCH: BlobError,
  ERR_BLOB_INSUFFICIENT_LENGTH: BlobError,
  ERR_BLOB_OFFSET_OVERFLOW: BlobError,
  ERR_BLOB_READ_FAILED: BlobError,
  ERR_BLOB_WRITE_FAILED: BlobError,
  ERR_BLOB_RESIZE_FAILED: BlobError,
  ERR_BLOB_SYNC_FAILED: BlobError,
  ERR_BLOB_POISONED: BlobError,
  ERR_BLOB_CLOSED: BlobError,
  ERR_BLOB_STORE_CLOSED: BlobError,
  ERR_BLOB_STORE_LOCKED: BlobError,
  ERR_BLOB_STORE_NOT_FOUND: BlobError,
  ERR_BLOB_STORE_IO: BlobError,
} as const satisfies Record<
  RingboltErrorCode,
  typeof RingboltError | typeof WalError | typeof BlobError | typeof BackendError
>

/** Every code there is. */
export const errorCodes: readonly RingboltErrorCode[] = Object.keys(classes) as RingboltErrorCode[]

/**
 * Make an error from below into one of the classes above, its causes too. LSNs in it count from `firstNumber`: 0 for
 * a key-value log, where they are sequences.
 */
export function errorOf(failure: Failure, firstNumber = 1): RingboltError {
  let cause: RingboltError | undefined
  for (const behind of failure.causes.toReversed()) cause = errorAlone(behind, cause, firstNumber)
  return errorAlone(failure, cause, firstNumber)
}

function errorAlone(failure: Failure, cause: RingboltError | undefined, firstNumber: number): RingboltError {
  const { code, message, causes: _, blobName, ...known } = failure
  const details: ErrorDetails = known
  const { firstLsn, lastLsn } = details
  if (firstLsn !== undefined) details.firstLsn = firstLsn + firstNumber - 1
  if (lastLsn !== undefined) details.lastLsn = lastLsn + firstNumber - 1
  // An array of numbers, as it crosses.
  if (blobName !== undefined) details.blobName = Buffer.from(blobName)
  // The list below may only differ from ours by a mistake that a test catches; then the base class serves.
  const type = (classes as Record<string, new (...all: never) => RingboltError>)[code] ?? RingboltError
  return new type(...([code, message, { ...details, cause }] as never))
}
