/**
 * The process that will be killed. It appends the input to a new log and tells its parent, through descriptor 3,
 * the LSN of each append once its promise has resolved, and how many nanoseconds that took: two doubles each.
 * An LSN of 0 comes first: the log is open.
 *
 *     node child.mjs DIRECTORY [FILE]
 */

import { writeSync } from 'node:fs'

import { Wal } from 'ringbolt'

import { appendAll } from './append-all.mjs'
import { openSource, records } from './source.mjs'

const REPORTS = 3
const [directory, file] = process.argv.slice(2)

// The parent holds the other end of our input: when it is gone, there is nobody to append for.
process.stdin.on('end', () => process.exit(1)).resume()

let acknowledged = [0, 0]
function report() {
  const bytes = Buffer.from(Float64Array.from(acknowledged).buffer)
  acknowledged = []
  for (let at = 0; at < bytes.length; ) at += writeSync(REPORTS, bytes, at)
}

const wal = await Wal.open(directory)
report()
await appendAll(wal, records(openSource(file)), (lsn, nanoseconds) => {
  // A batch's promises resolve together: one report for all of them, right behind the last.
  if (acknowledged.length === 0) process.nextTick(report)
  acknowledged.push(lsn, nanoseconds)
})
// Done before the parent struck. It will; the log is left open for it.
