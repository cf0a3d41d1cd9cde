/**
 * Disks that get into trouble: file systems of a few megabytes in a file behind a loop device, and the same over a
 * device whose reads and writes fail on request. Whatever becomes of the test, they are unmounted and detached.
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { onTestFinished, type TestContext } from 'vitest'
import { lacks, temporary } from './helpers.js'

const MiB = 1024 * 1024

/** Run a program to its end; what it prints. */
export function ran(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/**
 * The same for what is refused while a file is in use: the kernel lets go of a ring's files a moment after their last
 * operation, also where the process has ended.
 */
export function ranOnceFree(program: string, ...args: string[]): string {
  for (const until = Date.now() + 60_000; ; ) {
    try {
      return ran(program, ...args)
    } catch (error) {
      if (!String(error).includes('busy') || Date.now() > until) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
    }
  }
}

/** Whether a program is there. */
export function has(program: string): boolean {
  try {
    ran('sh', '-c', 'command -v "$0"', program)
    return true
  } catch {
    return false
  }
}

/** A file system in a file. */
export class LoopDisk {
  /** Where it is mounted. */
  readonly directory: string
  readonly #image: string
  readonly #options: string
  #isMounted = false

  constructor(image: string, directory: string, options: string) {
    this.#image = image
    this.#options = options
    this.directory = directory
    this.mount()
    onTestFinished(() => {
      if (!this.#isMounted) return
      try {
        ran('umount', directory)
      } catch {
        // Something is open in it still: the device goes with the last of it.
        ran('umount', '--lazy', directory)
      }
    })
  }

  /** The kernel's name of the loop device: `loop0`. */
  get device(): string {
    return ran('findmnt', '--noheadings', '--output', 'SOURCE', this.directory).trim().slice('/dev/'.length)
  }

  /** A directory for a log, in it. */
  get log(): string {
    return join(this.directory, 'log')
  }

  mount(options = ''): void {
    // A loop device that mount sets up is detached by unmounting.
    const all = ['loop', this.#options, options].filter(Boolean).join(',')
    ran('mount', '-o', all, this.#image, this.directory)
    this.#isMounted = true
  }

  unmount(): void {
    ranOnceFree('umount', this.directory)
    this.#isMounted = false
  }

  /** Nothing of it is in the page cache any more. */
  remount(options = ''): void {
    this.unmount()
    this.mount(options)
  }

  /** Leave no room in it. Answers what takes it away again. */
  fill(): () => void {
    const filler = join(this.directory, 'filler')
    mkdirSync(filler)
    // Ever smaller files, so that the last block is taken too.
    for (let bytes = MiB, count = 0; bytes >= 512; count += 1) {
      try {
        writeFileSync(join(filler, String(count)), Buffer.alloc(bytes))
      } catch {
        bytes /= 2
      }
    }
    return () => rmSync(filler, { recursive: true })
  }
}

function requireLoop(context: TestContext): void {
  if (process.getuid?.() !== 0) lacks(context, 'loop', 'only root may mount a file system from a file')
  if (!readdirSync('/dev').includes('loop-control')) lacks(context, 'loop', 'there are no loop devices')
  if (!has('mkfs.ext4')) lacks(context, 'loop', 'mkfs.ext4 is missing')
}

function makeExt4(file: string): void {
  // Nothing is kept for root, and nothing is done later in the background.
  ran('mkfs.ext4', '-q', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0', file)
}

function mounted(context: TestContext, image: string, directory: string, options = ''): LoopDisk {
  mkdirSync(directory)
  try {
    return new LoopDisk(image, directory, options)
  } catch (error) {
    return lacks(context, 'loop', String(error))
  }
}

/** An ext4 of 16 MiB, mounted with these options. */
export function ext4(context: TestContext, options = ''): LoopDisk {
  requireLoop(context)
  const directory = temporary()
  const image = join(directory, 'image')
  writeFileSync(image, '')
  truncateSync(image, 16 * MiB)
  makeExt4(image)
  return mounted(context, image, join(directory, 'disk'), options)
}

/** A btrfs with a quota for all of it, which `limit` sets. */
export function btrfs(context: TestContext): LoopDisk & { limit(bytes: number | 'none'): void } {
  requireLoop(context)
  for (const program of ['mkfs.btrfs', 'btrfs']) {
    if (!has(program)) lacks(context, 'btrfs', `${program} is missing`)
  }
  const directory = temporary()
  const image = join(directory, 'image')
  writeFileSync(image, '')
  truncateSync(image, 128 * MiB)
  ran('mkfs.btrfs', '-q', image)
  let disk: LoopDisk
  try {
    disk = mounted(context, image, join(directory, 'disk'))
  } catch (error) {
    return lacks(context, 'btrfs', String(error))
  }
  ran('btrfs', 'quota', 'enable', disk.directory)
  return Object.assign(disk, {
    limit: (bytes: number | 'none') => {
      ran('btrfs', 'qgroup', 'limit', String(bytes), disk.directory)
    },
  })
}

/** An ext4 on a device whose reads or writes fail with EIO from `fail` to `heal`. */
export async function faulty(
  context: TestContext,
): Promise<LoopDisk & { fail(what: 'pread' | 'pwrite'): void; heal(): void }> {
  requireLoop(context)
  for (const program of ['nbdkit', 'nbdfuse', 'fusermount3']) {
    if (!has(program)) lacks(context, 'nbd', `${program} is missing`)
  }
  const directory = temporary()
  const [device, pread, pwrite] = ['device', 'pread', 'pwrite'].map(name => join(directory, name)) as [
    string,
    string,
    string,
  ]
  writeFileSync(device, '')
  const filter = ['--exit-with-parent', '--filter=error', 'memory', '48M']
  for (const [name, file] of Object.entries({ pread, pwrite })) {
    filter.push(`error-${name}=EIO`, `error-${name}-rate=100%`, `error-${name}-file=${file}`)
  }
  const server = spawn('nbdfuse', [device, '[', 'nbdkit', ...filter, ']'], { stdio: 'ignore' })
  const ended = new Promise<void>(resolve =>
    server.once('exit', () => resolve()).once('error', () => resolve()),
  )
  onTestFinished(async () => {
    try {
      ran('fusermount3', '-u', '-z', device)
    } catch {
      // It did not begin to serve.
    }
    // Where something still has the file system open it would wait for that.
    const impatience = globalThis.setTimeout(() => server.kill('SIGKILL'), 2000)
    await ended
    clearTimeout(impatience)
  })
  for (const until = Date.now() + 60_000; statSync(device).size === 0; ) {
    if (Date.now() > until || server.exitCode !== null) lacks(context, 'nbd', 'nbdfuse serves no device here')
    await sleep(25)
  }
  makeExt4(device)
  const heal = () => {
    for (const file of [pread, pwrite]) rmSync(file, { force: true })
  }
  const disk = mounted(context, device, join(directory, 'disk'))
  // Whatever the test left broken: what is mounted is unmounted after this, and writes its last then.
  onTestFinished(heal)
  return Object.assign(disk, {
    heal,
    fail: (what: 'pread' | 'pwrite') => writeFileSync(what === 'pread' ? pread : pwrite, ''),
  })
}
