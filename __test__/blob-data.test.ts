/** Reading and writing: what other stores of this kind are held to, and what this one adds. */
import { freemem } from 'node:os'
import { expect, test } from 'vitest'
import { blobStore, bytes, MiB, newBlob, pattern, text } from './blobs.js'
import { caught, lacks } from './helpers.js'

test('what_is_written_is_read_back', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('hello world'))
  await blob.sync()
  expect(await text(blob)).toBe('hello world')
  expect(blob.size).toBe(11)
  const read = await blob.read(6, 5)
  expect(Buffer.isBuffer(read) && read.toString()).toBe('world')
  // It is the caller's own memory, all of it.
  expect([read.byteOffset, read.buffer.byteLength]).toEqual([0, 5])
})

test('reads_and_writes_of_two_handles_run_side_by_side', async () => {
  const store = await blobStore()
  const [one, other] = await Promise.all([store.open('partition', 'blob'), store.open('partition', 'blob')])
  const parts = Array.from({ length: 50 }, (_, index) => pattern(1000, index + 1))
  await Promise.all(parts.map((part, index) => (index % 2 === 0 ? one : other).write(index * 1000, part)))
  const read = await Promise.all(
    parts.map((_, index) => (index % 2 === 0 ? other : one).read(index * 1000, 1000)),
  )
  expect(Buffer.concat(read).equals(Buffer.concat(parts))).toBe(true)
  expect([one.size, other.size]).toEqual([50_000, 50_000])
})

test('reads_of_one_tick_go_before_what_is_asked_behind_them', async () => {
  // Goal: reads that travel together are each answered with their own bytes, and are calls like others: what comes behind
  // them in the same tick neither overtakes them nor lets them be forgotten. Method: counts around those that go at once.
  const store = await blobStore()
  const data = pattern(64 * 1024)
  for (const count of [1, 15, 16, 17, 100]) {
    const [one, other] = await Promise.all([store.open('p', 'one'), store.open('p', 'other')])
    await Promise.all([one.write(0, data), other.write(1, data)])
    const blobs = [one, other] as const
    const before = store.stats().reads
    const reads = Array.from({ length: count }, (_, index) =>
      (blobs[index % 2] as typeof one).read(index * 600 + (index % 2), 600, { dontCache: true }),
    )
    const { pending, reads: answered } = store.stats()
    expect(pending + answered - before).toBe(count)
    const closed = [one.close(), other.close()]
    const last = count === 100 ? store.close() : undefined
    for (const [index, read] of (await Promise.all(reads)).entries())
      expect(data.subarray(index * 600, (index + 1) * 600).equals(read)).toBe(true)
    await Promise.all([...closed, last])
  }
})

test('ten_mebibytes_go_in_and_out', async () => {
  const blob = await newBlob()
  const data = pattern(10 * MiB)
  await blob.write(0, data)
  for (const options of [{}, { dontCache: true }])
    expect(data.equals(await blob.read(0, data.length, options))).toBe(true)
  const into = Buffer.alloc(data.length)
  await blob.readInto(0, into)
  expect(data.equals(into)).toBe(true)
})

test('a_part_can_be_overwritten', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('initial data'))
  await blob.write(8, bytes('overwrite'))
  expect(await text(blob)).toBe('initial overwrite')
})

test('a_read_past_the_end_says_where_the_end_is', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('abc'))
  const insufficient = {
    name: 'BlobError',
    code: 'ERR_BLOB_INSUFFICIENT_LENGTH',
    partition: 'partition',
    blobName: bytes('blob'),
    size: 3,
  }
  const doings = [
    () => blob.read(0, 5),
    () => blob.read(0, 5, { dontCache: true }),
    () => blob.readInto(0, Buffer.alloc(5)),
    () => blob.readInto(0, [Buffer.alloc(2), Buffer.alloc(3)]),
    () =>
      blob.readMany([
        { offset: 0, length: 3 },
        { offset: 0, length: 5 },
      ]),
  ]
  for (const doing of doings)
    expect(await caught(doing())).toMatchObject({ ...insufficient, offset: 0, length: 5 })
  expect(await caught(blob.read(4, 1))).toMatchObject({ ...insufficient, offset: 4, length: 1 })
  // The handle works on.
  expect(await text(blob)).toBe('abc')
})

test('a_read_asks_for_the_size_before_it_asks_for_memory', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('abc'))
  const before = process.memoryUsage().arrayBuffers
  const reads = Array.from({ length: 100 }, () => caught(blob.read(0, 2 ** 33)))
  for (const error of await Promise.all(reads)) {
    expect(error).toMatchObject({ code: 'ERR_BLOB_INSUFFICIENT_LENGTH', length: 2 ** 33, size: 3 })
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(MiB)
})

test('a_blob_may_begin_with_a_gap_which_reads_as_zeros', async () => {
  const blob = await newBlob()
  await blob.write(10_000, bytes('end'))
  expect(blob.size).toBe(10_003)
  expect(Buffer.from(await blob.read(0, 10_000)).every(byte => byte === 0)).toBe(true)
  expect(String(await blob.read(10_000, 3))).toBe('end')
})

test('bytes_are_appended_at_the_end', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('first'))
  await blob.write(5, bytes('second'))
  expect(await text(blob)).toBe('firstsecond')
})

test.each([0, 5000])('chunks_are_written_in_their_order_at_%i', async offset => {
  const blob = await newBlob()
  const three = ['one', 'two', 'three'].map(bytes)
  await blob.write(offset, three)
  expect(String(await blob.read(offset, 11))).toBe('onetwothree')
  await blob.write(offset, [bytes(''), bytes('uno'), Buffer.alloc(0), bytes('dos'), bytes('')])
  expect(String(await blob.read(offset, 11))).toBe('unodosthree')
  const many = Array.from({ length: 128 }, (_, index) => pattern(index, index + 1))
  await blob.write(offset, many)
  const all = Buffer.concat(many)
  expect(all.equals(await blob.read(offset, all.length))).toBe(true)
  expect(Buffer.from(await blob.read(0, offset)).every(byte => byte === 0)).toBe(true)
})

test('interleaved_offsets_keep_apart', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('first'))
  await blob.write(10, bytes('second'))
  expect(String(await blob.read(0, 5))).toBe('first')
  expect(String(await blob.read(10, 6))).toBe('second')
  expect(await blob.read(5, 5)).toEqual(Buffer.alloc(5))
})

test('a_large_blob_is_written_and_read_in_chunks', async () => {
  const blob = await newBlob()
  const chunks = Array.from({ length: 10 }, (_, index) => pattern(MiB, index + 1))
  for (const [index, chunk] of chunks.entries()) await blob.write(index * MiB, chunk)
  for (const [index, chunk] of chunks.entries())
    expect(chunk.equals(await blob.read(index * MiB, MiB))).toBe(true)
})

test('an_empty_blob_has_nothing_to_read', async () => {
  const blob = await newBlob()
  expect(blob.size).toBe(0)
  expect(await caught(blob.read(0, 1))).toMatchObject({ code: 'ERR_BLOB_INSUFFICIENT_LENGTH', size: 0 })
})

test('overlapping_writes_take_effect_in_the_order_of_the_calls', async () => {
  const blob = await newBlob()
  await Promise.all([blob.write(0, bytes('overlap')), blob.write(4, bytes('map'))])
  expect(await text(blob)).toBe('overmap')
  // Many at once, larger than what goes to the disk in one piece.
  const writes = Array.from({ length: 20 }, (_, index) => blob.write(0, Buffer.alloc(3 * MiB, index)))
  await Promise.all(writes)
  expect(Buffer.alloc(3 * MiB, 19).equals(await blob.read(0, 3 * MiB))).toBe(true)
})

test('a_resize_cuts_and_the_rest_is_there_after_a_reopen', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('hello world'))
  await blob.resize(5)
  await blob.sync()
  await blob.close()
  const again = await store.open('partition', 'blob')
  expect([again.size, await text(again)]).toEqual([5, 'hello'])
  await again.resize(8)
  expect(await text(again)).toBe('hello\0\0\0')
  await again.resize(0)
  expect(again.size).toBe(0)
})

test('a_resize_comes_after_what_was_asked_before_and_before_what_was_asked_after', async () => {
  const blob = await newBlob()
  await Promise.all([
    blob.write(0, Buffer.alloc(MiB, 1)),
    blob.resize(10),
    blob.write(20, bytes('x')),
    blob.resize(25),
  ])
  expect(blob.size).toBe(25)
  expect(await blob.read(8, 17)).toEqual(
    Buffer.concat([Buffer.alloc(2, 1), Buffer.alloc(10), bytes('x'), Buffer.alloc(4)]),
  )
})

test('what_has_no_length_settles_at_once_and_changes_nothing', async () => {
  const blob = await newBlob()
  expect(await blob.read(0, 0)).toHaveLength(0)
  expect(await blob.read(2 ** 53 - 1, 0n)).toHaveLength(0)
  expect(await blob.readMany([])).toEqual([])
  expect((await blob.readMany([{ offset: 5, length: 0 }])).map(({ length }) => length)).toEqual([0])
  const target = Buffer.alloc(16, 7)
  await blob.readInto(0, target.subarray(0, 0))
  await blob.readInto(0, [])
  expect(target).toEqual(Buffer.alloc(16, 7))
  for (const data of [Buffer.alloc(0), [], [Buffer.alloc(0), new Uint8Array(0)]])
    await blob.write(100, data, { sync: true })
  expect(blob.size).toBe(0)
})

test('a_read_fills_the_very_memory_it_is_given', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('hello world'))
  const one = new Uint8Array(11)
  await blob.readInto(0, one)
  expect(String(Buffer.from(one))).toBe('hello world')
  const [hello, world] = [Buffer.alloc(5), new Uint16Array(3)] as const
  await blob.readInto(0, [hello, world])
  expect([hello.toString(), Buffer.from(world.buffer).toString()]).toEqual(['hello', ' world'])
  // Nothing around the view is touched.
  const room = Buffer.alloc(64, 7)
  await blob.readInto(0, room.subarray(8, 13))
  expect(room).toEqual(Buffer.concat([Buffer.alloc(8, 7), bytes('hello'), Buffer.alloc(51, 7)]))
  const view = new DataView(new ArrayBuffer(8), 2, 4)
  await blob.readInto(1, view)
  expect(Buffer.from(view.buffer).toString()).toBe('\0\0ello\0\0')
})

test('many_ranges_are_read_at_once_in_any_order_and_overlapping', async () => {
  const blob = await newBlob()
  const data = pattern(300_000)
  await blob.write(0, data)
  const ranges = Array.from({ length: 300 }, (_, index) => ({
    offset: (index * 7919) % 290_000,
    length: BigInt(index * 30),
  }))
  for (const options of [{}, { dontCache: true }]) {
    const parts = await blob.readMany(ranges, options)
    expect(parts).toHaveLength(300)
    for (const [index, { offset, length }] of ranges.entries())
      expect(data.subarray(offset, offset + Number(length)).equals(parts[index] as Uint8Array)).toBe(true)
  }
})

test('thousands_of_calls_at_once_all_settle', async () => {
  const blob = await newBlob()
  const count = 5000
  const writes = Array.from({ length: count }, (_, index) =>
    blob.write(index * 8, bytes(String(index).padStart(8))),
  )
  const [written] = await Promise.all([Promise.all(writes), blob.sync()])
  expect(written).toHaveLength(count)
  const reads = Array.from({ length: count }, (_, index) =>
    blob.read(index * 8, 8, { dontCache: index % 2 === 0 }),
  )
  const failing = Array.from({ length: count }, () => caught(blob.resize(2 ** 53 - 1)))
  for (const [index, read] of (await Promise.all(reads)).entries()) expect(Number(read)).toBe(index)
  for (const error of await Promise.all(failing))
    expect(error).toMatchObject({ code: 'ERR_BLOB_RESIZE_FAILED' })
})

test('a_write_with_sync_needs_no_other', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('durable'), { sync: true })
  expect(await text(blob)).toBe('durable')
  expect(store.stats()).toMatchObject({ writes: 1, writeBytes: 7, syncs: 1 })
})

test('what_was_asked_not_to_be_cached_reads_the_same', async () => {
  const blob = await newBlob()
  const data = pattern(100_000)
  await blob.write(0, data, { dontCache: true })
  await blob.write(50_001, bytes('middle'), { dontCache: true, sync: true })
  data.set(bytes('middle'), 50_001)
  for (const [offset, length] of [
    [0, 100_000],
    [1, 1],
    [4095, 2],
    [49_999, 20],
    [99_999, 1],
  ] as const) {
    const expected = data.subarray(offset, offset + length)
    expect(expected.equals(await blob.read(offset, length, { dontCache: true }))).toBe(true)
    expect(expected.equals(await blob.read(offset, length))).toBe(true)
  }
})

test('a_read_may_be_longer_than_one_system_call_reads', async context => {
  if (process.env['RINGBOLT_LONG'] === undefined) context.skip('it takes long')
  if (freemem() < 6 * 2 ** 30) lacks(context, 'memory', 'this needs 3 GiB of it')
  const blob = await newBlob()
  const [end, length] = [5 * 2 ** 30, 0x7ffff000 + 5000]
  // Nearly all of it is a gap, and takes no room on the disk.
  await blob.resize(end)
  await blob.write(end - length, bytes('first'))
  await blob.write(end - 4, bytes('last'))
  const read = Buffer.from((await blob.read(end - length, length)).buffer)
  expect([read.length, String(read.subarray(0, 5)), String(read.subarray(-4))]).toEqual([
    length,
    'first',
    'last',
  ])
})

test('offsets_are_numbers_or_bigints', async () => {
  const blob = await newBlob()
  await blob.write(3n, bytes('abc'))
  await blob.resize(8n)
  expect(await blob.read(3n, 3n)).toEqual(bytes('abc'))
  await blob.readInto(0n, Buffer.alloc(8))
  expect(blob.size).toBe(8)
})

test('every_kind_of_view_is_taken_for_exactly_its_bytes', async () => {
  const blob = await newBlob()
  const { buffer } = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])
  await blob.write(0, new Uint16Array(buffer, 2, 2))
  await blob.write(4, new DataView(buffer, 6, 1))
  await blob.write(5, [new Float64Array(buffer), Buffer.from(buffer, 1, 1)])
  expect([...(await blob.read(0, 14))]).toEqual([3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8, 2])
})

test('what_becomes_of_a_buffer_after_the_call_changes_nothing', async () => {
  const blob = await newBlob()
  const reused = Buffer.alloc(MiB, 1)
  const detached = new Uint8Array(10).fill(2)
  const shrunk = new Uint8Array(new ArrayBuffer(10, { maxByteLength: 10 })).fill(3)
  const shared = new Uint8Array(new SharedArrayBuffer(10)).fill(4)
  const writes = [blob.write(0, reused), blob.write(MiB, detached), blob.write(MiB + 10, [shrunk, shared])]
  reused.fill(9)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  shrunk.buffer.resize(0)
  shared.fill(9)
  await Promise.all(writes)
  expect(Buffer.alloc(MiB, 1).equals(await blob.read(0, MiB))).toBe(true)
  const rest = [2, 3, 4].map(byte => Buffer.alloc(10, byte))
  expect(await blob.read(MiB, 30)).toEqual(Buffer.concat(rest))
  // One that was detached before has no bytes.
  await blob.write(0, [detached, bytes('x')])
  expect(await blob.read(0, 2)).toEqual(Buffer.from('x\x01'))
})
