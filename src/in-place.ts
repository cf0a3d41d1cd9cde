/**
 * How much may be read in place, by this thread itself, from the page cache: cheaper than asking, but the event loop
 * stands still meanwhile, and a program that awaits one such read after the other would never get to its timers and
 * sockets. So there is a bound for each turn of the event loop; beyond it reads are asked for, which lets the turn end.
 */

const readsMax = 128
const bytesMax = 512 * 1024

// As it was when the package was loaded: see `log.ts`.
const { setImmediate } = globalThis

let reads = 0
let bytes = 0
let isTurnEndAwaited = false

/** Whether a read of so many bytes may be tried in place. Tried counts, whether it is all there or not. */
export function mayReadInPlace(length: number): boolean {
  if (reads === readsMax || bytes + length > bytesMax) return false
  reads += 1
  bytes += length
  if (!isTurnEndAwaited) {
    isTurnEndAwaited = true
    setImmediate(turnEnds).unref()
  }
  return true
}

// Not when news come in: Node may deliver news up to a thousand times in one turn.
function turnEnds(): void {
  isTurnEndAwaited = false
  reads = 0
  bytes = 0
}
