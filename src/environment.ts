/**
 * What the logs and stores of one JavaScript thread share: the road on which news of them comes in, and the one thing
 * that keeps the event loop alive while somebody waits.
 */
import timers from 'node:timers'
import { native } from './native.js'

// As they were when the package was loaded: a program that puts a clock of its own in their place, as tests do,
// must not stop its appends. Where it did so before, the package `@sinonjs/fake-timers` is known by `clock`, and news are
// heard until there is none: timers and sockets may wait, but not the appends.
const { setImmediate, setInterval } = timers
const later: (work: () => void) => void = 'clock' in setImmediate ? process.nextTick : setImmediate

/** Somebody who looks at a log or a store when there is news of it. */
export interface Watcher {
  look(): void
}

/** Of services that may still be running. They are let go of when those have ended, so every promise settles. */
const watchers = new Map<number, Watcher>()

let environment: number | undefined

/** Start to open something natively; `watcher` looks whenever there is news. Returns its number. */
export function openNative(watcher: Watcher, open: (environment: number) => number): number {
  // Made at the first open: who only wants the types, or the error classes, pays nothing.
  environment ??= native.createEnvironment(takeNews)
  const id = open(environment)
  // News come by a turn of the event loop, so none was missed.
  watchers.set(id, watcher)
  return id
}

/** No more news of this one. */
export function forget(id: number): void {
  watchers.delete(id)
}

/**
 * Called when there is news, and from then on by itself, once a turn of the event loop until there is none. What comes
 * while promises are settled waits for the next turn: timers and sockets have theirs in between, however quick the disk.
 */
function takeNews(): void {
  const news = native.takeNews(environment as number)
  if (news.length === 0) return
  later(takeNews)
  for (const id of news) {
    try {
      watchers.get(id)?.look()
    } catch (error) {
      // A mistake of ours. It surfaces as uncaught, and the others still get their news.
      process.nextTick(() => {
        throw error
      })
    }
  }
}

// The loop is held by a timer that never does anything. The threadsafe function itself could be referenced
// instead, but its handle belongs to the service's thread as well, so that would take unsafe code; and `ref` and
// `unref` of a timer cost less than a native call.
let holders = 0
let timer: NodeJS.Timeout | undefined

/** Keep the event loop alive until `letLoopGo` was called as often. */
export function holdLoop(): void {
  holders += 1
  if (holders > 1) return
  if (timer === undefined) timer = setInterval(() => {}, 2 ** 31 - 1)
  else timer.ref()
}

/** The other half of `holdLoop`. */
export function letLoopGo(): void {
  holders -= 1
  if (holders === 0) timer?.unref()
}
