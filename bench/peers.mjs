/** The peers' packages: installed here when they are to be measured, each on its own, so that one that fails leaves the rest. */

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const here = path => fileURLToPath(new URL(path, import.meta.url))
const packageOf = path => JSON.parse(readFileSync(here(path), 'utf8'))

/** Whether a package is here as package.json wants it, built or not. */
function isCurrent(name, version) {
  try {
    return packageOf(`node_modules/${name}/package.json`).version === version
  } catch {
    return false
  }
}

/** Have these packages; what could not be had turns out when its contender is asked to open. */
export function install(packages) {
  const { devDependencies } = packageOf('package.json')
  if (packages.every(name => isCurrent(name, devDependencies[name]))) return
  // What npm says is for who watches, not part of a report.
  const npm = (...args) =>
    spawnSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: here('.'),
      stdio: ['ignore', 2, 2],
    }).status === 0
  console.error("installing the peers' packages into bench/node_modules")
  if (!npm('ci', '--ignore-scripts')) return
  for (const name of Object.keys(devDependencies)) {
    if (!npm('rebuild', name))
      console.error(`${name} could not be built; remove bench/node_modules to try again`)
  }
}
