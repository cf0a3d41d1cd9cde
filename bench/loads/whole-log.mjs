/** What takes longer the longer a log is; and what is done to the same bytes in memory, to compare with. */

import { readFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'

import { Wal } from '../ringbolt.mjs'

const RECORD_BYTES = 100
const MiB = 1024 * 1024
const NEWLINE = 10

/** A log of so many records; its segments. */
export async function fill(directory, records) {
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
export async function fillSegments(directory, { count, segmentBytes, recordsEach }) {
  const wal = await Wal.open(directory, { segmentBytes })
  const record = Buffer.alloc(RECORD_BYTES)
  for (let segment = 0; segment < count; segment += 1) {
    for (let index = 0; index < recordsEach; index += 1) wal.enqueue(record)
    await wal.rotate()
  }
  await wal.close()
}

/** How long it takes, and by how much the resident set grew meanwhile at most. */
async function timed(work) {
  const before = process.memoryUsage.rss()
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss())
  }, 20)
  const started = performance.now()
  await work()
  const seconds = (performance.now() - started) / 1000
  clearInterval(timer)
  return { seconds, grownBytes: Math.max(0, most - before) }
}

const perSecond = ({ seconds, grownBytes }, { bytes, records }) => ({
  seconds,
  grownBytes,
  bytesPerSecond: bytes / seconds,
  recordsPerSecond: records / seconds,
})

const open = check => async directory => {
  const wal = await Wal.open(directory, { check })
  await wal.close()
}

/** Every record must have come, and whole: a replay that stops early would be a fast one. */
function insist(records, { expected }) {
  if (records !== expected) throw new Error(`${records} records came, not ${expected}`)
}

const WORKS = {
  'open-checked': open('all'),
  'open-tail': open('tail'),
  async verify(directory, expected) {
    const report = await Wal.verify(directory)
    if (!report.ok) throw new Error(`the log is ${report.verdict}`)
    insist(report.records, expected)
  },
  async read(directory, expected) {
    let bytes = 0
    for await (const { data } of Wal.read(directory)) bytes += data.length
    insist(bytes / RECORD_BYTES, expected)
  },
  async 'read-batches'(directory, expected) {
    const wal = await Wal.open(directory)
    let bytes = 0
    for await (const batch of wal.readBatches()) for (const { data } of batch) bytes += data.length
    await wal.close()
    insist(bytes / RECORD_BYTES, expected)
  },
}

const onLog =
  name =>
  async ({ directory, bytes, records }) =>
    perSecond(await timed(() => WORKS[name](directory, { expected: records })), { bytes, records })

/** The same files, read into memory beforehand, checksummed on one core. */
async function checksum({ paths, bytes, records }) {
  const segments = paths.map(path => readFileSync(path))
  crc32(segments[0])
  const figures = await timed(() => {
    for (const segment of segments) crc32(segment)
  })
  return perSecond(figures, { bytes, records })
}

/** As many records of the same size as lines in memory, cut at their ends. */
async function split({ bytes, records }) {
  const line = Buffer.alloc(RECORD_BYTES + 1, 'durable ')
  line[RECORD_BYTES] = NEWLINE
  const linesEach = Math.floor((64 * MiB) / line.length)
  const chunks = []
  for (let left = records; left > 0; left -= linesEach)
    chunks.push(Buffer.alloc(Math.min(left, linesEach) * line.length, line))
  let total = 0
  const figures = await timed(() => {
    for (const chunk of chunks) {
      for (let start = 0, end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
        total += chunk.subarray(start, end).length
        start = end + 1
      }
    }
  })
  insist(total / RECORD_BYTES, { expected: records })
  return perSecond(figures, { bytes, records })
}

export const LOADS = {
  ...Object.fromEntries(Object.keys(WORKS).map(name => [`log-${name}`, onLog(name)])),
  'log-checksum': checksum,
  'log-split': split,
}
