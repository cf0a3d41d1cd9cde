/**
 * `npm run bench`: ringbolt beside others, suite by suite. It is told what to do by its arguments (--help), and leaves a
 * report as JSON and as a page with charts in results/.
 *
 * The contenders take turns within one run (rounds.mjs), each measurement in a process of its own (measure.mjs); a figure is
 * the median of the rounds, a ratio the median of the rounds' own ratios. A ratio travels to other machines, a figure does
 * not.
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { diskOf, machine } from '../scripts/machine.mjs'
import { Context } from './context.mjs'
import { isOurs, NAMES, OURS, packagesOf } from './contenders/index.mjs'
import { hasFio } from './fio.mjs'
import { install } from './peers.mjs'
import { describe, page, print } from './report.mjs'
import { nameOf, runCase } from './rounds.mjs'

const SUITES = [
  'appends',
  'sync-appends',
  'open-loop',
  'cpu',
  'busy',
  'blobs',
  'whole-log',
  'delayed-flush',
  'targets',
]
const BLOB_WORKS =
  'read-direct,read-cached,read-into-cached,write,write-sync,sequential-direct,sequential-cached,create'
const RESULTS = fileURLToPath(new URL('results', import.meta.url))
const MiB = 1024 * 1024

/** What is taken where nothing is said; what --quick takes instead; and everything there is, with --full. */
const DEFAULTS = {
  rounds: '5',
  seconds: '1',
  outstanding: '1,64,1000',
  bytes: '100',
  rates: '20000,100000',
  size: '1024',
  records: '10000000',
  segments: '1000',
}
const QUICK = {
  rounds: '1',
  seconds: '0.2',
  outstanding: '1,64',
  rates: '5000',
  size: '64',
  records: '200000',
  segments: '20',
}
const FULL = { outstanding: '1,16,64,256,1000,4096,10000', bytes: '100,1024,4096,65536' }

const HELP = `ringbolt beside others, everything durable: rates, latencies, costs.

Usage: npm run bench -- [SUITE…] [OPTIONS]

Suites (default: appends; \`all\` is all of them but targets):
  appends              durable appends: awaited, so many outstanding; by enqueue with one durable() per 4096
  sync-appends         appends that block the thread: appendSync and the like
  open-loop            latency of appends at fixed rates, the JavaScript thread idle and busy
  cpu                  processor time per append, and delay of the event loop
  busy                 appends with the JavaScript thread busy, and with a busy thread on the CPU of the disk's interrupts
  blobs                reads and writes of a blob, blobs made and synced, beside fio and node:fs
  whole-log            opening, verifying and replaying a long log, beside fio and the same bytes in memory
  delayed-flush        appends on a device with 1 ms added to each flush (root, nbdkit, nbdfuse)
  targets              what ringbolt is aimed at, row by row, and whether it holds here

What is measured:
  --only LIST          contenders, comma-separated (default: all):
                       ${NAMES.slice(0, 5).join(', ')},
                       ${NAMES.slice(5).join(', ')}
  --outstanding LIST   operations outstanding at a time (default: ${DEFAULTS.outstanding}; targets and --full have their own)
  --bytes LIST         sizes of records (default: ${DEFAULTS.bytes})
  --rates LIST         open-loop: appends a second (default: ${DEFAULTS.rates})
  --works LIST         blobs: what to do (default: all):
                       ${BLOB_WORKS.split(',').slice(0, 4).join(', ')},
                       ${BLOB_WORKS.split(',').slice(4).join(', ')}
  --size MiB           blobs: size of the blob (default: ${DEFAULTS.size})
  --records N          whole-log: records of 100 B in the long log (default: ${DEFAULTS.records}; targets: 20000000)
  --segments N         whole-log: segments in the log of many small ones (default: ${DEFAULTS.segments})
  --match TEXT         only what has this in its name (targets: in its row)
  --full               every depth and size: ${FULL.outstanding};
                       ${FULL.bytes}

How:
  --rounds N           rounds, each with every contender once (default: ${DEFAULTS.rounds})
  --seconds S          length of one measurement (default: ${DEFAULTS.seconds})
  --quick              a short run to see that everything works; its figures mean nothing
  --directory DIR      where to write; put it on the disk you mean (default: bench/results)
  --json               print the report as JSON instead of tables
  -h, --help           show this

Peers come from npm, into bench/node_modules, when they are first asked for; who cannot be had here is named and left out.
The report also goes to bench/results/, as JSON and as a page with charts.`

const text = { type: 'string' }
const flag = { type: 'boolean', default: false }
const OPTIONS = {
  ...Object.fromEntries(Object.keys(DEFAULTS).map(name => [name, text])),
  only: text,
  works: { type: 'string', default: BLOB_WORKS },
  match: { type: 'string', default: '' },
  directory: { type: 'string', default: RESULTS },
  full: flag,
  quick: flag,
  json: flag,
  help: { ...flag, short: 'h' },
}

/** A number above zero. */
function positive(option, value, isValid = Number.isSafeInteger) {
  const number = Number(value)
  if (!(number > 0 && isValid(number))) throw new RangeError(`--${option}: "${value}" will not do`)
  return number
}
const positives = (option, list) => list.split(',').map(value => positive(option, value))

/** Some of the names there are, in their order. */
function chosen(what, told, names) {
  for (const name of told) {
    if (!names.includes(name)) throw new RangeError(`${what}: no "${name}"; there are ${names.join(', ')}`)
  }
  return names.filter(name => told.includes(name))
}

function read(args) {
  const { values, positionals } = parseArgs({ args, options: OPTIONS, allowPositionals: true })
  const suites =
    positionals.length === 0 ? ['appends'] : positionals.includes('all') ? SUITES.slice(0, -1) : positionals
  // The log of which the aims speak has 2 GiB.
  const aimed = suites.includes('targets') ? { records: '20000000' } : {}
  const told = { ...DEFAULTS, ...aimed, ...(values.full && FULL), ...(values.quick && QUICK), ...values }
  return {
    ...values,
    suites: chosen('suites', suites, SUITES),
    contenders: chosen('--only', values.only?.split(',') ?? NAMES, NAMES),
    works: chosen('--works', values.works.split(','), BLOB_WORKS.split(',')),
    rounds: positive('rounds', told.rounds),
    seconds: positive('seconds', told.seconds, Number.isFinite),
    outstanding: positives('outstanding', told.outstanding),
    bytes: positives('bytes', told.bytes),
    rates: positives('rates', told.rates),
    size: positive('size', told.size) * MiB,
    records: positive('records', told.records),
    segments: positive('segments', told.segments),
    directory: resolve(values.directory),
  }
}

/** Measure one suite, showing each case as it is done. */
async function runSuite(name, context, conditions) {
  const { options } = context
  const say = options.json ? () => {} : console.log
  // Loaded once something is to be measured: help needs no build.
  const suite = await import(`./suites/${name}.mjs`)
  say(`\n── ${name}: ${suite.what}`)
  const started = new Date().toISOString()
  const results = []
  const skipped = []
  for await (const its of suite.cases(context)) {
    if (its.skipped !== undefined) {
      skipped.push(its)
      console.error(`\n${its.skipped}: skipped: ${its.reason}`)
      continue
    }
    // The rows of the aims have names of their own, by which they were chosen.
    if (suite.conclude === undefined && !nameOf(its).includes(options.match)) continue
    const result = { ...(await runCase(its, options.rounds)), key: its.key }
    results.push(result)
    if (!options.json) print.case(result)
  }
  const aims = suite.conclude?.(results, context)
  if (aims !== undefined && !options.json) print.aims(aims)
  const report = { name, started, conditions, options, results, skipped, aims }
  const path = `${RESULTS}/${name}-${started.replaceAll(':', '-')}`
  writeFileSync(`${path}.json`, `${JSON.stringify(report, null, 2)}\n`)
  writeFileSync(`${path}.html`, page(report))
  say(`\nWritten to ${path}.json and .html`)
  return report
}

let options
try {
  options = read(process.argv.slice(2))
} catch (error) {
  console.error(`${error.message}\n\n${HELP}`)
  process.exit(2)
}
if (options.help) console.log(HELP)
else {
  for (const directory of [RESULTS, options.directory]) mkdirSync(directory, { recursive: true })
  install(packagesOf(options.contenders))
  const conditions = { ...machine(), disk: diskOf(options.directory), fio: hasFio() }
  if (!options.json) {
    console.log(describe(conditions))
    console.log(
      `${options.rounds} rounds of ${options.seconds} s${options.quick ? ', to see that it works' : ''}`,
    )
  }
  if (!conditions.fio) console.error('fio is not installed: the limit of the disk is not measured')
  const ours = OURS.filter(name => options.contenders.includes(name))
  if (ours.length === 0 || !options.contenders.some(name => !isOurs(name)))
    console.error('without one of ours and one of the others there are no ratios')
  const context = new Context(options)
  const reports = []
  try {
    for (const name of options.suites) reports.push(await runSuite(name, context, conditions))
  } finally {
    context.removeLasting()
  }
  if (options.json)
    process.stdout.write(`${JSON.stringify(reports.length === 1 ? reports[0] : reports, null, 2)}\n`)
}
