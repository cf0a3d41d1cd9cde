/**
 * What a store of blobs tells of itself.
 */
import type { Store } from './store.js'

/** How long calls took, in milliseconds. */
export interface BlobLatency {
  /** Half of them at most. */
  p50: number
  /** All but one in a hundred at most. */
  p99: number
  /** The longest. */
  max: number
}

/** Figures of a store of blobs since it was opened. */
export interface BlobStats {
  /** Reads that succeeded, each range of a `readMany` counted. */
  reads: number
  /** The bytes they read. */
  readBytes: number
  /** How many of them were served in place, from the page cache. */
  cachedReads: number
  /** Writes that succeeded. */
  writes: number
  /** The bytes they wrote. */
  writeBytes: number
  /** Calls of `sync`, and writes with `sync`, that succeeded. */
  syncs: number
  /** Flushes that the disk was asked for to that end: fewer, as one answers for all who wait. */
  flushes: number
  /** Resizes that succeeded. */
  resizes: number
  /** Calls of any kind that failed. A bad argument is no call. */
  errors: number
  /** Handles that are open. */
  openBlobs: number
  /** Calls that are not settled yet. */
  pending: number
  /** Age in milliseconds of the oldest of them: a disk that never answers shows here. */
  oldestPendingMs: number
  /** How many operations may be at the disk at a time. */
  queueDepth: number
  /** From call to answer, of reads that were not served in place. */
  readLatencyMs: BlobLatency
  /** From call to answer, of writes without `sync`. */
  writeLatencyMs: BlobLatency
  /** From call to answer, of syncs and of writes with `sync`. */
  syncLatencyMs: BlobLatency
}

/** Its figures. */
export function statsOf(store: Store): BlobStats {
  return store.stats()
}
