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
}, 60_000)

/** The error of an import where the platform's package is missing, on this platform or as if on another. */
function refusal(platform: string = process.platform): unknown {
  const project = installed()
  rmSync(join(project, 'node_modules', '@ringbolt'), { recursive: true })
  const { stdout } = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `Object.defineProperty(process, 'platform', { value: '${platform}' })
      import('ringbolt').catch(({ name, code, message, reason, cause }) =>
        console.log(JSON.stringify({ name, code, message, reason, caused: cause instanceof Error })))`,
    ],
    { cwd: project, encoding: 'utf8' },
  )
  return JSON.parse(stdout)
}

test.each([
  [
    'without the package of its platform',
    process.platform,
    /@ringbolt\/binding-\w+-\w+(?:-\w+)?.*--omit=optional.*npm run build/,
  ],
  [
    'on a platform that has none',
    'sunos',
    /no native part for sunos-\w+: there are builds for linux-x64-gnu, .*win32-arm64-msvc$/,
  ],
])(
  '%s_the_error_says_what_is_missing_and_what_to_do',
  (_, platform, message) => {
    expect(refusal(platform)).toEqual({
      name: 'BackendError',
      code: 'ERR_BACKEND_UNAVAILABLE',
      message: expect.stringMatching(message),
      reason: 'no loadable build',
      caused: true,
    })
  },
  60_000,
)
