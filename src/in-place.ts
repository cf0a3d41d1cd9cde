/**
 * How much may be read in place, by this thread itself, from the page cache: cheaper than asking, but the event loop
 * stands still meanwhile, and a program that awaits one such read after the other would never get to its timers and
 * sockets. So there is a bound for each turn of the event loop; beyond it reads wait for the next turn. To ask for them
 * instead would cost a thread's wake there and another one back.
 */

const readsMax = 128
const bytesMax = 512 * 1024

/** A read that waits for the next turn. It may be told not to wait any longer, and then asks. */
type Waiting = (mayWait: boolean) => void

// As it was when the package was loaded: see `log.ts`.
const { setImmediate } = globalThis

let reads = 0
let bytes = 0
let immediate: NodeJS.Immediate | undefined
let waiting: Waiting[] = []

/** Whether a read of so many bytes may be tried in place in this turn. Tried counts, whether it is all there or not. */
export function mayReadInPlace(length: number): boolean {
  if (reads === readsMax || bytes + length > bytesMax) return false
  reads += 1
  bytes += length
  immediate ??= setImmediate(turnEnds).unref()
  return true
}

/** Whether a read of so many bytes could be tried in place in some turn. */
export function couldReadInPlace(length: number): boolean {
  return length <= bytesMax
}

/** Call `read` in the next turn, in the order of these calls. Keeps the event loop alive until then. */
export function inNextTurn(read: Waiting): void {
  waiting.push(read)
  immediate ??= setImmediate(turnEnds)
  immediate.ref()
}

/** No read is to wait any longer: something that they need is about to end. */
export function hurry(): void {
  const all = waiting
  waiting = []
  for (const read of all) read(false)
}

/** A turn of the event loop begins. */
function turnEnds(): void {
  immediate = undefined
  reads = 0
  bytes = 0
  const all = waiting
  waiting = []
  for (const read of all) read(true)
}
