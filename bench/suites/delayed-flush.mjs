/** The same appends on a device whose every flush takes longer, as that of most disks does. */

import { delayedFlush, Lack } from '../conditions.mjs'
import { appendCase } from './appends.mjs'

export const name = 'delayed-flush'
export const what = 'appends on a device with 1 ms added to each flush'

const DELAY_MICROSECONDS = 1000

export async function* cases(context) {
  let disk
  try {
    disk = await delayedFlush(DELAY_MICROSECONDS)
  } catch (error) {
    if (!(error instanceof Lack)) throw error
    yield { skipped: 'on a device with 1 ms added to each flush', reason: error.message }
    return
  }
  try {
    for (const bytes of context.options.bytes) {
      for (const outstanding of context.options.outstanding)
        yield await appendCase(context, { outstanding, bytes, flush: '+1ms' }, disk.directory)
    }
  } finally {
    await disk.end()
  }
}
