/** Each mistake has its typed error, loses nothing, and leaves the handle usable where the contract says so. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { Wal, WalError } from '../src/index.js'
import { caught, child, collect, root, smallDisk, started, temporary, texts } from './helpers.js'

const MiB = 1024 * 1024
const bytes = (text: string) => Buffer.from(text)

test('no_asynchronous_method_throws_synchronously', async () => {
  await using wal = await Wal.open(temporary())
  const wrong = 'text' as never
  const doings: [() => PromiseLike<unknown>, string][] = [
    [() => Wal.open(5 as never), 'ERR_INVALID_ARG_TYPE'],
    [() => Wal.open('a', wrong), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.append(wrong), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.append(bytes('a'), wrong), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.append(bytes('a'), { ack: 'no' as never }), 'ERR_OUT_OF_RANGE'],
    [() => wal.appendBatch(wrong), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.appendBatch([]), 'ERR_OUT_OF_RANGE'],
    [() => wal.appendBatch([bytes('a'), wrong]), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.appendBatch(new Array(1)), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.durable(wrong), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.durable(-1), 'ERR_OUT_OF_RANGE'],
    [() => wal.durable(1), 'ERR_OUT_OF_RANGE'],
    [() => wal.read(wrong).next(), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.read({ from: 0.5 }).next(), 'ERR_OUT_OF_RANGE'],
  ]
  for (const [doing, code] of doings) {
    const promise = doing()
    expect(await caught(promise)).toMatchObject({ code })
  }
  expect(() => wal.enqueue(wrong)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }))
  // Nothing of it changed anything.
  expect(wal.lastLsn).toBe(0)
  expect(await wal.append(bytes('a'))).toBe(1)
  expect((await caught(wal.appendBatch([bytes('a'), wrong]))).message).toContain('records[1]')
})

test('a_record_one_byte_too_large_is_refused_and_one_that_just_fits_is_taken', async () => {
  await using wal = await Wal.open(temporary(), { segmentBytes: MiB })
  const limit = MiB / 4
  expect(await wal.append(Buffer.alloc(limit))).toBe(1)
  for (const doing of [
    () => wal.append(Buffer.alloc(limit + 1)),
    () => wal.appendBatch([bytes('a'), Buffer.alloc(limit + 1)]),
    () => wal.enqueue(Buffer.alloc(limit + 1)),
  ]) {
    const error = await caught(doing)
    expect(error).toBeInstanceOf(WalError)
    expect(error).toMatchObject({ code: 'ERR_WAL_RECORD_TOO_LARGE', size: limit + 1, limit })
  }
  expect(await wal.append(bytes('b'))).toBe(2)
})

test('a_batch_above_half_a_segment_is_refused_and_one_that_just_fits_is_taken', async () => {
  await using wal = await Wal.open(temporary(), { segmentBytes: MiB })
  const limit = MiB / 2 - 64
  const parts = (total: number) => [Buffer.alloc(limit / 2), Buffer.alloc(total - limit / 2 - 8)]
  expect(await wal.appendBatch(parts(limit))).toEqual({ first: 1, last: 2 })
  expect(await caught(wal.appendBatch(parts(limit + 1)))).toMatchObject({
    code: 'ERR_WAL_RECORD_TOO_LARGE',
    size: limit + 1,
    limit,
  })
  expect(await wal.append(bytes('b'))).toBe(3)
})

test('a_full_queue_refuses_and_takes_again_once_drained', async () => {
  await using wal = await Wal.open(temporary(), { queueBytesMax: 10_000 })
  const promises = Array.from({ length: 10 }, () => wal.append(Buffer.alloc(1000)))
  for (const doing of [
    () => wal.append(bytes('x')),
    () => wal.appendBatch([bytes('x')]),
    () => wal.enqueue(bytes('x')),
  ]) {
    expect(await caught(doing)).toMatchObject({ code: 'ERR_WAL_QUEUE_FULL', size: 10_001, limit: 10_000 })
  }
  expect(await Promise.all(promises)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  await wal.drained()
  expect(await wal.append(bytes('x'))).toBe(11)
})

test('a_record_above_the_bound_of_the_queue_is_taken_when_the_queue_is_empty', async () => {
  await using wal = await Wal.open(temporary(), { queueBytesMax: 1000 })
  expect(await wal.append(Buffer.alloc(500_000))).toBe(1)
  const pending = wal.append(Buffer.alloc(500_000))
  expect(await caught(wal.append(Buffer.alloc(500_000)))).toMatchObject({ code: 'ERR_WAL_QUEUE_FULL' })
  expect(await pending).toBe(2)
})

test('a_million_appends_without_awaiting_are_all_taken_where_the_queue_allows', async () => {
  await using wal = await Wal.open(temporary(), { queueBytesMax: 128 * MiB })
  const record = Buffer.alloc(100, 'm')
  const lsns = await Promise.all(Array.from({ length: 1_000_000 }, () => wal.append(record)))
  expect(lsns.at(-1)).toBe(1_000_000)
})

test('appends_beyond_the_queue_are_refused_and_every_one_settles', async () => {
  await using wal = await Wal.open(temporary(), { queueBytesMax: MiB })
  const record = Buffer.alloc(100, 'm')
  const settled = await Promise.allSettled(Array.from({ length: 50_000 }, () => wal.append(record)))
  const refused = settled.filter(one => one.status === 'rejected')
  expect(refused.every(one => one.reason.code === 'ERR_WAL_QUEUE_FULL')).toBe(true)
  expect(settled.length - refused.length).toBe(wal.lastLsn)
  // All in one turn of the event loop, which hears of nothing being written meanwhile.
  expect(wal.lastLsn).toBe(Math.floor(MiB / 100))
})

test('where_no_directory_can_be_made_open_says_which_and_why', async () => {
  const file = join(temporary(), 'file')
  writeFileSync(file, 'x')
  const error = await caught(Wal.open(join(file, 'log')))
  expect(error).toMatchObject({ name: 'WalError', code: 'ERR_WAL_IO', errno: -20 })
  expect(error.syscall).toBeTypeOf('string')
  expect(error.path).toContain(file)
})

// Root may write anywhere but where nobody can: here the kernel itself refuses.
test('in_a_directory_that_cannot_be_written_open_fails_and_the_process_goes_on', async () => {
  const error = await caught(Wal.open('/proc/self/ringbolt'))
  expect(error).toMatchObject({ name: 'WalError', code: 'ERR_WAL_IO' })
  expect(error.errno).toBeLessThan(0)
})

test('a_directory_that_holds_something_else_is_left_alone', async () => {
  const directory = temporary()
  writeFileSync(join(directory, 'letters.txt'), 'dear')
  expect(await caught(Wal.open(directory))).toMatchObject({ code: 'ERR_WAL_NOT_EMPTY', path: directory })
  expect(readdirSync(directory)).toEqual(['letters.txt'])
})

test('without_create_a_missing_log_is_not_made', async () => {
  const directory = join(temporary(), 'none')
  expect(await caught(Wal.open(directory, { create: false }))).toMatchObject({
    code: 'ERR_WAL_NOT_FOUND',
    path: directory,
  })
  expect(existsSync(directory)).toBe(false)
  mkdirSync(directory)
  expect(await caught(Wal.open(directory, { create: false }))).toMatchObject({ code: 'ERR_WAL_NOT_FOUND' })
})

test('a_second_opener_in_the_same_process_is_told_who_holds_the_lock', async () => {
  const directory = temporary()
  {
    await using wal = await Wal.open(directory)
    expect(await caught(Wal.open(directory, { lockTimeoutMs: 0 }))).toMatchObject({
      code: 'ERR_WAL_LOCKED',
      pid: process.pid,
    })
    expect(await wal.append(bytes('a'))).toBe(1)
  }
  await using wal = await Wal.open(directory, { lockTimeoutMs: 0 })
  expect(await texts(wal.read())).toEqual(['a'])
})

test('a_second_opener_in_a_worker_thread_is_told_who_holds_the_lock', async () => {
  const directory = temporary()
  await using _wal = await Wal.open(directory)
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads')
    import(workerData.module).then(({ Wal }) => Wal.open(workerData.directory, { lockTimeoutMs: 10 })).then(
      () => parentPort.postMessage({ code: 'opened' }),
      ({ code, pid }) => parentPort.postMessage({ code, pid }))`,
    { eval: true, workerData: { directory, module: join(root, 'dist', 'index.js') } },
  )
  const message = await new Promise((resolve, reject) =>
    worker.once('message', resolve).once('error', reject),
  )
  await worker.terminate()
  expect(message).toEqual({ code: 'ERR_WAL_LOCKED', pid: process.pid })
})

test('a_second_opener_in_another_process_is_told_who_holds_the_lock', async () => {
  const directory = temporary()
  const other = await started(
    directory,
    `
    globalThis.wal = await Wal.open(directory)
    await wal.append(Buffer.from('theirs'))
    console.log('open')
    setInterval(() => {}, 1000)`,
  )
  expect(other.line).toBe('open')
  expect(await caught(Wal.open(directory, { lockTimeoutMs: 10 }))).toMatchObject({
    code: 'ERR_WAL_LOCKED',
    pid: other.pid,
  })
  await other.kill()
  await using wal = await Wal.open(directory, { lockTimeoutMs: 60_000 })
  expect(await texts(wal.read())).toEqual(['theirs'])
  expect(wal.recovery.cleanShutdown).toBe(false)
})

test('after_close_every_call_says_closed_but_arguments_come_first', async () => {
  const wal = await Wal.open(temporary())
  await wal.append(bytes('a'))
  await wal.close()
  const doings = [
    () => wal.append(bytes('a')),
    () => wal.appendBatch([bytes('a')]),
    () => wal.enqueue(bytes('a')),
    () => wal.durable(),
    () => wal.flush(),
    () => wal.drained(),
    () => collect(wal.read()),
    // Closed comes before the size.
    () => wal.append(Buffer.alloc(17 * MiB)),
  ]
  for (const doing of doings) {
    expect(await caught(doing)).toMatchObject({
      name: 'WalError',
      code: 'ERR_WAL_CLOSED',
      path: wal.directory,
    })
  }
  expect(await caught(wal.append('a' as never))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  expect([wal.closed, wal.lastLsn, wal.durableLsn, wal.queuedBytes]).toEqual([true, 1, 1, 0])
})

test('reading_below_the_first_record_kept_says_where_the_log_begins', async () => {
  await using wal = await Wal.open(temporary())
  await wal.append(bytes('a'))
  expect(await caught(collect(wal.read({ from: 0 })))).toMatchObject({
    code: 'ERR_WAL_TRUNCATED',
    firstLsn: 1,
  })
})

test('a_signal_ends_the_waiting_for_open_and_the_log_is_closed', async () => {
  const directory = temporary()
  expect(await caught(Wal.open(directory, { signal: AbortSignal.abort() }))).toMatchObject({
    name: 'AbortError',
  })
  expect(readdirSync(directory)).toEqual([])
  const controller = new AbortController()
  const opening = Wal.open(directory, { signal: controller.signal })
  const reason = new Error('no time')
  controller.abort(reason)
  expect(await caught(opening)).toBe(reason)
  await using wal = await Wal.open(directory, { signal: new AbortController().signal, lockTimeoutMs: 60_000 })
  expect(await wal.append(bytes('a'))).toBe(1)
})

test('a_wait_for_a_lock_that_was_given_up_holds_neither_the_process_nor_the_next_open', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  const ended = await child(
    directory,
    `
    const waiting = Wal.open(directory, { lockTimeoutMs: 600_000, signal: AbortSignal.timeout(100) })
    await waiting.catch(error => console.log(error.name))`,
  )
  // The child is killed where it takes much longer than it should.
  expect(ended).toMatchObject({ code: 0, stdout: 'TimeoutError\n', stderr: '' })
  await wal.close()
})

test('a_signal_need_only_look_like_one', async () => {
  const events = new EventTarget()
  const signal = Object.assign(events, { aborted: false, reason: undefined as unknown }) as AbortSignal
  await using wal = await Wal.open(temporary(), { signal })
  await wal.append(bytes('a'))
  expect(await texts(wal.read({ signal }))).toEqual(['a'])
  const reason = new Error('no time')
  Object.assign(signal, { aborted: true, reason })
  expect(await caught(collect(wal.read({ signal })))).toBe(reason)
  expect(await caught(Wal.open(temporary(), { signal }))).toBe(reason)
})

test('a_signal_ends_a_read', async () => {
  await using wal = await Wal.open(temporary())
  await Promise.all(Array.from({ length: 10 }, () => wal.append(bytes('a'))))
  const controller = new AbortController()
  const seen: number[] = []
  const error = await caught(async () => {
    for await (const { lsn } of wal.read({ signal: controller.signal })) {
      seen.push(lsn)
      if (lsn === 3) controller.abort()
    }
  })
  expect(error.name).toBe('AbortError')
  expect(seen).toEqual([1, 2, 3])
  expect(await caught(collect(wal.read({ signal: AbortSignal.abort() })))).toMatchObject({
    name: 'AbortError',
  })
})

test('on_a_full_disk_appends_are_refused_nothing_is_lost_and_the_log_works_on', async context => {
  const disk = smallDisk(context, 'size=5m')
  const filler = join(disk, 'filler')
  writeFileSync(filler, Buffer.alloc(2 * MiB))
  const record = Buffer.alloc(10_000, 'r')
  {
    await using wal = await Wal.open(join(disk, 'log'), { segmentBytes: MiB })
    let acknowledged = 0
    const error = await caught(async () => {
      for (;;) acknowledged = await wal.append(record)
    })
    expect(error).toMatchObject({ name: 'WalError', code: 'ERR_WAL_NO_SPACE', errno: -28 })
    expect(acknowledged).toBeGreaterThan(0)
    expect(wal.lastLsn).toBe(acknowledged)
    expect(await collect(wal.read())).toHaveLength(acknowledged)
    rmSync(filler)
    expect(await wal.append(record)).toBe(acknowledged + 1)
  }
  await using wal = await Wal.open(join(disk, 'log'), { check: 'all' })
  expect(await collect(wal.read())).toHaveLength(wal.lastLsn)
  expect(wal.recovery.cleanShutdown).toBe(true)
})

test('an_enqueued_record_without_space_is_told_by_every_call_that_could_have_promised_it', async context => {
  const disk = smallDisk(context, 'size=4m')
  const wal = await Wal.open(join(disk, 'log'), { segmentBytes: MiB })
  for (let count = 0; count < 1000; count += 1) wal.enqueue(Buffer.alloc(10_000))
  const refused = { code: 'ERR_WAL_NO_SPACE', errno: -28 }
  const [durable, flush] = await Promise.all([caught(wal.durable()), caught(wal.flush())])
  expect(durable).toMatchObject(refused)
  expect(flush).toMatchObject(refused)
  expect(wal.lastLsn).toBeLessThan(1000)
  expect(await caught(wal.durable(1000))).toMatchObject(refused)
  expect(await caught(wal.durable(1001))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await caught(wal.append(bytes('a')))).toMatchObject({ code: 'ERR_WAL_POISONED', cause: refused })
  expect(await caught(wal.close())).toMatchObject({ code: 'ERR_WAL_POISONED', cause: refused })
  await using again = await Wal.open(join(disk, 'log'), { check: 'all' })
  expect(again.lastLsn).toBe(wal.lastLsn)
})

test('a_log_whose_segment_was_removed_acknowledges_nothing_into_it_any_more', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  await wal.append(bytes('a'))
  rmSync(join(directory, 'wal-0000000000000001.seg'))
  const cause = { code: 'ERR_WAL_IO', errno: -2, path: join(directory, 'wal-0000000000000001.seg') }
  expect(await caught(wal.flush())).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', cause })
  for (const doing of [
    () => wal.append(bytes('b')),
    () => wal.enqueue(bytes('b')),
    () => wal.flush(),
    () => wal.durable(),
    () => wal.drained(),
    () => wal.close(),
  ]) {
    expect(await caught(doing)).toMatchObject({ code: 'ERR_WAL_POISONED', cause })
  }
  expect(await caught(Wal.open(directory))).toMatchObject({ code: 'ERR_WAL_DAMAGED', segment: 1 })
})

test('on_a_read_only_file_system_open_says_so', async context => {
  const disk = smallDisk(context, 'size=5m')
  const directory = join(disk, 'log')
  await (await Wal.open(directory, { segmentBytes: MiB })).close()
  execFileSync('mount', ['-o', 'remount,ro', disk])
  for (const path of [directory, join(disk, 'other')]) {
    expect(await caught(Wal.open(path))).toMatchObject({ code: 'ERR_WAL_IO', errno: -30 })
  }
})
