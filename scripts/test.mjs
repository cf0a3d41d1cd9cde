/**
 * `npm test`: build, then every test that needs nothing special: Rust with debug assertions on, Rust with them
 * off (what an assertion would have caught must not be what keeps the promise), then vitest on the backend that this
 * machine has, and on threads.
 *
 * `npm run test:long`: what takes longer instead: Rust's ignored tests, and those files of vitest's that say how much
 * longer they can be, and what the next one runs.
 *
 * `npm run test:without-ring`: Rust and vitest on a build that has no ring in it, which is what other systems have; of
 * vitest's files those that call into it.
 *
 * All of it runs even when a part fails, and the last line counts: `N passed, N failed`.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs, stripVTControlCharacters } from 'node:util'

import { isInstalled, main, ROOT, run, runOrFail } from './run.mjs'
import { setup } from './setup.mjs'

const RUST = ['--workspace', '--features', 'ringbolt-disk/sim,ringbolt-core/planted']

/** Where `npm run build:without-ring` puts the addon. */
const WITHOUT_RING = join(ROOT, 'target', 'without-ring', 'ringbolt.node')

/** A run of a test runner: what to call it, how to start it. */
function rust(name, { profile = 'test', ignored = false, ring = true } = {}) {
  const what = ring ? RUST : [...RUST, '--no-default-features']
  if (isInstalled('cargo', 'nextest', '--version')) {
    const args = ['nextest', 'run', ...what, '--no-fail-fast', '--no-tests', 'pass', '--status-level', 'fail']
    if (profile !== 'test') args.push('--cargo-profile', profile)
    if (ignored) args.push('--run-ignored', 'only')
    return { name, program: 'cargo', args }
  }
  const args = ['test', ...what, '--lib', '--bins', '--tests', '--no-fail-fast']
  if (profile !== 'test') args.push('--profile', profile)
  if (ignored) args.push('--', '--ignored')
  return { name, program: 'cargo', args }
}

/** A run of vitest: of these files, or of all but some. */
const vitest = (name, { files = [], without = [], env = {} } = {}) => ({
  name,
  program: 'npx',
  args: ['--no-install', 'vitest', 'run', ...files, ...without.map(file => `--exclude=${file}`)],
  env,
})

/** Those that look at the repository and at packages, with whichever addon is in place: another build changes nothing. */
const NO_BACKEND = ['installed', 'release', 'tidy', 'workflows'].map(name => `__test__/${name}.test.ts`)

/** What {@link vitest} gets for a build without the ring: where it is, and no word of io_uring being required. */
const withoutRing = () => ({
  RINGBOLT_BINDING: WITHOUT_RING,
  RINGBOLT_REQUIRE: (process.env.RINGBOLT_REQUIRE ?? '')
    .split(',')
    .filter(name => name !== 'io_uring')
    .join(','),
})

/** The files that are longer where this is set. */
function longFiles() {
  const directory = join(ROOT, '__test__')
  const isLong = file => readFileSync(join(directory, file), 'utf8').includes('RINGBOLT_LONG')
  return readdirSync(directory)
    .filter(file => file.endsWith('.test.ts') && isLong(file))
    .map(file => join('__test__', file))
}

const SHORT = () => [
  rust('Rust, debug assertions on'),
  { name: "Rust, the documentation's examples", program: 'cargo', args: ['test', ...RUST, '--doc'] },
  rust('Rust, debug assertions off', { profile: 'unasserted' }),
  vitest('TypeScript'),
  vitest('TypeScript, on threads', { env: { RINGBOLT_BACKEND: 'threads' } }),
]

const LONG = () => [
  rust('Rust, long', { ignored: true }),
  vitest('TypeScript, long', { files: longFiles(), env: { RINGBOLT_LONG: '1' } }),
]

const RINGLESS = () => [
  rust('Rust, without the ring', { ring: false }),
  vitest('TypeScript, without the ring', { without: NO_BACKEND, env: withoutRing() }),
]

/** What a test runner's output says about how many tests passed and failed. */
function count(output) {
  let passed = 0
  let failed = 0
  for (const line of stripVTControlCharacters(output).split('\n')) {
    const summary =
      /^test result: \w+\. (?<passed>\d+) passed; (?<failed>\d+) failed;/.exec(line) ?? // cargo test, one a binary
      /^\s+Summary \[.*\] +\d+(?:\/\d+)? tests? run: (?<rest>.*)$/.exec(line) ?? // cargo nextest
      /^\s+Tests +(?<rest>.*)$/.exec(line) // vitest
    if (summary === null) continue
    const { rest } = summary.groups
    passed += Number(summary.groups.passed ?? /(\d+) passed/.exec(rest)?.[1] ?? 0)
    failed += Number(summary.groups.failed ?? 0)
    for (const [, failures] of rest?.matchAll(/(\d+) (?:failed|timed out|exec failed)/g) ?? [])
      failed += Number(failures)
  }
  return { passed, failed }
}

await main(async () => {
  const { values } = parseArgs({
    options: {
      long: { type: 'boolean', default: false },
      'without-ring': { type: 'boolean', default: false },
    },
  })
  await setup('debug')
  const ringless = values.long || values['without-ring']
  if (ringless) await runOrFail('npm', ['run', '--silent', 'build:without-ring'])
  const runs = []
  if (values.long) runs.push(...LONG())
  if (ringless) runs.push(...RINGLESS())
  if (runs.length === 0) runs.push(...SHORT())

  const colors = process.stdout.isTTY ? { CARGO_TERM_COLOR: 'always', FORCE_COLOR: '1' } : {}
  const results = []
  for (const { name, program, args, env } of runs) {
    console.log(`\n── ${name}`)
    const started = performance.now()
    const { status, output } = await run(program, args, { capture: true, env: { ...colors, ...env } })
    const { passed, failed } = count(output)
    // A runner that failed without a failed test (a compile error, a crash) is a failure too.
    results.push({
      name,
      passed,
      failed: failed > 0 || status === 0 ? failed : 1,
      seconds: (performance.now() - started) / 1000,
    })
  }

  console.log()
  for (const { name, passed, failed, seconds } of results) {
    console.log(
      `${failed > 0 ? '✗' : '✓'} ${name}: ${passed} passed, ${failed} failed in ${seconds.toFixed(0)} s`,
    )
  }
  const sum = key => results.reduce((total, result) => total + result[key], 0)
  console.log(`${sum('passed')} passed, ${sum('failed')} failed`)
  if (sum('failed') > 0) process.exitCode = 1
})
