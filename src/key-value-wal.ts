/**
 * The key-value log as users see it: a `Log` of entries, whose sequences count from 0 where LSNs count from 1.
 */
import { invalidArgType, outOfRange } from './argument-errors.js'
import { collectedLogs } from './collected.js'
import {
  decodeEntry,
  deleteOf,
  encode,
  entryOf,
  type KeyValueEntry,
  type KeyValueRecord,
  type Parts,
  putOf,
} from './entry.js'
import { WalError } from './errors.js'
import { recoveryOf, statsOf, type WalRecovery, type WalStats } from './figures.js'
import { Log, type WalRange } from './log.js'
import {
  type Ack,
  type AppendOptions,
  appendAck,
  type Backend,
  directoryOf,
  type KeyValueWalOptions,
  lsnOf,
  openKeyValueRequest,
  type ReadOptions,
  type Sequences,
  sequencesOf,
  throwIfAborted,
  type WholeOptions,
  wholeRequest,
} from './options.js'
import { batches, type Requested, requested, type WalRecord } from './records.js'
import {
  placeOf,
  readWhole,
  type SalvageReport,
  salvageWhole,
  verifyWhole,
  type WalReport,
} from './whole-log.js'

/** Bytes of a key and its value together, at most: what every reader of the format takes. */
const entryBytesMax = 104_857_575

/**
 * A log of puts and deletes, whose files are those of amaters-core 0.2, byte for byte: its readers read ours, ours
 * read its. Otherwise it is what {@link Wal} is: entries go in at the end, get sequences from 0 up without gaps, and
 * are there again after whatever happened.
 *
 * Its files carry less than a `Wal`'s own, so one write is at the disk at a time, and a side file `SYNCED`, which
 * amaters ignores, says how far they are durable.
 *
 * @example
 * ```ts
 * import { KeyValueWal } from 'ringbolt'
 *
 * await using wal = await KeyValueWal.open('data/settings')
 * await wal.put(Buffer.from('colour'), Buffer.from('green')) // on the disk, whatever happens now
 *
 * const settings = new Map<string, string>() // the last value of each key
 * for await (const entry of wal.entries()) {
 *   if (entry.type === 'put') settings.set(String(entry.key), String(entry.value))
 *   else settings.delete(String(entry.key))
 * }
 * ```
 */
export class KeyValueWal implements AsyncDisposable {
  readonly #log: Log
  readonly #ack: Ack

  private constructor(log: Log, ack: Ack) {
    this.#log = log
    this.#ack = ack
    collectedLogs.register(this, log, this)
  }

  /**
   * Open the log in `directory`, for writing; make it if there is none. What amaters left there is a log.
   *
   * @throws As {@link Wal.open} does
   *
   * @example
   * ```ts
   * const wal = await KeyValueWal.open('data/settings', { fileBytesMax: 16 * 1024 * 1024 })
   * ```
   */
  static async open(directory: string | URL, options?: KeyValueWalOptions): Promise<KeyValueWal> {
    const request = openKeyValueRequest(directory, options)
    return new KeyValueWal(await Log.open(request), request.ack)
  }

  /**
   * Read a key-value log without opening it, amaters' own too: without its lock and without changing a byte, also while
   * another process writes it. Yields every whole entry in order and ends behind the last; at damage the entries
   * before it come, then the error.
   *
   * @throws While iterating. WalError as {@link Wal.read} does
   *
   * @example
   * ```ts
   * for await (const { sequence, type, key } of KeyValueWal.read('data/settings')) console.log(sequence, type, String(key))
   * ```
   */
  static read(directory: string | URL, options?: KeyValueReadOptions): AsyncIterableIterator<KeyValueRecord> {
    const request = requested(options)
    const sequences = sequencesIn(options, request)
    return entriesOf(
      readWhole(
        placeOf(directory, { format: 'entries', sequences }, request),
        asLsns(request),
        new AbortController(),
      ),
      request,
    )
  }

  /**
   * Check every byte of a key-value log: see {@link Wal.verify}. Segments are files here, LSNs sequences.
   *
   * @throws WalError as {@link Wal.verify} does
   *
   * @example
   * ```ts
   * const { ok, records } = await KeyValueWal.verify('data/settings')
   * ```
   */
  static async verify(directory: string | URL, options?: KeyValueWholeOptions): Promise<WalReport> {
    const place = {
      directory: directoryOf(directory),
      format: 'entries',
      sequences: sequencesOf(options),
    } as const
    const report = await verifyWhole(place, wholeRequest(options))
    report.firstLsn -= 1
    report.lastLsn -= 1
    for (const damage of report.damage) {
      damage.firstLsn -= 1
      damage.lastLsn -= 1
    }
    return report
  }

  /**
   * Copy every intact entry of a key-value log, damaged or not, into a new one: see {@link Wal.salvage}. LSNs are
   * sequences here. With `sequences: 'any'` a sequence that is missing says nothing, and `lost` stays empty.
   *
   * @throws WalError as {@link Wal.salvage} does
   *
   * @example
   * ```ts
   * const { records, lost } = await KeyValueWal.salvage('data/settings', 'data/settings-saved')
   * ```
   */
  static async salvage(
    directory: string | URL,
    into: string | URL,
    options?: KeyValueWholeOptions,
  ): Promise<SalvageReport> {
    const sequences = sequencesOf(options)
    const place = { directory: directoryOf(directory), format: 'entries', sequences } as const
    const request = wholeRequest(options)
    const target = openKeyValueRequest(directoryOf(into, 'into'), undefined)
    const report = await salvageWhole(place, { ...target, createOnly: true }, request)
    if (sequences === 'any') report.lost = []
    for (const range of [...report.lost, ...report.ranges]) {
      range.from -= 1
      range.to -= 1
    }
    for (const range of report.ranges) range.newFrom -= 1
    return report
  }

  /**
   * Say that `key` has `value` from now on; either may be empty. Resolves to the entry's sequence, when it is durable
   * (or written, as `ack` says): see {@link Wal.append}.
   *
   * @throws WalError as {@link Wal.append} does; `ERR_WAL_RECORD_TOO_LARGE` above 104,857,575 bytes of key and value
   *
   * @example
   * ```ts
   * const sequence = await wal.put(Buffer.from('colour'), Buffer.from('green'))
   * ```
   */
  put(
    key: Uint8Array | ArrayBufferView,
    value: Uint8Array | ArrayBufferView,
    options?: AppendOptions,
  ): Promise<number> {
    return this.#append(() => putOf(key, value), options)
  }

  /**
   * Say that `key` has no value from now on. Otherwise as {@link KeyValueWal.put}.
   *
   * @throws WalError as {@link KeyValueWal.put} does
   *
   * @example
   * ```ts
   * await wal.delete(Buffer.from('colour'))
   * ```
   */
  delete(key: Uint8Array | ArrayBufferView, options?: AppendOptions): Promise<number> {
    return this.#append(() => deleteOf(key), options)
  }

  /**
   * Append a put or a delete.
   *
   * @throws WalError as {@link KeyValueWal.put} does
   *
   * @example
   * ```ts
   * await wal.append({ type: 'delete', key: Buffer.from('colour') })
   * ```
   */
  append(entry: KeyValueEntry, options?: AppendOptions): Promise<number> {
    return this.#append(() => entryOf(entry, 'entry'), options)
  }

  async #append(parse: () => Parts, options: AppendOptions | undefined): Promise<number> {
    const parts = parse()
    const ack = options === undefined ? this.#ack : appendAck(options, this.#ack)
    this.#log.check()
    checkSize(parts)
    return (await this.#log.append(encode(parts), ack === 'durable')) - 1
  }

  /**
   * Append several entries, which become durable together. After a crash the first few of them may be there without
   * the rest: the format has no mark for the end of a batch.
   *
   * @throws RangeError `ERR_OUT_OF_RANGE` if there are none
   * @throws WalError as {@link KeyValueWal.put} does; `ERR_WAL_RECORD_TOO_LARGE` if they are too large together
   *
   * @example
   * ```ts
   * const { first, last } = await wal.appendBatch([
   *   { type: 'put', key: Buffer.from('a'), value: Buffer.from('1') },
   *   { type: 'delete', key: Buffer.from('b') },
   * ])
   * ```
   */
  async appendBatch(entries: readonly KeyValueEntry[], options?: AppendOptions): Promise<WalRange> {
    if (!Array.isArray(entries)) throw invalidArgType('entries', 'an instance of Array', entries)
    if (entries.length === 0) throw outOfRange('entries.length', '>= 1', 0)
    const parts = Array.from(entries, (entry, index) => entryOf(entry, `entries[${index}]`))
    const ack = options === undefined ? this.#ack : appendAck(options, this.#ack)
    this.#log.check()
    parts.forEach(checkSize)
    checkSize({ size: parts.reduce((sum, { size }) => sum + size, 0) })
    const { first, last } = await this.#log.appendBatch(parts.map(encode), ack === 'durable')
    return { first: first - 1, last: last - 1 }
  }

  /**
   * Read entries in order: durable ones, up to the newest at the time reading begins. `from` and `to` are sequences.
   *
   * @throws While iterating, as {@link Wal.read} does
   *
   * @example
   * ```ts
   * for await (const { sequence, type, key } of wal.entries({ from: 100 })) console.log(sequence, type, String(key))
   * ```
   */
  entries(options?: Omit<ReadOptions, 'follow'>): AsyncIterableIterator<KeyValueRecord> {
    return this.#entries(requested(options))
  }

  async *#entries(request: Requested): AsyncGenerator<KeyValueRecord, void, void> {
    if (request.failure !== undefined) throw request.failure
    const log = this.#log
    log.check()
    const { signal } = request
    if (signal?.aborted) throw signal.reason
    const { from } = request
    if (from !== undefined && from < log.firstLsn - 1) {
      throw new WalError(
        'ERR_WAL_TRUNCATED',
        `entries from sequence ${from} were asked for, and the log begins at ${log.firstLsn - 1}: read from there`,
        { firstLsn: log.firstLsn - 1, path: log.directory },
      )
    }
    const { from: first = log.firstLsn, to = Number.MAX_SAFE_INTEGER } = asLsns(request)
    if (to < first) return
    yield* entriesOf(batches(log.openReader(first, to), signal, first, { firstNumber: 0 }), request)
  }

  /**
   * Make everything that was appended before this call durable. Resolves to the newest durable sequence, -1 where
   * there is none.
   *
   * @throws WalError as {@link Wal.flush} does
   *
   * @example
   * ```ts
   * await wal.put(key, value, { ack: 'written' })
   * await wal.flush()
   * ```
   */
  async flush(): Promise<number> {
    return (await this.#log.flush()) - 1
  }

  /**
   * Resolves when fewer bytes than half of `queueBytesMax` wait to be written.
   *
   * @throws WalError as {@link Wal.drained} does
   *
   * @example
   * ```ts
   * if (wal.queuedBytes > 32 * 1024 * 1024) await wal.drained()
   * ```
   */
  async drained(): Promise<void> {
    await this.#log.drained()
  }

  /**
   * Go on in a new file, once everything appended before is durable in this one.
   *
   * @throws WalError as {@link Wal.rotate} does
   *
   * @example
   * ```ts
   * await wal.rotate()
   * ```
   */
  rotate(): Promise<void> {
    return this.#log.rotate()
  }

  /**
   * Forget what is older than `sequence`, by whole files: only those go of which every entry is older. Waits until
   * every entry below is durable. Resolves to the first sequence kept.
   *
   * @throws RangeError `ERR_OUT_OF_RANGE` if `sequence` is above `lastSequence + 1`
   * @throws WalError as {@link Wal.truncateBefore} does
   *
   * @example
   * ```ts
   * await wal.truncateBefore(wal.lastSequence + 1)
   * ```
   */
  async truncateBefore(sequence: number | bigint): Promise<number> {
    if (sequence === undefined) throw invalidArgType('sequence', 'of type number or bigint', sequence)
    const first = lsnOf('sequence', sequence)
    if (first > this.#log.lastLsn) {
      throw outOfRange(
        'sequence',
        `at most one above the last sequence given out, ${this.#log.lastLsn}`,
        first,
      )
    }
    return (await this.#log.truncateBefore(first + 1)) - 1
  }

  /**
   * Figures since open. After `close()`: the last ones.
   *
   * @example
   * ```ts
   * const { records, appendLatencyMs } = wal.stats()
   * ```
   */
  stats(): WalStats {
    return statsOf(this.#log)
  }

  /**
   * Close the log: see {@link Wal.close}.
   *
   * @throws WalError `ERR_WAL_POISONED` if the log had failed; it is closed all the same
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
   * await using wal = await KeyValueWal.open('data/settings')
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
   * console.log(wal.directory)
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
   * What open found; `tornAt.lsn` is a sequence here.
   *
   * @example
   * ```ts
   * if (wal.recovery.tornBytes > 0) console.warn('an unfinished write was set aside')
   * ```
   */
  get recovery(): WalRecovery {
    const recovery = recoveryOf(this.#log)
    if (recovery.tornAt !== undefined) recovery.tornAt.lsn -= 1
    return recovery
  }

  /**
   * The oldest sequence kept; -1 where there is none.
   *
   * @example
   * ```ts
   * const isEmpty = wal.firstSequence === -1
   * ```
   */
  get firstSequence(): number {
    const { firstLsn, lastLsn } = this.#log
    return firstLsn > lastLsn ? -1 : firstLsn - 1
  }

  /**
   * The newest sequence ever given out; -1 if none was.
   *
   * @example
   * ```ts
   * console.log(wal.lastSequence)
   * ```
   */
  get lastSequence(): number {
    return this.#log.lastLsn - 1
  }

  /**
   * Every entry up to this sequence is durable, as far as this thread has heard; -1 where none is.
   *
   * @example
   * ```ts
   * console.log(`${wal.lastSequence - wal.durableSequence} entries on their way`)
   * ```
   */
  get durableSequence(): number {
    return this.#log.durableLsn - 1
  }

  /**
   * Bytes of entries accepted and, as far as this thread has heard, not yet written.
   *
   * @example
   * ```ts
   * console.log(wal.queuedBytes)
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
   * if (!wal.closed) await wal.close()
   * ```
   */
  get closed(): boolean {
    return this.#log.isClosed
  }
}

function checkSize({ size }: { size: number }): void {
  if (size > entryBytesMax) {
    throw new WalError(
      'ERR_WAL_RECORD_TOO_LARGE',
      `keys and values of ${size} bytes are above the format's limit of ${entryBytesMax}: split them`,
      { size, limit: entryBytesMax },
    )
  }
}

/** Which entries to read. `from` and `to` are sequences. */
export interface KeyValueReadOptions extends Omit<ReadOptions, 'follow'> {
  /** See {@link KeyValueWalOptions.sequences}. */
  sequences?: Sequences
}

/** How to check a whole key-value log. */
export interface KeyValueWholeOptions extends WholeOptions {
  /** See {@link KeyValueWalOptions.sequences}. */
  sequences?: Sequences
}

/** The same range in LSNs, which count from 1. */
function asLsns(request: Requested): Requested {
  const above = (sequence: number | undefined) =>
    sequence === undefined ? undefined : Math.min(sequence + 1, Number.MAX_SAFE_INTEGER)
  return { ...request, follow: false, from: above(request.from), to: above(request.to) }
}

function sequencesIn(options: unknown, request: Requested): Sequences {
  try {
    return sequencesOf(options)
  } catch (failure) {
    request.failure ??= failure
    return 'strict'
  }
}

async function* entriesOf(
  source: AsyncGenerator<WalRecord[], void, void>,
  { signal }: Requested,
): AsyncGenerator<KeyValueRecord, void, void> {
  for await (const batch of source) {
    for (const { lsn, data } of batch) {
      yield decodeEntry(data as Buffer, lsn - 1)
      throwIfAborted(signal)
    }
  }
}
