/**
 * What takes longer the longer a log is: opening, verifying and replaying it, in bytes a second, beside `fio` reading
 * the same files from beginning to end; and whether opening grows with the number and the size of segments.
 *
 *     npm run bench -- whole-log [-- --help]
 *
 * Cold means that the page cache was dropped before (that takes root), warm that the files were just read.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { diskOf, machine } from '../scripts/machine.mjs'
import { isInstalled } from '../scripts/run.mjs'
import { table } from '../scripts/table.mjs'
import { COMMON_HELP, describe, dropCache, median, positive, program, show } from './program.mjs'

// Loaded once something is to be measured: help needs no build.
let Wal

const RECORD_BYTES = 100
const MiB = 1024 * 1024

const HELP = `Open, verify and replay a long log of ${RECORD_BYTES} B records.

Usage: npm run bench -- whole-log [OPTIONS]

  --records N          records in the long log (default: 10000000)
  --segments N         segments in the log of many small ones (default: 1000)
${COMMON_HELP}`

const OPTIONS = {
  records: { type: 'string', default: '10000000' },
  segments: { type: 'string', default: '1000' },
}

const read = ({ records, segments }) => ({
  records: positive('records', records),
  segments: positive('segments', segments),
})

async function fill(directory, records) {
  const wal = await Wal.open(directory)
  const record = Buffer.alloc(RECORD_BYTES, 'durable ')
  for (let count = 0; count < records; count += 1) {
    if (wal.queuedBytes > 32 * MiB) await wal.drained()
    record.writeUInt32LE(count, 0)
    wal.enqueue(record)
  }
  await wal.durable()
  const segments = await wal.segments()
  await wal.close()
  return segments
}

/** A log of so many segments of this size, each with some records in it, closed cleanly. */
async function fillSegments(directory, count, segmentBytes, recordsEach) {
  const wal = await Wal.open(directory, { segmentBytes })
  const record = Buffer.alloc(RECORD_BYTES)
  for (let segment = 0; segment < count; segment += 1) {
    for (let index = 0; index < recordsEach; index += 1) wal.enqueue(record)
    await wal.rotate()
  }
  await wal.close()
}

async function timed(work) {
  const started = performance.now()
  const result = await work()
  return { seconds: (performance.now() - started) / 1000, result }
}

/** The largest resident set while `work` ran, above what it was before. */
async function grown(work) {
  const before = process.memoryUsage().rss
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss)
  }, 20)
  try {
    return { ...(await timed(work)), grownBytes: Math.max(0, most - before) }
  } finally {
    clearInterval(timer)
  }
}

/** Bytes a second at which fio reads these files in order, through the page cache. */
function fio(paths) {
  const { status, stdout, stderr } = spawnSync(
    'fio',
    [
      '--name=read',
      '--rw=read',
      '--bs=1M',
      '--readonly',
      '--ioengine=psync',
      '--output-format=json',
      '--file_service_type=sequential',
      '--invalidate=0',
      `--filename=${paths.join(':')}`,
    ],
    { encoding: 'utf8', maxBuffer: 64 * MiB },
  )
  if (status !== 0) throw new Error(`fio: ${stderr}`)
  return JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs[0].read.bw_bytes
}

async function measureLongLog(directory, records) {
  const segments = await fill(directory, records)
  const bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0)
  const rows = []
  const note = (what, cache, seconds, grownBytes) =>
    rows.push({ what, cache, seconds, bytesPerSecond: bytes / seconds, grownBytes })
  const open = check => async () => {
    const wal = await Wal.open(directory, { check })
    await wal.close()
  }
  const works = [
    ['open, all checked', open('all')],
    ['verify', () => Wal.verify(directory)],
    [
      'replay, read()',
      async () => {
        let count = 0
        for await (const { data } of Wal.read(directory)) count += data.length
        return count
      },
    ],
    [
      'replay, readBatches()',
      async () => {
        const wal = await Wal.open(directory)
        let count = 0
        for await (const batch of wal.readBatches()) for (const { data } of batch) count += data.length
        await wal.close()
        return count
      },
    ],
  ]
  for (const cache of ['cold', 'warm']) {
    for (const [what, work] of works) {
      if (cache === 'cold' && !dropCache()) continue
      const { seconds, grownBytes } = await grown(work)
      note(what, cache, seconds, grownBytes)
    }
    if (isInstalled('fio', '--version') && (cache === 'warm' || dropCache())) {
      note('fio, sequential', cache, bytes / fio(segments.map(({ path }) => path)))
    }
  }
  if (!isInstalled('fio', '--version'))
    console.error('fio is not installed: there is nothing to compare with\n')
  const { seconds } = await timed(open('tail'))
  rows.push({ what: 'open, tail checked', cache: 'warm', seconds })
  return { records, bytes, segments: segments.length, rows }
}

async function measureOpening(parent, count) {
  const rows = []
  for (const [segments, segmentBytes, recordsEach] of [
    [count / 10, MiB, 10],
    [count, MiB, 10],
    [100, MiB, 10],
    [100, 10 * MiB, 10],
  ]) {
    const directory = mkdtempSync(join(parent, 'many-'))
    try {
      await fillSegments(directory, Math.round(segments), segmentBytes, recordsEach)
      const times = []
      for (let round = 0; round < 5; round += 1) {
        const { seconds } = await timed(async () => (await Wal.open(directory)).close())
        times.push(seconds)
      }
      rows.push({ segments: Math.round(segments), segmentBytes, seconds: median(times) })
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
  return rows
}

async function run(options) {
  ;({ Wal } = await import('ringbolt'))
  const conditions = { ...machine(), disk: diskOf(options.directory) }
  const say = options.json ? () => {} : console.log
  say(`${describe(conditions)}\n`)
  const directory = mkdtempSync(join(options.directory, 'long-'))
  let long
  try {
    long = await measureLongLog(directory, options.records)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  const opening = await measureOpening(options.directory, options.segments)
  const report = { started: new Date().toISOString(), conditions, long, opening }
  show('whole-log', report, { json: options.json, print })
}

function print({ long, opening }) {
  console.log(
    `${long.records.toLocaleString('en')} records of ${RECORD_BYTES} B, ${(long.bytes / MiB).toFixed(0)} MiB in ${long.segments} segments`,
  )
  const rows = [['', 'cache', 'seconds', 'MiB/s', 'memory grew by MiB']]
  for (const { what, cache, seconds, bytesPerSecond, grownBytes } of long.rows) {
    rows.push([
      what,
      cache,
      seconds.toFixed(3),
      bytesPerSecond === undefined ? '' : (bytesPerSecond / MiB).toFixed(0),
      grownBytes === undefined ? '' : (grownBytes / MiB).toFixed(0),
    ])
  }
  console.log(table(rows))
  console.log('\nopening, tail checked')
  console.log(
    table([
      ['segments', 'MiB each', 'ms'],
      ...opening.map(({ segments, segmentBytes, seconds }) => [
        segments,
        segmentBytes / MiB,
        (seconds * 1000).toFixed(1),
      ]),
    ]),
  )
}

await program({ help: HELP, options: OPTIONS, read, run })
