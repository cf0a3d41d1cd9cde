/** What a log does when all goes well. */
import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { type Progress, Wal } from '../src/index.js'
import { collect, temporary, texts } from './helpers.js'

const bytes = (text: string) => Buffer.from(text)

test('appends_get_numbers_in_call_order_and_settle_in_it', async () => {
  await using wal = await Wal.open(temporary())
  expect([wal.firstLsn, wal.lastLsn, wal.durableLsn, wal.closed]).toEqual([1, 0, 0, false])
  const order: number[] = []
  const promises = Array.from({ length: 1000 }, (_, index) =>
    wal.append(bytes(`record ${index}`)).then(lsn => order.push(lsn)),
  )
  expect(wal.lastLsn).toBe(1000)
  expect(wal.queuedBytes).toBeGreaterThan(0)
  await Promise.all(promises)
  expect(order).toEqual(Array.from({ length: 1000 }, (_, index) => index + 1))
  expect(wal.durableLsn).toBe(1000)
  expect(wal.queuedBytes).toBe(0)
})

test('numbers_follow_call_order_across_append_batch_and_enqueue', async () => {
  await using wal = await Wal.open(temporary())
  const one = wal.append(bytes('1'))
  const batch = wal.appendBatch([bytes('2'), bytes('3')])
  expect(wal.enqueue(bytes('4'))).toBe(4)
  const written = wal.append(bytes('5'), { ack: 'written' })
  expect(wal.enqueue(bytes('6'))).toBe(6)
  expect(await Promise.all([one, batch, written])).toEqual([1, { first: 2, last: 3 }, 5])
  expect(await wal.durable()).toBeGreaterThanOrEqual(6)
  expect(await texts(wal.read())).toEqual(['1', '2', '3', '4', '5', '6'])
})

test('everything_is_there_again_after_close_and_open', async () => {
  const directory = temporary()
  const all = Array.from({ length: 500 }, (_, index) => `record ${index} ${'x'.repeat(index)}`)
  {
    await using wal = await Wal.open(directory)
    expect(wal.recovery).toMatchObject({ records: 0, tornBytes: 0, cleanShutdown: true, created: true })
    expect(wal.recovery.durationMs).toBeGreaterThanOrEqual(0)
    await Promise.all(all.map(text => wal.append(bytes(text))))
  }
  await using wal = await Wal.open(directory, { check: 'all', create: false })
  expect(wal.recovery).toMatchObject({ records: 500, tornBytes: 0, cleanShutdown: true, created: false })
  expect(wal.recovery).not.toHaveProperty('tornAt')
  expect([wal.firstLsn, wal.lastLsn, wal.durableLsn]).toEqual([1, 500, 500])
  expect(await texts(wal.read())).toEqual(all)
  expect(await wal.append(bytes('next'))).toBe(501)
})

test('an_empty_record_is_a_record', async () => {
  await using wal = await Wal.open(temporary())
  const detached = new Uint8Array(4)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  expect(
    await Promise.all([wal.append(new Uint8Array(0)), wal.append(detached), wal.append(bytes('a'))]),
  ).toEqual([1, 2, 3])
  expect(await texts(wal.read())).toEqual(['', '', 'a'])
})

test('bytes_are_taken_at_the_call_whatever_becomes_of_the_buffer', async () => {
  await using wal = await Wal.open(temporary())
  const small = Buffer.from('small')
  const large = Buffer.alloc(1024 * 1024, 'l')
  const shared = new Uint8Array(new SharedArrayBuffer(600_000)).fill(97)
  const moved = new Uint8Array(1000).fill(98)
  const settled = Promise.all([wal.append(small), wal.append(large), wal.append(shared), wal.append(moved)])
  small.fill(0)
  large.fill(0)
  shared.fill(0)
  structuredClone(moved.buffer, { transfer: [moved.buffer] })
  await settled
  const read = await collect(wal.read())
  expect(read.map(({ data }) => [data[0], data.at(-1), data.length])).toEqual([
    [115, 108, 5],
    [108, 108, 1024 * 1024],
    [97, 97, 600_000],
    [98, 98, 1000],
  ])
})

test('records_of_every_size_pass_through_the_staging_and_beside_it_in_order', async () => {
  const directory = temporary()
  const sizes = [
    0,
    1,
    3,
    4,
    5,
    100,
    4095,
    4096,
    4097,
    65_536,
    262_139,
    262_140,
    262_141,
    1_000_000,
    7,
    16 * 1024 * 1024,
    2,
  ]
  const make = (size: number, index: number) => Buffer.alloc(size, index + 1)
  {
    await using wal = await Wal.open(directory)
    const lsns = await Promise.all(sizes.map((size, index) => wal.append(make(size, index))))
    expect(lsns).toEqual(sizes.map((_, index) => index + 1))
    await wal.appendBatch([make(200_000, 50), make(200_000, 51)])
  }
  await using wal = await Wal.open(directory)
  let index = 0
  for await (const { lsn, data } of wal.read({ to: sizes.length })) {
    expect(lsn).toBe(index + 1)
    expect(Buffer.compare(data, make(sizes[index] as number, index))).toBe(0)
    index += 1
  }
  expect(index).toBe(sizes.length)
})

test('written_is_acknowledged_and_becomes_durable_within_the_interval', async () => {
  await using wal = await Wal.open(temporary(), { ack: 'written', syncIntervalMs: 20 })
  const lsn = await wal.append(bytes('a'))
  expect(lsn).toBe(1)
  expect(await wal.append(bytes('b'), { ack: 'durable' })).toBe(2)
  expect(wal.durableLsn).toBe(2)
  await wal.append(bytes('c'))
  await expect.poll(() => wal.durableLsn, { timeout: 60_000 }).toBe(3)
})

test('flush_and_durable_reach_what_was_appended_before_them', async () => {
  await using wal = await Wal.open(temporary(), { ack: 'written', syncIntervalMs: 1_000_000 })
  expect(await wal.flush()).toBe(0)
  expect(await wal.durable()).toBe(0)
  await wal.append(bytes('a'))
  expect(await wal.flush()).toBe(1)
  const first = wal.enqueue(bytes('b'))
  const second = wal.enqueue(bytes('c'))
  const [one, both, big] = await Promise.all([wal.durable(first), wal.durable(), wal.durable(BigInt(second))])
  expect(one).toBeGreaterThanOrEqual(first)
  expect(both).toBeGreaterThanOrEqual(second)
  expect(big).toBeGreaterThanOrEqual(second)
  // Already there: at once.
  expect(await wal.durable(1)).toBe(3)
  // A record already written, with nothing staged behind it.
  await wal.append(bytes('d'))
  expect(await wal.durable()).toBe(4)
})

test('drained_resolves_once_half_of_the_queue_is_free', async () => {
  await using wal = await Wal.open(temporary(), { queueBytesMax: 100_000 })
  await wal.drained()
  for (let index = 0; index < 100; index += 1) wal.enqueue(Buffer.alloc(1000))
  expect(wal.queuedBytes).toBe(100_000)
  await wal.drained()
  expect(wal.queuedBytes).toBeLessThan(50_000)
  await wal.durable()
  expect(wal.queuedBytes).toBe(0)
})

test('read_serves_the_range_asked_for', async () => {
  await using wal = await Wal.open(temporary())
  await Promise.all(Array.from({ length: 100 }, (_, index) => wal.append(bytes(String(index + 1)))))
  const range = async (options: Parameters<typeof wal.read>[0]) =>
    (await texts(wal.read(options))).map(Number)
  expect(await range({ from: 40, to: 42 })).toEqual([40, 41, 42])
  expect(await range({ from: 100 })).toEqual([100])
  expect(await range({ to: 2n })).toEqual([1, 2])
  expect(await range({ from: 99n, to: 1000 })).toEqual([99, 100])
  expect(await range({ from: 101 })).toEqual([])
  expect(await range({ from: 5, to: 4 })).toEqual([])
  const [record] = await collect(wal.read({ from: 7, to: 7 }))
  expect(record?.lsn).toBe(7)
  expect(record?.data).toBeInstanceOf(Buffer)
})

test('read_serves_durable_records_only', async () => {
  await using wal = await Wal.open(temporary())
  await wal.append(bytes('a'))
  const pending = wal.append(bytes('b'))
  // Called before the second one could have been handed over.
  const first = await wal.read().next()
  expect(first.value?.lsn).toBe(1)
  await pending
  expect(await texts(wal.read())).toEqual(['a', 'b'])
})

test('leaving_a_read_early_closes_what_it_held', async () => {
  await using wal = await Wal.open(temporary())
  await Promise.all(Array.from({ length: 20_000 }, () => wal.append(Buffer.alloc(100))))
  for (let round = 0; round < 50; round += 1) {
    for await (const { lsn } of wal.read()) if (lsn === 3) break
  }
  const open = () => openFiles().filter(path => path.startsWith(wal.directory)).length
  await expect.poll(open, { timeout: 60_000 }).toBeLessThan(10)
})

test('a_read_that_began_goes_on_over_a_close', async () => {
  const wal = await Wal.open(temporary())
  await Promise.all(Array.from({ length: 20_000 }, () => wal.append(Buffer.alloc(100))))
  let count = 0
  for await (const { lsn } of wal.read()) {
    if (lsn === 1) await wal.close()
    count += 1
  }
  expect(count).toBe(20_000)
})

test('a_directory_may_be_relative_or_a_url_and_its_parents_are_made', async () => {
  const directory = join(temporary(), 'a', 'b', 'log')
  {
    await using wal = await Wal.open(relative(process.cwd(), directory))
    expect(wal.directory).toBe(directory)
    expect(existsSync(directory)).toBe(true)
    await wal.append(bytes('a'))
  }
  await using wal = await Wal.open(pathToFileURL(directory), { create: false })
  expect(wal.directory).toBe(directory)
  expect(await texts(wal.read())).toEqual(['a'])
})

test.each(['auto', 'dsync', 'fdatasync'] as const)('sync %s keeps everything', async sync => {
  const directory = temporary()
  for (const directIo of [true, false]) {
    await using wal = await Wal.open(directory, { sync, directIo })
    await Promise.all(Array.from({ length: 100 }, () => wal.append(bytes('x'))))
  }
  await using wal = await Wal.open(directory, { check: 'all' })
  expect(wal.recovery.records).toBe(200)
})

test('stats_count_what_happened', async () => {
  const wal = await Wal.open(temporary())
  await Promise.all([wal.append(Buffer.alloc(10)), wal.appendBatch([Buffer.alloc(20), Buffer.alloc(30)])])
  wal.enqueue(Buffer.alloc(40))
  await wal.durable()
  const stats = wal.stats()
  expect(stats).toMatchObject({ appends: 3, records: 4, bytes: 100, queuedBytes: 0, errors: 0 })
  expect(stats.batches).toBeGreaterThan(0)
  expect(stats.recordsPerBatch).toBeCloseTo(4 / stats.batches)
  expect(stats.appendLatencyMs.p50).toBeLessThanOrEqual(stats.appendLatencyMs.max)
  await wal.close()
  expect(wal.stats()).toMatchObject({ appends: 3, records: 4, bytes: 100, inFlight: 0 })
})

test('a_log_that_is_never_idle_leaves_the_event_loop_its_turns', async () => {
  await using wal = await Wal.open(temporary())
  let turns = 0
  let immediate = setImmediate(function turn() {
    turns += 1
    immediate = setImmediate(turn)
  })
  const rounds = 100
  for (let round = 1; round <= rounds; round += 1) {
    const appended = wal.append(bytes('x'))
    await new Promise(process.nextTick)
    // It was handed over by now. What the disk did meanwhile is news as soon as this thread has its next look.
    while (wal.stats().records < round && wal.stats().errors === 0);
    await appended
  }
  clearImmediate(immediate)
  // One look may come of the poll and one of an immediate.
  expect(turns).toBeGreaterThanOrEqual(rounds / 2)
})

test('rotation_does_not_show', async () => {
  const directory = temporary()
  const options = { segmentBytes: 1024 * 1024 }
  const record = (index: number) => Buffer.alloc(1000 + (index % 1000), index)
  {
    await using wal = await Wal.open(directory, options)
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(Array.from({ length: 300 }, (_, index) => wal.append(record(round * 300 + index))))
    }
  }
  await using wal = await Wal.open(directory, { ...options, check: 'all' })
  expect(wal.recovery.records).toBe(3000)
  let index = 0
  for await (const { data } of wal.read()) {
    expect(Buffer.compare(data, record(index))).toBe(0)
    index += 1
  }
  expect(index).toBe(3000)
})

function openFiles(): string[] {
  const { readdirSync, readlinkSync } = process.getBuiltinModule('node:fs')
  return readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return []
    }
  })
}

test('a_long_recovery_tells_how_far_it_has_come', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  const record = Buffer.alloc(1024 * 1024)
  await Promise.all(Array.from({ length: 50 }, () => wal.append(record)))
  await wal.close()
  const told: Progress[] = []
  await using again = await Wal.open(directory, { check: 'all', onProgress: progress => told.push(progress) })
  expect(again.recovery.records).toBe(50)
  expect(told.length).toBeGreaterThan(0)
  for (const { bytes, totalBytes } of told) expect(bytes).toBeLessThanOrEqual(totalBytes)
  expect(told).toEqual(told.toSorted((a, b) => a.bytes - b.bytes))
})

test('shared_memory_may_grow_between_the_calls', async () => {
  await using wal = await Wal.open(temporary())
  const shared = Reflect.construct(SharedArrayBuffer, [8, { maxByteLength: 2 ** 20 }]) as SharedArrayBuffer
  const view = new Uint8Array(shared)
  const before = wal.append(view)
  ;(shared as unknown as { grow(bytes: number): void }).grow(2 ** 20)
  const after = wal.append(view)
  expect(await before).toBe(1)
  expect(await after).toBe(2)
  expect(await wal.append(bytes('last'))).toBe(3)
  const lengths = (await collect(wal.read())).map(({ data }) => data.length)
  expect(lengths).toEqual([8, 2 ** 20, 4])
})

test('records_that_were_read_are_the_callers_to_change', async () => {
  await using wal = await Wal.open(temporary())
  await Promise.all(Array.from({ length: 100 }, (_, index) => wal.append(bytes(`record ${index}`))))
  const seen: string[] = []
  for await (const { data } of wal.read()) {
    seen.push(String(data))
    new Uint8Array(data.buffer, data.byteOffset, data.length).fill(255)
    try {
      structuredClone(data, { transfer: [data.buffer as ArrayBuffer] })
    } catch {
      // Node 21 and newer say that this memory is not to be transferred; Node 20 copies it.
    }
  }
  expect(seen).toEqual(Array.from({ length: 100 }, (_, index) => `record ${index}`))
})
