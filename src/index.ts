/**
 * Durable storage for Node.js on io_uring.
 *
 * @packageDocumentation
 */

export { type Backends, backends } from './backends.js'
export type { BlobLatency, BlobStats } from './blob-figures.js'
export { BlobHandle, type Bytes } from './blob-handle.js'
export type {
  BlobOpenOptions,
  BlobRange,
  BlobReadOptions,
  BlobReadStreamOptions,
  BlobStoreOptions,
  BlobWriteOptions,
  BlobWriteStreamOptions,
} from './blob-options.js'
export { BlobStore } from './blob-store.js'
export type { KeyValueEntry, KeyValueRecord } from './entry.js'
export {
  BackendError,
  type BackendErrorCode,
  BlobError,
  type BlobErrorCode,
  type ErrorDetails,
  RingboltError,
  type RingboltErrorCode,
  WalError,
  type WalErrorCode,
} from './errors.js'
export type { WalRecovery, WalStats } from './figures.js'
export { type KeyValueReadOptions, KeyValueWal, type KeyValueWholeOptions } from './key-value-wal.js'
export type { WalRange } from './log.js'
export type {
  Ack,
  AppendOptions,
  Backend,
  KeyValueWalOptions,
  Progress,
  ReadOptions,
  Sequences,
  WalOptions,
  WholeOptions,
} from './options.js'
export type { WalRecord } from './records.js'
export { type SegmentInfo, Wal } from './wal.js'
export type { SalvageReport, WalReport } from './whole-log.js'
