/** Each mistake has its typed error, changes nothing, and leaves the handle usable where the contract says so. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { BlobStore, RingboltError } from '../src/index.js'
import { blobStore, bytes, newBlob, text } from './blobs.js'
import { caught, child, root, started, temporary } from './helpers.js'

const type = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }
const range = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' }
const overflow = { name: 'BlobError', code: 'ERR_BLOB_OFFSET_OVERFLOW' }
const largest = Number.MAX_SAFE_INTEGER

test('no_asynchronous_method_throws_synchronously_and_every_bad_argument_has_its_error', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('data'))
  const wrong = 5 as never
  const text_ = 'text' as never
  const one = bytes('a')
  const doings: [() => PromiseLike<unknown>, object][] = [
    [() => BlobStore.open(wrong), type],
    [() => BlobStore.open(''), range],
    [() => BlobStore.open('a\0b'), range],
    [() => BlobStore.open('a', text_), type],
    [() => BlobStore.open('a', { backend: 'uring' as never }), range],
    [() => BlobStore.open('a', { layout: 'v2' as never }), range],
    [() => BlobStore.open('a', { layout: 1 as never }), type],
    [() => BlobStore.open('a', { queueDepth: 0 }), range],
    [() => BlobStore.open('a', { queueDepth: 4097 }), range],
    [() => BlobStore.open('a', { queueDepth: text_ }), type],
    [() => BlobStore.open('a', { lockTimeoutMs: -1 }), range],
    [() => BlobStore.open('a', { create: wrong }), type],
    [() => BlobStore.open('a', { fileMode: 0o1000 }), range],
    [() => BlobStore.open('a', { signal: wrong }), type],
    [() => store.open(wrong, 'a'), type],
    [() => store.open('partition', wrong), type],
    [() => store.open('partition', undefined as never), type],
    [() => store.open('partition', 'a', text_), type],
    [() => store.open('partition', 'a', { versions: wrong }), type],
    [() => store.open('partition', 'a', { versions: [1] as never }), range],
    [() => store.open('partition', 'a', { versions: [1, undefined] as never }), type],
    [() => store.open('partition', 'a', { versions: [text_, 1] }), type],
    [() => store.open('partition', 'a', { versions: [-1, 1] }), range],
    [() => store.open('partition', 'a', { versions: [0, 65_536] }), range],
    [() => store.open('partition', 'a', { versions: [2, 1] }), range],
    [() => store.open('partition', 'a', { create: wrong }), type],
    [() => store.remove(wrong), type],
    [() => store.remove('partition', wrong), type],
    [() => store.remove('partition', null as never), type],
    [() => store.scan(wrong), type],
    [() => blob.read(text_, 1), type],
    [() => blob.read(0, undefined as never), type],
    [() => blob.read(-1, 1), range],
    [() => blob.read(0.5, 1), range],
    [() => blob.read(Number.NaN, 1), range],
    [() => blob.read(Number.POSITIVE_INFINITY, 1), range],
    [() => blob.read(-1n, 1), range],
    [() => blob.read(0, -1), range],
    [() => blob.read(2 ** 53, 1), overflow],
    [() => blob.read(2n ** 64n - 1n, 1), overflow],
    [() => blob.read(largest, 1), overflow],
    [() => blob.read(1, largest), overflow],
    [() => blob.read(0, 2n ** 63n), overflow],
    [() => blob.read(0, 1, text_), type],
    [() => blob.read(0, 1, { dontCache: wrong }), type],
    [() => blob.readMany(wrong), type],
    [() => blob.readMany([wrong]), type],
    [() => blob.readMany(new Array(1)), type],
    [() => blob.readMany([{ offset: 0, length: text_ }]), type],
    [
      () =>
        blob.readMany([
          { offset: 0, length: 1 },
          { offset: largest, length: 1 },
        ]),
      overflow,
    ],
    [() => blob.readMany([], { dontCache: wrong }), type],
    [() => blob.readInto(0, wrong), type],
    [() => blob.readInto(0, [one, wrong]), type],
    [() => blob.readInto(0, new ArrayBuffer(5) as never), type],
    [() => blob.readInto(largest, one), overflow],
    [() => blob.write(0, text_), type],
    [() => blob.write(0, [one, wrong]), type],
    [() => blob.write(0, new Array(1)), type],
    [() => blob.write(wrong, wrong), type],
    [() => blob.write(-1, one), range],
    [() => blob.write(2n ** 64n - 1n, one), overflow],
    [() => blob.write(largest, one), overflow],
    [() => blob.write(largest, [one]), overflow],
    [() => blob.write(0, one, text_), type],
    [() => blob.write(0, one, { sync: wrong }), type],
    [() => blob.write(0, one, { dontCache: text_ }), type],
    [() => blob.resize(text_), type],
    [() => blob.resize(-1), range],
    [() => blob.resize(2n ** 64n - 1n), overflow],
    [() => blob.resize(2 ** 53), overflow],
  ]
  for (const [doing, error] of doings) {
    const promise = doing()
    expect(await caught(promise), doing.toString()).toMatchObject(error)
  }
  // Nothing of it changed anything.
  expect(await text(blob)).toBe('data')
  expect((await store.scan('partition')).map(String)).toEqual(['blob'])
  expect((await caught(blob.readMany([{ offset: 0, length: 1 }, wrong]))).message).toContain('ranges[1]')
  expect((await caught(blob.write(0, [one, wrong]))).message).toContain('data[1]')
})

test('streams_check_their_options_at_the_call', async () => {
  const blob = await newBlob()
  for (const [options, error] of [
    ['text', type],
    [{ start: 'a' }, type],
    [{ start: -1 }, range],
    [{ start: 2n ** 60n }, overflow],
    [{ highWaterMark: 0 }, range],
    [{ signal: 5 }, type],
  ] as [never, object][]) {
    expect(await caught(() => blob.createReadStream(options))).toMatchObject(error)
    expect(await caught(() => blob.createWriteStream(options))).toMatchObject(error)
  }
  expect(await caught(() => blob.createReadStream({ start: 5, end: 3 }))).toMatchObject(range)
  expect(await caught(() => blob.createReadStream({ end: -1 }))).toMatchObject(range)
})

test('the_largest_size_is_a_matter_of_the_file_system_and_what_is_larger_is_refused_before_it', async () => {
  const blob = await newBlob()
  const error = await caught(blob.write(largest - 1, bytes('x')))
  expect(error).toMatchObject({ name: 'BlobError', code: 'ERR_BLOB_WRITE_FAILED', errno: -27 })
  expect(await caught(blob.resize(largest))).toMatchObject({ code: 'ERR_BLOB_RESIZE_FAILED', errno: -27 })
  expect(blob.size).toBe(0)
  await blob.write(0, bytes('x'))
})

test('memory_that_was_detached_or_shrank_meanwhile_is_not_filled', async () => {
  const blob = await newBlob()
  await blob.write(0, Buffer.alloc(100_000, 7))
  const target = (length: number) => new Uint8Array(new ArrayBuffer(length, { maxByteLength: 200_000 }))
  const state = { name: 'Error', code: 'ERR_INVALID_STATE' }
  // More than goes in place in one turn, so that these wait for the disk.
  const spent = Array.from({ length: 200 }, () => blob.read(0, 10_000))
  const [detached, shrunk, grown, fine] = [target(10_000), target(10_000), target(10_000), target(10_000)]
  const reads = [
    blob.readInto(0, detached),
    blob.readInto(0, [fine, shrunk]),
    blob.readInto(0, grown),
  ] as const
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  shrunk.buffer.resize(9999)
  grown.buffer.resize(20_000)
  expect(await caught(reads[0])).toMatchObject(state)
  expect(await caught(reads[1])).toMatchObject(state)
  // All of them or none.
  expect(fine.every(byte => byte === 0)).toBe(true)
  await reads[2]
  expect(grown.subarray(0, 10_000).every(byte => byte === 7)).toBe(true)
  expect(grown.subarray(10_000).every(byte => byte === 0)).toBe(true)
  await Promise.all(spent)
  // One that was detached before has no bytes to fill.
  await blob.readInto(0, detached)
  await blob.readInto(0, [detached, fine])
  expect(fine.every(byte => byte === 7)).toBe(true)
})

test('shared_memory_is_filled_too', async () => {
  const blob = await newBlob()
  await blob.write(0, bytes('hello world'))
  const shared = new Uint8Array(new SharedArrayBuffer(11))
  await blob.readInto(0, shared)
  expect(Buffer.from(shared).toString()).toBe('hello world')
  await blob.readInto(6, [shared.subarray(0, 5)])
  expect(Buffer.from(shared).toString()).toBe('world world')
})

test('after_the_handles_close_every_call_says_so_but_arguments_come_first', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('data'))
  await blob.close()
  const doings = [
    () => blob.read(0, 1),
    () => blob.read(0, 0),
    () => blob.read(100, 1),
    () => blob.readMany([]),
    () => blob.readInto(0, Buffer.alloc(1)),
    () => blob.write(0, bytes('a')),
    () => blob.write(0, []),
    () => blob.resize(1),
    () => blob.sync(),
  ]
  for (const doing of doings) {
    expect(await caught(doing())).toMatchObject({
      name: 'BlobError',
      code: 'ERR_BLOB_CLOSED',
      partition: 'partition',
      blobName: bytes('blob'),
    })
  }
  expect(await caught(blob.read('a' as never, 1))).toMatchObject(type)
  expect(await caught(blob.write(largest, bytes('a')))).toMatchObject(overflow)
  expect([blob.closed, blob.size, blob.partition, blob.version]).toEqual([true, 4, 'partition', 0])
  expect(await caught(blob.createReadStream().toArray())).toMatchObject({ code: 'ERR_BLOB_CLOSED' })
  // The blob is there for others.
  expect(await text(await store.open('partition', 'blob'))).toBe('data')
})

test('after_the_stores_close_every_call_says_so_but_arguments_come_first', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('data'))
  await store.close()
  const doings = [
    () => store.open('partition', 'blob'),
    () => store.remove('partition', 'blob'),
    () => store.remove('partition'),
    () => store.scan('partition'),
    () => store.partitions(),
    () => blob.read(0, 1),
    () => blob.readMany([]),
    () => blob.readInto(0, []),
    () => blob.write(0, bytes('a')),
    () => blob.resize(1),
    () => blob.sync(),
  ]
  for (const doing of doings) {
    expect(await caught(doing())).toMatchObject({
      name: 'BlobError',
      code: 'ERR_BLOB_STORE_CLOSED',
      path: store.directory,
    })
  }
  expect(await caught(store.open('..', 'blob'))).toMatchObject({ code: 'ERR_BLOB_PARTITION_NAME_INVALID' })
  expect(await caught(blob.read(-1, 1))).toMatchObject(range)
  expect([store.closed, blob.closed, blob.size]).toEqual([true, true, 4])
  await blob.close()
})

test('a_store_that_is_missing_is_not_made_without_create', async () => {
  const directory = join(temporary(), 'none')
  expect(await caught(BlobStore.open(directory, { create: false }))).toMatchObject({
    name: 'BlobError',
    code: 'ERR_BLOB_STORE_NOT_FOUND',
    path: directory,
  })
  expect(existsSync(directory)).toBe(false)
  await (await BlobStore.open(join(directory, 'deep', 'below'))).close()
  await (await BlobStore.open(join(directory, 'deep', 'below'), { create: false })).close()
})

test('a_second_opener_is_told_who_holds_the_lock_here_and_in_a_worker', async () => {
  const store = await blobStore()
  const locked = { code: 'ERR_BLOB_STORE_LOCKED', pid: process.pid }
  expect(await caught(BlobStore.open(store.directory, { lockTimeoutMs: 0 }))).toMatchObject(locked)
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads')
    import(workerData.module).then(({ BlobStore }) => BlobStore.open(workerData.directory, { lockTimeoutMs: 10 })).then(
      () => parentPort.postMessage({ code: 'opened' }),
      ({ code, pid }) => parentPort.postMessage({ code, pid }))`,
    { eval: true, workerData: { directory: store.directory, module: join(root, 'dist', 'index.js') } },
  )
  const message = await new Promise((resolve, reject) =>
    worker.once('message', resolve).once('error', reject),
  )
  await worker.terminate()
  expect(message).toEqual(locked)
  await store.close()
  await (await BlobStore.open(store.directory, { lockTimeoutMs: 0 })).close()
})

test('a_second_opener_in_another_process_is_told_and_has_what_the_first_wrote_after_its_end', async () => {
  const directory = temporary()
  const other = await started(
    directory,
    `
    globalThis.store = await BlobStore.open(directory)
    globalThis.blob = await store.open('partition', 'blob')
    await blob.write(0, Buffer.from('theirs'))
    console.log('open')
    setInterval(() => {}, 1000)`,
  )
  expect(other.line).toBe('open')
  expect(await caught(BlobStore.open(directory, { lockTimeoutMs: 10 }))).toMatchObject({
    code: 'ERR_BLOB_STORE_LOCKED',
    pid: other.pid,
  })
  await other.kill()
  const store = await blobStore({ lockTimeoutMs: 60_000 }, directory)
  expect(await text(await store.open('partition', 'blob'))).toBe('theirs')
})

test('a_signal_ends_the_waiting_for_open_and_the_store_is_closed', async () => {
  const directory = temporary()
  expect(await caught(BlobStore.open(directory, { signal: AbortSignal.abort() }))).toMatchObject({
    name: 'AbortError',
  })
  expect(readdirSync(directory)).toEqual([])
  const controller = new AbortController()
  const opening = BlobStore.open(directory, { signal: controller.signal })
  const reason = new Error('no time')
  controller.abort(reason)
  expect(await caught(opening)).toBe(reason)
  const options = { signal: new AbortController().signal, lockTimeoutMs: 60_000 }
  await (await BlobStore.open(directory, options)).close()
})

test('a_wait_for_a_lock_that_was_given_up_holds_neither_the_process_nor_the_next_open', async () => {
  const store = await blobStore()
  const ended = await child(
    store.directory,
    `
    const waiting = BlobStore.open(directory, { lockTimeoutMs: 600_000, signal: AbortSignal.timeout(100) })
    await waiting.catch(error => console.log(error.name))`,
  )
  // The child is killed where it takes much longer than it should.
  expect(ended).toMatchObject({ code: 0, stdout: 'TimeoutError\n', stderr: '' })
})

test('every_error_is_one_of_ours', async () => {
  const blob = await newBlob()
  expect(await caught(blob.read(0, 1))).toBeInstanceOf(RingboltError)
})
