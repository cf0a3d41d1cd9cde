/** The same appends while something else wants the processor. */

import { busyInterruptCpu, Lack } from '../conditions.mjs'
import { appendCase } from './appends.mjs'

export const name = 'busy'
export const what =
  'appends with the JavaScript thread busy, and with a thread busy on the CPU of the disk’s interrupts'

/** Cases with a thread at 100 % on the CPU that takes the disk's interrupts. */
export async function* onBusyInterruptCpu(context, body) {
  let spinner
  try {
    spinner = busyInterruptCpu(context.options.directory)
  } catch (error) {
    if (!(error instanceof Lack)) throw error
    yield { skipped: 'with a busy thread on the CPU of the disk’s interrupts', reason: error.message }
    return
  }
  try {
    yield* body({ busy: 'interrupts', cpu: spinner.cpu })
  } finally {
    spinner.end()
  }
}

async function* grid(context, condition) {
  for (const bytes of context.options.bytes) {
    for (const outstanding of context.options.outstanding)
      yield await appendCase(context, { outstanding, bytes, ...condition })
  }
}

export async function* cases(context) {
  yield* grid(context, { busy: 'javascript' })
  yield* onBusyInterruptCpu(context, condition => grid(context, condition))
}
