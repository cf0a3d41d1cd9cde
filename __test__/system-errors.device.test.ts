/**
 * A device that fails: reads and writes answer EIO from one moment to another, under a real ext4. The first failure ends
 * the log (durability rule 2), everything pending hears of it, and once the device is well again the log opens with
 * everything acknowledged.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Wal } from '../src/index.js'
import { faulty } from './disks.js'
import { caught, collect } from './helpers.js'
import { appendBatchNumbered, appendNumbered, expectPrefix, numbered, openLog } from './prefix.js'

const MiB = 1024 * 1024
const EIO = -5

/** What promises came to, of which each settles once. */
class Answers {
  /** How many resolved. */
  resolved = 0
  readonly errors: unknown[] = []
  readonly #settled: Promise<unknown>[] = []

  add(promise: Promise<unknown>): void {
    this.#settled.push(
      promise.then(
        () => {
          this.resolved += 1
        },
        error => this.errors.push(error),
      ),
    )
  }

  async all(): Promise<void> {
    await Promise.all(this.#settled)
  }
}

/** Every call says that the log is poisoned, and why. */
async function expectPoisoned(wal: Wal, cause: object): Promise<void> {
  for (const doing of [
    () => wal.append(Buffer.from('a')),
    () => wal.appendBatch([Buffer.from('a')]),
    () => wal.appendSync(Buffer.from('a')),
    () => wal.enqueue(Buffer.from('a')),
    () => wal.durable(),
    () => wal.flush(),
    () => wal.drained(),
    () => wal.rotate(),
    () => wal.truncateBefore(1),
    () => wal.close(),
    () => wal.close(),
  ]) {
    expect(await caught(doing)).toMatchObject({ name: 'WalError', code: 'ERR_WAL_POISONED', cause })
  }
}

for (const sync of ['auto', 'dsync', 'fdatasync'] as const) {
  for (const directIo of [true, false]) {
    const how = `${sync}, ${directIo ? 'direct' : 'buffered'}`
    test(`a_thousand_that_wait_when_a_write_fails_all_hear_it_once_and_the_log_opens_again (${how})`, async context => {
      const disk = await faulty(context)
      const wal = await openLog(disk.log, { sync, directIo, queueBytesMax: MiB })
      for (let count = 0; count < 50; count += 1) await appendNumbered(wal, 500)
      const acknowledged = wal.lastLsn
      disk.fail('pwrite')
      const [answers, drained] = [new Answers(), new Answers()]
      for (let count = 0; count < 700; count += 1) answers.add(appendNumbered(wal, 1000))
      for (let count = 0; count < 300; count += 1) {
        const lsn = wal.lastLsn + 1
        answers.add(wal.durable(wal.enqueue(numbered(lsn, lsn, 0))))
      }
      const { lastLsn } = wal
      answers.add(wal.flush())
      drained.add(wal.drained())
      answers.add(wal.rotate())
      answers.add(wal.truncateBefore(lastLsn))
      answers.add(wal.truncateBefore(lastLsn + 1))
      answers.add(appendBatchNumbered(wal, 3, 10))
      await Promise.all([answers.all(), drained.all()])
      expect([answers.resolved, answers.errors.length]).toEqual([0, 1005])
      // What is written to the page cache waits no more.
      expect(drained.resolved + drained.errors.length).toBe(1)
      const cause = {
        name: 'WalError',
        code: 'ERR_WAL_IO',
        errno: EIO,
        syscall: expect.stringMatching(/^(pwrite|pwritev2|fdatasync|fsync|fallocate)$/),
        path: expect.stringContaining(disk.log),
      }
      for (const error of [...answers.errors, ...drained.errors]) {
        expect(error).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', errno: EIO, cause })
      }
      await expectPoisoned(wal, cause)
      // Whatever is still in the page cache and not on the device is forgotten.
      disk.heal()
      disk.remount()
      await expectPrefix(disk.log, acknowledged, lastLsn + 3)
    })
  }
}

test('a_lone_append_into_a_failing_device_is_not_acknowledged', async context => {
  const disk = await faulty(context)
  const wal = await openLog(disk.log)
  for (let count = 0; count < 10; count += 1) await appendNumbered(wal, 500)
  disk.fail('pwrite')
  const cause = { code: 'ERR_WAL_IO', errno: EIO, path: expect.stringContaining(disk.log) }
  expect(await caught(appendNumbered(wal, 500))).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', cause })
  expect(wal.durableLsn).toBe(10)
  await expectPoisoned(wal, cause)
  disk.heal()
  disk.remount()
  await expectPrefix(disk.log, 10, 11)
})

test('appendSync_into_a_failing_device_throws', async context => {
  const disk = await faulty(context)
  const wal = await openLog(disk.log)
  for (let count = 0; count < 10; count += 1) await appendNumbered(wal, 500)
  disk.fail('pwrite')
  const cause = { code: 'ERR_WAL_IO', errno: EIO, path: expect.stringContaining(disk.log) }
  expect(await caught(() => wal.appendSync(Buffer.from('a')))).toMatchObject({
    code: 'ERR_WAL_OUTCOME_UNKNOWN',
    cause,
  })
  await expectPoisoned(wal, cause)
  disk.heal()
})

test('after_a_flush_that_failed_once_the_next_one_which_would_succeed_is_not_believed', async context => {
  // Buffered writes succeed, the flush finds out; the kernel takes the lost pages for clean then, so a second
  // flush would answer 0.
  const disk = await faulty(context)
  const options = { sync: 'fdatasync', directIo: false } as const
  const wal = await openLog(disk.log, options)
  for (let count = 0; count < 10; count += 1) await appendNumbered(wal, 5000)
  disk.fail('pwrite')
  const pending = [appendNumbered(wal, 5000), appendNumbered(wal, 5000), wal.flush()].map(caught)
  const cause = {
    code: 'ERR_WAL_IO',
    errno: EIO,
    syscall: 'fdatasync',
    path: join(disk.log, 'wal-0000000000000001.seg'),
  }
  for (const error of await Promise.all(pending)) {
    expect(error).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', cause })
  }
  disk.heal()
  await expectPoisoned(wal, cause)
  expect(wal.durableLsn).toBe(10)
  // What the page cache still shows is made durable before anything is built on it, or is not believed.
  const last = await expectPrefix(disk.log, 10, 12, options)
  const again = await openLog(disk.log, options)
  expect(await appendNumbered(again, 5000)).toBe(last + 1)
  await again.close()
  disk.remount()
  expect(await expectPrefix(disk.log, last + 1, last + 1)).toBe(last + 1)
})

test('a_device_that_does_not_let_itself_be_read_fails_open_without_a_byte_changed', async context => {
  const disk = await faulty(context)
  const wal = await openLog(disk.log)
  for (let count = 0; count < 150; count += 1) await appendNumbered(wal, 10_000)
  await wal.close()
  disk.remount()
  // The names are read before, so that it is the files that fail: first HEAD, then, with HEAD in memory, a segment.
  const names = readdirSync(disk.log)
  for (const name of names) statSync(join(disk.log, name))
  disk.fail('pread')
  const unreadable = { name: 'WalError', code: 'ERR_WAL_IO', errno: EIO, syscall: 'pread' }
  const first = await caught(Wal.open(disk.log, { check: 'all' }))
  expect(first).toMatchObject({ ...unreadable, path: expect.stringContaining(disk.log) })
  disk.heal()
  readFileSync(join(disk.log, 'HEAD'))
  disk.fail('pread')
  for (const check of ['tail', 'all'] as const) {
    const error = await caught(Wal.open(disk.log, { check }))
    expect(error).toMatchObject({ ...unreadable, path: expect.stringMatching(/wal-\d+\.seg$/) })
  }
  disk.heal()
  expect(readdirSync(disk.log)).toEqual(names)
  expect(await expectPrefix(disk.log, 150, 150)).toBe(150)
})

test('a_read_that_fails_ends_that_reading_and_not_the_log', async context => {
  const disk = await faulty(context)
  const wal = await openLog(disk.log)
  for (let count = 0; count < 50; count += 1) await appendNumbered(wal, 10_000)
  disk.fail('pread')
  expect(await caught(collect(wal.read()))).toMatchObject({
    name: 'WalError',
    code: 'ERR_WAL_IO',
    errno: EIO,
    syscall: 'pread',
  })
  disk.heal()
  expect(await appendNumbered(wal, 10_000)).toBe(51)
  expect(await collect(wal.read())).toHaveLength(51)
  await wal.close()
  expect(await expectPrefix(disk.log, 51, 51)).toBe(51)
})
