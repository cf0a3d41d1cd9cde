/**
 * What becomes of a log that nobody holds any more.
 */
import type { Log } from './log.js'

let isLeakTold = false

/** Closes logs that were collected without `close()`. It holds the `Log`, never what the user has. */
export const collected: FinalizationRegistry<Log> = new FinalizationRegistry<Log>(log => {
  if (!isLeakTold) {
    isLeakTold = true
    process.emitWarning(
      `the log in ${log.directory} was garbage collected without close(), and is closed now. Call close() yourself, ` +
        'or declare it with `await using`: until it is collected it stays locked. This is said once.',
      { type: 'RingboltWarning', code: 'RINGBOLT_WAL_COLLECTED' },
    )
  }
  // Nobody is left to hear how that went.
  log.close().catch(() => {})
})
