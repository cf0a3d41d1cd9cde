/**
 * What looks at a whole log without opening it for writing: reading beside its writer, checking every byte, saving
 * what is intact of a damaged one.
 */
import { realpath } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { outOfRange } from './argument-errors.js'
import { errorOf, type Failure } from './errors.js'
import { Log } from './log.js'
import { type NativeExtent, type NativeReport, native } from './native.js'
import {
  directoryOf,
  type Format,
  firstNumberOf,
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
  /** What open would cut. */
  torn?: {
    /** The number of the segment it begins in. */
    segment: number
    /** The offset in that segment, in bytes. */
    offset: number
    /** How long it is. */
    bytes: number
  }
  /** Every damaged place. */
  damage: {
    /** The number of the segment; -1 where it is HEAD, or what stands beside the log. */
    segment: number
    /** The offset in that segment, in bytes; -1 where there is no segment. */
    offset: number
    /** The first LSN concerned. */
    firstLsn: number
    /** The last LSN concerned. */
    lastLsn: number
    /** What is wrong, in a few words. */
    reason: string
  }[]
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
  lost: {
    /** The first of them. */
    from: number
    /** The last of them. */
    to: number
  }[]
  /** Where the others went. */
  ranges: {
    /** The first LSN in the damaged log. */
    from: number
    /** The last, without a gap between. */
    to: number
    /** The LSN that `from` has in the new log; those after it follow. */
    newFrom: number
  }[]
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
  leave: AbortController,
): AsyncGenerator<WalRecord[], void, void> {
  if (failure !== undefined) throw failure
  throwIfAborted(signal)
  if (from !== undefined && to < from) return
  const following = async (next: number) => {
    if (next > to) return undefined
    // Left, or aborted, while it sleeps: then there is no more to read.
    const isOver = await sleep(pollMs, false, { signal: leave.signal }).catch(() => true)
    return isOver ? undefined : to
  }
  const reader = native.openWholeReader(directory, format, sequences, from, to)
  const firstNumber = firstNumberOf(format)
  yield* batches(reader, signal, from ?? 0, { following: follow ? following : undefined, firstNumber, leave })
}

/** Check every byte of a log. */
export async function verifyWhole(
  { directory, format, sequences }: Place,
  { signal, onProgress }: WholeRequest,
): Promise<WalReport> {
  throwIfAborted(signal)
  const watch = native.createWatch()
  cancelAtExit()
  const tell = () => {
    const [bytes, totalBytes] = native.watchProgress(watch) as [number, number]
    if (totalBytes > 0) onProgress?.({ bytes, totalBytes })
  }
  const timer = onProgress === undefined ? undefined : setInterval(tell, progressMs)
  try {
    const verified = await abortable(native.verifyLog(directory, format, sequences, watch), signal)
    if (verified.failure !== undefined) throw errorOf(verified.failure as Failure, firstNumberOf(format))
    return reportOf(verified.report as NativeReport)
  } finally {
    clearInterval(timer)
    // Nobody waits any more: where it still reads, it ends.
    native.cancelWatch(watch)
  }
}

let isExitWatched = false

/** `process.exit()` would wait for a check that nobody waits for. */
function cancelAtExit(): void {
  if (isExitWatched) return
  isExitWatched = true
  process.once('exit', native.cancelWatches)
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
  await mustBeApart(directory, into.directory)
  const reader = native.openSalvage(directory, format)
  const report: SalvageReport = { records: 0, bytes: 0, lost: [], ranges: [] }
  let extent: NativeExtent = { lastLsn: 0, segmentBytes: 0 }
  let log: Log | undefined
  let next: number | undefined
  let told = 0
  try {
    const onExtent = (known: NativeExtent) => {
      extent = known
    }
    for await (const batch of batches(reader, signal, 0, { firstNumber: firstNumberOf(format), onExtent })) {
      const [{ lsn }] = batch as [WalRecord]
      if (log === undefined) {
        log = await Log.open({ ...into, segmentBytes: Math.max(into.segmentBytes, extent.segmentBytes) })
        next = extent.firstLsn
      }
      lose(report, next, lsn - 1)
      next = lsn + batch.length
      await save(log, batch, report)
      if (onProgress !== undefined && performance.now() - told > progressMs) {
        told = performance.now()
        // In a tick of its own, so that what it throws does not end the salvage.
        process.nextTick(onProgress, { bytes: report.bytes, totalBytes: report.bytes })
      }
    }
    lose(report, next ?? extent.firstLsn, extent.lastLsn)
    // A log of which nothing is left becomes an empty one: whoever opens it finds out here what there is.
    log ??= await Log.open(into)
  } catch (error) {
    // The first error is the one to tell. What was saved by then stays.
    await log?.close().catch(() => {})
    throw error
  }
  await log.close()
  return report
}

/** The source is to stay as it is: nothing is made in it. */
async function mustBeApart(source: string, into: string): Promise<void> {
  const [from, to] = await Promise.all([realPath(source), realPath(into)])
  if (to.startsWith(from + sep)) throw outOfRange('into', 'a directory outside of the log', into)
}

/** Where a path leads, as far as it exists. */
async function realPath(path: string): Promise<string> {
  const parent = dirname(path)
  return realpath(path).catch(async () =>
    parent === path ? path : join(await realPath(parent), basename(path)),
  )
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
