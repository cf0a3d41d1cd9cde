/**
 * Durable storage for Node.js on io_uring.
 *
 * @packageDocumentation
 */
export {
  BackendError,
  type BackendErrorCode,
  type ErrorDetails,
  RingboltError,
  type RingboltErrorCode,
  WalError,
  type WalErrorCode,
} from './errors.js'
export type { WalRecovery, WalStats } from './figures.js'
export type { WalRange } from './log.js'
export type { Ack, AppendOptions, Backend, Progress, ReadOptions, WalOptions } from './options.js'
export type { WalRecord } from './records.js'
export { type SegmentInfo, Wal } from './wal.js'
