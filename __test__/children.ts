/**
 * A child that has its own limits, user or tracer, and with which a test talks: it tells JSON values, one a line, and
 * goes on when it is told to.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { onTestFinished, type TestContext } from 'vitest'
import { has, ran } from './disks.js'
import { lacks, root, temporary } from './helpers.js'

/** What the child's script has at hand, beside `BlobStore`, `Wal` and `directory`. */
const prelude = `
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { BlobStore, Wal } from 'ringbolt'
const directory = process.argv[1]
const tell = value => writeSync(1, JSON.stringify(value) + '\\n')
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const told = async () => (await lines.next()).value
const plain = error => error && {
  name: error.name, message: error.message, code: error.code, errno: error.errno, syscall: error.syscall, path: error.path,
  reason: error.reason, partition: error.partition, offset: error.offset, length: error.length, bytesDone: error.bytesDone,
  cause: plain(error.cause),
}
const failure = promise => Promise.resolve(promise).then(() => undefined, plain)
const numbered = (lsn, last, bytes) => {
  const record = Buffer.alloc(16 + bytes, lsn % 251)
  record.writeDoubleLE(lsn, 0)
  record.writeDoubleLE(last, 8)
  return record
}
`

export class Child {
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  /** How it ended: its exit code, or the signal. */
  readonly ended: Promise<number | NodeJS.Signals | null>

  /** `through` is what starts it: `['setpriv', '--reuid=65534']`; `more` are arguments behind the directory. */
  constructor(
    directory: string,
    body: string,
    through: readonly string[] = [],
    more: readonly string[] = [],
  ) {
    const script = ['--input-type=module', '--eval', prelude + body, directory, ...more]
    const [program, ...args] = [...through, process.execPath, ...script] as [string, ...string[]]
    this.#process = spawn(program, args, { cwd: root, stdio: ['pipe', 'pipe', 'inherit'] })
    this.ended = new Promise(resolve => {
      this.#process.once('close', (code, signal) => resolve(code ?? signal))
    })
    onTestFinished(async () => {
      this.#process.kill('SIGKILL')
      await this.ended
    })
    const { stdout } = this.#process
    if (stdout === null) throw new Error('the child has no output')
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]()
  }

  get pid(): number {
    return this.#process.pid as number
  }

  /** The next thing it tells. */
  // biome-ignore lint/suspicious/noExplicitAny: what it is, the script in the test says.
  async next(): Promise<any> {
    const line = await this.#lines.next()
    if (line.done) throw new Error(`the child has ended: ${await this.ended}`)
    return JSON.parse(line.value)
  }

  /** Let it go on. */
  go(): void {
    this.#process.stdin?.write('go\n')
  }

  /** Let it end; how it did. */
  end(): Promise<number | NodeJS.Signals | null> {
    this.#process.stdin?.end()
    return this.ended
  }

  kill(): Promise<number | NodeJS.Signals | null> {
    this.#process.kill('SIGKILL')
    return this.ended
  }

  /** Change a soft limit of it while it runs. */
  limit(resource: 'fsize' | 'nofile', soft: number | 'unlimited'): void {
    ran('prlimit', '--pid', String(this.pid), `--${resource}=${soft}:`)
  }
}

/** What starts a child as nobody, in a directory that nobody may enter. */
export function asNobody(context: TestContext): { directory: string; through: string[] } {
  if (process.getuid?.() !== 0) lacks(context, 'user', 'only root may become another user')
  if (!has('setpriv')) lacks(context, 'user', 'setpriv is missing')
  const through = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
  try {
    ran(...(through as [string]), process.execPath, '--eval', `require('node:fs').readdirSync('dist')`)
  } catch {
    lacks(context, 'user', 'an ordinary user may not read this directory, or run this Node')
  }
  const directory = temporary()
  chmodSync(directory, 0o755)
  return { directory, through }
}

/** Let calls of a child that name one of these paths fail until the answer is called. */
export async function injected(
  context: TestContext,
  child: Child,
  call: string,
  what: string,
  paths: readonly string[] = [],
): Promise<() => Promise<void>> {
  if (!has('strace')) lacks(context, 'strace', 'strace is missing')
  const filter = paths.flatMap(path => ['-P', path])
  const args = [
    '-f',
    '-p',
    String(child.pid),
    ...filter,
    '-e',
    `trace=${call}`,
    '-e',
    `inject=${call}:${what}`,
  ]
  const tracer = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = new Promise<void>(resolve => tracer.once('close', () => resolve()))
  const end = () => {
    tracer.kill('SIGINT')
    return ended
  }
  onTestFinished(end)
  let output = ''
  tracer.stderr.on('data', chunk => {
    output += String(chunk)
  })
  // It says when it has attached to the process and its threads.
  while (!output.includes('attached')) {
    if (tracer.exitCode !== null) lacks(context, 'strace', `tracing is not permitted here: ${output}`)
    await sleep(10)
  }
  return end
}
