/**
 * The log as users see it: arguments are checked here, `Log` does the rest.
 */
import { invalidArgType, outOfRange } from './argument-errors.js'
import { collectedLogs } from './collected.js'
import { WalError } from './errors.js'
import { recoveryOf, statsOf, type WalRecovery, type WalStats } from './figures.js'
import { Log, type WalRange } from './log.js'
import {
  type Ack,
  type AppendOptions,
  appendAck,
  type Backend,
  directoryOf,
  lsnOf,
  openRequest,
  type ReadOptions,
  throwIfAborted,
  type WalOptions,
  type WholeOptions,
  wholeRequest,
} from './options.js'
import { batches, leavable, type Requested, records, requested, type WalRecord } from './records.js'
import { bytesOf } from './staging.js'
import {
  placeOf,
  readWhole,
  type SalvageReport,
  salvageWhole,
  verifyWhole,
  type WalReport,
} from './whole-log.js'

/** What a `Wal`'s files hold. */
const ours = { format: 'segments', sequences: 'strict' } as const

/** A file that holds records of a log. */
export interface SegmentInfo {
  /** Its number. */
  segment: number
  /** Its path. */
  path: string
  /** Its size in bytes. */
  bytes: number
  /** The first LSN in it that is served. */
  firstLsn: number
  /** The last LSN in it; `firstLsn - 1` where it holds no record yet. */
  lastLsn: number
  /** Whether the log has gone on in the next. */
  sealed: boolean
}

/**
 * A write-ahead log: records go in at the end, get numbers (LSNs) from 1 up without gaps, and are there again,
 * each of them whole and in order, after whatever happened.
 *
 * A record is one or more bytes, or none: an empty record is a record. Bytes are copied at the call; what the
 * caller does to its buffer afterwards changes nothing. Any `ArrayBufferView` will do, and exactly its bytes are
 * taken.
 *
 * A bad argument rejects with a `TypeError` (`ERR_INVALID_ARG_TYPE`) or a `RangeError` (`ERR_OUT_OF_RANGE`) and
 * changes nothing. Other errors are a {@link WalError}: match on its `code`. If a write or a flush fails, calls in
 * flight reject with `ERR_WAL_OUTCOME_UNKNOWN` and later ones with `ERR_WAL_POISONED`; close the log and open it
 * again, which recovers everything that was acknowledged.
 *
 * An open log that nobody waits for does not keep the process alive; a pending call does.
 *
 * @example
 * ```ts
 * import { Wal } from 'ringbolt'
 *
 * await using wal = await Wal.open('data/orders')
 * const lsn = await wal.append(Buffer.from('paid 42')) // on the disk, whatever happens now
 * for await (const record of wal.read({ from: lsn })) console.log(record.lsn, String(record.data))
 * ```
 */
export class Wal implements AsyncDisposable {
  readonly #log: Log
  readonly #ack: Ack

  private constructor(log: Log, ack: Ack) {
    this.#log = log
    this.#ack = ack
    collectedLogs.register(this, log, this)
  }

  /**
   * Open the log in `directory`, for writing; make it if there is none. A relative path is resolved at the call;
   * missing parent directories are made.
   *
   * Everything that was acknowledged before is there. Of writes that were not, a torn tail may have been cut:
   * {@link Wal.recovery} tells. Only one log can have a directory open, in any process or worker thread.
   *
   * @throws WalError `ERR_WAL_LOCKED` (with the `pid` of its owner), `ERR_WAL_NOT_FOUND`, `ERR_WAL_NOT_EMPTY`,
   * `ERR_WAL_DAMAGED`, `ERR_WAL_UNSUPPORTED`, `ERR_WAL_NO_SPACE`, `ERR_WAL_IO`
   * @throws BackendError `ERR_BACKEND_UNAVAILABLE`
   *
   * @example
   * ```ts
   * const wal = await Wal.open('data/orders', { segmentBytes: 16 * 1024 * 1024 })
   * console.log(wal.recovery.records, wal.recovery.cleanShutdown)
   * ```
   */
  static async open(directory: string | URL, options?: WalOptions): Promise<Wal> {
    const request = openRequest(directory, options)
    return new Wal(await Log.open(request), request.ack)
  }

  /**
   * Read a log without opening it: without its lock and without changing a byte, also while another process appends
   * to it, rotates and truncates it, and on a read-only file system. Yields every whole record in order, the newest of
   * a live log perhaps not durable yet, and ends behind the last; with `follow` it looks for more from time to time,
   * until it is left or aborted. At damage the records before it come, then the error.
   *
   * @throws While iterating. WalError `ERR_WAL_NOT_FOUND`, `ERR_WAL_TRUNCATED`, `ERR_WAL_DAMAGED`, `ERR_WAL_UNSUPPORTED`,
   * `ERR_WAL_IO`; `signal.reason`
   *
   * @example
   * ```ts
   * for await (const { lsn, data } of Wal.read('data/orders')) console.log(lsn, String(data))
   * ```
   */
  static read(directory: string | URL, options?: ReadOptions): AsyncIterableIterator<WalRecord> {
    const request = requested(options)
    const place = placeOf(directory, ours, request)
    return leavable(leave => records(readWhole(place, request, leave), request.signal))
  }

  /**
   * Check every byte of a log, without opening it: without its lock and without changing a byte. Never rejects for
   * damage: the report names each damaged place, and says what open would make of the log. Of a log that is being
   * written everything up to its last whole record is checked.
   *
   * @throws WalError `ERR_WAL_NOT_FOUND`, `ERR_WAL_IO`; `signal.reason`
   *
   * @example
   * ```ts
   * const report = await Wal.verify('data/orders')
   * if (!report.ok) console.error(report.damage)
   * ```
   */
  static async verify(directory: string | URL, options?: WholeOptions): Promise<WalReport> {
    return verifyWhole({ ...ours, directory: directoryOf(directory) }, wholeRequest(options))
  }

  /**
   * Copy every intact record of a log, damaged or not, into a new log; the source stays as it is. Records get new
   * LSNs there, without gaps: the report says which became which, and which are lost. `into` must be absent or empty.
   *
   * @throws WalError `ERR_WAL_NOT_EMPTY` if there is something in `into`, `ERR_WAL_NOT_FOUND`, `ERR_WAL_NO_SPACE`,
   * `ERR_WAL_IO`; `signal.reason`
   *
   * @example
   * ```ts
   * const { records, lost } = await Wal.salvage('data/orders', 'data/orders-saved')
   * ```
   */
  static async salvage(
    directory: string | URL,
    into: string | URL,
    options?: WholeOptions,
  ): Promise<SalvageReport> {
    const place = { ...ours, directory: directoryOf(directory) }
    const request = wholeRequest(options)
    const target = openRequest(directoryOf(into, 'into'), undefined)
    return salvageWhole(place, { ...target, createOnly: true }, request)
  }

  /**
   * Append a record. Resolves to its LSN, once it and every record before it are durable: they survive a crash of
   * the process, the kernel and the power. With `{ ack: 'written' }`: once they are written, and survive a crash
   * of the process; they become durable within `syncIntervalMs`.
   *
   * LSNs follow call order, and promises that wait for the same `ack` resolve in that order. There is no need to
   * await one before the next: all that is pending is written together.
   *
   * @throws WalError `ERR_WAL_QUEUE_FULL` or `ERR_WAL_RECORD_TOO_LARGE` or `ERR_WAL_NO_SPACE`: nothing was written,
   * and the log works on; `ERR_WAL_CLOSED`; `ERR_WAL_OUTCOME_UNKNOWN`, `ERR_WAL_POISONED`: see {@link Wal}
   *
   * @example
   * ```ts
   * const lsns = await Promise.all(lines.map(line => wal.append(Buffer.from(line))))
   * ```
   */
  append(record: Uint8Array | ArrayBufferView, options?: AppendOptions): Promise<number> {
    try {
      const bytes = bytesOf(record, 'record')
      const ack = options === undefined ? this.#ack : appendAck(options, this.#ack)
      return this.#log.append(bytes, ack === 'durable')
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Append several records as one: after a crash all of them are there, or none. Otherwise as {@link Wal.append}.
   * Together they are at most about half a segment.
   *
   * @throws RangeError `ERR_OUT_OF_RANGE` if there are none
   * @throws WalError as {@link Wal.append} does
   *
   * @example
   * ```ts
   * const { first, last } = await wal.appendBatch([debit, credit])
   * ```
   */
  appendBatch(
    records: readonly (Uint8Array | ArrayBufferView)[],
    options?: AppendOptions,
  ): Promise<WalRange> {
    try {
      if (!Array.isArray(records)) throw invalidArgType('records', 'an instance of Array', records)
      if (records.length === 0) throw outOfRange('records.length', '>= 1', 0)
      const views: Uint8Array[] = []
      for (let index = 0; index < records.length; index += 1)
        views.push(bytesOf(records[index], `records[${index}]`))
      const ack = options === undefined ? this.#ack : appendAck(options, this.#ack)
      return this.#log.appendBatch(views, ack === 'durable')
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Append a record without a promise, for rates where a promise for each is too much: returns its LSN at once.
   * Nothing says when it is written or durable but {@link Wal.durable}. Until it is written it counts as a pending
   * call.
   *
   * If it turns out that there is no space for it, the log takes no more work: `durable()` rejects with
   * `ERR_WAL_NO_SPACE`, later calls with `ERR_WAL_POISONED`.
   *
   * @throws At the call, what {@link Wal.append} would reject with at the call.
   *
   * @example
   * ```ts
   * for (const event of events) wal.enqueue(event)
   * await wal.durable()
   * ```
   */
  enqueue(record: Uint8Array | ArrayBufferView): number {
    return this.#log.enqueue(bytesOf(record, 'record'))
  }

  /**
   * Resolves once every record up to `lsn` (the last one given out, where it is left out) is durable, to the newest
   * LSN that is. Asks for a flush, so it does not wait for `syncIntervalMs`.
   *
   * @throws RangeError `ERR_OUT_OF_RANGE` if `lsn` was not given out yet
   * @throws WalError `ERR_WAL_CLOSED`; `ERR_WAL_NO_SPACE`: see {@link Wal.enqueue}; `ERR_WAL_OUTCOME_UNKNOWN`,
   * `ERR_WAL_POISONED`: see {@link Wal}
   *
   * @example
   * ```ts
   * const lsn = wal.enqueue(record)
   * await wal.durable(lsn)
   * ```
   */
  durable(lsn?: number | bigint): Promise<number> {
    try {
      return this.#log.durable(lsn === undefined ? undefined : lsnOf('lsn', lsn))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Make everything that was appended before this call durable. Resolves to the newest durable LSN.
   *
   * @throws WalError `ERR_WAL_CLOSED`; `ERR_WAL_OUTCOME_UNKNOWN`, `ERR_WAL_POISONED`: see {@link Wal}
   *
   * @example
   * ```ts
   * await wal.append(record, { ack: 'written' })
   * await wal.flush()
   * ```
   */
  flush(): Promise<number> {
    try {
      return this.#log.flush()
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Resolves when fewer bytes than half of `queueBytesMax` wait to be written: at once, if that is so. The way to go
   * on after `ERR_WAL_QUEUE_FULL`, or not to meet it.
   *
   * @throws WalError `ERR_WAL_CLOSED`; `ERR_WAL_OUTCOME_UNKNOWN`, `ERR_WAL_POISONED`: see {@link Wal}
   *
   * @example
   * ```ts
   * for (const record of source) {
   *   if (wal.queuedBytes > 32 * 1024 * 1024) await wal.drained()
   *   wal.enqueue(record)
   * }
   * ```
   */
  async drained(): Promise<void> {
    await this.#log.drained()
  }

  /**
   * Append a record and block this thread until it is durable: for the last words of a process, or a program that
   * has nothing else to do. It follows everything appended before, pending appends too, which settle as ever.
   *
   * @throws At the call, what {@link Wal.append} would reject with.
   *
   * @example
   * ```ts
   * process.on('exit', () => wal.appendSync(Buffer.from('good night')))
   * ```
   */
  appendSync(record: Uint8Array | ArrayBufferView): number {
    return this.#log.appendSync(bytesOf(record, 'record'))
  }

  /**
   * Read records in order: durable ones, up to the newest at the time reading begins, or with `follow` up to the
   * newest there will be until `close()`. Each is checked as it is read. Leaving the loop early closes what it held;
   * reading that began goes on over a `close()`.
   *
   * @throws While iterating. WalError `ERR_WAL_TRUNCATED` if `from` is below the first LSN kept, `ERR_WAL_DAMAGED` at a
   * record that is not what was written, `ERR_WAL_IO`, `ERR_WAL_CLOSED`, `ERR_WAL_POISONED`; `signal.reason`
   *
   * @example
   * ```ts
   * for await (const { lsn, data } of wal.read({ from: 100, to: 199 })) console.log(lsn, data.length)
   * ```
   */
  read(options?: ReadOptions): AsyncIterableIterator<WalRecord> {
    const request = requested(options)
    return leavable(leave => records(this.#batches(request, leave), request.signal))
  }

  /**
   * Read records as {@link Wal.read} does, but in batches as they come from the disk: quicker where records are small.
   *
   * @throws As {@link Wal.read} does
   *
   * @example
   * ```ts
   * for await (const batch of wal.readBatches()) for (const { data } of batch) replay(data)
   * ```
   */
  readBatches(options?: ReadOptions): AsyncIterableIterator<readonly WalRecord[]> {
    const request = requested(options)
    return leavable(leave => this.#batches(request, leave))
  }

  async *#batches(request: Requested, leave: AbortController): AsyncGenerator<WalRecord[], void, void> {
    if (request.failure !== undefined) throw request.failure
    const log = this.#log
    log.check()
    const { signal, follow } = request
    throwIfAborted(signal)
    const { firstLsn } = log
    const from = request.from ?? firstLsn
    const to = request.to ?? Number.MAX_SAFE_INTEGER
    if (from < firstLsn) {
      throw new WalError(
        'ERR_WAL_TRUNCATED',
        `records from LSN ${from} were asked for, and the log begins at ${firstLsn}: read from there`,
        { firstLsn, path: log.directory },
      )
    }
    if (to < from) return
    const following = async (next: number) =>
      next <= to && (await log.becomesDurable(next, leave.signal)) ? Math.min(to, log.durableLsn) : undefined
    yield* batches(log.openReader(from, to), signal, from, {
      following: follow ? following : undefined,
      leave,
    })
  }

  /**
   * Go on in a new segment: everything appended before is in sealed segments, durably, when this resolves. A segment
   * without records is not rotated.
   *
   * @throws WalError `ERR_WAL_NO_SPACE` if the next segment cannot be had: the log works on in this one;
   * `ERR_WAL_CLOSED`; `ERR_WAL_OUTCOME_UNKNOWN`, `ERR_WAL_POISONED`: see {@link Wal}
   *
   * @example
   * ```ts
   * await wal.rotate()
   * const sealed = (await wal.segments()).filter(segment => segment.sealed)
   * ```
   */
  rotate(): Promise<void> {
    return this.#log.rotate()
  }

  /**
   * Forget what is older than `lsn`: records below it are no longer served, and segments that hold nothing else are
   * removed. Waits until every record below is durable. After a crash the log begins at or before `lsn`, never after
   * it. Resolves to the first LSN kept: `lsn`, or a later one where that was truncated before.
   *
   * @throws RangeError `ERR_OUT_OF_RANGE` if `lsn` is above `lastLsn + 1`
   * @throws WalError `ERR_WAL_NO_SPACE` if there is no room to note it: nothing was removed; `ERR_WAL_IO` if a segment
   * could not be removed: it is at the next open; `ERR_WAL_CLOSED`; `ERR_WAL_OUTCOME_UNKNOWN`, `ERR_WAL_POISONED`: see
   * {@link Wal}
   *
   * @example
   * ```ts
   * await saveSnapshot(wal.lastLsn)
   * await wal.truncateBefore(wal.lastLsn + 1)
   * ```
   */
  async truncateBefore(lsn: number | bigint): Promise<number> {
    if (lsn === undefined) throw invalidArgType('lsn', 'of type number or bigint', lsn)
    return this.#log.truncateBefore(lsnOf('lsn', lsn))
  }

  /**
   * The files that hold the log's records, oldest first.
   *
   * @throws WalError `ERR_WAL_CLOSED`; `ERR_WAL_OUTCOME_UNKNOWN`, `ERR_WAL_POISONED`: see {@link Wal}
   *
   * @example
   * ```ts
   * const bytes = (await wal.segments()).reduce((sum, segment) => sum + segment.bytes, 0)
   * ```
   */
  segments(): Promise<readonly SegmentInfo[]> {
    return this.#log.segments()
  }

  /**
   * Figures since open. After `close()`: the last ones.
   *
   * @example
   * ```ts
   * const { recordsPerBatch, appendLatencyMs } = wal.stats()
   * ```
   */
  stats(): WalStats {
    return statsOf(this.#log)
  }

  /**
   * Close the log. Every earlier call settles as it would have; then everything is durable and the lock is released.
   * May be called at any time, by anyone, more than once: the same promise comes back.
   *
   * @throws WalError `ERR_WAL_POISONED` if the log had failed; it is closed all the same, everything is released
   *
   * @example
   * ```ts
   * await wal.close()
   * ```
   */
  close(): Promise<void> {
    collectedLogs.unregister(this)
    return this.#log.close()
  }

  /**
   * Closes the log, at the end of the block of an `await using`.
   *
   * @example
   * ```ts
   * await using wal = await Wal.open('data/orders')
   * ```
   */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /**
   * Where the log is, as an absolute path.
   *
   * @example
   * ```ts
   * console.log(`writing to ${wal.directory}`)
   * ```
   */
  get directory(): string {
    return this.#log.directory
  }

  /**
   * What runs the log.
   *
   * @example
   * ```ts
   * console.log(wal.backend) // io_uring
   * ```
   */
  get backend(): Backend {
    return this.#log.opened.backend as Backend
  }

  /**
   * Why that is not io_uring, where `backend: 'auto'` had to take something else.
   *
   * @example
   * ```ts
   * if (wal.backendReason !== undefined) console.warn(wal.backendReason)
   * ```
   */
  get backendReason(): string | undefined {
    return this.#log.opened.backendReason ?? undefined
  }

  /**
   * How records become durable on this disk, in words, for people: what `sync: 'auto'` came to, and whether the page
   * cache is bypassed.
   *
   * @example
   * ```ts
   * console.log(wal.durability) // dsync alone, fdatasync overlapped; direct I/O
   * ```
   */
  get durability(): string {
    return this.#log.opened.durability
  }

  /**
   * What open found.
   *
   * @example
   * ```ts
   * const { records, tornBytes } = wal.recovery
   * if (tornBytes > 0) console.warn(`${tornBytes} bytes of an unfinished write were set aside`)
   * ```
   */
  get recovery(): WalRecovery {
    return recoveryOf(this.#log)
  }

  /**
   * The LSN of the oldest record kept; `lastLsn + 1` where there is none.
   *
   * @example
   * ```ts
   * for await (const record of wal.read({ from: wal.firstLsn })) console.log(record.lsn)
   * ```
   */
  get firstLsn(): number {
    return this.#log.firstLsn
  }

  /**
   * The newest LSN ever given out; 0 if none was.
   *
   * @example
   * ```ts
   * const count = wal.lastLsn + 1 - wal.firstLsn
   * ```
   */
  get lastLsn(): number {
    return this.#log.lastLsn
  }

  /**
   * Every record up to here is durable, as far as this thread has heard.
   *
   * @example
   * ```ts
   * console.log(`${wal.lastLsn - wal.durableLsn} records on their way`)
   * ```
   */
  get durableLsn(): number {
    return this.#log.durableLsn
  }

  /**
   * Bytes of records accepted and, as far as this thread has heard, not yet written.
   *
   * @example
   * ```ts
   * if (wal.queuedBytes > 32 * 1024 * 1024) await wal.drained()
   * ```
   */
  get queuedBytes(): number {
    return this.#log.queuedBytes
  }

  /**
   * Whether `close()` was called.
   *
   * @example
   * ```ts
   * if (!wal.closed) wal.enqueue(record)
   * ```
   */
  get closed(): boolean {
    return this.#log.isClosed
  }
}
