/**
 * Calls that are not answered yet, by small numbers that are used again: the other side answers by number.
 */

/** What a call resolves to: this, or what this function makes of it. It may throw, and the call rejects. */
export type Outcome = Uint8Array | undefined | (() => unknown)

type Resolve = (value: never) => void
type Reject = (reason: unknown) => void

const nothing = () => {}

export class Calls {
  // Parallel; the place is the call's number.
  readonly #resolves: Resolve[] = []
  readonly #rejects: Reject[] = []
  readonly #outcomes: Outcome[] = []
  /** Numbers free to be used again, the last first: so the table stays as small as it can. */
  readonly #free: number[] = []

  /** How many are not answered. */
  get count(): number {
    return this.#resolves.length - this.#free.length
  }

  /** A new call; its number. */
  add(resolve: Resolve, reject: Reject, outcome: Outcome): number {
    const id = this.#free.pop() ?? this.#resolves.length
    this.#resolves[id] = resolve
    this.#rejects[id] = reject
    this.#outcomes[id] = outcome
    return id
  }

  /** It is done. `outcome` is what it comes to, where that was not known at the call. */
  resolve(id: number, outcome: Outcome = this.#outcomes[id]): void {
    const resolve = this.#resolves[id] as (value: unknown) => void
    const reject = this.#rejects[id] as Reject
    this.#forget(id)
    try {
      resolve(typeof outcome === 'function' ? outcome() : outcome)
    } catch (error) {
      reject(error)
    }
  }

  /** It failed. */
  reject(id: number, reason: unknown): void {
    const reject = this.#rejects[id] as Reject
    this.#forget(id)
    reject(reason)
  }

  /** Reject all that are left. */
  rejectAll(reason: unknown): void {
    const free = new Set(this.#free)
    for (let id = 0; id < this.#resolves.length; id += 1) if (!free.has(id)) this.reject(id, reason)
  }

  #forget(id: number): void {
    this.#resolves[id] = nothing
    this.#rejects[id] = nothing
    this.#outcomes[id] = undefined
    this.#free.push(id)
  }
}
