/** The gate of a release: what would publish a package that cannot be installed somewhere is refused before. */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { supported } from '../src/native.js'
import { root, temporary } from './helpers.js'

/** What a binary for a target begins with: enough to tell what it is for. */
function header(target: string): Buffer {
  const bytes = Buffer.alloc(256)
  const [system, arch, abi] = target.split('-') as [string, string, string?]
  const isArm = arch === 'arm64'
  if (system === 'linux') {
    bytes.write('\x7fELF', 'latin1')
    bytes.writeUInt16LE(isArm ? 183 : 62, 18)
    bytes.write(abi === 'gnu' ? '\0libc.so.6\0' : '\0libc.so\0', 100)
  } else if (system === 'darwin') {
    bytes.writeUInt32LE(0xfeedfacf, 0)
    bytes.writeUInt32LE(isArm ? 0x0100000c : 0x01000007, 4)
  } else {
    bytes.write('MZ')
    bytes.writeUInt32LE(128, 0x3c)
    bytes.write('PE\0\0', 128)
    bytes.writeUInt16LE(isArm ? 0xaa64 : 0x8664, 132)
  }
  return bytes
}

const nameOf = (target: string) => `ringbolt.${target}.node`
const tag = `v${JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version}`

let clone: string
let binaries: string
let packages: string

/** A clone as far as the gate looks at it, its changelog ready for the release, and a binary for each target. */
beforeEach(() => {
  clone = temporary()
  binaries = join(clone, 'binaries')
  packages = join(clone, 'packages')
  mkdirSync(binaries)
  mkdirSync(join(clone, 'dist'))
  mkdirSync(join(clone, 'src'))
  const files = ['package.json', 'package-lock.json', 'Cargo.toml', 'src/binding.cjs']
  for (const file of [...files, 'LICENSE', 'LICENSE-MIT', 'LICENSE-APACHE'])
    copyFileSync(join(root, file), join(clone, file))
  writeFileSync(join(clone, 'dist', 'index.js'), '')
  writeFileSync(join(clone, 'CHANGELOG.md'), `# Changelog\n\n## ${tag.slice(1)}\n`)
  for (const target of supported) writeFileSync(join(binaries, nameOf(target)), header(target))
})

function release(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'scripts', 'release.mjs'), ...args, '--root', clone],
    { encoding: 'utf8' },
  )
  return { status, stdout, stderr }
}
const prepare = () => release('prepare', '--binaries', binaries, '--into', packages, '--tag', tag)
const publish = () => release('publish', '--packages', packages, '--dry-run')

function edit(file: string, from: string | RegExp, to: string): void {
  const path = join(clone, file)
  const text = readFileSync(path, 'utf8')
  expect(text).toMatch(from)
  writeFileSync(path, text.replace(from, to))
}

test('each_platform_gets_its_package_and_the_main_one_depends_on_exactly_these', () => {
  // One is no imitation: this machine's own build.
  const own = readdirSync(join(root, 'src')).find(file => file.endsWith('.node')) as string
  copyFileSync(join(root, 'src', own), join(binaries, own))
  expect(prepare()).toMatchObject({ status: 0, stderr: '' })
  const { optionalDependencies } = JSON.parse(readFileSync(join(clone, 'package.json'), 'utf8'))
  expect(optionalDependencies).toEqual(
    Object.fromEntries(supported.map(target => [`@ringbolt/binding-${target}`, tag.slice(1)])),
  )
  for (const target of supported) {
    const directory = join(clone, 'npm', target)
    const [placed, built] = [directory, binaries].map(where => readFileSync(join(where, nameOf(target))))
    expect(placed?.equals(built as Buffer)).toBe(true)
    expect(existsSync(join(directory, 'LICENSE-MIT'))).toBe(true)
  }
  expect(readdirSync(packages)).toHaveLength(supported.length + 1)

  // A package that was lost on the way to the one that publishes is missed there.
  rmSync(join(packages, `ringbolt-binding-darwin-x64-${tag.slice(1)}.tgz`))
  expect(publish()).toMatchObject({
    status: 1,
    stdout: '',
    stderr: expect.stringContaining('ringbolt needs @ringbolt/binding-darwin-x64: not packed'),
  })
})

const version = /version = "\d.*"/
test.each<[string, () => void, RegExp]>([
  [
    'a binary is missing',
    () => rmSync(join(binaries, nameOf('darwin-x64'))),
    /7 binaries for 8 targets; missing: ringbolt\.darwin-x64\.node/,
  ],
  [
    'there is one too many',
    () => writeFileSync(join(binaries, nameOf('linux-riscv64-gnu')), header('linux-x64-gnu')),
    /9 binaries for 8 targets; without a target: ringbolt\.linux-riscv64-gnu\.node/,
  ],
  [
    'a binary is for another processor',
    () => writeFileSync(join(binaries, nameOf('linux-arm64-gnu')), header('linux-x64-gnu')),
    /ringbolt\.linux-arm64-gnu\.node is made for linux-x64-gnu/,
  ],
  [
    'a binary is for another C library',
    () => writeFileSync(join(binaries, nameOf('linux-x64-musl')), header('linux-x64-gnu')),
    /ringbolt\.linux-x64-musl\.node is made for linux-x64-gnu/,
  ],
  [
    'a binary is none',
    () => writeFileSync(join(binaries, nameOf('win32-x64-msvc')), 'Not Found'),
    /ringbolt\.win32-x64-msvc\.node is made for nothing we know/,
  ],
  [
    'the crates have another version',
    () => edit('Cargo.toml', version, 'version = "9.9.9"'),
    /Cargo\.toml has 9/,
  ],
  [
    'the loader was generated for another version',
    () => edit('src/binding.cjs', /bindingPackageVersion !== '.*?'/, "bindingPackageVersion !== '9.9.9'"),
    /src\/binding\.cjs has 9\.9\.9/,
  ],
  ['the facade was not built', () => rmSync(join(clone, 'dist', 'index.js')), /dist\/ is not built/],
  [
    'the changelog says nothing of it',
    () => edit('CHANGELOG.md', /## \d.*/, '## Unreleased'),
    /CHANGELOG\.md has no entry for it/,
  ],
])('a_release_is_refused_where_%s', (_, spoil, message) => {
  spoil()
  expect(prepare()).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(message) })
})

test('a_release_is_refused_under_the_tag_of_another', () => {
  expect(release('prepare', '--binaries', binaries, '--into', packages, '--tag', 'v9.9.9')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('the tag has 9.9.9'),
  })
})
