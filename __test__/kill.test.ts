/**
 * A child appends durably and reports what was acknowledged; it is killed at a random moment, and the log is
 * opened again at once. Nothing acknowledged is missing, and nothing is there that was not appended.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Wal } from '../src/index.js'
import { root } from './helpers.js'

const rounds = process.env['RINGBOLT_LONG'] === undefined ? 100 : 300

/** Records tell their LSN and have a length of their own; small segments, so that some kills hit a rotation. */
const appending = `
import { writeSync } from 'node:fs'
import { Wal } from 'ringbolt'
const wal = await Wal.open(process.argv[1], { segmentBytes: 1 << 20, lockTimeoutMs: 60_000 })
writeSync(1, 'ready ' + wal.lastLsn + '\\n')
const append = async () => {
  for (;;) {
    const lsn = wal.lastLsn + 1
    const record = Buffer.alloc(8 + (lsn * 131) % 3000, lsn % 251)
    record.writeDoubleLE(lsn, 0)
    writeSync(1, (await wal.append(record)) + '\\n')
  }
}
for (let outstanding = 0; outstanding < 32; outstanding += 1) append()
`

/** Run the child until it is killed, some milliseconds after it was ready. Answers what it reported. */
async function killed(directory: string, afterMs: number): Promise<number> {
  const process_ = spawn(process.execPath, ['--input-type=module', '--eval', appending, directory], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  let isReady = false
  process_.stdout.on('data', chunk => {
    output += String(chunk)
    if (isReady) return
    isReady = true
    setTimeout(() => process_.kill('SIGKILL'), afterMs)
  })
  await new Promise(resolve => process_.once('close', resolve))
  expect(process_.signalCode).toBe('SIGKILL')
  // The last line may be cut off; what came before it was acknowledged.
  const lines = output.slice(0, output.lastIndexOf('\n')).split('\n').slice(1)
  return lines.reduce((newest, line) => Math.max(newest, Number(line)), 0)
}

function check(lsn: number, data: Uint8Array): void {
  const record = data as Buffer
  const isRight =
    record.length === 8 + ((lsn * 131) % 3000) &&
    record.readDoubleLE(0) === lsn &&
    record.subarray(8).every(byte => byte === lsn % 251)
  if (!isRight) expect.fail(`the record of LSN ${lsn} is another`)
}

const disks: [string, string][] = [
  ['the disk', join(root, 'target')],
  ['memory', '/dev/shm'],
]

mkdirSync(join(root, 'target'), { recursive: true })

for (const [disk, parent] of disks) {
  test.skipIf(!existsSync(parent))(
    `a_kill_loses_nothing_acknowledged on ${disk}`,
    () => run(parent),
    2_400_000,
  )
}

async function run(parent: string): Promise<void> {
  const directory = mkdtempSync(join(parent, 'kill-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  let seen = 0
  let promised = 0
  for (let round = 0; round < rounds; round += 1) {
    promised = Math.max(promised, await killed(directory, 1 + Math.random() * 49))
    // In some rounds the next child meets what the kill left, and is killed over it.
    if (Math.random() < 0.3) continue
    await using wal = await Wal.open(directory, { segmentBytes: 1 << 20, lockTimeoutMs: 60_000 })
    expect(wal.lastLsn).toBeGreaterThanOrEqual(Math.max(promised, seen))
    // What earlier rounds left was compared then: its numbers, and the end of it, are compared again.
    const from = Math.max(1, seen - 100)
    let next = from
    for await (const { lsn, data } of wal.read({ from })) {
      expect(lsn).toBe(next)
      check(lsn, data)
      next += 1
    }
    expect(next).toBe(wal.lastLsn + 1)
    seen = wal.lastLsn
  }
  await using wal = await Wal.open(directory, { check: 'all' })
  let count = 0
  for await (const { lsn, data } of wal.read()) {
    count += 1
    check(lsn, data)
  }
  expect(count).toBe(wal.lastLsn)
  expect(count).toBeGreaterThanOrEqual(promised)
}
