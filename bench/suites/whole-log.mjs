/**
 * What takes longer the longer a log is: opening, verifying and replaying it, beside `fio` reading the same files and beside
 * what is done to the same bytes in memory; and whether opening grows with the number and the size of segments.
 */

import { dropCache, prepareCache } from '../conditions.mjs'
import { fio, hasFio } from '../fio.mjs'
import { fill, fillSegments } from '../loads/whole-log.mjs'
import { measure } from '../rounds.mjs'

export const name = 'whole-log'
export const what =
  'opening, verifying and replaying a long log, beside fio and beside the same bytes in memory'

const MiB = 1024 * 1024

/** What is measured, and who does the like in memory. */
const WORKS = {
  'open-checked': { memory: 'log-checksum', counts: 'bytesPerSecond' },
  verify: { memory: 'log-checksum', counts: 'bytesPerSecond' },
  read: { memory: 'log-split', counts: 'recordsPerSecond' },
  'read-batches': { memory: 'log-split', counts: 'recordsPerSecond' },
}

/** Who is compared with, by load. */
export const IN_MEMORY = { 'log-checksum': 'checksum in memory', 'log-split': 'lines in memory' }

/** Cases that need the log: it is written before them and removed after. */
export async function* onLog(context, body) {
  const { directory, remove } = context.kept()
  try {
    const { records } = context.options
    const segments = await fill(directory, records)
    const bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0)
    yield* body({ directory, records, bytes, paths: segments.map(({ path }) => path) })
  } finally {
    remove()
  }
}

export async function* wholeLogCase(log, { work, cache }) {
  if (cache === 'cold' && !dropCache()) {
    yield { skipped: `${work}, cold`, reason: 'the page cache cannot be dropped: that takes root' }
    return
  }
  const { memory, counts } = WORKS[work]
  const { bytes, records, paths } = log
  const prepared = run => {
    prepareCache(cache, paths)
    return run()
  }
  const entrants = [
    {
      name: 'ringbolt',
      kind: 'ours',
      measure: () => prepared(() => measure({ load: `log-${work}`, ...log })),
    },
    { name: IN_MEMORY[memory], kind: 'peer', measure: () => measure({ load: memory, ...log }) },
  ]
  if (hasFio())
    entrants.push({
      name: 'fio',
      kind: 'limit',
      measure: () => prepared(async () => readByFio(paths, { bytes, records })),
    })
  const params = { records, MiB: Math.round(bytes / MiB), segments: paths.length, cache }
  yield { operation: work, params, shows: [counts, 'seconds', 'grownBytes'], entrants }
}

/** fio reads these files in order, through the page cache. */
function readByFio(paths, { bytes, records }) {
  const job = fio([
    '--rw=read',
    '--bs=1M',
    '--readonly',
    '--ioengine=psync',
    '--file_service_type=sequential',
    '--invalidate=0',
    `--filename=${paths.join(':')}`,
  ])
  const seconds = bytes / job.read.bw_bytes
  return { seconds, bytesPerSecond: bytes / seconds, recordsPerSecond: records / seconds }
}

/** Opening a log that was closed, its tail checked: it must not grow with what lies before the tail. */
async function* openingCases(context) {
  const { segments: many } = context.options
  const few = Math.max(1, Math.round(many / 10))
  for (const [count, segmentBytes] of [
    [few, MiB],
    [many, MiB],
    [few, 10 * MiB],
  ]) {
    const { directory, remove } = context.kept()
    try {
      await fillSegments(directory, { count, segmentBytes, recordsEach: 10 })
      const log = { directory, bytes: count * segmentBytes, records: count * 10 }
      const own = {
        name: 'ringbolt',
        kind: 'ours',
        measure: () => measure({ load: 'log-open-tail', ...log }),
      }
      const params = { segments: count, MiB: segmentBytes / MiB }
      yield { operation: 'open-tail', params, shows: ['seconds'], entrants: [own] }
    } finally {
      remove()
    }
  }
}

export async function* cases(context) {
  yield* onLog(context, async function* (log) {
    for (const cache of ['cold', 'warm']) {
      for (const work of Object.keys(WORKS)) yield* wholeLogCase(log, { work, cache })
    }
  })
  yield* openingCases(context)
}
