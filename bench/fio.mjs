/** `fio`, as the limit of what the disk does. */

import { spawnSync } from 'node:child_process'

import { isInstalled } from '../scripts/run.mjs'

export const hasFio = () => isInstalled('fio', '--version')

/** A duration for fio. It takes whole numbers only, and reads a fraction as no limit at all. */
export const inMilliseconds = seconds => `${Math.round(seconds * 1000)}ms`

/** Run one job; what fio says about it. */
export function fio(args) {
  const { status, stdout, stderr } = spawnSync(
    'fio',
    ['--name=bench', '--output-format=json', '--randrepeat=0', ...args],
    { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  )
  if (status !== 0) throw new Error(`fio: ${stderr}`)
  return JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs[0]
}
