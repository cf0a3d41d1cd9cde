/**
 * An open log, from this side of the crossing: which LSNs are given out, what is on its way, who waits for what.
 *
 * ```text
 *  append ─▶ accept: number it, copy it into the staging ─▶ a promise in `durable` or `written`
 *                 │ once a tick, or when the staging is full
 *                 ▼
 *            submit ═══════════════════════════════════════▶ service
 *                                                              │
 *  look ◀══ once a turn while there is news: watermarks moved ═╯
 *    └─ settle, in order: written up to writtenLsn, durable up to durableLsn
 * ```
 *
 * How it ends: `open ─▶ closing ─▶ ended`, or `open ─▶ failed ─▶ ended`. In `closing` the service drains, so
 * everything settles as asked; in `failed` everything pending was rejected at once.
 */
import { outOfRange } from './argument-errors.js'
import { forget, holdLoop, letLoopGo, openNative, type Watcher } from './environment.js'
import { errorOf, type Failure, type RingboltError, WalError } from './errors.js'
import {
  type NativeOpened,
  type NativeReader,
  type NativeSegment,
  type NativeWalStats,
  native,
  Phase,
  Status,
} from './native.js'
import { type Format, firstNumberOf, type OpenRequest } from './options.js'
import { byteLengthOf, prefixBytes, Staging, unshared } from './staging.js'
import { type Deferred, deferred, type Settle, untilAborted, Waiters } from './waiters.js'
import { batchTooLarge, closed, outcomeUnknown, poisoned, queueFull, recordTooLarge } from './wal-errors.js'

/**
 * At most this much is collected before it is handed over in the middle of a tick, or one batch where less goes in.
 * Batches of half of this gave 0.8 of the throughput with 16 × 64 KiB outstanding, of twice this no more.
 */
const stagingBytesMax = 512 * 1024

/** Fewer records are not worth a call and a wake of their own. */
const cutCountMin = 64
/** What this thread makes of them, settling those before included, on a machine like many. */
const recordsPerMicrosecond = 1

// As they were when the package was loaded: a program that puts a clock of its own in their place, as tests do,
// must not stop its appends.
const { nextTick } = process

// Where `poll` writes. One for all logs: it is read before anybody else can poll.
const status = new Float64Array(Object.keys(Status).length)
const statusBytes = Buffer.from(status.buffer)

/** The LSNs of a batch. */
export interface WalRange {
  /** Of the first record. */
  first: number
  /** Of the last record. */
  last: number
}

export class Log implements Watcher {
  readonly directory: string
  readonly #queueBytesMax: number
  readonly #format: Format
  /** Only while it opens: what it closes over must not live as long as the log. */
  #onProgress: OpenRequest['onProgress']
  /** The log's number on the other side. */
  readonly #id: number
  /** Made as the log is open: how long a batch may be stands in its files. */
  #staging = new Staging(0)
  #recordBytesMax = 0
  /** Each record counted with its prefix: a batch is one frame. */
  #batchBytesMax = 0

  // Numbers given out and watermarks. LSNs are given out here, in call order: so `enqueue` can return one.
  #firstLsn = 1
  #lastLsn = 0
  #lastEnqueuedLsn = 0
  #durableLsn = 0
  #writtenLsn = 0
  /** Somebody asked the service already for everything up to here to become durable. */
  #wantedLsn = 0
  /** Grows when the service refuses records; runs of an earlier epoch are dropped by it. */
  #epoch = 0
  #appends = 0

  // Bytes since open, as the queue counts them: a record's own, one for an empty record, so that the bound on bytes
  // bounds their number too. Their difference is what is queued.
  #bytesAccepted = 0
  #bytesWritten = 0
  // For each run not yet known to be written: its last LSN, and `#bytesAccepted` behind it.
  readonly #runLsns: number[] = []
  readonly #runBytes: number[] = []

  // Who waits for what. Each promise settles exactly once: it leaves its queue as it does.
  readonly #durable = new Waiters()
  readonly #written = new Waiters()
  readonly #targets = new Waiters(8)
  readonly #flushes = new Waiters(8)
  readonly #drains = new Waiters(8)
  /** Readers that follow; they ask for nothing, and may leave. */
  readonly #followers = new Set<Follower>()
  /** Requests by the number of their answer. */
  readonly #requests = new Map<number, Deferred<Answer>>()
  #answers = 0

  #opened: NativeOpened | undefined
  #opening: Settle<Log> | undefined
  #openFailure: RingboltError | undefined
  /** The first error, once there is one. Only ever set once. */
  #failure: RingboltError | undefined
  /** Set along with `#failure` where an enqueued record was refused for want of space. */
  #refused: RingboltError | undefined
  /** The last LSN given out then: it is gone, and yet no bad argument. */
  #refusedLsn = 0
  /** A write or a flush failed: everything pending was rejected. */
  #isBroken = false
  #closing: Deferred<void> | undefined
  #ended = false
  #lastStats: NativeWalStats | undefined

  #submitScheduled = false
  /** With so many records staged it is time to ask whether the service could have them. */
  #cutCount = cutCountMin
  /** Records outstanding before the last look that settled any: who appends in loops makes as many anew. */
  #outstandingBefore = 0
  #holds = false

  private constructor(request: OpenRequest) {
    this.directory = request.directory
    const { ack: _, signal: __, onProgress, ...options } = request
    this.#queueBytesMax = request.queueBytesMax
    this.#format = request.format
    this.#onProgress = onProgress
    this.#id = openNative(this, environment => native.openWal(environment, options))
  }

  /** Open a log. A signal ends the waiting; the log is then closed as soon as it is open. */
  static open(request: OpenRequest): Promise<Log> {
    return untilAborted(request.signal, opening => {
      const log = new Log(request)
      log.#hold()
      log.#opening = opening
      return () => {
        log.#opening = undefined
        log.#onProgress = undefined
        // Nobody is left to hear how that went.
        log.close().catch(() => {})
      }
    })
  }

  get opened(): NativeOpened {
    // Nobody gets a log before it is open.
    return this.#opened as NativeOpened
  }

  get firstLsn(): number {
    return this.#firstLsn
  }

  get lastLsn(): number {
    return this.#lastLsn
  }

  get durableLsn(): number {
    return this.#durableLsn
  }

  get queuedBytes(): number {
    return this.#bytesAccepted - this.#bytesWritten
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  get appends(): number {
    return this.#appends
  }

  stats(): NativeWalStats {
    return this.#lastStats ?? native.stats(this.#id)
  }

  /** @throws WalError if the log takes no more calls. */
  check(): void {
    if (this.#closing !== undefined) throw closed(this.directory)
    if (this.#failure !== undefined) throw poisoned(this.#failure)
  }

  // Down

  append(record: Uint8Array, durable: boolean): Promise<number> {
    const lsn = this.#accept(record, durable)
    return (durable ? this.#durable : this.#written).wait(lsn)
  }

  enqueue(record: Uint8Array): number {
    const lsn = this.#accept(record, false)
    this.#lastEnqueuedLsn = lsn
    return lsn
  }

  appendBatch(records: readonly Uint8Array[], durable: boolean): Promise<WalRange> {
    this.check()
    let size = 0
    let weight = 0
    const sizes = records.map(record => {
      const one = byteLengthOf(record)
      if (one > this.#recordBytesMax) throw recordTooLarge(one, this.#recordBytesMax, this.#format)
      size += one
      weight += Math.max(one, 1)
      return one
    })
    const need = size + prefixBytes * records.length
    if (need > this.#batchBytesMax) throw batchTooLarge(need, this.#batchBytesMax, this.#format)
    this.#checkQueue(weight)
    // One run becomes one frame, and a frame is there after a crash or it is not: so a batch is never split.
    const staging = this.#staging
    const apart = need > staging.bytes.length
    if (apart || !staging.fits(need)) this.#submitEarly()
    // Bytes first, numbers after: shared memory that grows meanwhile can still make this fail.
    const views = apart ? records.map(unshared) : staging.pushAll(records, sizes)
    const first = this.#lastLsn + 1
    this.#lastLsn += records.length
    this.#bytesAccepted += weight
    this.#appends += 1
    if (views !== undefined) this.#submitApart(views, first, durable)
    else this.#stage(first, durable)
    this.#hold()
    return new Promise((resolve, reject) => {
      const waiters = durable ? this.#durable : this.#written
      waiters.add(this.#lastLsn, last => resolve({ first, last }), reject)
    })
  }

  /** In the middle of a tick, for the sake of what comes next; which cannot come if the log fails by it. */
  #submitEarly(): void {
    this.#submit()
    this.check()
  }

  /** Give a record its LSN and take its bytes. */
  #accept(record: Uint8Array, durable: boolean): number {
    this.check()
    const size = byteLengthOf(record)
    if (size > this.#recordBytesMax) throw recordTooLarge(size, this.#recordBytesMax, this.#format)
    const weight = Math.max(size, 1)
    this.#checkQueue(weight)
    const staging = this.#staging
    const need = size + prefixBytes
    const apart = need > staging.bytes.length
    if (apart || !staging.fits(need) || this.#isTimeToCut()) this.#submitEarly()
    // Bytes first, the number after: shared memory that grows meanwhile can still make this fail.
    const view = apart ? unshared(record) : staging.push(record, size)
    this.#lastLsn += 1
    const lsn = this.#lastLsn
    this.#bytesAccepted += weight
    this.#appends += 1
    if (view !== undefined) this.#submitApart([view], lsn, durable)
    else this.#stage(lsn, durable)
    if (!this.#holds) this.#hold()
    return lsn
  }

  #checkQueue(size: number): void {
    const queued = this.#bytesAccepted - this.#bytesWritten
    const limit = this.#queueBytesMax
    if (queued > 0 && queued + size > limit) throw queueFull(queued + size, limit)
  }

  /** The staging has what begins with this LSN. */
  #stage(lsn: number, durable: boolean): void {
    const staging = this.#staging
    if (staging.firstLsn === 0) staging.firstLsn = lsn
    if (durable) staging.durable = true
    if (!this.#submitScheduled) {
      this.#submitScheduled = true
      nextTick(submitTick, this)
    }
  }

  /**
   * Whether to hand over what there is, in the middle of a tick: half of what is outstanding, while the service has
   * nothing to do, so that the disk works on one half as this thread makes the other, and neither waits. A disk that
   * takes longer than the making of all of them would carry half as much with each write: there it is not done.
   * Up to 1.6 times as many appends a second with 256 outstanding, 1.1 to 1.3 with more. What became durable since the
   * last look counts as outstanding, as does what nobody waits for: it is a guess at what is still to come.
   */
  #isTimeToCut(): boolean {
    const { count, durable } = this.#staging
    if (count < this.#cutCount || !durable) return false
    const outstanding = Math.max(this.#outstandingBefore, this.#lastLsn - this.#durableLsn)
    const half = Math.max(cutCountMin, outstanding / 2)
    if (count >= half) {
      const microseconds = native.idle(this.#id)
      if (microseconds >= 0 && outstanding >= recordsPerMicrosecond * microseconds) return true
    }
    // Not at each record: asking takes as long as a record does.
    this.#cutCount = Math.max(half, count + cutCountMin / 2)
    return false
  }

  /** The end of the tick: hand over what was staged in it. */
  submitTick(): void {
    this.#submitScheduled = false
    this.#submit()
  }

  #submit(): void {
    const staging = this.#staging
    const { count } = staging
    if (count === 0) return
    const { bytes, length, firstLsn, durable } = staging
    const refused = this.#cross(() =>
      native.submit(this.#id, bytes, length, count, firstLsn, this.#epoch, durable),
    )
    staging.clear()
    this.#cutCount = cutCountMin
    this.#submitted(firstLsn + count - 1, durable, refused)
  }

  #submitApart(records: Uint8Array[], firstLsn: number, durable: boolean): void {
    const refused = this.#cross(() => native.submitApart(this.#id, records, firstLsn, this.#epoch, durable))
    this.#submitted(firstLsn + records.length - 1, durable, refused)
    this.check()
  }

  /** Hand records over. An exception is our mistake; its promises must be answered all the same. */
  #cross(submit: () => unknown): RingboltError | undefined {
    try {
      const refused = submit() as Failure | null
      return refused === null ? undefined : this.#errorOf(refused)
    } catch (cause) {
      const message = `handing records over to the log in ${this.directory} failed: please report it`
      return new WalError('ERR_WAL_IO', message, { cause })
    }
  }

  #submitted(lastLsn: number, durable: boolean, refused: RingboltError | undefined): void {
    if (refused !== undefined) {
      // What this side checks, the service does not refuse: it has failed meanwhile, and the news is on its way.
      // Where it has not, the two sides disagree, and going on would give numbers to the wrong records.
      if (refused.code === 'ERR_WAL_POISONED') return
      this.#fail(refused)
      native.close(this.#id)
      return
    }
    if (durable) this.#wantedLsn = lastLsn
    this.#runLsns.push(lastLsn)
    this.#runBytes.push(this.#bytesAccepted)
  }

  durable(lsn: number | undefined): Promise<number> {
    const lastGivenOut = Math.max(this.#lastLsn, this.#refusedLsn)
    if (lsn !== undefined && lsn > lastGivenOut) {
      throw outOfRange('lsn', `at most the last LSN given out, ${lastGivenOut}`, lsn)
    }
    const target = lsn ?? this.#lastLsn
    // No promise could tell the owner of an enqueued record that it was refused, so this call does.
    if (this.#closing === undefined && this.#refused !== undefined) throw this.#refused
    this.check()
    if (target <= this.#durableLsn) return Promise.resolve(this.#durableLsn)
    const staging = this.#staging
    if (staging.count > 0 && target >= staging.firstLsn) {
      staging.durable = true
    } else if (target > this.#wantedLsn) {
      this.#wantedLsn = target
      native.wantDurable(this.#id, target)
    }
    this.#hold()
    return this.#targets.wait(target)
  }

  flush(): Promise<number> {
    this.check()
    this.#submit()
    this.#hold()
    return this.#flushes.wait(native.flush(this.#id))
  }

  drained(): Promise<number> {
    this.check()
    if (this.isDrained()) return Promise.resolve(0)
    this.#hold()
    return this.#drains.wait(0)
  }

  isDrained(): boolean {
    return this.queuedBytes < this.#queueBytesMax / 2
  }

  /** Append a record and block until it is durable. */
  appendSync(record: Uint8Array): number {
    // What was written since the last news makes room.
    if (this.#closing === undefined) this.look()
    const lsn = this.#accept(record, true)
    this.#submit()
    const failure = native.waitDurable(this.#id, lsn, this.#epoch) as Failure | null
    this.look()
    if (failure === null) return lsn
    const error = this.#errorOf(failure)
    // Refused where its number was taken back: nothing of it was written.
    throw lsn > this.#lastLsn ? error : outcomeUnknown(error)
  }

  #errorOf(failure: Failure): RingboltError {
    return errorOf(failure, firstNumberOf(this.#format))
  }

  async rotate(): Promise<void> {
    this.check()
    this.#submit()
    await this.#ask(native.rotate(this.#id))
  }

  async truncateBefore(lsn: number): Promise<number> {
    if (lsn > this.#lastLsn + 1) {
      throw outOfRange('lsn', `at most one above the last LSN given out, ${this.#lastLsn + 1}`, lsn)
    }
    this.check()
    this.#submit()
    const { firstLsn } = await this.#ask(native.truncateBefore(this.#id, lsn))
    return firstLsn as number
  }

  async segments(): Promise<NativeSegment[]> {
    this.check()
    const { segments } = await this.#ask(native.segments(this.#id))
    return segments as NativeSegment[]
  }

  #ask(number: number): Promise<Answer> {
    const asked = deferred<Answer>()
    this.#requests.set(number, asked)
    this.#hold()
    return asked.promise
  }

  /** Wait until `lsn` is durable, without asking for it: `false` if the log was closed before, or who waits leaves. */
  becomesDurable(lsn: number, leaving: AbortSignal): Promise<boolean> {
    return new Promise<boolean>((resolve, reject) => {
      if (lsn <= this.#durableLsn) return resolve(true)
      if (this.#ended || leaving.aborted) {
        return this.#failure === undefined ? resolve(false) : reject(poisoned(this.#failure))
      }
      const follower: Follower = { lsn, resolve, reject }
      this.#followers.add(follower)
      this.#hold()
      leaving.addEventListener('abort', () => {
        resolve(false)
        this.#followers.delete(follower)
        if (this.#holds && !this.#isOutstanding()) this.#letGo()
      })
    })
  }

  /** Tell those who follow and have been reached. */
  #settleFollowers(durableLsn: number): void {
    for (const follower of this.#followers) {
      if (follower.lsn > durableLsn) continue
      this.#followers.delete(follower)
      follower.resolve(true)
    }
  }

  openReader(from: number, to: number): NativeReader {
    return native.openReader(this.#id, from, to)
  }

  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#submit()
      this.#closing = deferred()
      if (this.#ended) {
        this.#settleClose()
      } else {
        native.close(this.#id)
        this.#hold()
      }
    }
    return this.#closing.promise
  }

  // Back

  /** There is news: read the watermarks and settle what they reach. */
  look(): void {
    if (this.#ended) return
    native.poll(this.#id, statusBytes)
    const phase = status[Status.phase]
    const ended = status[Status.ended] === 1
    if (phase === Phase.opening) this.#tellProgress()
    else if (this.#opened === undefined) this.#lookOpening(phase === Phase.open)

    if ((status[Status.epoch] as number) > this.#epoch) this.#refuse()
    this.#firstLsn = Math.max(this.#firstLsn, status[Status.firstLsn] as number)
    const writtenLsn = status[Status.writtenLsn] as number
    const durableLsn = status[Status.durableLsn] as number
    if (durableLsn > this.#durableLsn) this.#outstandingBefore = this.#lastLsn - this.#durableLsn
    this.#writtenLsn = writtenLsn
    this.#durableLsn = durableLsn
    if (!this.#isBroken) this.#bytesWritten = status[Status.bytesWritten] as number
    this.#forgetRuns(writtenLsn)
    this.#written.settle(writtenLsn)
    this.#durable.settle(durableLsn)
    this.#targets.settle(durableLsn, durableLsn)
    this.#flushes.settle(status[Status.flushesDone] as number, durableLsn)
    if (this.#followers.size > 0) this.#settleFollowers(durableLsn)
    if ((status[Status.answers] as number) > this.#answers) this.#lookAnswers()

    if (!this.#isBroken && this.#opened !== undefined && (phase === Phase.failed || ended)) {
      const failure = native.failure(this.#id) as Failure | null
      if (failure !== null) this.#fail(this.#errorOf(failure))
    }
    if (this.#drains.count > 0 && this.isDrained()) this.#drains.settle(0)
    if (ended) this.#end()
    else if (this.#holds && !this.#isOutstanding()) this.#letGo()
  }

  #lookAnswers(): void {
    for (const { number, failure, ...answer } of native.takeAnswers(this.#id)) {
      this.#answers += 1
      const asked = this.#requests.get(number)
      this.#requests.delete(number)
      if (failure === undefined) asked?.resolve(answer)
      else asked?.reject(this.#errorOf(failure as Failure))
    }
  }

  #tellProgress(): void {
    const bytes = status[Status.recoveryBytes] as number
    const totalBytes = status[Status.recoveryBytesTotal] as number
    const onProgress = this.#onProgress
    // In a tick of its own: what it throws surfaces as uncaught, and other logs still get their news.
    if (totalBytes > 0 && onProgress !== undefined) nextTick(onProgress, { bytes, totalBytes })
  }

  /** The first look that finds the log open, or that could not be opened. */
  #lookOpening(isOpen: boolean): void {
    this.#onProgress = undefined
    if (isOpen) {
      const opened = native.opened(this.#id) as NativeOpened
      this.#opened = opened
      this.#recordBytesMax = opened.recordBytesMax
      this.#batchBytesMax = opened.batchBytesMax
      this.#staging = new Staging(Math.min(stagingBytesMax, opened.batchBytesMax))
      this.#firstLsn = opened.firstLsn
      this.#lastLsn = opened.lastLsn
      this.#writtenLsn = opened.lastLsn
      this.#durableLsn = opened.lastLsn
      this.#wantedLsn = opened.lastLsn
      this.#opening?.resolve(this)
      this.#opening = undefined
    } else if (this.#openFailure === undefined) {
      const failure = native.failure(this.#id) as Failure | null
      if (failure !== null) this.#openFailure = this.#errorOf(failure)
      // Rejected once it has ended: whoever hears of it may open again at once.
      native.close(this.#id)
    }
  }

  #forgetRuns(writtenLsn: number): void {
    let count = 0
    while (count < this.#runLsns.length && (this.#runLsns[count] as number) <= writtenLsn) count += 1
    if (count === 0) return
    this.#runLsns.splice(0, count)
    this.#runBytes.splice(0, count)
  }

  /** The service took records and then had no space for them: their numbers are free again. */
  #refuse(): void {
    const refusal = native.refusal(this.#id)
    if (refusal === null) return
    const from = refusal.fromLsn
    const error = this.#errorOf(refusal.failure as Failure)
    this.#epoch = refusal.epoch
    this.#staging.clear()
    // A run is refused whole, so what is left is exactly the runs before `from`.
    let kept = this.#runLsns.length
    while (kept > 0 && (this.#runLsns[kept - 1] as number) >= from) kept -= 1
    this.#runLsns.length = kept
    this.#runBytes.length = kept
    this.#bytesAccepted = this.#runBytes[kept - 1] ?? this.#bytesWritten
    const refusedLsn = this.#lastLsn
    this.#lastLsn = from - 1
    this.#wantedLsn = Math.min(this.#wantedLsn, from - 1)
    this.#written.reject(from, error)
    this.#durable.reject(from, error)
    this.#targets.reject(from, error)
    if (this.#lastEnqueuedLsn >= from) {
      this.#lastEnqueuedLsn = from - 1
      this.#refused = error
      this.#refusedLsn = refusedLsn
      // A flush is for everything before it, so it is not answered as if these had never been.
      this.#flushes.reject(0, error)
      this.#failure ??= error
      native.close(this.#id)
    }
  }

  /** The log failed: everything pending is answered, nothing more is taken. */
  #fail(error: RingboltError): void {
    this.#isBroken = true
    this.#failure ??= error
    this.#staging.clear()
    this.#bytesAccepted = this.#bytesWritten
    this.#lastEnqueuedLsn = 0
    const unknown = outcomeUnknown(error)
    for (const waiters of [this.#written, this.#durable, this.#targets, this.#flushes, this.#drains]) {
      waiters.reject(0, unknown)
    }
    for (const follower of this.#followers) follower.reject(unknown)
    this.#followers.clear()
    for (const asked of this.#requests.values()) asked.reject(unknown)
    this.#requests.clear()
  }

  /** The service's thread has ended: locks are released, nothing more will come. */
  #end(): void {
    this.#ended = true
    // Nothing more will become durable: who follows has seen it all.
    for (const follower of this.#followers) follower.resolve(false)
    this.#followers.clear()
    const isUnasked = this.#closing === undefined && this.#failure === undefined && this.#opened !== undefined
    if (isUnasked || this.#isOutstanding()) {
      // Neither can be: it ends when asked or after a failure, and what it drained was settled.
      this.#fail(new WalError('ERR_WAL_IO', `the log in ${this.directory} ended unasked: please report it`))
    }
    if (this.#opened !== undefined) this.#lastStats = native.stats(this.#id)
    native.release(this.#id)
    forget(this.#id)
    this.#opening?.reject(this.#openFailure ?? closed(this.directory))
    this.#opening = undefined
    this.#settleClose()
    if (this.#holds) this.#letGo()
  }

  #settleClose(): void {
    if (this.#failure === undefined) this.#closing?.resolve()
    else this.#closing?.reject(poisoned(this.#failure))
  }

  /** Whether somebody waits. Only then does this log keep the event loop alive. */
  #isOutstanding(): boolean {
    return (
      this.#staging.count > 0 ||
      this.#durable.count > 0 ||
      this.#written.count > 0 ||
      this.#targets.count > 0 ||
      this.#flushes.count > 0 ||
      this.#drains.count > 0 ||
      this.#followers.size > 0 ||
      this.#requests.size > 0 ||
      this.#lastEnqueuedLsn > this.#writtenLsn ||
      (!this.#ended && (this.#opened === undefined || this.#closing !== undefined))
    )
  }

  #hold(): void {
    if (this.#holds) return
    this.#holds = true
    holdLoop()
  }

  #letGo(): void {
    this.#holds = false
    letLoopGo()
  }
}

// One function for all: a closure a tick would be garbage a tick.
const submitTick = (log: Log): void => log.submitTick()

/** Somebody who waits for more to become durable. */
interface Follower {
  lsn: number
  resolve: (isDurable: boolean) => void
  reject: (reason: unknown) => void
}

/** What a request comes to. */
interface Answer {
  firstLsn?: number
  segments?: NativeSegment[]
}
