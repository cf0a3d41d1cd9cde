/**
 * The main job: a file's lines become records of a log, by a process that is killed half way, and come back.
 *
 *     npm start            every type declaration in node_modules
 *     npm start -- FILE    your own file
 *
 * 1. A child process appends the lines as fast as the log takes them and reports what was acknowledged.
 * 2. Half way it is killed: SIGKILL, in the middle of whatever it was doing.
 * 3. The log is reopened. Every acknowledged record must be there, and be what was appended.
 * 4. The rest is appended, the log closed, reopened and replayed: it must be the file, byte for byte.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createHistogram } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { describeDisk, diskOf } from '../../scripts/machine.mjs'
import { table } from '../../scripts/table.mjs'
import { appendAll, OUTSTANDING_MAX } from './append-all.mjs'
import { chunks, openSource, records, SourceError } from './source.mjs'

const HELP = `Append a file's lines to a log, kill the process that does it half way, and get everything back.

Usage: npm start -- [OPTIONS] [FILE]

  FILE                 what to append; any bytes will do (default: all type declarations in node_modules)

  --directory DIR      where to make the log's directory (default: target/main-job)
  --keep               leave the log in place at the end
  -h, --help           show this

Exit status: 0 nothing was lost, 1 a record was lost or differs, 2 the arguments or the file are of no use.`

/** A dead process's last writes may still be under way, and its locks with them: wait as long as a slow disk takes. */
const REOPEN = { create: false, lockTimeoutMs: 30_000 }

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      directory: {
        type: 'string',
        default: fileURLToPath(new URL('../../target/main-job', import.meta.url)),
      },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (positionals.length > 1) throw new TypeError(`one file at a time, not ${positionals.length}`)
  return { ...values, file: positionals[0] === undefined ? undefined : resolve(positionals[0]) }
}

let bar
async function withBar(label, total, body) {
  const { default: cliProgress } = await import('cli-progress')
  bar = new cliProgress.SingleBar(
    {
      format: `  ${label.padEnd(10)} {bar} {percentage}%  {value} of {total} records  {duration_formatted}`,
      barsize: 30,
      noTTYOutput: true,
      notTTYSchedule: 1000,
      hideCursor: true,
      stopOnComplete: false,
    },
    cliProgress.Presets.shades_classic,
  )
  bar.start(total, 0)
  try {
    return await body(value => bar.update(value))
  } finally {
    bar.stop()
    bar = undefined
  }
}

let child
/** Run the child until half of the records are acknowledged, then kill it. What it had reported by then counts. */
async function appendAndKill({ directory, file, total, acknowledged, latency, progress }) {
  const script = fileURLToPath(new URL('child.mjs', import.meta.url))
  child = spawn(process.execPath, [script, directory, ...(file === undefined ? [] : [file])], {
    stdio: ['pipe', 'inherit', 'inherit', 'pipe'],
  })
  const killAt = Math.ceil(total / 2)
  let count = 0
  let first
  let last
  let rest = Buffer.alloc(0)
  child.stdio[3].on('data', chunk => {
    last = performance.now()
    first ??= last
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const whole = bytes.length - (bytes.length % 16)
    for (let at = 0; at < whole; at += 16) {
      const lsn = bytes.readDoubleLE(at)
      if (lsn === 0 && count === 0) continue
      if (!(lsn >= 1 && lsn <= total) || acknowledged[lsn] === 1)
        throw new Error(`LSN ${lsn} was acknowledged, which cannot be`)
      acknowledged[lsn] = 1
      latency.record(Math.max(1, bytes.readDoubleLE(at + 8)))
      count += 1
    }
    rest = bytes.subarray(whole)
    progress(count)
    if (count >= killAt) child?.kill('SIGKILL')
  })
  // Not before the pipe is empty: what was acknowledged before the end was acknowledged.
  const [status, signal] = await once(child, 'close')
  child = undefined
  if (signal !== 'SIGKILL') throw new Error(`the child ended by itself, with ${signal ?? `status ${status}`}`)
  return { count, seconds: (last - first) / 1000 }
}

/** Read what recovery left, beside what was appended. */
async function compareRecords(wal, source, acknowledged) {
  const found = { recovered: 0, intact: 0, differing: 0 }
  const expected = records(source)
  for await (const { lsn, data } of wal.read()) {
    found.recovered += 1
    const { value } = await expected.next()
    if (lsn !== found.recovered || value === undefined || value.compare(data) !== 0) found.differing += 1
    else if (acknowledged[lsn] === 1) found.intact += 1
  }
  await expected.return()
  return found
}

/** Replay the log beside the file itself, not its records: whether the lines were cut right is part of the question. */
async function compareBytes(wal, source, progress) {
  const input = chunks(source)
  let chunk = Buffer.alloc(0)
  let offset = 0
  let count = 0
  for await (const { lsn, data } of wal.read()) {
    count += 1
    if (lsn !== count) throw new Error(`record ${count} came back as LSN ${lsn}`)
    for (let at = 0; at < data.length; ) {
      if (chunk.length === 0) {
        const { value } = await input.next()
        if (value === undefined) throw new Error(`the log goes on after the file's end, at byte ${offset}`)
        chunk = value
      }
      const length = Math.min(chunk.length, data.length - at)
      if (chunk.compare(data, at, at + length, 0, length) !== 0) {
        throw new Error(`record ${lsn} differs from the file between bytes ${offset} and ${offset + length}`)
      }
      chunk = chunk.subarray(length)
      at += length
      offset += length
    }
    if (count % 1000 === 0) progress(count)
  }
  progress(count)
  if (chunk.length > 0 || !(await input.next()).done)
    throw new Error(`the log ends before the file does, at byte ${offset}`)
  return count
}

const integer = value => Math.round(value).toLocaleString('en')
const milliseconds = nanoseconds => `${(nanoseconds / 1e6).toPrecision(3)} ms`

async function run({ file, directory: parent, keep }) {
  const { Wal } = await import('ringbolt')
  const source = openSource(file)
  let total = 0
  for await (const _ of records(source)) total += 1

  mkdirSync(parent, { recursive: true })
  const directory = mkdtempSync(join(parent, 'log-'))
  const remove = () => rmSync(directory, { recursive: true, force: true })
  process.once('SIGINT', () => {
    bar?.stop()
    child?.kill('SIGKILL')
    remove()
    process.exit(130)
  })

  console.log(`Appending ${source.name}: ${integer(total)} records, ${integer(source.bytes)} bytes.`)
  const tally = { acknowledged: 0, recovered: 0, lost: 0 }
  let failure
  try {
    await appendKillAndReplay({ Wal, source, file, total, directory, tally })
  } catch (error) {
    failure = error
    // Whatever ended it: nobody shall read success out of the last line.
    if (tally.lost === 0) tally.lost = Math.max(1, tally.acknowledged - tally.recovered)
  }
  if (failure !== undefined) console.error('\n%s\nThe log is left in %s', failure, directory)
  else if (keep) console.log(`\nThe log is in ${directory}`)
  else remove()
  console.log(`\nacknowledged ${tally.acknowledged}, recovered ${tally.recovered}, lost ${tally.lost}`)
  return failure === undefined ? 0 : 1
}

/** All of it, counted in `tally` as it goes. Throws where the log is not what was appended. */
async function appendKillAndReplay({ Wal, source, file, total, directory, tally }) {
  const acknowledged = new Uint8Array(total + 1)
  const latency = createHistogram({ lowest: 1, highest: 3_600_000_000_000, figures: 3 })
  const first = await withBar('appending', total, progress =>
    appendAndKill({ directory, file, total, acknowledged, latency, progress }),
  )
  tally.acknowledged = first.count
  console.log(`Killed the child with SIGKILL; it had reported ${integer(first.count)} records as durable.`)

  let wal = await Wal.open(directory, REOPEN)
  const { recovery } = wal
  console.log('Reopened. Recovery found:')
  console.log(
    table(
      [
        ['records', integer(recovery.records)],
        ['segments', integer(recovery.segments)],
        [
          'torn tail',
          recovery.tornAt === undefined
            ? 'none'
            : `${integer(recovery.tornBytes)} bytes at segment ${recovery.tornAt.segment}, offset ${recovery.tornAt.offset}, never acknowledged`,
        ],
        ['clean shutdown', recovery.cleanShutdown ? 'yes' : 'no'],
        ['took', `${recovery.durationMs.toFixed(1)} ms`],
      ],
      { alignLast: 'left' },
    ),
  )

  const found = await compareRecords(wal, source, acknowledged)
  tally.recovered = found.recovered
  tally.lost = first.count - found.intact
  console.log(
    `Every record read again: ${integer(found.intact)} of ${integer(first.count)} acknowledged ones are there and equal, ` +
      `${integer(found.differing)} of all ${integer(found.recovered)} differ.`,
  )
  if (tally.lost > 0 || found.differing > 0) {
    await wal.close()
    throw new Error('what was acknowledged is not what was recovered')
  }

  const started = performance.now()
  await withBar('the rest', total - found.recovered, async progress => {
    let count = 0
    await appendAll(wal, skip(records(source), found.recovered), (_, nanoseconds) => {
      latency.record(Math.max(1, nanoseconds))
      progress(++count)
    })
  })
  const seconds = first.seconds + (performance.now() - started) / 1000
  await wal.close()

  wal = await Wal.open(directory, REOPEN)
  const replayed = await withBar('replaying', total, progress => compareBytes(wal, source, progress))
  if (replayed !== total) throw new Error(`the log has ${replayed} records, the file ${total}`)
  console.log('Closed, reopened, replayed: the log is the file, byte for byte.')
  const appended = first.count + total - found.recovered
  const { backend, backendReason, durability } = wal
  await wal.close()
  console.log()
  console.log(
    table(
      [
        ['records', integer(replayed)],
        ['bytes', integer(source.bytes)],
        [
          'rate',
          `${integer(appended / seconds)} durable appends/s, ${((source.bytes * (appended / total)) / seconds / 1e6).toFixed(1)} MB/s`,
        ],
        [
          'an append',
          `p50 ${milliseconds(latency.percentile(50))}, p99 ${milliseconds(latency.percentile(99))}, with up to ${OUTSTANDING_MAX} outstanding`,
        ],
        ['backend', backendReason === undefined ? backend : `${backend} (${backendReason})`],
        ['durability', durability],
        ['disk', describeDisk(diskOf(directory))],
      ],
      { alignLast: 'left' },
    ),
  )
}

async function* skip(items, count) {
  for await (const item of items) {
    if (count > 0) count -= 1
    else yield item
  }
}

let options
try {
  options = readArguments()
} catch (error) {
  console.error(`${error.message}\n\n${HELP}`)
  process.exit(2)
}
if (options.help) {
  console.log(HELP)
} else {
  try {
    process.exitCode = await run(options)
  } catch (error) {
    console.error(error instanceof SourceError ? error.message : error)
    process.exitCode = error instanceof SourceError ? 2 : 1
  }
}
