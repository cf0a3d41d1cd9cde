/**
 * What looks at a whole log without opening it for writing, also beside the process that writes it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { native } from './native.js'
import { throwIfAborted } from './options.js'
import { batches, type Requested, type WalRecord } from './records.js'

/** How often somebody who follows another's log looks for more, in milliseconds. */
const pollMs = 50

/** Batches of the records in a log, whoever writes it: what there is, durable or not. */
export async function* readWhole(
  directory: string,
  { failure, from, to = Number.MAX_SAFE_INTEGER, follow, signal }: Requested,
): AsyncGenerator<WalRecord[], void, void> {
  if (failure !== undefined) throw failure
  throwIfAborted(signal)
  if (from !== undefined && to < from) return
  const following = async (next: number) => {
    if (next > to) return undefined
    await sleep(pollMs, undefined, signal === undefined ? undefined : { signal })
    return to
  }
  yield* batches(
    native.openWholeReader(directory, from, to),
    signal,
    from ?? 0,
    follow ? following : undefined,
  )
}
