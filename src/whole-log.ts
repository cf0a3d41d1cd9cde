/**
 * What looks at a whole log without opening it for writing: reading beside its writer, checking every byte, saving
 * what is intact of a damaged one.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { errorOf, type Failure } from './errors.js'
import { Log } from './log.js'
import { type NativeReport, native } from './native.js'
import {
  directoryOf,
  type Format,
  type OpenRequest,
  type Sequences,
  throwIfAborted,
  type WholeRequest,
} from './options.js'
import { abortable, batches, type Requested, type WalRecord } from './records.js'

/** Where a log is, and what its files hold. */
export interface Place {
  readonly directory: string
  readonly format: Format
  readonly sequences: Sequences
}

/** What a check of a whole log found. */
export interface WalReport {
  /** Nothing acknowledged is missing or changed: the verdict is `'clean'` or `'torn'`. */
  ok: boolean
  /** `'torn'`: behind everything acknowledged stand writes that were not finished; open sets them aside and cuts them. */
  verdict: 'clean' | 'torn' | 'damage' | 'unsupported'
  /** Intact records that are served. */
  records: number
  /** Bytes of them. */
  bytes: number
  /** Files with records, the one that goes on included. */
  segments: number
  /** The oldest LSN served; `lastLsn + 1` where there is none. */
  firstLsn: number
  /** The newest LSN found intact. */
  lastLsn: number
  /** What open would cut: where it begins, and how long it is. */
  torn?: { segment: number; offset: number; bytes: number }
  /** Every damaged place; `segment` and `offset` are -1 where it is HEAD, or what stands beside the log. */
  damage: { segment: number; offset: number; firstLsn: number; lastLsn: number; reason: string }[]
  /** How long it took, in milliseconds. */
  durationMs: number
}

/** What was saved of a damaged log. */
export interface SalvageReport {
  /** Records saved. */
  records: number
  /** Bytes of them. */
  bytes: number
  /** LSNs that could not be saved, in ranges, as far as anything tells of them. */
  lost: { from: number; to: number }[]
  /** Where the others went: the records `from` to `to` are `newFrom` and the following ones in the new log. */
  ranges: { from: number; to: number; newFrom: number }[]
}

/** How often somebody who follows another's log looks for more, in milliseconds. */
const pollMs = 50

/** How often progress is told, in milliseconds. */
const progressMs = 200

/** The place of a log to be read. What is wrong with it is told by the first step of the reading, as other arguments are. */
export function placeOf(directory: unknown, kind: Omit<Place, 'directory'>, request: Requested): Place {
  try {
    return { ...kind, directory: directoryOf(directory) }
  } catch (failure) {
    request.failure ??= failure
    return { ...kind, directory: '' }
  }
}

/** Batches of the records in a log, whoever writes it: what there is, durable or not. */
export async function* readWhole(
  { directory, format, sequences }: Place,
  { failure, from, to = Number.MAX_SAFE_INTEGER, follow, signal }: Requested,
): AsyncGenerator<WalRecord[], void, void> {
  if (failure !== undefined) throw failure
  throwIfAborted(signal)
  if (from !== undefined && to < from) return
  const following = async (next: number) => {
    if (next > to) return undefined
    await sleep(pollMs, undefined, signal === undefined ? undefined : { signal })
    return to
  }
  const reader = native.openWholeReader(directory, format, sequences, from, to)
  yield* batches(reader, signal, from ?? 0, follow ? following : undefined)
}

/** Check every byte of a log. */
export async function verifyWhole(
  { directory, format, sequences }: Place,
  { signal, onProgress }: WholeRequest,
): Promise<WalReport> {
  throwIfAborted(signal)
  const watch = native.createWatch()
  const tell = () => {
    const [bytes, totalBytes] = native.watchProgress(watch) as [number, number]
    if (totalBytes > 0) onProgress?.({ bytes, totalBytes })
  }
  const timer = onProgress === undefined ? undefined : setInterval(tell, progressMs)
  try {
    const verified = await abortable(native.verifyLog(directory, format, sequences, watch), signal)
    if (verified.failure !== undefined) throw errorOf(verified.failure as Failure)
    return reportOf(verified.report as NativeReport)
  } finally {
    clearInterval(timer)
    // Nobody waits any more: where it still reads, it ends.
    native.cancelWatch(watch)
  }
}

function reportOf({ verdict, torn, ...rest }: NativeReport): WalReport {
  const ok = verdict === 'clean' || verdict === 'torn'
  const report: WalReport = { ok, verdict: verdict as WalReport['verdict'], ...rest }
  if (torn !== undefined) report.torn = torn
  return report
}

/**
 * Copy every intact record of a log into a new one. `into` is how to open that; its segments are at least as large as
 * the old log's, so that every record has room.
 */
export async function salvageWhole(
  { directory, format }: Place,
  into: OpenRequest,
  { signal, onProgress }: WholeRequest,
): Promise<SalvageReport> {
  throwIfAborted(signal)
  const reader = native.openSalvage(directory, format)
  const report: SalvageReport = { records: 0, bytes: 0, lost: [], ranges: [] }
  let log: Log | undefined
  let next: number | undefined
  let told = 0
  try {
    for await (const batch of batches(reader, signal, 0)) {
      const [{ lsn }] = batch as [WalRecord]
      if (log === undefined) {
        const { firstLsn, segmentBytes } = native.salvageExtent(reader)
        log = await Log.open({ ...into, segmentBytes: Math.max(into.segmentBytes, segmentBytes) })
        next = firstLsn
      }
      lose(report, next, lsn - 1)
      next = lsn + batch.length
      await save(log, batch, report)
      if (performance.now() - told > progressMs) {
        told = performance.now()
        // What is still to come is not known before it is found.
        onProgress?.({ bytes: report.bytes, totalBytes: report.bytes })
      }
    }
    const { firstLsn, lastLsn } = native.salvageExtent(reader)
    lose(report, next ?? firstLsn, lastLsn)
    // A log of which nothing is left becomes an empty one: whoever opens it finds out here what there is.
    log ??= await Log.open(into)
  } finally {
    await log?.close()
  }
  return report
}

function lose({ lost }: SalvageReport, from: number | undefined, to: number): void {
  if (from !== undefined && from <= to) lost.push({ from, to })
}

/** Append a batch; its records are durable at the latest when the log is closed. */
async function save(log: Log, batch: readonly WalRecord[], report: SalvageReport): Promise<void> {
  let newLsn = 0
  for (const { lsn, data } of batch) {
    if (log.queuedBytes > 0 && !log.isDrained()) await log.drained()
    newLsn = log.enqueue(data)
    report.records += 1
    report.bytes += data.length
    const last = report.ranges.at(-1)
    if (last !== undefined && last.to + 1 === lsn) last.to = lsn
    else report.ranges.push({ from: lsn, to: lsn, newFrom: newLsn })
  }
  await log.durable(newLsn)
}
