/**
 * From a fresh clone to something that runs: packages, the addon, the facade. `npm start`, `npm test` and
 * `npm run bench` begin here. Everything it does is skipped or instant when it is already done.
 *
 * It runs before `npm ci` did, so it imports nothing that is not part of Node.
 *
 *     node scripts/setup.mjs [debug|release]
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

import { isInstalled, main, ROOT, runOrFail, StepError } from './run.mjs'

const NODE_MIN = [20, 19]
const COMPILERS = ['cc', 'gcc', 'clang']

/** @param {'debug' | 'release'} profile Never measure a debug build: a call into it costs several times as much. */
export async function setup(profile) {
  checkMachine()
  if (!packagesAreCurrent()) await runOrFail('npm', ['ci', '--no-audit', '--no-fund'])
  // Always asked, never guessed: cargo knows best what is fresh, and the addon in place may be the other profile's.
  await runOrFail('npm', ['run', '--silent', profile === 'release' ? 'build' : 'build:debug'])
}

/** What no package manager can bring along; each missing thing is named together with what to do about it. */
function checkMachine() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  const missing = []
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    missing.push(`Node.js ${NODE_MIN.join('.')} or newer (this is ${process.versions.node})`)
  }
  if (!isInstalled('cargo', '--version')) {
    missing.push('Rust: install it with rustup, and see that `cargo` is on the PATH')
  }
  // On Windows rustup sees to a linker, and knows where to find it.
  if (process.platform !== 'win32' && !COMPILERS.some(compiler => isInstalled(compiler, '--version'))) {
    missing.push(
      'a C compiler, which Rust links with: on Debian and Ubuntu `apt-get install build-essential`, on macOS ' +
        '`xcode-select --install`',
    )
  }
  if (missing.length > 0) {
    throw new StepError(
      `ringbolt is built from source here and needs:\n${missing.map(what => `  - ${what}`).join('\n')}`,
    )
  }
}

/**
 * Whether node_modules holds what package-lock.json asks for. npm keeps its own account of what it installed;
 * packages for other systems are optional and not in it.
 */
function packagesAreCurrent() {
  const read = (...path) => JSON.parse(readFileSync(join(ROOT, ...path), 'utf8')).packages
  let wanted
  let installed
  try {
    wanted = read('package-lock.json')
    installed = read('node_modules', '.package-lock.json')
  } catch {
    return false // One of them is missing or not whole: npm ci says which, or puts it right.
  }
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '' || entry.link) return true
    const present = installed[path]
    return present === undefined ? entry.optional === true : present.version === entry.version
  })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(async () => {
    const profile = process.argv[2] ?? 'debug'
    if (profile !== 'debug' && profile !== 'release')
      throw new StepError('usage: node scripts/setup.mjs [debug|release]', 2)
    await setup(profile)
  })
}
