/**
 * No room, and no right to write, on real file systems: ext4 and btrfs in a file. Nothing acknowledged is lost, nothing
 * hangs, and where nothing was written the log works on.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Wal } from '../src/index.js'
import { btrfs, ext4, type LoopDisk, ran, ranOnceFree } from './disks.js'
import { caught } from './helpers.js'
import { appendBatchNumbered, appendNumbered, expectPrefix, openLog } from './prefix.js'

const MiB = 1024 * 1024
const EIO = -5
const ENOSPC = -28
const EROFS = -30
const EDQUOT = -122

/** As large as records may be for which a segment is zeroed ahead: each waits for a flush of its own, and a disk is full soon. */
const LARGE = 30_000

/** Append one after another until that fails: why, and what was acknowledged before. */
async function appendUntilRefused(wal: Wal, bytes = LARGE) {
  let acknowledged = wal.lastLsn
  const error = await caught(async () => {
    for (;;) acknowledged = await appendNumbered(wal, bytes)
  })
  return { error, acknowledged }
}

const noSpace = (disk: LoopDisk, errno: number) => ({
  name: 'WalError',
  code: 'ERR_WAL_NO_SPACE',
  errno,
  path: expect.stringContaining(disk.log),
})

test('a_full_disk_refuses_appends_at_preparation_and_keeps_every_acknowledgement', async context => {
  const disk = ext4(context)
  const wal = await openLog(disk.log)
  const large = await appendUntilRefused(wal)
  expect(large.error).toMatchObject({ ...noSpace(disk, ENOSPC), syscall: 'fallocate' })
  expect(large.acknowledged).toBeGreaterThan(0)
  expect([wal.lastLsn, wal.durableLsn, wal.queuedBytes]).toEqual([large.acknowledged, large.acknowledged, 0])
  // It is refused again, and again without a trace.
  expect(await caught(appendNumbered(wal, LARGE))).toMatchObject(noSpace(disk, ENOSPC))
  expect(await wal.flush()).toBe(large.acknowledged)
  // What needs no next segment is still taken.
  const { acknowledged } = await appendUntilRefused(wal, 100)
  await wal.close()
  expect(await expectPrefix(disk.log, acknowledged, acknowledged)).toBe(acknowledged)
  disk.remount()
  expect(await expectPrefix(disk.log, acknowledged, acknowledged)).toBe(acknowledged)
})

test('a_log_that_was_refused_space_goes_on_as_soon_as_there_is_room', async context => {
  const disk = ext4(context)
  const filler = join(disk.directory, 'other')
  writeFileSync(filler, Buffer.alloc(6 * MiB))
  const wal = await openLog(disk.log)
  const first = await appendUntilRefused(wal)
  expect(first.error).toMatchObject(noSpace(disk, ENOSPC))
  rmSync(filler)
  const second = await appendUntilRefused(wal)
  expect(second.error).toMatchObject(noSpace(disk, ENOSPC))
  expect(second.acknowledged).toBeGreaterThan(first.acknowledged)
  // The log itself can make room.
  expect(await wal.truncateBefore(second.acknowledged)).toBe(second.acknowledged)
  const third = await appendUntilRefused(wal)
  expect(third.acknowledged).toBeGreaterThan(second.acknowledged)
  await wal.close()
  expect(await expectPrefix(disk.log, third.acknowledged, third.acknowledged)).toBe(third.acknowledged)
})

test('with_not_a_block_left_a_log_still_closes_and_the_next_open_says_why_it_cannot', async context => {
  const disk = ext4(context)
  const wal = await openLog(disk.log)
  await appendNumbered(wal, 1000)
  const free = disk.fill()
  // Room was reserved for these.
  for (let count = 0; count < 20; count += 1) await appendNumbered(wal, 10_000)
  expect(await caught(wal.rotate())).toMatchObject(noSpace(disk, ENOSPC))
  expect(await caught(wal.truncateBefore(10))).toMatchObject(noSpace(disk, ENOSPC))
  const last = await appendNumbered(wal, 1000)
  // No promise rests on HEAD, which finds no room either.
  await wal.close()
  expect(await caught(Wal.open(disk.log))).toMatchObject(noSpace(disk, ENOSPC))
  free()
  expect(await expectPrefix(disk.log, last, last)).toBe(last)
})

test('many_waiting_when_the_disk_is_full_each_hear_it_once_and_what_fits_is_there', async context => {
  const disk = ext4(context)
  const wal = await openLog(disk.log)
  let answers = 0
  const acknowledged: number[] = []
  const refused: unknown[] = []
  const asked: Promise<unknown>[] = []
  const ask = (appending: Promise<number>) =>
    asked.push(
      appending
        .then(
          lsn => acknowledged.push(lsn),
          error => refused.push(error.code),
        )
        .finally(() => {
          answers += 1
        }),
    )
  for (let count = 0; count < 1000; count += 1) {
    ask(appendNumbered(wal, 10_000))
    ask(appendBatchNumbered(wal, 5, 2000).then(({ last }) => last))
  }
  await Promise.all(asked)
  expect(answers).toBe(2000)
  expect(new Set(refused)).toEqual(new Set(['ERR_WAL_NO_SPACE']))
  const last = Math.max(...acknowledged)
  expect(wal.lastLsn).toBe(last)
  await wal.close()
  expect(await expectPrefix(disk.log, last, last)).toBe(last)
})

test('where_there_is_no_room_for_a_log_none_is_made_and_what_was_begun_does_not_hinder', async context => {
  const disk = ext4(context)
  const free = disk.fill()
  expect(await caught(Wal.open(disk.log, { segmentBytes: MiB }))).toMatchObject({
    code: 'ERR_WAL_NO_SPACE',
    errno: ENOSPC,
  })
  free()
  const wal = await openLog(disk.log)
  await appendNumbered(wal, 100)
  await wal.close()
  expect(await expectPrefix(disk.log, 1, 1)).toBe(1)
})

test('a_quota_that_is_used_up_loses_nothing_acknowledged', async context => {
  const disk = btrfs(context)
  disk.limit(8 * MiB)
  const wal = await openLog(disk.log)
  const { error, acknowledged } = await appendUntilRefused(wal)
  expect(acknowledged).toBeGreaterThan(0)
  // Copying on write, this file system can run out of the quota at an overwrite as well, which ends the log.
  if (error.code === 'ERR_WAL_NO_SPACE') {
    expect(error).toMatchObject(noSpace(disk, EDQUOT))
    disk.limit('none')
    const next = await appendNumbered(wal, 10_000)
    expect(next).toBe(acknowledged + 1)
    await wal.close()
    expect(await expectPrefix(disk.log, next, next)).toBe(next)
  } else {
    const cause = { code: 'ERR_WAL_IO', errno: EDQUOT, path: expect.stringContaining(disk.log) }
    expect(error).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', cause })
    expect(await caught(wal.close())).toMatchObject({ code: 'ERR_WAL_POISONED', cause })
    disk.limit('none')
    await expectPrefix(disk.log, acknowledged, acknowledged + 1)
  }
})

test('the_kernel_mounts_nothing_read_only_under_an_open_log', async context => {
  const disk = ext4(context)
  const wal = await openLog(disk.log)
  expect(() => ran('mount', '-o', 'remount,ro', disk.directory)).toThrow('busy')
  expect(await appendNumbered(wal, 100)).toBe(1)
  await wal.close()
  ranOnceFree('mount', '-o', 'remount,ro', disk.directory)
  expect(await caught(Wal.open(disk.log))).toMatchObject({
    name: 'WalError',
    code: 'ERR_WAL_IO',
    errno: EROFS,
  })
  expect(await caught(Wal.open(join(disk.directory, 'another')))).toMatchObject({
    code: 'ERR_WAL_IO',
    errno: EROFS,
    syscall: 'mkdir',
  })
  ran('mount', '-o', 'remount,rw', disk.directory)
  expect(await expectPrefix(disk.log, 1, 1)).toBe(1)
})

test('a_file_system_that_turns_read_only_under_load_loses_nothing_acknowledged', async context => {
  // An error of the file system itself, which the kernel lets anyone make who may: no write is taken any more.
  const disk = ext4(context, 'errors=remount-ro')
  const wal = await openLog(disk.log)
  let acknowledged = 0
  const load = Array.from({ length: 16 }, () =>
    caught(async () => {
      for (;;) acknowledged = Math.max(acknowledged, await appendNumbered(wal, 3000))
    }),
  )
  while (acknowledged < 100) await new Promise(resolve => setTimeout(resolve, 5))
  writeFileSync(`/sys/fs/ext4/${disk.device}/trigger_fs_error`, '1')
  const errors = await Promise.all(load)
  const issued = wal.lastLsn
  for (const error of errors) {
    // At a write, or already at the preparation of the next segment, where nothing was written.
    expect(['ERR_WAL_OUTCOME_UNKNOWN', 'ERR_WAL_POISONED', 'ERR_WAL_NO_SPACE']).toContain(error.code)
    // What was under way when the journal was given up fails as EIO.
    expect([EROFS, EIO]).toContain(error.errno)
    expect(error.path).toContain(disk.log)
  }
  const closing = wal.close()
  if (errors.some(({ code }) => code !== 'ERR_WAL_NO_SPACE')) {
    expect(await caught(closing)).toMatchObject({ code: 'ERR_WAL_POISONED', cause: { code: 'ERR_WAL_IO' } })
  } else {
    await closing
  }
  expect(await caught(Wal.open(disk.log))).toMatchObject({ code: 'ERR_WAL_IO', errno: EROFS })
  disk.remount()
  await expectPrefix(disk.log, acknowledged, issued)
})
