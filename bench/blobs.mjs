/**
 * Reads and writes of one large blob, beside `fio --ioengine=io_uring` and `node:fs` on the very same file.
 *
 *     npm run bench -- blobs [-- --help]
 *
 * The contenders take turns within one run, each round in another order; a figure is the median of the rounds, a ratio
 * the median of the rounds' own ratios. What the page cache holds is made the same before every measurement, as the
 * table says: all of the file and nothing of it dirty (`warm`), or nothing of it (`cold`, which takes root). What goes
 * past the page cache (`direct`) finds it cold as well.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'

import { diskOf, machine } from '../scripts/machine.mjs'
import { isInstalled } from '../scripts/run.mjs'
import { table } from '../scripts/table.mjs'
import {
  COMMON_HELP,
  chosen,
  describe,
  dropCache,
  median,
  positive,
  positives,
  program,
  progress,
  show,
} from './program.mjs'

// Loaded once something is to be measured: help needs no build.
let BlobStore

const KiB = 1024
const MiB = 1024 * KiB
/** Where a blob's bytes begin in its file. */
const HEADER_BYTES = 4 * KiB
const WARM_UP_SECONDS = 0.2
const QUEUE_DEPTH = 256

/**
 * What is measured. `fio` has the same done to the same file; `ringbolt` and `node` answer a function that does it once,
 * at an offset from 0 within the blob.
 */
const WORKS = {
  'read-direct': {
    what: 'random 4 KiB reads past the page cache',
    cache: 'cold',
    bytes: 4 * KiB,
    fio: ['--rw=randread', '--direct=1'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes, { dontCache: true }),
    node: nodeRead,
  },
  'read-cached': {
    what: 'random 4 KiB reads in the page cache',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randread', '--direct=0', '--invalidate=0'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes),
    node: nodeRead,
  },
  'read-into-cached': {
    what: 'the same into one buffer each (readInto)',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randread', '--direct=0', '--invalidate=0'],
    ringbolt: (blob, targets) => (offset, _bytes, loop) => blob.readInto(offset, targets[loop]),
    node: (file, targets) => (offset, bytes, loop) =>
      file.read(targets[loop], 0, bytes, HEADER_BYTES + offset),
  },
  write: {
    what: 'random 4 KiB writes, not durable',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randwrite', '--direct=0', '--invalidate=0'],
    ringbolt: (blob, targets) => (offset, _bytes, loop) => blob.write(offset, targets[loop]),
    node: (file, targets) => (offset, bytes, loop) =>
      file.write(targets[loop], 0, bytes, HEADER_BYTES + offset),
  },
  'write-sync': {
    what: 'random 4 KiB writes, each durable',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randwrite', '--direct=1', '--sync=dsync'],
    ringbolt: (blob, targets) => (offset, _bytes, loop) => blob.write(offset, targets[loop], { sync: true }),
    node: (file, targets) => async (offset, bytes, loop) => {
      await file.write(targets[loop], 0, bytes, HEADER_BYTES + offset)
      await file.datasync()
    },
  },
  'sequential-direct': {
    what: '64 KiB reads in order past the page cache',
    cache: 'cold',
    bytes: 64 * KiB,
    isSequential: true,
    fio: ['--rw=read', '--direct=1'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes, { dontCache: true }),
    node: nodeRead,
  },
  'sequential-cached': {
    what: '64 KiB reads in order in the page cache',
    cache: 'warm',
    bytes: 64 * KiB,
    isSequential: true,
    fio: ['--rw=read', '--direct=0', '--invalidate=0'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes),
    node: nodeRead,
  },
}

/** `node:fs` has no way past the page cache but buffers aligned by luck: so it reads what is not in it yet. */
function nodeRead(file) {
  return (offset, bytes) => file.read(Buffer.allocUnsafeSlow(bytes), 0, bytes, HEADER_BYTES + offset)
}

const HELP = `Reads and writes of a blob, beside fio and node:fs on the same file.

Usage: npm run bench -- blobs [OPTIONS]

  --size MIB           size of the blob (default: 1024)
  --rounds N           rounds, each with every contender once (default: 5)
  --seconds S          length of one measurement (default: 1)
  --outstanding LIST   operations outstanding at a time, comma-separated (default: 1,16,64,256)
  --only LIST          what to measure, comma-separated (default: all):
                       ${Object.keys(WORKS).join(', ')}
${COMMON_HELP}`

const OPTIONS = {
  size: { type: 'string', default: '1024' },
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '1' },
  outstanding: { type: 'string', default: '1,16,64,256' },
  only: { type: 'string' },
}

const read = ({ size, rounds, seconds, outstanding, only }) => ({
  size: positive('size', size) * MiB,
  rounds: positive('rounds', rounds),
  seconds: positive('seconds', seconds, Number.isFinite),
  outstanding: positives('outstanding', outstanding),
  works: chosen('only', only, Object.keys(WORKS)),
})

/** Nothing dirty, and of the file all or nothing in the page cache. */
function prepare(path, cache) {
  spawnSync('sync', [path])
  if (cache === 'warm') spawnSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none'])
  else dropCache()
}

/** Keep so many outstanding for a while: as many loops that each await what they asked for. Operations a second. */
async function measure(once, work, { size, seconds }, outstanding) {
  const places = Math.floor(size / work.bytes)
  let next = 0
  const place = work.isSequential ? () => next++ % places : () => Math.floor(Math.random() * places)
  let isRunning = true
  let completed = 0
  const loop = async index => {
    while (isRunning) {
      await once(place() * work.bytes, work.bytes, index)
      completed += 1
      // What is done at once takes no turn of the event loop, and the clock below would never be looked at.
      if ((completed & 1023) === 0) await new Promise(setImmediate)
    }
  }
  const loops = Promise.all(Array.from({ length: outstanding }, (_, index) => loop(index)))
  const pass = duration => Promise.race([new Promise(resolve => setTimeout(resolve, duration * 1000)), loops])
  await pass(WARM_UP_SECONDS)
  const before = { completed, time: performance.now() }
  await pass(seconds)
  const rate = (completed - before.completed) / ((performance.now() - before.time) / 1000)
  isRunning = false
  await loops
  return rate
}

function fio(path, work, { size, seconds }, outstanding) {
  const { status, stdout, stderr } = spawnSync(
    'fio',
    [
      '--name=blob',
      '--ioengine=io_uring',
      `--filename=${path}`,
      `--offset=${HEADER_BYTES}`,
      `--size=${size}`,
      `--bs=${work.bytes}`,
      `--iodepth=${outstanding}`,
      '--time_based',
      `--runtime=${seconds}`,
      `--ramp_time=${WARM_UP_SECONDS}`,
      '--randrepeat=0',
      '--norandommap',
      '--overwrite=1',
      '--output-format=json',
      ...work.fio,
    ],
    { encoding: 'utf8', maxBuffer: 64 * MiB },
  )
  if (status !== 0) throw new Error(`fio: ${stderr}`)
  const [job] = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs
  return job.read.iops + job.write.iops
}

async function run(options) {
  ;({ BlobStore } = await import('ringbolt'))
  const directory = mkdtempSync(join(options.directory, 'blobs-'))
  try {
    await runIn(directory, options)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function runIn(directory, options) {
  const say = options.json ? () => {} : console.log
  const store = await BlobStore.open(directory, { queueDepth: QUEUE_DEPTH })
  const blob = await store.open('bench', 'blob')
  const conditions = {
    ...machine(),
    disk: diskOf(directory),
    backend: store.backend,
    queueDepth: QUEUE_DEPTH,
    fio: isInstalled('fio', '--version'),
  }
  say(`${describe(conditions)}, backend: ${store.backend}, queueDepth ${QUEUE_DEPTH}`)
  if (!conditions.fio) console.error('fio is not installed: only node:fs is there to compare with')
  const canDrop = dropCache()
  if (!canDrop)
    console.error('the page cache cannot be dropped (that takes root): what needs it cold is left out')
  say(`${options.rounds} rounds of ${options.seconds} s, a blob of ${options.size / MiB} MiB\n`)
  const piece = Buffer.alloc(MiB)
  for (let offset = 0; offset < options.size; offset += MiB) {
    piece.writeUInt32LE(offset / MiB, 0)
    await blob.write(offset, piece)
  }
  await blob.sync()
  const path = join(directory, 'bench', Buffer.from('blob').toString('hex'))
  const file = await open(path, 'r+')

  const results = []
  for (const name of options.works) {
    const work = WORKS[name]
    if (work.cache === 'cold' && !canDrop) continue
    for (const outstanding of options.outstanding) {
      const targets = Array.from({ length: outstanding }, () => Buffer.alloc(work.bytes, 7))
      const contenders = [
        ['ringbolt', () => measure(work.ringbolt(blob, targets), work, options, outstanding)],
        ['node:fs', () => measure(work.node(file, targets), work, options, outstanding)],
      ]
      if (conditions.fio) contenders.splice(1, 0, ['fio', () => fio(path, work, options, outstanding)])
      const rates = new Map(contenders.map(([contender]) => [contender, []]))
      for (let round = 0; round < options.rounds; round += 1) {
        for (const [contender, rateOf] of round % 2 === 0 ? contenders : contenders.toReversed()) {
          progress(`${name}, ${outstanding} outstanding, round ${round + 1}: ${contender}`)
          prepare(path, work.cache)
          rates.get(contender).push(await rateOf())
        }
      }
      const own = rates.get('ringbolt')
      const ratios = Object.fromEntries(
        [...rates].map(([contender, its]) => {
          const all = own.map((rate, round) => rate / its[round])
          return [contender, { median: median(all), least: Math.min(...all), most: Math.max(...all) }]
        }),
      )
      const medians = Object.fromEntries([...rates].map(([contender, its]) => [contender, median(its)]))
      results.push({
        benchmark: `blob-${name}/outstanding=${outstanding} bytes=${work.bytes}`,
        name,
        what: work.what,
        cache: work.cache,
        outstanding,
        rates: medians,
        ratios,
        rounds: Object.fromEntries(rates),
      })
    }
  }
  progress()
  await file.close()
  await store.close()

  const report = { started: new Date().toISOString(), conditions, options, results }
  show('blobs', report, { json: options.json, print })
}

function print({ results }) {
  const rows = [['what', 'cache', 'outstanding', 'ringbolt/s', 'fio/s', '÷ fio', 'node:fs/s', '÷ node:fs']]
  const rate = value => (value === undefined ? '' : Math.round(value).toLocaleString('en'))
  const ratio = value => (value === undefined ? '' : `${value.median.toFixed(2)} ×`)
  for (const { what, cache, outstanding, rates, ratios } of results) {
    rows.push([
      what,
      cache,
      outstanding,
      rate(rates.ringbolt),
      rate(rates.fio),
      ratio(ratios.fio),
      rate(rates['node:fs']),
      ratio(ratios['node:fs']),
    ])
  }
  console.log(table(rows))
}

await program({ help: HELP, options: OPTIONS, read, run })
