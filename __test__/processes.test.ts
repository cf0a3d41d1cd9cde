/**
 * How processes live and end with a log and a store in use: an exception nobody catches, a signal, a thread that is
 * blocked, children made by fork and by cluster. What was acknowledged is there afterwards, and whoever comes next is
 * told the truth about who has the lock.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { BlobStore, Wal } from '../src/index.js'
import { child, root, started, temporary } from './helpers.js'

/** Both services under load; `acknowledged` holds the newest LSN, and how many syncs of the blob resolved. */
const busy = `
import { writeSync } from 'node:fs'
const wal = await Wal.open(directory + '/log', { lockTimeoutMs: 60_000 })
const store = await BlobStore.open(directory + '/store', { lockTimeoutMs: 60_000 })
const blob = await store.open('partition', 'blob')
const acknowledged = { lsn: wal.lastLsn, synced: 0 }
const tell = () => writeSync(1, JSON.stringify(acknowledged))
const append = async () => { for (;;) acknowledged.lsn = Math.max(acknowledged.lsn, await wal.append(Buffer.alloc(200))) }
const write = async () => {
  for (let number = 1; ; number += 1) {
    const data = Buffer.alloc(8192)
    data.writeUInt32LE(number)
    await blob.write(0, data, { sync: true })
    acknowledged.synced = number
  }
}
const working = [...Array.from({ length: 64 }, append), write()]
const whenBusy = async () => {
  while (acknowledged.lsn < 500 || acknowledged.synced < 3) await new Promise(setImmediate)
}
`

/** What a process acknowledged is there, and both can be had at once. */
async function expectKept(directory: string, stdout: string): Promise<void> {
  const acknowledged = JSON.parse(stdout) as { lsn: number; synced: number }
  await using wal = await Wal.open(join(directory, 'log'), { lockTimeoutMs: 60_000 })
  expect(wal.lastLsn).toBeGreaterThanOrEqual(acknowledged.lsn)
  await using store = await BlobStore.open(join(directory, 'store'), { lockTimeoutMs: 60_000 })
  await using blob = await store.open('partition', 'blob')
  expect(Buffer.from(await blob.read(0, 4)).readUInt32LE()).toBeGreaterThanOrEqual(acknowledged.synced)
}

test('an_exception_that_nobody_catches_ends_the_process_with_what_was_acknowledged_kept', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `${busy}
    process.on('exit', tell)
    await whenBusy()
    setImmediate(() => { throw new Error('nobody catches this') })
    await Promise.all(working)`,
  )
  expect(ended).toMatchObject({ code: 1, signal: null })
  expect(ended.stderr).toContain('nobody catches this')
  await expectKept(directory, ended.stdout)
})

test('a_rejection_that_nobody_handles_ends_the_process_with_what_was_acknowledged_kept', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `${busy}
    process.on('exit', tell)
    await whenBusy()
    wal.append('not bytes')
    await Promise.all(working)`,
  )
  expect(ended).toMatchObject({ code: 1, signal: null })
  expect(ended.stderr).toContain('ERR_INVALID_ARG_TYPE')
  await expectKept(directory, ended.stdout)
})

test('sigterm_ends_the_process_at_once_with_what_was_acknowledged_kept', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `${busy}
    await whenBusy()
    tell()
    process.kill(process.pid, 'SIGTERM')
    await Promise.all(working)`,
  )
  expect(ended).toMatchObject({ code: null, signal: 'SIGTERM', stderr: '' })
  await expectKept(directory, ended.stdout)
})

test('who_handles_sigterm_closes_in_order_and_leaves_nothing_to_recover', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `${busy}
    process.once('SIGTERM', async () => {
      await Promise.all([wal.close(), store.close()])
      tell()
    })
    await whenBusy()
    process.kill(process.pid, 'SIGTERM')
    await Promise.allSettled(working)`,
  )
  expect(ended).toMatchObject({ code: 0, signal: null, stderr: '' })
  await expectKept(directory, ended.stdout)
  await using wal = await Wal.open(join(directory, 'log'))
  expect(wal.recovery).toMatchObject({ cleanShutdown: true, tornBytes: 0 })
})

test('a_thread_that_is_blocked_for_seconds_keeps_nothing_from_the_disk', async () => {
  const directory = temporary()
  // Goal: what was called before a long computation gets to the disk during it. Method: the thread sleeps, so that
  // nothing of JavaScript can run; from here one sees it arrive, and then the process is killed.
  const blocked = await started(
    directory,
    `
    import { writeSync } from 'node:fs'
    const wal = await Wal.open(directory + '/log')
    const store = await BlobStore.open(directory + '/store')
    const blob = await store.open('partition', 'blob')
    const working = [
      ...Array.from({ length: 1000 }, () => wal.append(Buffer.alloc(100))),
      blob.write(0, Buffer.alloc(100000, 7), { sync: true }),
    ]
    setImmediate(() => {
      writeSync(1, 'blocked\\n')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    })
    await Promise.all(working)`,
  )
  expect(blocked.line).toBe('blocked')
  const data = Buffer.alloc(100_000, 7)
  const file = join(directory, 'store', 'partition', Buffer.from('blob').toString('hex'))
  const isThere = async () =>
    (await Wal.verify(join(directory, 'log'))).records === 1000 && readFileSync(file).includes(data)
  await expect.poll(isThere, { timeout: 60_000 }).toBe(true)
  await blocked.kill()
  await using wal = await Wal.open(join(directory, 'log'), { lockTimeoutMs: 60_000 })
  expect(wal.lastLsn).toBe(1000)
  await using store = await BlobStore.open(join(directory, 'store'), { lockTimeoutMs: 60_000 })
  await using blob = await store.open('partition', 'blob')
  expect(data.equals(await blob.read(0, blob.size))).toBe(true)
})

test('after_a_thread_was_blocked_everything_settles', async () => {
  const ended = await child(
    temporary(),
    `
    const wal = await Wal.open(directory + '/log')
    const store = await BlobStore.open(directory + '/store')
    const blob = await store.open('partition', 'blob')
    const working = Array.from({ length: 20 }, async (_, index) => {
      await wal.append(Buffer.alloc(100))
      await blob.write(index * 4096, Buffer.alloc(4096, index), { sync: true })
      await blob.read(index * 4096, 4096, { dontCache: true })
    })
    for (let round = 0; round < 3; round += 1)
      setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500), 1)
    await Promise.all(working)
    await Promise.all([wal.close(), store.close()])
    console.log(wal.lastLsn, blob.size)`,
  )
  expect(ended).toMatchObject({ code: 0, stdout: '20 81920\n', stderr: '' })
})

/** What a child does: it is told who has the parent's, has its own, and ends in order. */
const inChild = `
import { BlobStore, Wal } from '${pathToFileURL(join(root, 'dist', 'index.js')).href}'
const directory = process.argv[2]
const refused = await Promise.all([
  Wal.open(directory + '/log', { lockTimeoutMs: 0 }).catch(error => error),
  BlobStore.open(directory + '/store', { lockTimeoutMs: 0 }).catch(error => error),
])
const own = directory + '/' + process.pid
const wal = await Wal.open(own + '/log')
const store = await BlobStore.open(own + '/store')
await Promise.all(Array.from({ length: 200 }, () => wal.append(Buffer.from('child'))))
const blob = await store.open('partition', 'blob')
await blob.write(0, Buffer.from('child'), { sync: true })
process.send({ refused: refused.map(({ code, pid }) => [code, pid]), lsn: wal.durableLsn, pid: process.pid })
await Promise.all([wal.close(), store.close()])
process.disconnect()
`

test.for([
  ['fork', 'fork(file, [directory], { execArgv: [] })'],
  ['cluster', 'cluster.fork()'],
] as const)('children made by %s have their own and leave the parents alone', async ([, make]) => {
  const directory = temporary()
  writeFileSync(join(directory, 'child.mjs'), inChild)
  const ended = await child(
    directory,
    `
    import cluster from 'node:cluster'
    import { fork } from 'node:child_process'
    const wal = await Wal.open(directory + '/log')
    const store = await BlobStore.open(directory + '/store')
    const blob = await store.open('partition', 'blob')
    const file = directory + '/child.mjs'
    cluster.setupPrimary({ exec: file, args: [directory], execArgv: [] })
    const told = await Promise.all([1, 2].map(() => new Promise((resolve, reject) => {
      const child = ${make}
      let message
      child.on('message', told => { message = told })
      child.on('error', reject)
      child.on('exit', code => code === 0 ? resolve(message) : reject(new Error('a child ended with ' + code)))
      wal.append(Buffer.from('parent'))
    })))
    await blob.write(0, Buffer.from('parent'), { sync: true })
    await wal.append(Buffer.from('parent'))
    for (const { refused, lsn, pid } of told) {
      const kept = await Wal.open(directory + '/' + pid + '/log')
      console.log(JSON.stringify(refused), lsn, kept.recovery.records, kept.recovery.cleanShutdown)
      await kept.close()
    }
    await Promise.all([wal.close(), store.close()])
    console.log(process.pid)`,
  )
  expect(ended).toMatchObject({ code: 0, signal: null, stderr: '' })
  const lines = ended.stdout.trim().split('\n')
  const pid = lines.pop()
  const refused = `[["ERR_WAL_LOCKED",${pid}],["ERR_BLOB_STORE_LOCKED",${pid}]]`
  expect(lines).toEqual([`${refused} 200 200 true`, `${refused} 200 200 true`])
  await using wal = await Wal.open(join(directory, 'log'))
  expect(wal.recovery).toMatchObject({ records: 3, cleanShutdown: true })
})
