/**
 * A log's errors that are found on this side of the crossing.
 */
import { type ErrorDetails, type RingboltError, WalError } from './errors.js'

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
