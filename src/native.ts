/**
 * Loads the native part and types it. The only file that imports the binding.
 */
import { createRequire } from 'node:module'
import type * as binding from '#binding'
import { BackendError } from './errors.js'

export type {
  NativeBlobAnswer,
  NativeBlobStats,
  NativeExtent,
  NativeOpened,
  NativeReader,
  NativeReport,
  NativeSegment,
  NativeWalStats,
} from '#binding'

function load(): typeof binding {
  try {
    // Required, not imported: a failing import could not be caught without making this module asynchronous,
    // and then `require('ringbolt')` would not work.
    return createRequire(import.meta.url)('#binding')
  } catch (cause) {
    // The loader tries every place a build could be in; its error begins with the least likely one.
    const { platform, arch } = process
    throw new BackendError(
      'ERR_BACKEND_UNAVAILABLE',
      `ringbolt's native part could not be loaded on ${platform}-${arch}: install with optional dependencies on the ` +
        'machine that runs it (a node_modules copied from another platform lacks it), or build it with `npm run build`',
      { reason: 'no loadable build', cause },
    )
  }
}

export const native: typeof binding = load()

/** Places in the array that `native.poll` fills. */
export const Status = {
  phase: 0,
  ended: 1,
  writtenLsn: 2,
  durableLsn: 3,
  bytesWritten: 4,
  flushesDone: 5,
  epoch: 6,
  recoveryBytes: 7,
  recoveryBytesTotal: 8,
  firstLsn: 9,
  answers: 10,
} as const

/** Values of {@link Status.phase}. */
export const Phase = { opening: 0, open: 1, failed: 2, closed: 3 } as const
