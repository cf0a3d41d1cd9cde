/**
 * Durable appends a second, and how long one takes, beside other ways to get the same promise.
 *
 *     npm run bench [-- --help]
 *
 * The contenders take turns within one run, each round in another order, so that what the machine does meanwhile
 * happens to all of them; a figure is the median of the rounds, a ratio the median of the rounds' own ratios.
 * A ratio travels to other machines, a figure does not.
 *
 * A contender is a module in contenders/ with `name` and `open(directory)`, which resolves to
 * `{ append(record): Promise, close(): Promise, backend?: string }`. Its promise must resolve only when the
 * record is durable.
 */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createHistogram } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'

import { diskOf, machine } from '../scripts/machine.mjs'
import { table } from '../scripts/table.mjs'
import {
  COMMON_HELP,
  chosen,
  describe,
  median,
  positive,
  positives,
  program,
  progress,
  show,
} from './program.mjs'

const here = path => fileURLToPath(new URL(path, import.meta.url))
const RECORD_BYTES = 100
const WARM_UP_SECONDS = 0.3

const HELP = `Durable appends of ${RECORD_BYTES} B records: rate and latency.

Usage: npm run bench -- [OPTIONS]

  --rounds N           rounds, each with every contender once (default: 5)
  --seconds S          length of one measurement (default: 2)
  --outstanding LIST   appends outstanding at a time, comma-separated (default: 1,64,1000)
  --only LIST          contenders to run, comma-separated (default: all)
${COMMON_HELP}`

const OPTIONS = {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  outstanding: { type: 'string', default: '1,64,1000' },
  only: { type: 'string' },
}

function read({ rounds, seconds, outstanding, only }) {
  const names = readdirSync(here('contenders')).map(file => file.replace(/\.mjs$/, ''))
  // Ours first: ratios are told in terms of it.
  names.sort((a, b) => Number(b === 'ringbolt') - Number(a === 'ringbolt') || a.localeCompare(b))
  return {
    rounds: positive('rounds', rounds),
    seconds: positive('seconds', seconds, Number.isFinite),
    outstanding: positives('outstanding', outstanding),
    contenders: chosen('only', only, names),
  }
}

/**
 * Keep so many appends outstanding: as many loops that each await their append. Latency is measured at every
 * n-th append, so that looking at the clock does not become the work; the same for every contender.
 */
async function measure(log, outstanding, seconds) {
  const record = Buffer.alloc(RECORD_BYTES, 'durable ')
  const sampleMask = outstanding < 16 ? 0 : 15
  const latency = createHistogram({ lowest: 1, highest: 3_600_000_000_000, figures: 3 })
  let isRunning = true
  let isMeasuring = false
  let issued = 0
  let completed = 0

  const loop = async () => {
    while (isRunning) {
      if ((issued++ & sampleMask) === 0) {
        const started = performance.now()
        await log.append(record)
        if (isMeasuring) latency.record(Math.max(1, Math.round((performance.now() - started) * 1e6)))
      } else {
        await log.append(record)
      }
      completed += 1
    }
  }
  const loops = Promise.all(Array.from({ length: outstanding }, loop))
  // A loop that fails ends the wait, not only the run.
  const pass = duration => Promise.race([new Promise(resolve => setTimeout(resolve, duration * 1000)), loops])

  await pass(WARM_UP_SECONDS)
  const before = { completed, time: performance.now() }
  isMeasuring = true
  await pass(seconds)
  const rate = (completed - before.completed) / ((performance.now() - before.time) / 1000)
  isMeasuring = false
  isRunning = false
  await loops
  return { rate, p50: latency.percentile(50) / 1e6, p99: latency.percentile(99) / 1e6 }
}

async function runOnce(contender, parent, outstanding, seconds) {
  const directory = mkdtempSync(join(parent, 'run-'))
  try {
    const log = await contender.open(directory)
    const result = await measure(log, outstanding, seconds)
    await log.close()
    return { ...result, backend: log.backend }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function run(options) {
  const contenders = []
  for (const name of options.contenders) contenders.push(await import(`./contenders/${name}.mjs`))
  const started = new Date()
  const say = options.json ? () => {} : console.log
  const conditions = { ...machine(), disk: diskOf(options.directory), backends: {} }
  say(describe(conditions))
  say(`${options.rounds} rounds of ${options.seconds} s, records of ${RECORD_BYTES} B\n`)

  const results = []
  for (const outstanding of options.outstanding) {
    const rounds = new Map(contenders.map(({ name }) => [name, []]))
    for (let round = 0; round < options.rounds; round += 1) {
      const order = round % 2 === 0 ? contenders : contenders.toReversed()
      for (const contender of order) {
        progress(`${outstanding} outstanding, round ${round + 1}: ${contender.name}`)
        const { backend, ...result } = await runOnce(
          contender,
          options.directory,
          outstanding,
          options.seconds,
        )
        rounds.get(contender.name).push(result)
        if (backend !== undefined) conditions.backends[contender.name] = backend
      }
    }
    const reference = rounds.get('ringbolt')
    for (const [name, own] of rounds) {
      results.push({
        benchmark: `durable-append/outstanding=${outstanding} bytes=${RECORD_BYTES}`,
        outstanding,
        contender: name,
        rate: median(own.map(({ rate }) => rate)),
        p50: median(own.map(({ p50 }) => p50)),
        p99: median(own.map(({ p99 }) => p99)),
        ringboltRatio: reference && median(own.map(({ rate }, round) => reference[round].rate / rate)),
        rounds: own,
      })
    }
  }
  progress()

  const report = {
    started: started.toISOString(),
    conditions,
    rounds: options.rounds,
    seconds: options.seconds,
    results,
  }
  show('durable-appends', report, { json: options.json, print })
}

function print({ conditions, results }) {
  const rows = [['outstanding', 'contender', 'appends/s', 'p50 ms', 'p99 ms', 'ringbolt ÷ it']]
  for (const { outstanding, contender, rate, p50, p99, ringboltRatio } of results) {
    rows.push([
      outstanding,
      contender,
      Math.round(rate).toLocaleString('en'),
      p50.toFixed(3),
      p99.toFixed(3),
      contender === 'ringbolt' || ringboltRatio === undefined ? '' : `${ringboltRatio.toFixed(2)} ×`,
    ])
  }
  console.log(table(rows))
  for (const [name, backend] of Object.entries(conditions.backends)) console.log(`\n${name}: ${backend}`)
}

await program({ help: HELP, options: OPTIONS, read, run })
