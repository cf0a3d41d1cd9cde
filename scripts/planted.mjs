/**
 * `npm run planted`: which bug, planted on purpose, is caught by which test. Each test keeps its promise with the code
 * as it is and is run again with the bug switched on, where it must fail for the right reason; so a line here was
 * seen, not written down.
 */

import { spawnSync } from 'node:child_process'

import { main, ROOT, StepError } from './run.mjs'
import { table } from './table.mjs'

const SUITES = [
  { log: 'Wal', target: 'planted' },
  { log: 'KeyValueWal', target: 'key_value' },
  { log: 'BlobStore', target: 'blob_crash' },
]

/** The table that a test binary prints, and the tests that passed. */
function runSuite({ log, target }) {
  const args = ['test', '-p', 'ringbolt-core', '--features', 'planted', '--test', target, '--']
  const { status, stdout, stderr } = spawnSync('cargo', [...args, 'planted', 'caught', '--nocapture'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  if (status !== 0) throw new StepError(`${stdout}${stderr}\nA planted bug was not caught.`, status ?? 1)
  // A test's own line may begin with what another printed meanwhile.
  const passed = new Set([...stdout.matchAll(/test (?:\w+::)*(\w+) \.\.\. /g)].map(([, name]) => name))
  const rows = [...stdout.matchAll(/(Log|Disk)\((\w+)\) → (\w+) \((\w+)\)/g)]
  if (rows.length === 0) throw new StepError(`${target} printed no table`)
  return rows.map(([, where, bug, test, scenario]) => {
    if (!passed.has(test)) throw new StepError(`${test} was not run`)
    return [log, where === 'Disk' ? `${bug} (below the waist)` : bug, test, scenario]
  })
}

await main(() => {
  const rows = SUITES.flatMap(runSuite)
  console.log(table([['log', 'planted bug', 'caught by', 'scenario'], ...rows], { align: 'left' }))
  console.log(`\n${rows.length} bugs planted, ${rows.length} caught.`)
})
