/** A blob as streams: what they read and write, how much at a time, and how they end. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { blobStore, bytes, MiB, newBlob, pattern, text } from './blobs.js'
import { caught } from './helpers.js'

const collected = async (stream: Readable) => Buffer.concat(await stream.toArray())

test('a_stream_reads_from_start_to_end_both_inclusive', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('0123456789'))
  const read = async (options?: object) => String(await collected(blob.createReadStream(options)))
  expect(await read()).toBe('0123456789')
  expect(await read({ start: 3 })).toBe('3456789')
  expect(await read({ start: 3n, end: 5 })).toBe('345')
  expect(await read({ start: 4, end: 4 })).toBe('4')
  expect(await read({ start: 4, end: 3 })).toBe('')
  expect(await read({ end: 2n })).toBe('012')
  expect(await read({ end: 100 })).toBe('0123456789')
  expect(await read({ start: 10 })).toBe('')
  expect(await read({ start: 100 })).toBe('')
  expect(await read({ highWaterMark: 3 })).toBe('0123456789')
  expect(await read({ end: Number.MAX_SAFE_INTEGER })).toBe('0123456789')
  expect(blob.closed).toBe(false)
})

test('a_large_blob_goes_through_streams_whole', async () => {
  const store = await blobStore()
  const [from, to] = [await store.open('partition', 'from'), await store.open('partition', 'to')]
  const data = pattern(10 * MiB + 5)
  await from.write(0, data)
  await pipeline(from.createReadStream(), to.createWriteStream())
  await to.sync()
  expect(data.equals(await to.read(0, data.length))).toBe(true)
  await pipeline(Readable.from([bytes('abc'), bytes('def')]), to.createWriteStream({ start: 5 }))
  expect(
    Buffer.from(await to.read(0, 12)).equals(
      Buffer.concat([data.subarray(0, 5), bytes('abcdef'), data.subarray(11, 12)]),
    ),
  ).toBe(true)
  expect(to.size).toBe(data.length)
})

test('a_read_stream_reads_no_further_ahead_than_its_high_water_mark', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, Buffer.alloc(MiB))
  const stream = blob.createReadStream({ highWaterMark: 1000 })
  const [chunk] = await stream.take(1).toArray()
  expect(chunk).toHaveLength(1000)
  const other = blob.createReadStream({ highWaterMark: 1000 })
  other.read(0)
  while (other.readableLength === 0) await turn()
  // Were it to go on, it would have by then.
  for (let turns = 0; turns < 20; turns += 1) await turn()
  expect(other.readableLength).toBe(1000)
  expect(store.stats().readBytes).toBeLessThan(10_000)
  other.destroy()
})

test('a_write_stream_says_when_to_wait_and_gathers_what_waits', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  const stream = blob.createWriteStream({ highWaterMark: 1000 })
  let writes = 0
  while (stream.write(Buffer.alloc(100, writes))) writes += 1
  expect(writes).toBe(9)
  await new Promise(resolve => stream.once('drain', resolve))
  for (let index = 0; index < 1000; index += 1) stream.write(bytes('x'))
  await new Promise<void>(resolve => stream.end(resolve))
  expect(blob.size).toBe(2000)
  // The first by itself, then what waited for it.
  expect(store.stats().writes).toBeLessThanOrEqual(6)
  expect(blob.closed).toBe(false)
})

test('a_write_stream_takes_text_in_its_encoding', async () => {
  const blob = await newBlob()
  const stream = blob.createWriteStream()
  stream.write('ß')
  stream.write('ff', 'hex')
  await new Promise<void>(resolve => stream.end(resolve))
  expect(await blob.read(0, blob.size)).toEqual(Buffer.from([0xc3, 0x9f, 0xff]))
})

test('a_blob_that_is_cut_while_it_is_read_as_a_stream_ends_it_early', async () => {
  const blob = await newBlob()
  await blob.write(0, Buffer.alloc(10_000, 1))
  let length = 0
  for await (const chunk of blob.createReadStream({ highWaterMark: 1000 })) {
    length += chunk.length
    if (length === 2000) await blob.resize(2500)
  }
  expect(length).toBeGreaterThanOrEqual(2500)
  expect(length).toBeLessThanOrEqual(4500)
})

test('a_destroyed_stream_ends_after_the_call_that_is_under_way', async () => {
  const blob = await newBlob()
  await blob.write(0, Buffer.alloc(MiB, 1))
  const reading = blob.createReadStream({ highWaterMark: MiB })
  const error = new Error('enough')
  reading.read()
  const readingEnded = new Promise(resolve => reading.once('error', resolve))
  reading.destroy(error)
  expect(await readingEnded).toBe(error)
  const writing = blob.createWriteStream()
  const writingEnded = new Promise(resolve => writing.once('close', resolve))
  writing.write(Buffer.alloc(MiB, 2))
  writing.write(Buffer.alloc(MiB, 3))
  writing.destroy()
  await writingEnded
  // What was at the disk is there; what waited behind it is not.
  expect(Buffer.alloc(MiB, 2).equals(await blob.read(0, MiB))).toBe(true)
  expect(blob.size).toBe(MiB)
})

test('a_destroyed_stream_shows_nothing_that_was_still_being_read', async () => {
  const blob = await newBlob()
  await blob.write(0, Buffer.alloc(MiB, 1))
  for (const destroy of [true, false]) {
    const stream = blob.createReadStream({ highWaterMark: 1000 })
    let chunks = 0
    stream.on('data', () => {
      chunks += 1
      if (destroy) stream.destroy()
    })
    // The first read has begun by then.
    if (!destroy) process.nextTick(() => process.nextTick(() => stream.destroy()))
    await new Promise(resolve => stream.once('close', resolve))
    for (let turns = 0; turns < 5; turns += 1) await turn()
    expect(chunks).toBe(destroy ? 1 : 0)
  }
})

test('a_signal_destroys_a_stream', async () => {
  const blob = await newBlob()
  await blob.write(0, Buffer.alloc(MiB))
  const controller = new AbortController()
  const { signal } = controller
  const reading = caught(async () => {
    for await (const _ of blob.createReadStream({ signal, highWaterMark: 1000 })) controller.abort()
  })
  expect(await reading).toMatchObject({ name: 'AbortError' })
  const writing = blob.createWriteStream({ signal: AbortSignal.abort() })
  expect(await new Promise(resolve => writing.once('error', resolve))).toMatchObject({ name: 'AbortError' })
  expect(await text(blob)).toHaveLength(MiB)
})

test('leaving_a_loop_over_a_stream_leaves_the_handle_open', async () => {
  const blob = await newBlob()
  await blob.write(0, Buffer.alloc(MiB))
  for await (const _ of blob.createReadStream()) break
  expect(await blob.read(0, 1)).toHaveLength(1)
})

test('an_error_of_a_call_is_the_streams', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, Buffer.alloc(MiB))
  const reading = blob.createReadStream({ highWaterMark: 1000 })
  const writing = blob.createWriteStream({ start: Number.MAX_SAFE_INTEGER - 1 })
  await reading.take(1).toArray()
  const late = blob.createWriteStream()
  await blob.close()
  expect(await caught(collected(blob.createReadStream()))).toMatchObject({ code: 'ERR_BLOB_CLOSED' })
  for (const [stream, code] of [
    [writing, 'ERR_BLOB_OFFSET_OVERFLOW'],
    [late, 'ERR_BLOB_CLOSED'],
  ] as const) {
    const failed = new Promise(resolve => stream.once('error', resolve))
    stream.write(bytes('abc'))
    expect(await failed).toMatchObject({ name: 'BlobError', code })
  }
})
