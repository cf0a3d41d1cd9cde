/**
 * `npm run check:nodes [-- VERSION …]`: the tests of how ringbolt lives and ends with a process, on each line of Node that
 * it supports, with each backend. The addon is built once: Node-API is the same for all. npm's `node` package brings the
 * programs.
 */

import { parseArgs, stripVTControlCharacters } from 'node:util'

import { main, run, StepError } from './run.mjs'
import { setup } from './setup.mjs'
import { table } from './table.mjs'

const LINES = ['20', '22', '24', '26']
const BACKENDS = ['io_uring', 'threads']

/** What may differ between lines, by the files and the names of the tests that show it. */
const CASES = {
  exit: [['processes', 'lifecycle', 'blob-lifecycle'], 'exit|exception|rejection|sigterm|blocked|alive'],
  worker: [['lifecycle', 'blob-lifecycle'], 'worker|end_that_would_not_wait'],
  gc: [['lifecycle', 'blob-collected'], 'collect'],
  fork: [['processes'], 'children'],
  backends: [['backends'], '.'],
  behaviour: [['wal', 'key-value-wal', 'blob-data', 'blob-names', 'blob-streams', 'errors'], '.'],
}

/** How many of a case's tests passed, or that it failed. */
async function outcome(line, backend, [files, names]) {
  const tests = files.map(file => `__test__/${file}.test.ts`)
  const args = ['--yes', '--package', `node@${line}`, 'node', 'node_modules/vitest/vitest.mjs', 'run']
  const { status, output } = await run('npx', [...args, ...tests, '--testNamePattern', names], {
    capture: true,
    env: { RINGBOLT_BACKEND: backend },
  })
  const [, passed] = /^\s+Tests .*?(\d+) passed/m.exec(stripVTControlCharacters(output)) ?? []
  if (status === 0 && passed !== undefined) return passed
  return 'FAILED'
}

await main(async () => {
  const { positionals } = parseArgs({ allowPositionals: true })
  for (const line of positionals) {
    if (!LINES.includes(line))
      throw new StepError(`there is no line ${line} here, but ${LINES.join(', ')}`, 2)
  }
  await setup('debug')
  const rows = []
  for (const line of positionals.length > 0 ? positionals : LINES) {
    for (const backend of BACKENDS) {
      const row = [`Node ${line}`, backend]
      for (const name in CASES) row.push(await outcome(line, backend, CASES[name]))
      rows.push(row)
    }
  }
  console.log(`\nTests passed:\n\n${table([['', 'backend', ...Object.keys(CASES)], ...rows])}`)
  if (rows.flat().includes('FAILED')) process.exitCode = 1
})
