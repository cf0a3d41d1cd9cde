/** The figures: operations and bytes that succeeded, what failed, what is open and under way. */
import { expect, test } from 'vitest'
import { blobStore, bytes, MiB } from './blobs.js'
import { caught } from './helpers.js'

test('operations_and_bytes_are_counted_when_they_succeed_those_of_no_length_too', async () => {
  const store = await blobStore({ queueDepth: 7 })
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('hello world'))
  await blob.write(11, [bytes('!'), bytes('!')], { sync: true })
  await blob.write(0, [])
  await blob.read(0, 5)
  await blob.read(0, 7, { dontCache: true })
  await blob.read(0, 0)
  await blob.readMany([
    { offset: 0, length: 3 },
    { offset: 3, length: 3 },
    { offset: 0, length: 0 },
  ])
  await blob.readInto(0, Buffer.alloc(4))
  await blob.resize(20)
  await blob.sync()
  expect(store.stats()).toMatchObject({
    reads: 7,
    readBytes: 5 + 7 + 3 + 3 + 4,
    writes: 3,
    writeBytes: 13,
    syncs: 2,
    resizes: 1,
    errors: 0,
    openBlobs: 1,
    pending: 0,
    oldestPendingMs: 0,
    queueDepth: 7,
  })
  expect(store.stats().cachedReads).toBeGreaterThanOrEqual(1)
})

test('what_failed_is_counted_as_an_error_and_as_nothing_else', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await caught(blob.read(0, 1))
  await caught(blob.readInto(0, Buffer.alloc(1)))
  await caught(store.open('partition', 'none', { create: false }))
  await caught(store.open('partition', 'blob', { versions: [1, 2] }))
  await caught(store.remove('none'))
  // These are no calls.
  await caught(blob.read(-1, 1))
  await caught(store.open('..', 'x'))
  expect(store.stats()).toMatchObject({ errors: 5, reads: 0, openBlobs: 1, pending: 0 })
})

test('open_handles_are_counted_up_and_down_each_by_itself', async () => {
  const store = await blobStore()
  const blobs = await Promise.all(
    Array.from({ length: 30 }, (_, index) => store.open('partition', `blob ${index % 10}`)),
  )
  expect(store.stats().openBlobs).toBe(30)
  await Promise.all(blobs.slice(0, 12).map(blob => blob.close()))
  await blobs[0]?.close()
  expect(store.stats().openBlobs).toBe(18)
  await store.remove('partition')
  expect(store.stats().openBlobs).toBe(18)
  await store.close()
  expect(store.stats()).toMatchObject({ openBlobs: 0, pending: 0 })
})

test('what_is_under_way_shows_with_its_age', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  const writes = Array.from({ length: 50 }, () => blob.write(0, Buffer.alloc(MiB), { sync: true }))
  const { pending, oldestPendingMs } = store.stats()
  expect(pending).toBeGreaterThan(0)
  expect(oldestPendingMs).toBeGreaterThan(0)
  await Promise.all(writes)
  expect(store.stats()).toMatchObject({ pending: 0, oldestPendingMs: 0 })
})

test('one_flush_answers_for_all_who_wait', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('x'))
  const { flushes } = store.stats()
  await Promise.all(Array.from({ length: 100 }, () => blob.sync()))
  expect(store.stats().syncs).toBe(100)
  expect(store.stats().flushes - flushes).toBeLessThan(20)
})

test('latencies_are_told_in_milliseconds_and_kept_after_close', async () => {
  const began = performance.now()
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  for (let count = 0; count < 20; count += 1) {
    await blob.write(0, bytes('x'))
    await blob.write(0, bytes('y'), { sync: true })
    await blob.read(0, 1, { dontCache: true })
  }
  const stats = store.stats()
  for (const { p50, p99, max } of [stats.readLatencyMs, stats.writeLatencyMs, stats.syncLatencyMs]) {
    expect(p50).toBeGreaterThan(0)
    expect(p99).toBeGreaterThanOrEqual(p50)
    expect(max).toBeGreaterThanOrEqual(p99)
    // They have two significant digits.
    expect(max).toBeLessThan((performance.now() - began) * 1.1)
  }
  await store.close()
  expect(store.stats()).toMatchObject({
    reads: 20,
    writes: 40,
    syncs: 20,
    writeLatencyMs: stats.writeLatencyMs,
  })
})
