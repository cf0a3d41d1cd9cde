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

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createHistogram } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { describeDisk, diskOf, machine } from '../scripts/machine.mjs'
import { table } from '../scripts/table.mjs'

const here = path => fileURLToPath(new URL(path, import.meta.url))
const RECORD_BYTES = 100
const WARM_UP_SECONDS = 0.3

const HELP = `Durable appends of ${RECORD_BYTES} B records: rate and latency.

Usage: npm run bench -- [OPTIONS]

  --rounds N           rounds, each with every contender once (default: 5)
  --seconds S          length of one measurement (default: 2)
  --outstanding LIST   appends outstanding at a time, comma-separated (default: 1,64,1000)
  --only LIST          contenders to run, comma-separated (default: all)
  --directory DIR      where to write; put it on the disk you mean (default: bench/results)
  --json               print the results as JSON instead of a table
  -h, --help           show this

The results also go to bench/results/ as JSON.`

async function readArguments() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      outstanding: { type: 'string', default: '1,64,1000' },
      only: { type: 'string' },
      directory: { type: 'string', default: here('results') },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const positive = (option, text, isValid) => {
    const value = Number(text)
    if (!(value > 0 && isValid(value))) throw new RangeError(`--${option}: "${text}" will not do`)
    return value
  }
  const names = readdirSync(here('contenders')).map(file => file.replace(/\.mjs$/, ''))
  // Ours first: ratios are told in terms of it.
  names.sort((a, b) => Number(b === 'ringbolt') - Number(a === 'ringbolt') || a.localeCompare(b))
  const only = values.only?.split(',') ?? names
  for (const name of only) {
    if (!names.includes(name))
      throw new RangeError(`--only: no contender "${name}"; there are ${names.join(', ')}`)
  }
  return {
    rounds: positive('rounds', values.rounds, Number.isSafeInteger),
    seconds: positive('seconds', values.seconds, Number.isFinite),
    outstanding: values.outstanding
      .split(',')
      .map(text => positive('outstanding', text, Number.isSafeInteger)),
    contenders: names.filter(name => only.includes(name)),
    directory: resolve(values.directory),
    json: values.json,
    help: values.help,
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

function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

async function run(options) {
  const contenders = []
  for (const name of options.contenders) contenders.push(await import(`./contenders/${name}.mjs`))
  mkdirSync(options.directory, { recursive: true })

  const started = new Date()
  const say = options.json ? () => {} : console.log
  const conditions = { ...machine(), disk: diskOf(options.directory), backends: {} }
  say(
    `${conditions.kernel}, ${conditions.cpu}, Node ${conditions.node}, disk: ${describeDisk(conditions.disk)}`,
  )
  say(`${options.rounds} rounds of ${options.seconds} s, records of ${RECORD_BYTES} B\n`)

  const results = []
  for (const outstanding of options.outstanding) {
    const rounds = new Map(contenders.map(({ name }) => [name, []]))
    for (let round = 0; round < options.rounds; round += 1) {
      const order = round % 2 === 0 ? contenders : contenders.toReversed()
      for (const contender of order) {
        if (process.stderr.isTTY) {
          process.stderr.write(`\r\x1b[K${outstanding} outstanding, round ${round + 1}: ${contender.name}`)
        }
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
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')

  const report = {
    started: started.toISOString(),
    conditions,
    rounds: options.rounds,
    seconds: options.seconds,
    results,
  }
  const json = `${JSON.stringify(report, null, 2)}\n`
  mkdirSync(here('results'), { recursive: true })
  const path = here(`results/durable-appends-${report.started.replaceAll(':', '-')}.json`)
  writeFileSync(path, json)
  if (options.json) process.stdout.write(json)
  else print(report, path)
}

function print({ conditions, results }, path) {
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
  console.log(`\nWritten to ${path}`)
}

let options
try {
  options = await readArguments()
} catch (error) {
  console.error(`${error.message}\n\n${HELP}`)
  process.exit(2)
}
if (options.help) console.log(HELP)
else await run(options)
