/** The package as npm installs it: from tarballs, into an empty project, without scripts and without a compiler. */
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { supported } from '../src/native.js'
import { root, temporary } from './helpers.js'

// What is installed here is looked at as it is, whichever build the rest of the run has.
delete process.env['NAPI_RS_NATIVE_LIBRARY_PATH']

const npm = (directory: string, ...args: string[]) =>
  execFileSync('npm', [...args, '--offline', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: directory,
    encoding: 'utf8',
  })

/** Pack the package in a directory into another; its file, and the files in it. */
function packed(from: string, into: string): { tarball: string; files: string[] } {
  const [{ filename, files }] = JSON.parse(npm(from, 'pack', '--json', `--pack-destination=${into}`))
  return { tarball: join(into, filename), files: files.map(({ path }: { path: string }) => path) }
}

/** The platform's package, as a release makes it: its manifest by napi, and in it the build that is there. */
function platformPackage(): string {
  const name = readdirSync(join(root, 'src')).find(file => file.endsWith('.node')) as string
  const [, target] = /^ringbolt\.(.*)\.node$/.exec(name) as unknown as [string, string]
  const within = join('target', `npm-${process.pid}`)
  onTestFinished(() => rmSync(join(root, within), { recursive: true, force: true }))
  mkdirSync(join(root, 'target'), { recursive: true })
  execFileSync('npx', ['--no-install', 'napi', 'create-npm-dirs', '--npm-dir', within], {
    cwd: root,
    stdio: 'ignore',
  })
  const directory = join(root, within, target)
  copyFileSync(join(root, 'src', name), join(directory, name))
  return directory
}

/** A project in which it is installed. */
function installed(): string {
  const into = temporary()
  const platform = packed(platformPackage(), into)
  const facade = packed(root, into)
  const project = join(into, 'project')
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "name": "project", "private": true }')
  npm(project, 'install', '--ignore-scripts', facade.tarball, platform.tarball)
  return project
}

let example: string
beforeAll(() => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  example = (/^```js\n(.*?)^```/ms.exec(readme) as unknown as [string, string])[1]
})

test('a_release_has_a_package_for_each_target_that_the_error_names', () => {
  const packages = join(platformPackage(), '..')
  expect(readdirSync(packages).toSorted()).toEqual(supported.toSorted())
})

test('installed_without_scripts_it_runs_the_readmes_example_by_import_and_by_require', () => {
  const project = installed()
  writeFileSync(join(project, 'example.mjs'), example)
  const required = example.replace(/^import (.*) from '(.*)'$/m, "const $1 = require('$2')")
  writeFileSync(join(project, 'example.cjs'), `(async () => {\n${required}\n})()`)
  for (const [file, lines] of [
    ['example.mjs', 2],
    ['example.cjs', 3],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], { cwd: project, encoding: 'utf8' })
    expect({ status, stderr: stderr.replace(/^.*ExperimentalWarning: .*\n.*\n/m, '') }).toEqual({
      status: 0,
      stderr: '',
    })
    expect(stdout.trim().split('\n')).toHaveLength(lines)
  }
})

/** A platform to pretend: what Node says of itself, by the name of its package. */
function pretended(target: string): string {
  const [platform, arch, abi] = target.split('-') as [string, string, string?]
  return `Object.defineProperty(process, 'platform', { value: '${platform}' })
    Object.defineProperty(process, 'arch', { value: '${arch}' })
    process.report.getReport = () => ({ header: ${abi === 'gnu' ? "{ glibcVersionRuntime: '2.28' }" : '{}'} })`
}

/** The error of an import, of one by `require` too, on this platform or as if on another. */
function refusal(project: string, target = ''): unknown {
  const [imported, required] = [
    ['--input-type=module', "import('ringbolt').catch(tell)"],
    ['--input-type=commonjs', "try { require('ringbolt') } catch (error) { tell(error) }"],
  ].map(([type, load]) => {
    const script = `${target && pretended(target)}
      const tell = ({ name, code, message, reason, cause }) =>
        console.log(JSON.stringify({ name, code, message, reason, caused: cause instanceof Error }))
      ${load}`
    const options = { cwd: project, encoding: 'utf8' } as const
    const { stdout, stderr } = spawnSync(process.execPath, [type as string, '--eval', script], options)
    if (stdout === '') throw new Error(`it was expected to fail, and to say so: ${stderr}`)
    return JSON.parse(stdout)
  })
  expect(required).toEqual(imported)
  return imported
}

const unavailable = { name: 'BackendError', code: 'ERR_BACKEND_UNAVAILABLE', caused: true }

test('without_the_package_of_its_platform_the_error_names_it_and_says_what_to_do', () => {
  const project = installed()
  rmSync(join(project, 'node_modules', '@ringbolt'), { recursive: true })
  for (const target of supported) {
    const name = `@ringbolt/binding-${target}`
    const said = new RegExp(
      `for ${target} could not be loaded\\. It is the package ${name}, .*--omit=optional.*npm run build`,
    )
    expect(refusal(project, target)).toEqual({
      ...unavailable,
      message: expect.stringMatching(said),
      reason: `${name} is not installed`,
    })
    // And it is what the loader looks for.
    expect(readFileSync(join(root, 'src', 'binding.cjs'), 'utf8')).toContain(`require('${name}')`)
  }
})

test('on_a_platform_without_a_build_the_error_says_so_and_names_those_that_have_one', () => {
  const project = installed()
  rmSync(join(project, 'node_modules', '@ringbolt'), { recursive: true })
  expect(supported).toHaveLength(8)
  for (const target of [
    'sunos-x64',
    'freebsd-x64',
    'linux-riscv64-gnu',
    'linux-arm-musl',
    'win32-ia32-msvc',
  ]) {
    expect(refusal(project, target)).toEqual({
      ...unavailable,
      message: `ringbolt has no native part for ${target}: there are builds for ${supported.join(', ')}`,
      reason: `no build for ${target}`,
    })
  }
})

test('a_package_that_is_there_and_does_not_load_is_not_called_missing', () => {
  const project = installed()
  const scope = join(project, 'node_modules', '@ringbolt')
  const [name] = readdirSync(scope) as [string]
  const file = readdirSync(join(scope, name)).find(file => file.endsWith('.node')) as string
  writeFileSync(join(scope, name, file), 'cut short on its way')
  expect(refusal(project)).toEqual({
    ...unavailable,
    message: expect.stringMatching(
      new RegExp(`@ringbolt/${name} is installed and does not load \\(.+\\): install it anew`),
    ),
    reason: expect.stringContaining(file),
  })
})
