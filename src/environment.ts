/**
 * What the logs of one JavaScript thread share: the road on which news of them comes in, and the one thing that
 * keeps the event loop alive while somebody waits.
 */
import { setInterval } from 'node:timers'
import { type NativeWalOptions, native } from './native.js'

/** Somebody who looks at a log's watermarks when there is news of it. */
export interface Watcher {
  look(): void
}

/** Logs whose service may still be running. They are let go of when it has ended, so every promise settles. */
const watchers = new Map<number, Watcher>()

let environment: number | undefined

/** Start to open a log natively; `watcher` looks whenever there is news. Returns the log's number. */
export function openNative(watcher: Watcher, options: NativeWalOptions): number {
  // Made at the first open: who only wants the types, or the error classes, pays nothing.
  environment ??= native.createEnvironment(takeNews)
  const id = native.openWal(environment, options)
  // News come by a turn of the event loop, so none was missed.
  watchers.set(id, watcher)
  return id
}

/** No more news of this log. */
export function forget(id: number): void {
  watchers.delete(id)
}

function takeNews(): void {
  for (const id of native.takeNews(environment as number)) {
    try {
      watchers.get(id)?.look()
    } catch (error) {
      // A mistake of ours. It surfaces as uncaught, and the other logs still get their news.
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
