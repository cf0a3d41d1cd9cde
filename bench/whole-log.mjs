/**
 * What takes longer the longer a log is: opening, verifying and replaying it, in bytes a second, beside `fio` reading
 * the same files from beginning to end; and whether opening grows with the number and the size of segments.
 *
 *     npm run bench -- whole-log [-- --help]
 *
 * Cold means that the page cache was dropped before (that takes root), warm that the files were just read.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { describeDisk, diskOf, machine } from '../scripts/machine.mjs'
import { isInstalled } from '../scripts/run.mjs'
import { table } from '../scripts/table.mjs'

// Loaded once something is to be measured: help needs no build.
let Wal

const here = path => fileURLToPath(new URL(path, import.meta.url))
const RECORD_BYTES = 100
const MiB = 1024 * 1024

const HELP = `Open, verify and replay a long log of ${RECORD_BYTES} B records.

Usage: npm run bench -- whole-log [OPTIONS]

  --records N       records in the long log (default: 10000000)
  --segments N      segments in the log of many small ones (default: 1000)
  --directory DIR   where to write; put it on the disk you mean (default: bench/results)
  --json            print the results as JSON instead of a table
  -h, --help        show this

The results also go to bench/results/ as JSON.`

function readArguments() {
  const { values } = parseArgs({
    options: {
      records: { type: 'string', default: '10000000' },
      segments: { type: 'string', default: '1000' },
      directory: { type: 'string', default: here('results') },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const whole = name => {
    const value = Number(values[name])
    if (!(value > 0 && Number.isSafeInteger(value)))
      throw new RangeError(`--${name}: "${values[name]}" will not do`)
    return value
  }
  return {
    ...values,
    records: whole('records'),
    segments: whole('segments'),
    directory: resolve(values.directory),
  }
}

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

/** Drop the page cache; `false` where that is not for us to do. */
function dropCache() {
  try {
    execFileSync('sync')
    writeFileSync('/proc/sys/vm/drop_caches', '3')
    return true
  } catch {
    return false
  }
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
      rows.push({ segments: Math.round(segments), segmentBytes, seconds: times.sort((a, b) => a - b)[2] })
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
  return rows
}

async function run(options) {
  ;({ Wal } = await import('ringbolt'))
  mkdirSync(options.directory, { recursive: true })
  const conditions = { ...machine(), disk: diskOf(options.directory) }
  const say = options.json ? () => {} : console.log
  say(
    `${conditions.kernel}, ${conditions.cpu}, Node ${conditions.node}, disk: ${describeDisk(conditions.disk)}\n`,
  )
  const directory = mkdtempSync(join(options.directory, 'long-'))
  let long
  try {
    long = await measureLongLog(directory, options.records)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  const opening = await measureOpening(options.directory, options.segments)
  const report = { started: new Date().toISOString(), conditions, long, opening }
  const json = `${JSON.stringify(report, null, 2)}\n`
  mkdirSync(here('results'), { recursive: true })
  const path = here(`results/whole-log-${report.started.replaceAll(':', '-')}.json`)
  writeFileSync(path, json)
  if (options.json) process.stdout.write(json)
  else print(report, path)
}

function print({ long, opening }, path) {
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
  console.log(`\nWritten to ${path}`)
}

let options
try {
  options = readArguments()
} catch (error) {
  console.error(`${error.message}\n\n${HELP}`)
  process.exit(2)
}
if (options.help) console.log(HELP)
else await run(options)
