/**
 * What a log tells of itself: what open found, and what it did since.
 */
import type { Log } from './log.js'

/** What open found in a log. */
export interface WalRecovery {
  /** Records in the log. */
  records: number
  /** Segments in the log. */
  segments: number
  /** Bytes of a torn tail that were set aside and cut: writes that were never acknowledged as durable. */
  tornBytes: number
  /** Where it was cut. */
  tornAt?: {
    /** The number of the segment. */
    segment: number
    /** The offset in it, in bytes. */
    offset: number
    /** The LSN of the record due there. */
    lsn: number
  }
  /** Whether the last owner closed the log. False with a torn tail. */
  cleanShutdown: boolean
  /** Whether the log was made by this open. */
  created: boolean
  /** How long recovery took, in milliseconds. */
  durationMs: number
}

/** Figures of a log since it was opened. */
export interface WalStats {
  /** Calls of `append`, `appendBatch`, `appendSync` and `enqueue` that were accepted, those refused later for want of space too. */
  appends: number
  /** Records written. */
  records: number
  /** Bytes of records written. */
  bytes: number
  /** Writes they were gathered into. */
  batches: number
  /** Flushes, and writes that carried their own durability. */
  syncs: number
  /** Bytes of records accepted and not yet written. */
  queuedBytes: number
  /** Batches at the disk. */
  inFlight: number
  /** Age in milliseconds of the oldest submission that is not yet durable: a disk that never answers shows here. */
  oldestInFlightMs: number
  /** Segments completed. */
  rotations: number
  /** Operations that failed. */
  errors: number
  /** Records gathered into one write, on average; 0 before the first. */
  recordsPerBatch: number
  /** From submission to the acknowledgement that was asked for, in milliseconds, over all records. */
  appendLatencyMs: {
    /** Half of them took no longer. */
    p50: number
    /** Ninety-nine in a hundred took no longer. */
    p99: number
    /** The longest. */
    max: number
  }
}

/** What open found in this log. */
export function recoveryOf(log: Log): WalRecovery {
  const { records, segments, tornBytes, tornAt, cleanShutdown, created, durationMs } = log.opened
  const recovery: WalRecovery = { records, segments, tornBytes, cleanShutdown, created, durationMs }
  if (tornAt !== undefined) recovery.tornAt = { ...tornAt }
  return recovery
}

/** Its figures. */
export function statsOf(log: Log): WalStats {
  const { p50Ms, p99Ms, maxMs, ...figures } = log.stats()
  return {
    appends: log.appends,
    ...figures,
    queuedBytes: log.queuedBytes,
    recordsPerBatch: figures.batches === 0 ? 0 : figures.records / figures.batches,
    appendLatencyMs: { p50: p50Ms, p99: p99Ms, max: maxMs },
  }
}
