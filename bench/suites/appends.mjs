/** Durable appends a second, and how long one takes. */

import { join } from 'node:path'

import { isOurs } from '../contenders/index.mjs'
import { fio, hasFio, inMilliseconds } from '../fio.mjs'

export const name = 'appends'
export const what = 'durable appends: awaited, so many outstanding; and by enqueue with one durable()'

const BLOCK_BYTES = 4096
const ENQUEUED = 4096

/** Records awaited one by one, so many outstanding. */
export async function appendCase(context, { outstanding, bytes, ...condition }, parent) {
  const isBusy = condition.busy === 'javascript'
  const entrants = await context.logEntrants(() => ({ load: 'append', outstanding, bytes, isBusy }), parent)
  // Small records share blocks and flushes: what the disk does with a block each says nothing about them.
  if (bytes % BLOCK_BYTES === 0 && hasFio() && !isBusy) {
    const run = () =>
      context.within(directory => limit(directory, bytes, outstanding, context.options), parent)
    entrants.push({ name: 'fio', kind: 'limit', measure: run })
  }
  // The busy thread's own work would count as the appends'.
  const shows = ['rate', 'p50', 'p99', ...(isBusy ? [] : ['cpuMicroseconds'])]
  return { operation: 'append', params: { outstanding, bytes, ...condition }, shows, entrants }
}

/** Ours without a promise each, everybody else with as many outstanding. */
export async function enqueueCase(context, { bytes, ...condition }, parent) {
  const request = { outstanding: ENQUEUED, bytes }
  const entrants = await context.logEntrants(
    contender => ({ load: isOurs(contender) ? 'enqueue' : 'append', ...request }),
    parent,
  )
  const params = { records: ENQUEUED, bytes, ...condition }
  return { operation: 'enqueue-durable', params, shows: ['rate', 'cpuMicroseconds'], entrants }
}

/** What the disk does: so many durable writes of this size outstanding, in order, over a file written beforehand. */
function limit(directory, bytes, outstanding, { seconds }) {
  const file = [`--filename=${join(directory, 'fio')}`, '--size=64M', '--direct=1', '--overwrite=1']
  fio([...file, '--rw=write', '--bs=1M', '--ioengine=psync', '--end_fsync=1'])
  const job = fio([
    ...file,
    '--rw=write',
    `--bs=${bytes}`,
    '--ioengine=io_uring',
    `--iodepth=${outstanding}`,
    '--sync=dsync',
    '--time_based',
    `--runtime=${inMilliseconds(seconds)}`,
    `--ramp_time=${inMilliseconds(0.3)}`,
  ])
  return { rate: job.write.iops }
}

export async function* cases(context) {
  const { outstanding, bytes } = context.options
  for (const size of bytes) {
    for (const count of outstanding) yield await appendCase(context, { outstanding: count, bytes: size })
    yield await enqueueCase(context, { bytes: size })
  }
}
