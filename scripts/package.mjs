/**
 * `npm run check:package`: what npm would publish, looked at as those who install it meet it. Packs it, then checks what
 * is in it, how its entry resolves (publint, arethetypeswrong), its types from a module of either kind, and that it runs
 * once installed (`__test__/installed.test.ts`, here on the build that is published), and prints the sizes.
 */

import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

import { main, ROOT, runOrFail, StepError } from './run.mjs'
import { setup } from './setup.mjs'
import { table } from './table.mjs'

/** All that belongs into the package: no source but the loader's, no test, no build of this machine, no source map. */
const ALLOWED =
  /^(?:dist\/[\w-]+\.(?:js|d\.ts)|src\/binding\.(?:cjs|d\.cts)|(?:README|CHANGELOG)\.md|LICENSE[-\w]*|package\.json)$/
/** And without these it is none. */
const NEEDED = ['dist/index.js', 'dist/index.d.ts', 'src/binding.cjs', 'src/binding.d.cts', 'LICENSE-MIT']

/**
 * A user's two files, one a module of each kind. `nodenext` because TypeScript's older `node16` knows no `require` of an
 * ES module, which every Node that we support can do.
 */
const USER = {
  'package.json': '{ "name": "user", "private": true }\n',
  'tsconfig.json': `${JSON.stringify({
    compilerOptions: {
      module: 'nodenext',
      target: 'es2023',
      lib: ['es2023', 'esnext.disposable'],
      types: ['node'],
      strict: true,
      noEmit: true,
    },
    files: ['imports.mts', 'requires.cts'],
  })}\n`,
  'imports.mts': `import { Wal, type WalRecord } from 'ringbolt'
export const wal: Promise<Wal> = Wal.open('log')
export type Data = WalRecord['data']
`,
  'requires.cts': `import ringbolt = require('ringbolt')
export const wal: Promise<ringbolt.Wal> = ringbolt.Wal.open('log')
export const code: ringbolt.WalErrorCode = 'ERR_WAL_LOCKED'
`,
}

/** Run a tool that this project brings. */
const tool = (...args) => runOrFail('npx', ['--no-install', ...args])

/** Size for people. */
const size = bytes => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(2)} MB`)

/** A file's size as npm packs it, and as it is. */
function sizesOf(path) {
  const bytes = readFileSync(path)
  return [size(gzipSync(bytes).length), size(bytes.length)]
}

await main(async () => {
  // A debug build is twenty times as large as what is published.
  await setup('release')
  const directory = join(ROOT, 'target', 'package')
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })

  const pack = ['pack', '--json', '--ignore-scripts', `--pack-destination=${directory}`]
  const [{ filename, files, size: packed, unpackedSize }] = JSON.parse(
    execFileSync('npm', pack, { cwd: ROOT, encoding: 'utf8' }),
  )
  const tarball = join(directory, filename)
  const paths = files.map(({ path }) => path)
  const strange = paths.filter(path => !ALLOWED.test(path))
  if (strange.length > 0) throw new StepError(`does not belong into the package: ${strange.join(', ')}`)
  const missing = NEEDED.filter(path => !paths.includes(path))
  if (missing.length > 0) throw new StepError(`is missing from the package: ${missing.join(', ')}`)

  await tool('publint', 'run', tarball, '--strict')
  // One ES module for both: what arethetypeswrong would warn about is what `require` does since Node 20.19, the oldest
  // that is supported. That its types are right there too is seen below. Resolution as before `exports` (`node10`) is no
  // way into a package that needs this Node.
  await tool('attw', tarball, '--profile', 'node16', '--ignore-rules', 'cjs-resolves-to-esm')

  const user = join(directory, 'user')
  mkdirSync(user)
  for (const [name, text] of Object.entries(USER)) writeFileSync(join(user, name), text)
  const alone = ['--offline', '--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund']
  await runOrFail('npm', ['install', '--prefix', user, ...alone, tarball])
  await tool('tsc', '--project', user)
  await tool('vitest', 'run', join('__test__', 'installed.test.ts'))

  const rows = [
    ['', 'packed', 'unpacked'],
    [filename, size(packed), size(unpackedSize)],
  ]
  for (const name of readdirSync(join(ROOT, 'src')).filter(file => file.endsWith('.node')))
    rows.push([`${name}, of this machine's package`, ...sizesOf(join(ROOT, 'src', name))])
  console.log(`\n${paths.length} files\n\n${table(rows)}`)
})
