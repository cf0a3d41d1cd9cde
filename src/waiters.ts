/**
 * Promises waiting for a watermark, in the order of what they wait for. Three arrays used as a ring: nothing is
 * allocated for a waiter but its promise.
 */

type Resolve = (value: number) => void
type Reject = (reason: unknown) => void

const nothing = () => {}

// The executor below leaves its functions here, so that no closure is made for each promise. It runs before the
// constructor returns: nobody else can come in between.
let resolveTaken: Resolve = nothing
let rejectTaken: Reject = nothing
const take = (resolve: Resolve, reject: Reject): void => {
  resolveTaken = resolve
  rejectTaken = reject
}

export class Waiters {
  // Parallel, a power of two long.
  #lsns: number[]
  #resolves: Resolve[]
  #rejects: Reject[]
  /** The place of the oldest waiter. */
  #head = 0
  #count = 0

  constructor(capacity = 64) {
    this.#lsns = new Array<number>(capacity).fill(0)
    this.#resolves = new Array<Resolve>(capacity).fill(nothing)
    this.#rejects = new Array<Reject>(capacity).fill(nothing)
  }

  get count(): number {
    return this.#count
  }

  /** A promise that settles with `lsn`'s turn. */
  wait(lsn: number): Promise<number> {
    const promise = new Promise(take)
    this.add(lsn, resolveTaken, rejectTaken)
    return promise
  }

  /** The same for whoever made the promise. Waiters of one LSN settle in the order they came. */
  add(lsn: number, resolve: Resolve, reject: Reject): void {
    if (this.#count === this.#lsns.length) this.#grow()
    const mask = this.#lsns.length - 1
    let place = (this.#head + this.#count) & mask
    // Appends come in order; only `durable()` may ask for less than the one before it.
    for (let ahead = this.#count; ahead > 0; ahead -= 1) {
      const before = (place - 1) & mask
      const lsnBefore = this.#lsns[before] as number
      if (lsnBefore <= lsn) break
      this.#lsns[place] = lsnBefore
      this.#resolves[place] = this.#resolves[before] as Resolve
      this.#rejects[place] = this.#rejects[before] as Reject
      place = before
    }
    this.#lsns[place] = lsn
    this.#resolves[place] = resolve
    this.#rejects[place] = reject
    this.#count += 1
  }

  /** Resolve everybody up to `lsn`, in order: with `value`, or with what each of them waited for. */
  settle(lsn: number, value?: number): void {
    const mask = this.#lsns.length - 1
    while (this.#count > 0) {
      const place = this.#head
      const waited = this.#lsns[place] as number
      if (waited > lsn) return
      const resolve = this.#resolves[place] as Resolve
      this.#resolves[place] = nothing
      this.#rejects[place] = nothing
      this.#head = (place + 1) & mask
      this.#count -= 1
      resolve(value ?? waited)
    }
  }

  /** Reject everybody from `lsn` on, in order. */
  reject(lsn: number, reason: unknown): void {
    const mask = this.#lsns.length - 1
    let kept = 0
    while (kept < this.#count && (this.#lsns[(this.#head + kept) & mask] as number) < lsn) kept += 1
    for (let index = kept; index < this.#count; index += 1) {
      const place = (this.#head + index) & mask
      const reject = this.#rejects[place] as Reject
      this.#resolves[place] = nothing
      this.#rejects[place] = nothing
      reject(reason)
    }
    this.#count = kept
  }

  #grow(): void {
    const { length } = this.#lsns
    const unroll = <T>(ring: T[], filler: T): T[] =>
      ring.slice(this.#head).concat(ring.slice(0, this.#head), new Array<T>(length).fill(filler))
    this.#lsns = unroll(this.#lsns, 0)
    this.#resolves = unroll(this.#resolves, nothing)
    this.#rejects = unroll(this.#rejects, nothing)
    this.#head = 0
  }
}

/** How to settle a promise. */
export interface Settle<T> {
  resolve: (value: T) => void
  reject: (reason: unknown) => void
}

/** A promise, and how to settle it from outside. */
export interface Deferred<T> extends Settle<T> {
  promise: Promise<T>
}

export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

/**
 * Wait for what `begin` begins. Where a signal ends the waiting, the promise rejects with its reason, and what `begin`
 * returned is called.
 */
export function untilAborted<T>(
  signal: AbortSignal | undefined,
  begin: (settle: Settle<T>) => () => void,
): Promise<T> {
  // The signal's own `throwIfAborted` is what a polyfill need not have.
  if (signal?.aborted) throw signal.reason
  return new Promise<T>((resolve, reject) => {
    if (signal === undefined) {
      begin({ resolve, reject })
      return
    }
    let abandon = () => {}
    const abort = () => {
      abandon()
      reject(signal.reason)
    }
    signal.addEventListener('abort', abort, { once: true })
    const settled =
      <V>(settle: (value: V) => void) =>
      (value: V) => {
        signal.removeEventListener('abort', abort)
        settle(value)
      }
    abandon = begin({ resolve: settled(resolve), reject: settled(reject) })
  })
}
