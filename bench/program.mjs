/** What every benchmark in this folder does the same: its arguments, its report, the page cache. */

import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { describeDisk } from '../scripts/machine.mjs'

const results = fileURLToPath(new URL('results', import.meta.url))

/** What every benchmark can be told. */
const COMMON_OPTIONS = {
  directory: { type: 'string', default: results },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
}

/** How the help of a benchmark ends. */
export const COMMON_HELP = `  --directory DIR      where to write; put it on the disk you mean (default: bench/results)
  --json               print the results as JSON instead of a table
  -h, --help           show this

The results also go to bench/results/ as JSON.`

/**
 * Run a benchmark as its arguments say. `read` makes of the options' texts what `run` is given; it throws where they
 * will not do, and then the help is shown instead.
 */
export async function program({ help, options, read, run }) {
  let told
  try {
    const { values } = parseArgs({ options: { ...options, ...COMMON_OPTIONS } })
    told = { ...values, ...(await read(values)), directory: resolve(values.directory) }
  } catch (error) {
    console.error(`${error.message}\n\n${help}`)
    process.exit(2)
  }
  if (told.help) {
    console.log(help)
    return
  }
  mkdirSync(told.directory, { recursive: true })
  await run(told)
}

/** A number above zero. */
export function positive(option, text, isValid = Number.isSafeInteger) {
  const value = Number(text)
  if (!(value > 0 && isValid(value))) throw new RangeError(`--${option}: "${text}" will not do`)
  return value
}

/** Numbers above zero, comma-separated. */
export const positives = (option, text) => text.split(',').map(part => positive(option, part))

/** Some of the names there are, comma-separated; all where nothing is said. */
export function chosen(option, text, names) {
  const only = text?.split(',') ?? names
  for (const name of only) {
    if (!names.includes(name))
      throw new RangeError(`--${option}: no "${name}"; there are ${names.join(', ')}`)
  }
  return names.filter(name => only.includes(name))
}

/** In words. */
export const describe = ({ kernel, cpu, node, disk }) =>
  `${kernel}, ${cpu}, Node ${node}, disk: ${describeDisk(disk)}`

/** What is being measured, for who watches; nothing ends it. */
export function progress(text = '') {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}

/** Keep a report under its name and the time it began at, and show it: as JSON, or as `print` does. */
export function show(name, report, { json, print }) {
  const text = `${JSON.stringify(report, null, 2)}\n`
  mkdirSync(results, { recursive: true })
  const path = `${results}/${name}-${report.started.replaceAll(':', '-')}.json`
  writeFileSync(path, text)
  if (json) {
    process.stdout.write(text)
    return
  }
  print(report)
  console.log(`\nWritten to ${path}`)
}

/** The middle one, or what lies between the two. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Drop what the page cache holds, names too; `false` where that is not for us to do. */
export function dropCache() {
  try {
    execFileSync('sync')
    writeFileSync('/proc/sys/vm/drop_caches', '3')
    return true
  } catch {
    return false
  }
}
