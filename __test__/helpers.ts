/** What several test files need: directories that vanish, children that run a script, errors caught. */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { onTestFinished, type TestContext } from 'vitest'
import type { ErrorDetails } from '../src/index.js'

export const root: string = fileURLToPath(new URL('..', import.meta.url))

/** A fresh directory, removed after the test. */
export function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ringbolt-test-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** What a promise rejects with, or a function throws. */
export async function caught(
  doing: PromiseLike<unknown> | (() => unknown),
): Promise<Error & ErrorDetails & { code?: string }> {
  try {
    await (typeof doing === 'function' ? doing() : doing)
  } catch (error) {
    if (error instanceof Error) return error
    throw new Error(`not an Error: ${String(error)}`)
  }
  throw new Error('it was expected to fail')
}

/** Everything an iterable yields. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

/** The records as text. */
export async function texts(records: AsyncIterable<{ data: Uint8Array }>): Promise<string[]> {
  return (await collect(records)).map(({ data }) => Buffer.from(data).toString())
}

/**
 * What a test may need beside Node: `mount` and `loop` file systems (loop devices with ext4), `btrfs` on them,
 * `shutdown` of an ext4 as if the power went, `nbd` for devices that fail on request, `strace` for calls that do,
 * `limits` of another process to change, an ordinary `user` to become, much `memory`, `seccomp` filters.
 */
export type Capability =
  | 'mount'
  | 'loop'
  | 'btrfs'
  | 'shutdown'
  | 'nbd'
  | 'strace'
  | 'limits'
  | 'user'
  | 'memory'
  | 'seccomp'
  | 'io_uring'

/**
 * The test cannot go on without this capability. Where `RINGBOLT_REQUIRE` names it (`mount,memory`) that is a failure,
 * so that no test disappears unseen; elsewhere the test is skipped.
 */
export function lacks(context: TestContext, capability: Capability, why: string): never {
  const required = (process.env['RINGBOLT_REQUIRE'] ?? '').split(',')
  if (required.includes(capability)) throw new Error(`${capability} is required here: ${why}`)
  return context.skip(`${capability}: ${why}`)
}

/** A file system in memory, mounted with these options and unmounted after the test. */
export function smallDisk(context: TestContext, options: string): string {
  const directory = temporary()
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', directory], { stdio: 'ignore' })
  } catch {
    lacks(context, 'mount', 'mounting a file system is not permitted here')
  }
  onTestFinished(() => {
    execFileSync('umount', ['--lazy', directory])
  })
  return directory
}

const script = (body: string) => [
  '--input-type=module',
  '--eval',
  `import { BlobStore, Wal } from 'ringbolt'\nconst directory = process.argv[1]\n${body}`,
]

export interface Ended {
  stdout: string
  stderr: string
  code: number | null
  signal: NodeJS.Signals | null
}

/** Run a script in a process of its own, as a user has it: against the built package. */
export async function child(
  directory: string,
  body: string,
  flags: string[] = [],
  timeout = 20_000,
): Promise<Ended> {
  try {
    const options = { cwd: root, timeout }
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      [...flags, ...script(body), directory],
      options,
    )
    return { stdout, stderr, code: 0, signal: null }
  } catch (error) {
    const { stdout, stderr, code, signal } = error as Ended
    return { stdout, stderr, code, signal }
  }
}

/** Start a script and wait for its first line of output. The process is killed after the test. */
export async function started(
  directory: string,
  body: string,
): Promise<{ pid: number; line: string; kill(): Promise<void> }> {
  const process_ = spawn(process.execPath, [...script(body), directory], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>(resolve => process_.once('exit', () => resolve()))
  const kill = () => {
    process_.kill('SIGKILL')
    return ended
  }
  onTestFinished(kill)
  let line = ''
  for await (const chunk of process_.stdout) {
    line += String(chunk)
    if (line.includes('\n')) break
  }
  return { pid: process_.pid as number, line: line.trim(), kill }
}
