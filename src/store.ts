/**
 * An open store of blobs, from this side of the crossing: which calls are under way, and how it ends.
 *
 * ```text
 *  ask ─▶ a number in `calls` ─▶ one native call ═══════════════▶ core
 *                                                                  │
 *  look ◀══ once a turn while there is news: what is answered ══════╯
 *    └─ settle, in the order they were answered
 * ```
 *
 * How it ends: `opening ─▶ open ─▶ closing ─▶ ended`. While it closes everything under way settles as asked.
 */
import { storeClosed } from './blob-errors.js'
import type { StoreRequest } from './blob-options.js'
import { Calls, type Outcome } from './calls.js'
import { forget, holdLoop, letLoopGo, openNative, type Watcher } from './environment.js'
import { BlobError, errorOf, type Failure } from './errors.js'
import { hurry } from './in-place.js'
import { type NativeBlobAnswer, type NativeBlobStats, native } from './native.js'
import { type Deferred, deferred, type Settle, untilAborted } from './waiters.js'

// Where `takeFinished` writes. One for all stores: it is read before anybody else can ask.
const news = new Uint32Array(1024)
const newsBytes = Buffer.from(news.buffer)
const isRich = 2 ** 31

/** So many reads of one tick are handed over at once. More than that do not wait for its end: the disk can begin. */
const readsAtOnce = 16
/** For each: the blob's number, the offset, the call's number, and whether the page cache is used. */
const planWords = 4

// As it was when the package was loaded: see `log.ts`.
const { nextTick } = process

/** Values of the first word that `takeFinished` writes. */
const State = { opening: 0, open: 1, failed: 2, closed: 3 } as const

/** Somebody who is told before a store is gone, while it can still be asked. */
export interface Dependent {
  beforeStoreEnds(): void
}

export class Store implements Watcher {
  readonly directory: string
  /** The store's number on the other side. */
  readonly id: number
  /** Open blobs. Never what the user holds of them. */
  readonly dependents: Set<Dependent> = new Set()
  readonly #calls = new Calls()
  /** Reads of this tick that were not handed over yet: the memory of each, and what `readBlobs` is to know of it. */
  #reads: Buffer[] = []
  readonly #plan = new Float64Array(planWords * readsAtOnce)
  readonly #planBytes = Buffer.from(this.#plan.buffer)
  #isTickAwaited = false
  /** How to make an answer of what core says, by the number of the call, where it says more than "done". */
  readonly #makers = new Map<number, (answer: NativeBlobAnswer) => Outcome>()

  /** What runs it, and why not `io_uring`. */
  #backend: readonly string[] = []
  #opening: Settle<Store> | undefined
  #closing: Deferred<void> | undefined
  #ended = false
  #holds = false
  #lastStats: NativeBlobStats | undefined
  // What is settled on this side, without asking.
  #emptyReads = 0
  #emptyWrites = 0
  #refused = 0

  private constructor(request: StoreRequest) {
    const { signal: _, ...options } = request
    this.directory = request.directory
    this.id = openNative(this, environment => native.openStore(environment, options))
  }

  /** Open a store. A signal ends the waiting; the store is then closed as soon as it is open. */
  static open(request: StoreRequest): Promise<Store> {
    return untilAborted(request.signal, opening => {
      const store = new Store(request)
      store.#hold()
      store.#opening = opening
      return () => {
        store.#opening = undefined
        // Nobody is left to hear how that went.
        store.close().catch(() => {})
      }
    })
  }

  get backend(): string {
    // Nobody gets a store before it is open.
    return this.#backend[0] as string
  }

  get backendReason(): string | undefined {
    return this.#backend[1]
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  /** Nothing can be asked of it any more. */
  get isEnded(): boolean {
    return this.#ended
  }

  /** @throws BlobError if the store takes no more calls. */
  check(): void {
    if (this.#closing !== undefined) throw storeClosed(this.directory)
  }

  stats(): NativeBlobStats {
    this.#sendReads()
    const stats = this.#lastStats ?? native.storeStats(this.id)
    return {
      ...stats,
      reads: stats.reads + this.#emptyReads,
      writes: stats.writes + this.#emptyWrites,
      errors: stats.errors + this.#refused,
    }
  }

  countEmptyRead(): void {
    this.#emptyReads += 1
  }

  countEmptyWrite(): void {
    this.#emptyWrites += 1
  }

  countRefused(): void {
    this.#refused += 1
  }

  // Down

  /** Begin a call; `ask` hands it over under the number it is given. */
  ask<T>(ask: (id: number) => void, outcome?: Outcome): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.#calls.add(resolve, reject, outcome)
      if (!this.#holds) this.#hold()
      this.#sendReads()
      // An exception is our mistake: the number is lost then, since it may yet be answered.
      ask(id)
    })
  }

  /**
   * Begin a read into memory that nobody has seen, nor sees before the answer: it is lent to the kernel. Those of one
   * tick are handed over together; whatever else is asked comes behind those before it.
   */
  read<T>(blob: number, offset: number, into: Buffer, cached: boolean, outcome: Outcome): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.#calls.add(resolve, reject, outcome)
      if (!this.#holds) this.#hold()
      const at = planWords * this.#reads.push(into)
      this.#plan[at - 4] = blob
      this.#plan[at - 3] = offset
      this.#plan[at - 2] = id
      this.#plan[at - 1] = cached ? 1 : 0
      if (this.#reads.length === readsAtOnce) this.#sendReads()
      else if (!this.#isTickAwaited) {
        this.#isTickAwaited = true
        nextTick(endTick, this)
      }
    })
  }

  /** Hand over the reads of this tick. */
  #sendReads(): void {
    const reads = this.#reads
    if (reads.length === 0) return
    // A new list: an exception is our mistake, and the numbers are lost then.
    this.#reads = []
    native.readBlobs(this.id, this.#planBytes, reads)
  }

  /** The end of the tick: hand over what was asked in it. */
  endTick(): void {
    this.#isTickAwaited = false
    this.#sendReads()
  }

  /** The same where the answer says more than "done". */
  askFor<T>(ask: (id: number) => void, make: (answer: NativeBlobAnswer, id: number) => T): Promise<T> {
    return this.ask(id => {
      this.#makers.set(id, answer => () => make(answer, id))
      ask(id)
    })
  }

  /** Numbers for several calls at once; each settles with one of these, in order. */
  begin(settles: readonly Settle<Uint8Array>[], outcomes: readonly Uint8Array[]): number[] {
    if (!this.#holds) this.#hold()
    this.#sendReads()
    return settles.map(({ resolve, reject }, index) => this.#calls.add(resolve, reject, outcomes[index]))
  }

  /** This one was answered without being asked. */
  settled(id: number): void {
    this.#calls.resolve(id)
    if (this.#holds && !this.#isOutstanding()) this.#letGo()
  }

  close(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing.promise
    hurry()
    // First: an idle store may be gone the moment it is told to close.
    const closed = this.#beginToClose()
    this.#sendReads()
    native.closeStore(this.id)
    this.#hold()
    return closed
  }

  #beginToClose(): Promise<void> {
    for (const dependent of this.dependents) dependent.beforeStoreEnds()
    this.#closing = deferred()
    return this.#closing.promise
  }

  // Back

  /** There is news: settle what is answered. */
  look(): void {
    if (this.#ended) return
    for (;;) {
      const count = native.takeFinished(this.id, newsBytes)
      for (let index = 1; index <= count; index += 1) this.#settle(news[index] as number)
      if (count < news.length - 1) break
    }
    const state = news[0]
    if (this.#opening !== undefined && state === State.open) {
      this.#backend = native.storeBackend(this.id)
      this.#opening.resolve(this)
      this.#opening = undefined
    }
    if (state === State.failed || state === State.closed) this.#end()
    else if (this.#holds && !this.#isOutstanding()) this.#letGo()
  }

  #settle(word: number): void {
    if (word < isRich) {
      this.#calls.resolve(word)
      return
    }
    const id = word - isRich
    const make = this.#makers.get(id)
    this.#makers.delete(id)
    const answer = native.takeAnswer(this.id, id)
    if (answer.failure !== undefined) this.#calls.reject(id, errorOf(answer.failure as Failure))
    else this.#calls.resolve(id, make?.(answer))
  }

  /** Its threads have ended: the lock is free, nothing more will come. */
  #end(): void {
    // Unasked, after a mistake of ours, it is as closed as it would be.
    if (this.#closing === undefined) this.#beginToClose()
    this.#ended = true
    const failure = native.storeFailure(this.id) as Failure | null
    if (this.#backend.length > 0) this.#lastStats = native.storeStats(this.id)
    native.release(this.id)
    forget(this.id)
    if (this.#calls.count > 0) {
      // It cannot be: it ends when asked, and answered everything before.
      const message = `the store in ${this.directory} ended with calls unanswered: please report it`
      this.#calls.rejectAll(new BlobError('ERR_BLOB_STORE_IO', message))
    }
    this.#opening?.reject(failure === null ? storeClosed(this.directory) : errorOf(failure))
    this.#opening = undefined
    this.#closing?.resolve()
    if (this.#holds) this.#letGo()
  }

  /** Whether somebody waits. Only then does this store keep the event loop alive. */
  #isOutstanding(): boolean {
    return (
      this.#calls.count > 0 || this.#opening !== undefined || (this.#closing !== undefined && !this.#ended)
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
const endTick = (store: Store): void => store.endTick()
