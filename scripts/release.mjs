/**
 * What the release workflow runs, in the order of its steps. CONTRIBUTING.md says how a release is made.
 *
 *     node scripts/release.mjs prepare --binaries DIRECTORY --into PACKAGES [--tag vX.Y.Z]
 *     node scripts/release.mjs publish --packages PACKAGES [--dry-run]
 *
 * `prepare` is the gate: one version everywhere, one binary for each target and none besides, each made for the target it
 * is named after. It makes `npm/`, the packages of the platforms, writes their exact versions as optional dependencies into
 * package.json, and packs everything. Neither is committed: what a clone's lockfile named would have to be published before
 * `npm ci` could install it.
 *
 * `publish` publishes what was packed: the platforms' packages, and only then the one that depends on them. What is
 * published already is left as it is, so that a run that broke off can be repeated.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

import { main, ROOT, runOrFail, StepError } from './run.mjs'
import { table } from './table.mjs'

const USAGE = `usage: node scripts/release.mjs prepare --binaries DIRECTORY --into PACKAGES [--tag vX.Y.Z]
       node scripts/release.mjs publish --packages PACKAGES [--dry-run]`

const readJson = path => JSON.parse(readFileSync(path, 'utf8'))
const writeJson = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)

/** The packages of the platforms, as `prepare` laid them out. */
const platforms = root => readdirSync(join(root, 'npm')).toSorted()

/** The version to be released, once everything agrees on it. */
function versionOf(root, tag) {
  const text = file => readFileSync(join(root, file), 'utf8')
  const { version } = readJson(join(root, 'package.json'))
  const found = {
    'package-lock.json': readJson(join(root, 'package-lock.json')).version,
    'Cargo.toml': /^\[workspace\.package\]\nversion = "(.*)"$/m.exec(text('Cargo.toml'))?.[1],
    'src/binding.cjs': /bindingPackageVersion !== '(.*?)'/.exec(text('src/binding.cjs'))?.[1],
    'CHANGELOG.md': text('CHANGELOG.md').includes(`\n## ${version}`) ? version : undefined,
  }
  if (tag !== undefined) found['the tag'] = tag.replace(/^v/, '')
  const others = Object.entries(found).filter(([, other]) => other !== version)
  if (others.length > 0) {
    const list = others.map(([where, other]) => `${where} has ${other ?? 'no entry for it'}`).join(', ')
    throw new StepError(`package.json is at version ${version}, but ${list}: make them equal`)
  }
  return version
}

/** The processors by their numbers in each kind of binary. */
const PROCESSORS = {
  elf: new Map([
    [62, 'x64'],
    [183, 'arm64'],
  ]),
  machO: new Map([
    [0x01000007, 'x64'],
    [0x0100000c, 'arm64'],
  ]),
  pe: new Map([
    [0x8664, 'x64'],
    [0xaa64, 'arm64'],
  ]),
}

/** What system, processor and C library a binary is for, by its own header; `undefined` if it is none that we know. */
function madeFor(binary) {
  if (binary.length < 64) return undefined
  if (binary.readUInt32BE(0) === 0x7f454c46) {
    const arch = PROCESSORS.elf.get(binary.readUInt16LE(18))
    return arch && `linux-${arch}-${binary.includes('libc.so.6\0') ? 'gnu' : 'musl'}`
  }
  if (binary.readUInt32LE(0) === 0xfeedfacf) {
    const arch = PROCESSORS.machO.get(binary.readUInt32LE(4))
    return arch && `darwin-${arch}`
  }
  if (binary.toString('latin1', 0, 2) === 'MZ') {
    const header = binary.readUInt32LE(0x3c)
    if (header + 6 > binary.length || binary.toString('latin1', header, header + 4) !== 'PE\0\0')
      return undefined
    const arch = PROCESSORS.pe.get(binary.readUInt16LE(header + 4))
    return arch && `win32-${arch}-msvc`
  }
  return undefined
}

/** Put each binary into the package of its target. */
function place(root, binaries) {
  const name = target => `ringbolt.${target}.node`
  const targets = platforms(root)
  const found = readdirSync(binaries)
    .filter(file => file.endsWith('.node'))
    .toSorted()
  const missing = targets.map(name).filter(file => !found.includes(file))
  const strange = found.filter(file => !targets.map(name).includes(file))
  if (missing.length > 0 || strange.length > 0) {
    const say = (what, files) => (files.length > 0 ? `; ${what}: ${files.join(', ')}` : '')
    throw new StepError(
      `${found.length} binaries for ${targets.length} targets${say('missing', missing)}${say('without a target', strange)}`,
    )
  }
  const rows = []
  for (const target of targets) {
    const binary = readFileSync(join(binaries, name(target)))
    const actual = madeFor(binary)
    if (actual !== target) throw new StepError(`${name(target)} is made for ${actual ?? 'nothing we know'}`)
    writeFileSync(join(root, 'npm', target, name(target)), binary)
    rows.push([target, `${(binary.length / 1e6).toFixed(2)} MB`])
  }
  return rows
}

function prepare(root, { binaries, into, tag }) {
  const version = versionOf(root, tag)
  if (!existsSync(join(root, 'dist', 'index.js'))) throw new StepError('dist/ is not built: `npm run build`')
  const directory = join(root, 'npm')
  rmSync(directory, { recursive: true, force: true })
  const napi = join(ROOT, 'node_modules', '@napi-rs', 'cli', 'dist', 'cli.js')
  execFileSync(process.execPath, [napi, 'create-npm-dirs', '--cwd', root], { stdio: 'ignore' })
  const rows = place(root, binaries)

  const path = join(root, 'package.json')
  const manifest = readJson(path)
  manifest.optionalDependencies = {}
  for (const target of platforms(root)) {
    const { name } = readJson(join(directory, target, 'package.json'))
    manifest.optionalDependencies[name] = version
    // napi's text names a package that does not exist.
    writeFileSync(
      join(directory, target, 'README.md'),
      `# ${name}\n\nThe native part of [${manifest.name}](https://www.npmjs.com/package/${manifest.name}) for ${target}, installed with it where it runs.\n`,
    )
    for (const file of ['LICENSE', 'LICENSE-APACHE', 'LICENSE-MIT'])
      copyFileSync(join(root, file), join(directory, target, file))
  }
  writeJson(path, manifest)

  mkdirSync(into, { recursive: true })
  const packages = [root, ...platforms(root).map(target => join(directory, target))]
  execFileSync(
    'npm',
    ['pack', '--silent', '--ignore-scripts', `--pack-destination=${resolve(into)}`, ...packages],
    {
      cwd: root,
      stdio: 'ignore',
    },
  )
  console.log(
    `${table(rows)}\n\n${rows.length} binaries for ${rows.length} targets, all at version ${version}.`,
  )
}

/** Whether the registry has this very version. That it cannot be asked is an error, not a no. */
function isPublished({ name, version }) {
  const args = ['view', `${name}@${version}`, 'version', '--json']
  const { status, stdout, stderr } = spawnSync('npm', args, { encoding: 'utf8' })
  if (status === 0) return stdout.trim() !== ''
  if (`${stdout}${stderr}`.includes('E404')) return false
  throw new StepError(`cannot ask the registry for ${name}: ${stderr.trim()}`)
}

/** The manifests of what was packed, by the files; the main package's last. */
function packed(directory) {
  const all = readdirSync(directory).map(file => {
    const tarball = resolve(directory, file)
    const text = execFileSync('tar', ['-xzOf', tarball, 'package/package.json'], { encoding: 'utf8' })
    return { tarball, manifest: JSON.parse(text) }
  })
  const dependsOn = ({ manifest }) => Object.keys(manifest.optionalDependencies ?? {}).length
  return all.toSorted((a, b) => dependsOn(a) - dependsOn(b))
}

async function publish({ packages, 'dry-run': dryRun }) {
  const all = packed(packages)
  const { name, optionalDependencies = {} } = all.at(-1)?.manifest ?? {}
  const there = new Set(all.map(({ manifest }) => `${manifest.name}@${manifest.version}`))
  const missing = Object.entries(optionalDependencies).filter(
    ([on, version]) => !there.has(`${on}@${version}`),
  )
  if (missing.length > 0)
    throw new StepError(`${name} needs ${missing.map(([on]) => on).join(', ')}: not packed`)
  if (Object.keys(optionalDependencies).length !== all.length - 1)
    throw new StepError(`${all.length} packages are not one and those it depends on`)
  for (const { tarball, manifest } of all) {
    if (!dryRun && isPublished(manifest)) {
      console.log(`${manifest.name} ${manifest.version} is published already`)
      continue
    }
    const args = ['publish', tarball, '--access', 'public', '--ignore-scripts']
    if (dryRun) args.push('--dry-run')
    // Only a workflow can vouch for where it was built.
    else if (process.env.GITHUB_ACTIONS) args.push('--provenance')
    await runOrFail('npm', args)
  }
}

await main(async () => {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      binaries: { type: 'string' },
      into: { type: 'string' },
      packages: { type: 'string' },
      tag: { type: 'string' },
      'dry-run': { type: 'boolean', default: false },
      // Another clone than this one: for the test of the gate.
      root: { type: 'string', default: ROOT },
    },
  })
  const [command] = positionals
  const { binaries, into, packages, root } = values
  if (command === 'prepare' && binaries !== undefined && into !== undefined) prepare(resolve(root), values)
  else if (command === 'publish' && packages !== undefined) await publish(values)
  else throw new StepError(USAGE, 2)
})
