/**
 * What becomes of something open that nobody holds any more.
 */

/** What a registry holds of it: never what the user has, which could not be collected then. */
interface Closable {
  readonly isClosed: boolean
  close(): Promise<void>
}

/** A registry that closes what was collected without `close()`, and says so the first time. */
function closing<T extends Closable>(code: string, told: (of: T) => string): FinalizationRegistry<T> {
  let isTold = false
  return new FinalizationRegistry<T>(open => {
    // With its store, which is no reason to say anything.
    if (open.isClosed) return
    if (!isTold) {
      isTold = true
      process.emitWarning(`${told(open)} This is said once.`, { type: 'RingboltWarning', code })
    }
    // Nobody is left to hear how that went.
    open.close().catch(() => {})
  })
}

const advice =
  'was garbage collected without close(), and is closed now. Call close() yourself, or declare it with'

/** For logs. */
export const collectedLogs: FinalizationRegistry<Closable & { directory: string }> = closing(
  'RINGBOLT_WAL_COLLECTED',
  log => `the log in ${log.directory} ${advice} \`await using\`: until it is collected it stays locked.`,
)

/** For stores of blobs. */
export const collectedStores: FinalizationRegistry<Closable & { directory: string }> = closing(
  'RINGBOLT_STORE_COLLECTED',
  store =>
    `the store in ${store.directory} ${advice} \`await using\`: until it is collected it stays locked.`,
)

/** For handles of blobs. */
export const collectedBlobs: FinalizationRegistry<Closable & { told: string }> = closing(
  'RINGBOLT_BLOB_COLLECTED',
  blob => `the ${blob.told} ${advice} \`await using\`: until it is collected its file stays open.`,
)
