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

/** What can go wrong with a backend. */
export type BackendErrorCode = 'ERR_BACKEND_UNAVAILABLE'

/** Every code of every class. */
export type RingboltErrorCode = WalErrorCode | BackendErrorCode

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
  /** The offset in that file, in bytes. */
  offset?: number
  /** The first LSN concerned: of damage, or the oldest that can still be read (`ERR_WAL_TRUNCATED`). */
  firstLsn?: number
  /** The last LSN concerned. */
  lastLsn?: number
  /** The size asked for, in bytes. */
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
export interface Failure extends Omit<ErrorDetails, 'cause'> {
  code: string
  message: string
  causes: readonly Failure[]
}

const ringboltBrand = Symbol.for('ringbolt.RingboltError')
const walBrand = Symbol.for('ringbolt.WalError')
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
export class RingboltError extends Error {
  /** What went wrong. */
  readonly code: RingboltErrorCode
  declare readonly errno?: number
  declare readonly syscall?: string
  declare readonly path?: string
  declare readonly reason?: string
  declare readonly segment?: number
  declare readonly offset?: number
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
} as const satisfies Record<RingboltErrorCode, typeof RingboltError | typeof WalError | typeof BackendError>

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
  const { code, message, causes: _, ...details } = failure
  const { firstLsn, lastLsn } = details
  if (firstLsn !== undefined) details.firstLsn = firstLsn + firstNumber - 1
  if (lastLsn !== undefined) details.lastLsn = lastLsn + firstNumber - 1
  // The list below may only differ from ours by a mistake that a test catches; then the base class serves.
  const type = (classes as Record<string, new (...all: never) => RingboltError>)[code] ?? RingboltError
  return new type(...([code, message, { ...details, cause }] as never))
}

/**
 * An append was in flight when the log failed, and nobody can tell what became of it. What the kernel said
 * shows on this error too.
 */
export function outcomeUnknown(cause: RingboltError): WalError {
  return new WalError(
    'ERR_WAL_OUTCOME_UNKNOWN',
    `the log failed with this call in flight: its records may or may not be there after the next open (${cause.message})`,
    because(cause),
  )
}

/** The log failed before this call. */
export function poisoned(cause: RingboltError): WalError {
  return new WalError(
    'ERR_WAL_POISONED',
    `the log failed before and takes no more work: close it and open it again (${cause.message})`,
    because(cause),
  )
}

/** The log was closed before this call. */
export function closed(directory: string): WalError {
  return new WalError('ERR_WAL_CLOSED', `the log in ${directory} is closed`, { path: directory })
}

/** A record that no segment, or no reader of the format, takes. */
export function recordTooLarge(size: number, limit: number, format: 'segments' | 'entries'): WalError {
  const advice =
    format === 'segments' ? ', a quarter of a segment: raise segmentBytes, or split it' : ': split it'
  const message = `a record of ${size} bytes is above the limit of ${limit}${advice}`
  return new WalError('ERR_WAL_RECORD_TOO_LARGE', message, { size, limit })
}

/** A batch that cannot be written as one; each record counts four bytes more. */
export function batchTooLarge(size: number, limit: number, format: 'segments' | 'entries'): WalError {
  const advice = format === 'segments' ? ', half a segment: raise segmentBytes, or split it' : ': split it'
  const message = `a batch of ${size} bytes (4 more a record) is above the limit of ${limit}${advice}`
  return new WalError('ERR_WAL_RECORD_TOO_LARGE', message, { size, limit })
}

/** What is asked for would make the queue longer than it may be. */
export function queueFull(size: number, limit: number): WalError {
  return new WalError(
    'ERR_WAL_QUEUE_FULL',
    `${size} bytes would wait to be written, above the limit of ${limit}: wait for drained(), or raise queueBytesMax`,
    { size, limit },
  )
}

function because(cause: RingboltError): ErrorDetails {
  const details: ErrorDetails = { cause }
  if (cause.errno !== undefined) details.errno = cause.errno
  if (cause.syscall !== undefined) details.syscall = cause.syscall
  if (cause.path !== undefined) details.path = cause.path
  if (cause.offset !== undefined) details.offset = cause.offset
  return details
}

/** An argument is not what it must be; worded and coded as Node's own. */
export function invalidArgType(name: string, expected: string, value: unknown): TypeError {
  const what = name.includes('.') ? 'property' : 'argument'
  return withCode(
    new TypeError(`The "${name}" ${what} must be ${expected}. Received ${received(value)}`),
    'ERR_INVALID_ARG_TYPE',
  )
}

/** An argument is outside its range; worded and coded as Node's own. */
export function outOfRange(name: string, expected: string, value: unknown): RangeError {
  return withCode(
    new RangeError(
      `The value of "${name}" is out of range. It must be ${expected}. Received ${received(value)}`,
    ),
    'ERR_OUT_OF_RANGE',
  )
}

function withCode<E extends Error>(error: E, code: string): E {
  return Object.defineProperty(error, 'code', {
    value: code,
    enumerable: true,
    writable: true,
    configurable: true,
  })
}

function received(value: unknown): string {
  switch (typeof value) {
    case 'undefined':
      return 'undefined'
    case 'function':
      return `function ${value.name}`
    case 'string':
      return value.length > 28 ? `'${value.slice(0, 25)}...'` : `'${value}'`
    case 'bigint':
      return `${value}n`
    case 'object':
      return value === null ? 'null' : `an instance of ${value.constructor?.name ?? 'Object'}`
    default:
      return String(value)
  }
}
