/**
 * What is made of the machine before or while something is measured: the page cache, a busy thread, a slow flush. Each
 * says why, where it cannot be had here.
 */

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { diskOf } from '../scripts/machine.mjs'
import { isInstalled } from '../scripts/run.mjs'

/** Why something cannot be measured here. */
export class Lack extends Error {}

/** Drop what the page cache holds, names too; `false` where that is not for us to do. */
export function dropCache() {
  try {
    execFileSync('sync')
    fs.writeFileSync('/proc/sys/vm/drop_caches', '3')
    return true
  } catch {
    return false
  }
}

/** Nothing dirty, and of these files all (`warm`) or nothing (`cold`) in the page cache. */
export function prepareCache(cache, paths) {
  execFileSync('sync')
  if (cache === 'cold') dropCache()
  else for (const path of paths) spawnSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none'])
}

/** Interrupts by number, so far: one count for each CPU. */
function interrupts() {
  const [head, ...lines] = readFileSync('/proc/interrupts', 'utf8').trimEnd().split('\n')
  const cpus = head
    .trim()
    .split(/\s+/)
    .map(name => Number(name.slice('CPU'.length)))
  const counts = new Map()
  for (const line of lines) {
    const [, number, rest] = /^\s*(\d+):\s+(.*)$/.exec(line) ?? []
    if (number !== undefined) counts.set(number, rest.split(/\s+/, cpus.length).map(Number))
  }
  return { cpus, counts }
}

/** The interrupts of the device below a directory: those of the nearest device up its path that has any. */
function interruptsOf(directory) {
  const { device } = diskOf(directory)
  let path
  try {
    path = realpathSync(`/sys/dev/block/${device}`)
  } catch {
    throw new Lack('no block device is below this directory')
  }
  for (; path !== '/sys'; path = dirname(path)) {
    if (existsSync(join(path, 'msi_irqs'))) return readdirSync(join(path, 'msi_irqs'))
    if (existsSync(join(path, 'irq'))) {
      const number = readFileSync(join(path, 'irq'), 'utf8').trim()
      if (number !== '0') return [number]
    }
  }
  throw new Lack('the device below this directory has no interrupts of its own')
}

/** The CPU that takes the disk's interrupts: the one where most of them arrive while something is flushed. */
export function interruptCpu(directory) {
  const numbers = interruptsOf(directory)
  const before = interrupts()
  const path = join(directory, 'interrupts')
  const fd = fs.openSync(path, 'w')
  for (let count = 0; count < 100; count += 1) {
    fs.writeSync(fd, Buffer.alloc(4096), 0, 4096, 0)
    fs.fdatasyncSync(fd)
  }
  fs.closeSync(fd)
  rmSync(path)
  const after = interrupts()
  const risen = before.cpus.map((_, index) =>
    numbers.reduce(
      (sum, number) =>
        sum + (after.counts.get(number)?.[index] ?? 0) - (before.counts.get(number)?.[index] ?? 0),
      0,
    ),
  )
  const most = Math.max(...risen)
  if (!(most > 0)) throw new Lack('no interrupt of the disk was counted while it wrote')
  return before.cpus[risen.indexOf(most)]
}

/** A thread at 100 % on the CPU that takes the disk's interrupts, until `end` is called. */
export function busyInterruptCpu(directory) {
  if (!isInstalled('taskset', '--version')) throw new Lack('taskset is not installed')
  const cpu = interruptCpu(directory)
  const spinner = spawn('taskset', ['--cpu-list', String(cpu), process.execPath, '-e', 'for (;;);'], {
    stdio: 'ignore',
  })
  const end = () => spinner.kill('SIGKILL')
  // It must not outlive who asked for it.
  process.once('exit', end)
  return {
    cpu,
    end() {
      process.off('exit', end)
      end()
    },
  }
}

/**
 * An ext4 on a device in memory, each flush of which takes longer by so many microseconds, until `end` is called. The
 * device is nbdkit's (delayed-flush.c), seen as a file through nbdfuse, with a loop device over it.
 */
export async function delayedFlush(microseconds) {
  if (process.getuid() !== 0) throw new Lack('mounting takes root')
  for (const program of ['nbdkit', 'nbdfuse', 'fusermount3', 'mkfs.ext4', 'mount', 'cc']) {
    if (!isInstalled('which', program)) throw new Lack(`${program} is not installed`)
  }
  if (!existsSync('/usr/include/nbdkit-plugin.h')) throw new Lack('nbdkit-plugin-dev is not installed')
  const parent = mkdtempSync(join(tmpdir(), 'delayed-flush-'))
  const device = join(parent, 'device')
  const directory = join(parent, 'disk')
  fs.writeFileSync(device, '')
  mkdirSync(directory)
  const plugin = fileURLToPath(new URL('delayed-flush.c', import.meta.url))
  const server = spawn(
    'nbdfuse',
    [device, '[', 'nbdkit', '--exit-with-parent', 'cc', plugin, 'size=1G', `delay=${microseconds}`, ']'],
    { stdio: 'ignore' },
  )
  const ended = new Promise(resolve => server.once('exit', resolve).once('error', resolve))
  let isMounted = false
  const end = async () => {
    if (isMounted) spawnSync('umount', [directory])
    spawnSync('fusermount3', ['-u', '-z', device])
    const impatience = setTimeout(() => server.kill('SIGKILL'), 5000)
    await ended
    clearTimeout(impatience)
    rmSync(parent, { recursive: true, force: true })
  }
  for (let waits = 0; fs.statSync(device).size === 0; waits += 1) {
    if (waits === 400 || server.exitCode !== null) {
      await end()
      throw new Lack('nbdfuse serves no device here')
    }
    await sleep(25)
  }
  try {
    execFileSync('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', device], {
      stdio: 'pipe',
    })
    execFileSync('mount', ['-o', 'loop', device, directory], { stdio: 'pipe' })
    isMounted = true
  } catch (error) {
    await end()
    throw new Lack(`no file system on it: ${error.message.split('\n')[0]}`)
  }
  return { directory, end }
}
