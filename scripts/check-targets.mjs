/**
 * `npm run check:targets [-- TARGET …]`: the crates compile for every system that ringbolt is built for, as far as one
 * Linux machine can say. It checks types and `cfg`s, lints included; it links nothing and runs nothing.
 *
 * No other target's standard library comes with the toolchain here, so it is built from source for each. That source,
 * and a compiler of its very version, are Debian's: five packages (136 MB), taken apart under `target/`, not installed.
 * For x86-64 Debian and what derives from it; other machines have `rustup target add` and `cargo check --target`.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { isInstalled, main, ROOT, run, runOrFail, StepError } from './run.mjs'
import { table } from './table.mjs'

const TARGETS = [
  'x86_64-pc-windows-msvc',
  'aarch64-pc-windows-msvc',
  'x86_64-apple-darwin',
  'aarch64-apple-darwin',
  'x86_64-unknown-linux-musl',
  'aarch64-unknown-linux-musl',
  'aarch64-unknown-linux-gnu',
]

/** What is checked of each: the crates as they are shipped, and once more without the ring disks. */
const BUILDS = {
  crates: ['--workspace'],
  'no ring': ['--package', 'ringbolt-core', '--no-default-features'],
}

/** The compiler, and by what names the packages it depends on are known; what else it wants only a linker needs. */
const COMPILER = 'rustc-web'
const SOURCE = 'rust-web-src'
const NEEDED = /^(libstd-rust-web|libllvm)/

const FOLDER = join(ROOT, 'target', 'check-targets')
const SYSTEM = join(FOLDER, 'system')

/** Each thing that is missing, together with what to do about it. */
function checkMachine() {
  const missing = ['apt-get', 'apt-cache', 'dpkg'].filter(program => !isInstalled(program, '--version'))
  if (process.platform === 'linux' && process.arch === 'x64' && missing.length === 0) return
  throw new StepError(
    `The compiler for this comes from Debian's packages for x86-64 Linux, and this is ${process.platform} ${process.arch}` +
      `${missing.length > 0 ? ` without ${missing.join(', ')}` : ''}.\n` +
      'Elsewhere: `rustup target add TARGET`, then `cargo check --workspace --target TARGET`.',
  )
}

/** The names of the packages: the compiler's, its libraries', the source's. Their versions go with the release. */
function packages() {
  const names = new Set([COMPILER, SOURCE])
  for (const name of names) {
    const { status, stdout } = spawnSync('apt-cache', ['--no-all-versions', 'show', name], {
      encoding: 'utf8',
    })
    if (status !== 0) {
      throw new StepError(
        `There is no package ${name} here. Try \`apt-get update\`; Debian 12 has it in bookworm-security.`,
      )
    }
    const [, depends = ''] = /^Depends: (.*)$/m.exec(stdout) ?? []
    for (const [needed] of depends.matchAll(/[^\s,|()]+/g)) if (NEEDED.test(needed)) names.add(needed)
  }
  return [...names]
}

/** The compiler that was taken out of the packages, as a program. */
async function compiler() {
  const rustc = join(FOLDER, 'rustc')
  if (existsSync(rustc)) return rustc
  const archives = join(FOLDER, 'packages')
  rmSync(FOLDER, { recursive: true, force: true })
  mkdirSync(archives, { recursive: true })
  await runOrFail('apt-get', ['download', ...packages()], { cwd: archives })
  for (const archive of readdirSync(archives))
    await runOrFail('dpkg', ['-x', join(archives, archive), SYSTEM])
  rmSync(archives, { recursive: true })

  // Last, as it says that the rest is whole.
  const libraries = join(SYSTEM, 'usr', 'lib', 'x86_64-linux-gnu')
  const script = `#!/bin/sh\nLD_LIBRARY_PATH='${libraries}' exec '${join(SYSTEM, 'usr', 'bin', 'rustc')}' --sysroot '${join(SYSTEM, 'usr')}' "$@"\n`
  writeFileSync(rustc, script, { mode: 0o755 })
  return rustc
}

/** Whether `args` check on `target`. */
async function check(rustc, target, args) {
  const { status } = await run(
    'cargo',
    [
      'check',
      ...args,
      '--target',
      target,
      '-Zbuild-std=std,panic_unwind',
      '--target-dir',
      join(FOLDER, 'build'),
    ],
    // A warning is a failure: what nothing uses on one system shows only there.
    { env: { RUSTC: rustc, RUSTC_BOOTSTRAP: '1', RUSTC_WRAPPER: '', RUSTFLAGS: '-Dwarnings' } },
  )
  return status === 0
}

await main(async () => {
  const { positionals } = parseArgs({ allowPositionals: true })
  checkMachine()
  const rustc = await compiler()
  const rows = []
  for (const target of positionals.length > 0 ? positionals : TARGETS) {
    const row = [target]
    for (const build in BUILDS) {
      console.log(`\n${target}: ${build}`)
      row.push((await check(rustc, target, BUILDS[build])) ? 'compiles' : 'FAILED')
    }
    rows.push(row)
  }
  console.log(`\n${table([['', ...Object.keys(BUILDS)], ...rows])}`)
  if (rows.flat().includes('FAILED')) process.exitCode = 1
})
