/** Rotating, truncating, listing segments, following, and appending in this very thread. */
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Wal } from '../src/index.js'
import { caught, child, collect, smallDisk, temporary, texts } from './helpers.js'

const MiB = 1024 * 1024
const bytes = (text: string) => Buffer.from(text)

/** Three sealed segments of ten records each, and one without any. */
async function rotated(directory: string): Promise<Wal> {
  const wal = await Wal.open(directory, { segmentBytes: MiB })
  for (let segment = 0; segment < 3; segment += 1) {
    const first = segment * 10 + 1
    const appended = Array.from({ length: 10 }, (_, index) => wal.append(bytes(`record ${first + index}`)))
    const rotation = wal.rotate()
    expect((await Promise.all(appended)).at(-1)).toBe(first + 9)
    await rotation
  }
  return wal
}

test('rotate_seals_what_was_appended_before_and_segments_tells', async () => {
  const directory = temporary()
  await using wal = await rotated(directory)
  const segments = await wal.segments()
  expect(
    segments.map(({ segment, firstLsn, lastLsn, sealed }) => [segment, firstLsn, lastLsn, sealed]),
  ).toEqual([
    [1, 1, 10, true],
    [2, 11, 20, true],
    [3, 21, 30, true],
    [4, 31, 30, false],
  ])
  expect(segments[1]).toMatchObject({ path: join(directory, 'wal-0000000000000002.seg'), bytes: MiB })
  expect(wal.stats().rotations).toBe(3)
  await wal.rotate()
  expect(await wal.segments()).toEqual(segments)
})

test('truncate_before_serves_nothing_below_and_removes_whole_segments', async () => {
  const directory = temporary()
  await using wal = await rotated(directory)
  expect(await wal.truncateBefore(15)).toBe(15)
  expect(wal.firstLsn).toBe(15)
  expect(readdirSync(directory)).not.toContain('wal-0000000000000001.seg')
  expect(readdirSync(directory)).toContain('wal-0000000000000002.seg')
  expect((await texts(wal.read())).at(0)).toBe('record 15')
  expect(await caught(collect(wal.read({ from: 14 })))).toMatchObject({
    code: 'ERR_WAL_TRUNCATED',
    firstLsn: 15,
  })
  expect(await wal.truncateBefore(3n)).toBe(15)
  expect(await wal.truncateBefore(31)).toBe(31)
  expect(await collect(wal.read())).toEqual([])
  await wal.close()
  await using again = await Wal.open(directory, { check: 'all' })
  expect([again.firstLsn, again.lastLsn]).toEqual([31, 30])
  expect(await again.append(bytes('next'))).toBe(31)
})

test('truncate_before_waits_for_the_records_below', async () => {
  await using wal = await Wal.open(temporary(), { ack: 'written', syncIntervalMs: 100_000 })
  await wal.append(bytes('a'))
  const lsn = wal.enqueue(bytes('b'))
  expect(await wal.truncateBefore(lsn + 1)).toBe(3)
  expect(wal.durableLsn).toBe(2)
})

test('bad_arguments_are_told_and_change_nothing', async () => {
  await using wal = await Wal.open(temporary())
  await wal.append(bytes('a'))
  expect(await caught(wal.truncateBefore(3))).toMatchObject({ name: 'RangeError', code: 'ERR_OUT_OF_RANGE' })
  expect(await caught(wal.truncateBefore(-1))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await caught(wal.truncateBefore(1.5))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await caught(wal.truncateBefore('1' as never))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  expect(await caught(wal.truncateBefore(undefined as never))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  expect(await caught(() => wal.appendSync('a' as never))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  expect(await caught(collect(wal.read({ follow: 1 as never })))).toMatchObject({
    code: 'ERR_INVALID_ARG_TYPE',
  })
  expect(await caught(collect(wal.readBatches({ from: -1 })))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await texts(wal.read())).toEqual(['a'])
})

test('after_close_every_request_says_closed', async () => {
  const wal = await rotated(temporary())
  const settled = [wal.rotate(), wal.truncateBefore(5), wal.segments()]
  await wal.close()
  await Promise.all(settled)
  for (const doing of [
    () => wal.rotate(),
    () => wal.truncateBefore(1),
    () => wal.segments(),
    () => wal.appendSync(bytes('a')),
    () => collect(wal.readBatches()),
    () => collect(wal.read({ follow: true })),
  ]) {
    expect(await caught(doing)).toMatchObject({ code: 'ERR_WAL_CLOSED' })
  }
})

test('append_sync_is_durable_on_return_and_follows_what_was_appended_before', async () => {
  const directory = temporary()
  await using wal = await Wal.open(directory)
  const settled: string[] = []
  const pending = wal.append(bytes('a')).then(lsn => settled.push(`append ${lsn}`))
  const batch = wal.appendBatch([bytes('b'), bytes('c')]).then(({ first }) => settled.push(`batch ${first}`))
  expect(wal.enqueue(bytes('d'))).toBe(4)
  expect(wal.appendSync(bytes('e'))).toBe(5)
  expect(wal.durableLsn).toBe(5)
  expect(settled).toEqual([])
  const later = wal.append(bytes('f'))
  await Promise.all([pending, batch])
  expect(settled).toEqual(['append 1', 'batch 2'])
  expect(await later).toBe(6)
  expect(await texts(wal.read())).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
})

test('append_sync_in_an_exit_handler_is_there_afterwards', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `
    const wal = await Wal.open(directory)
    process.on('exit', () => wal.appendSync(Buffer.from('good night')))
    wal.enqueue(Buffer.from('a'))
    process.exit(0)`,
  )
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  await using wal = await Wal.open(directory, { lockTimeoutMs: 60_000 })
  expect(await texts(wal.read())).toEqual(['a', 'good night'])
})

test('append_sync_without_space_is_refused_and_the_log_works_on', async context => {
  const disk = smallDisk(context, 'size=4m')
  const wal = await Wal.open(join(disk, 'log'), { segmentBytes: MiB })
  const filler = join(disk, 'filler')
  const record = Buffer.alloc(100_000)
  let last = 0
  writeFileSync(filler, Buffer.alloc(2.5 * MiB))
  const error = await caught(() => {
    for (;;) last = wal.appendSync(record)
  })
  expect(error).toMatchObject({ code: 'ERR_WAL_NO_SPACE', errno: -28 })
  expect(wal.lastLsn).toBe(last)
  rmSync(filler)
  expect(wal.appendSync(record)).toBe(last + 1)
  await wal.close()
})

test('batches_hold_what_read_yields', async () => {
  await using wal = await Wal.open(temporary())
  for (let index = 0; index < 60_000; index += 1) wal.enqueue(bytes(`record ${index} ${'x'.repeat(30)}`))
  await wal.durable()
  const batches = await collect(wal.readBatches({ from: 100, to: 59_000 }))
  expect(batches.length).toBeGreaterThan(1)
  expect(batches.flat()).toEqual(await collect(wal.read({ from: 100, to: 59_000 })))
})

test('a_follower_sees_every_record_once_and_ends_at_close', async () => {
  const wal = await Wal.open(temporary(), { segmentBytes: MiB })
  await wal.append(bytes('0'))
  const following = collect(wal.read({ follow: true }))
  const late = collect(wal.readBatches({ from: 500, follow: true }))
  for (let round = 0; round < 100; round += 1) {
    await Promise.all(Array.from({ length: 10 }, (_, index) => wal.append(Buffer.alloc(2000, index))))
    if (round % 10 === 0) await wal.rotate()
  }
  wal.enqueue(bytes('last'))
  await wal.close()
  const seen = await following
  expect(seen.map(({ lsn }) => lsn)).toEqual(Array.from({ length: 1002 }, (_, index) => index + 1))
  expect(String(seen.at(-1)?.data)).toBe('last')
  expect((await late).flat()).toEqual(seen.slice(499))
})

test('a_follower_stops_at_its_end_at_an_abort_and_when_left', async () => {
  await using wal = await Wal.open(temporary())
  const limited = collect(wal.read({ follow: true, to: 3 }))
  const controller = new AbortController()
  const aborted = caught(collect(wal.read({ follow: true, signal: controller.signal })))
  const left = (async () => {
    for await (const { lsn } of wal.read({ follow: true })) if (lsn === 2) return lsn
    return undefined
  })()
  for (const text of ['a', 'b', 'c', 'd']) await wal.append(bytes(text))
  expect(await limited).toHaveLength(3)
  expect(await left).toBe(2)
  const reason = new Error('enough')
  controller.abort(reason)
  expect(await aborted).toBe(reason)
  expect(await wal.append(bytes('e'))).toBe(5)
})

test('a_pending_request_keeps_the_process_alive_until_it_settles', async () => {
  for (const body of [
    'wal.rotate()',
    'wal.truncateBefore(2)',
    'wal.segments()',
    'wal.read({ follow: true, to: 1 }).next()',
  ]) {
    const ended = await child(
      temporary(),
      `
      const wal = await Wal.open(directory)
      await wal.append(Buffer.from('a'))
      ${body}.then(() => console.log('settled'))`,
    )
    expect(ended, body).toMatchObject({ code: 0, stdout: 'settled\n', stderr: '' })
  }
})

test('a_follower_that_left_while_it_waited_holds_neither_itself_nor_the_process', async () => {
  const ended = await child(
    temporary(),
    `
    const wal = await Wal.open(directory)
    const controller = new AbortController()
    const aborted = wal.read({ follow: true, signal: controller.signal }).next()
    const iterators = [wal.read({ follow: true }), wal.readBatches({ follow: true }), Wal.read(directory, { follow: true })]
    const waiting = iterators.map(iterator => iterator.next())
    await new Promise(resolve => setTimeout(resolve, 50))
    controller.abort()
    await aborted.catch(error => console.log(error.name))
    for (const iterator of iterators) console.log((await iterator.return()).done)
    console.log((await Promise.all(waiting)).every(({ done }) => done))
    globalThis.wal = wal`,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'AbortError\ntrue\ntrue\ntrue\ntrue\n', stderr: '' })
})

test('append_sync_finds_the_room_that_there_is_by_now', async () => {
  await using wal = await Wal.open(temporary(), { queueBytesMax: 1000 })
  wal.enqueue(Buffer.alloc(900))
  expect(await caught(() => wal.appendSync(Buffer.alloc(900)))).toMatchObject({ code: 'ERR_WAL_QUEUE_FULL' })
  await wal.drained()
  const filled = wal.append(Buffer.alloc(900))
  // One turn hands it over; after it this thread hears nothing of how it goes.
  await new Promise(resolve => process.nextTick(resolve))
  let lsn = 0
  for (const until = Date.now() + 60_000; lsn === 0 && Date.now() < until; ) {
    try {
      lsn = wal.appendSync(Buffer.alloc(900))
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_WAL_QUEUE_FULL' })
    }
  }
  expect(lsn).toBe(3)
  expect(await filled).toBe(2)
})
