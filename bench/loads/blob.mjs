/** What is done to one large blob, or to many new ones, for a while, and how it went: by ringbolt, and by node:fs to the same file. */

import { open as openFile } from 'node:fs/promises'
import { join } from 'node:path'

import { BlobStore } from '../ringbolt.mjs'

const KiB = 1024
/** Where a blob's bytes begin in its file. */
export const HEADER_BYTES = 4 * KiB
export const QUEUE_DEPTH = 256
export const WARM_UP_SECONDS = 0.2
const PARTITION = 'bench'
const NAME = 'blob'

/**
 * What is measured, and how the page cache is made before: all of the file in it and nothing dirty (`warm`), or nothing of
 * it (`cold`, which takes root). `fio` has the same done to the same file; `ringbolt` and `node` answer a function that does
 * it once, at an offset from 0 within the blob.
 */
export const WORKS = {
  'read-direct': {
    what: 'random 4 KiB reads past the page cache',
    cache: 'cold',
    bytes: 4 * KiB,
    fio: ['--rw=randread', '--direct=1'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes, { dontCache: true }),
    node: nodeRead,
  },
  'read-cached': {
    what: 'random 4 KiB reads in the page cache',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randread', '--direct=0', '--invalidate=0'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes),
    node: nodeRead,
  },
  'read-into-cached': {
    what: 'the same into one buffer each (readInto)',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randread', '--direct=0', '--invalidate=0'],
    ringbolt: (blob, targets) => (offset, _bytes, loop) => blob.readInto(offset, targets[loop]),
    node: (file, targets) => (offset, bytes, loop) =>
      file.read(targets[loop], 0, bytes, HEADER_BYTES + offset),
  },
  write: {
    what: 'random 4 KiB writes, not durable',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randwrite', '--direct=0', '--invalidate=0'],
    ringbolt: (blob, targets) => (offset, _bytes, loop) => blob.write(offset, targets[loop]),
    node: (file, targets) => (offset, bytes, loop) =>
      file.write(targets[loop], 0, bytes, HEADER_BYTES + offset),
  },
  'write-sync': {
    what: 'random 4 KiB writes, each durable',
    cache: 'warm',
    bytes: 4 * KiB,
    fio: ['--rw=randwrite', '--direct=1', '--sync=dsync'],
    ringbolt: (blob, targets) => (offset, _bytes, loop) => blob.write(offset, targets[loop], { sync: true }),
    node: (file, targets) => async (offset, bytes, loop) => {
      await file.write(targets[loop], 0, bytes, HEADER_BYTES + offset)
      await file.datasync()
    },
  },
  'sequential-direct': {
    what: '64 KiB reads in order past the page cache',
    cache: 'cold',
    bytes: 64 * KiB,
    isSequential: true,
    fio: ['--rw=read', '--direct=1'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes, { dontCache: true }),
    node: nodeRead,
  },
  'sequential-cached': {
    what: '64 KiB reads in order in the page cache',
    cache: 'warm',
    bytes: 64 * KiB,
    isSequential: true,
    fio: ['--rw=read', '--direct=0', '--invalidate=0'],
    ringbolt: blob => (offset, bytes) => blob.read(offset, bytes),
    node: nodeRead,
  },
}

/** `node:fs` has no way past the page cache but buffers aligned by luck: so it reads what is not in it yet. */
function nodeRead(file) {
  return (offset, bytes) => file.read(Buffer.allocUnsafeSlow(bytes), 0, bytes, HEADER_BYTES + offset)
}

/** The file of the blob that {@link fill} made. */
export const blobFile = directory => join(directory, PARTITION, Buffer.from(NAME).toString('hex'))

/** A blob of this size, with something in it, durable. */
export async function fill(directory, size) {
  const store = await BlobStore.open(directory)
  const blob = await store.open(PARTITION, NAME)
  const piece = Buffer.alloc(1024 * KiB)
  for (let offset = 0; offset < size; offset += piece.length) {
    piece.writeUInt32LE(offset / piece.length, 0)
    await blob.write(offset, piece.subarray(0, size - offset))
  }
  await blob.sync()
  await store.close()
}

/** Keep so many outstanding for a while: as many loops that each await what they asked for. Operations a second. */
async function rateOf(once, { outstanding, seconds }) {
  let isRunning = true
  let completed = 0
  const loop = async index => {
    while (isRunning) {
      await once(index)
      completed += 1
      // What is done at once takes no turn of the event loop, and the clock below would never be looked at.
      if ((completed & 1023) === 0) await new Promise(setImmediate)
    }
  }
  const loops = Promise.all(Array.from({ length: outstanding }, (_, index) => loop(index)))
  const pass = duration => Promise.race([new Promise(resolve => setTimeout(resolve, duration * 1000)), loops])
  await pass(WARM_UP_SECONDS)
  const before = { completed, time: performance.now() }
  await pass(seconds)
  const rate = (completed - before.completed) / ((performance.now() - before.time) / 1000)
  isRunning = false
  await loops
  return rate
}

/** One of {@link WORKS} on the blob that was filled; without a backend, by node:fs on its file. */
async function work({ directory, backend, work: name, size, ...request }) {
  const { bytes, isSequential, ringbolt, node } = WORKS[name]
  const places = Math.floor(size / bytes)
  let next = 0
  const place = isSequential ? () => next++ % places : () => Math.floor(Math.random() * places)
  const targets = Array.from({ length: request.outstanding }, () => Buffer.alloc(bytes, 7))
  const measure = once => rateOf(loop => once(place() * bytes, bytes, loop), request)
  if (backend === undefined) {
    const file = await openFile(blobFile(directory), 'r+')
    const rate = await measure(node(file, targets))
    await file.close()
    return { rate }
  }
  const store = await BlobStore.open(directory, { backend, queueDepth: QUEUE_DEPTH })
  const rate = await measure(ringbolt(await store.open(PARTITION, NAME), targets))
  await store.close()
  return { rate, backend: store.backend }
}

/** Blobs made, written and made durable, their names too; without a backend, files by node:fs with both flushes. */
async function create({ directory, backend, bytes, ...request }) {
  const data = Buffer.alloc(bytes, 7)
  let count = 0
  if (backend === undefined) {
    const parent = await openFile(directory)
    const rate = await rateOf(async () => {
      const file = await openFile(join(directory, `${count++}`), 'wx')
      await file.write(data, 0, bytes, 0)
      await file.sync()
      await parent.sync()
      await file.close()
    }, request)
    await parent.close()
    return { rate }
  }
  const store = await BlobStore.open(directory, { backend, queueDepth: QUEUE_DEPTH })
  const rate = await rateOf(async () => {
    const blob = await store.open(PARTITION, `${count++}`)
    await blob.write(0, data, { sync: true })
    await blob.close()
  }, request)
  await store.close()
  return { rate, backend: store.backend }
}

/** Whether a store can be had on this backend at all. */
async function probe({ directory, backend }) {
  const store = await BlobStore.open(directory, { backend })
  await store.close()
  return { backend: store.backend }
}

export const LOADS = { 'blob-probe': probe, blob: work, 'blob-create': create }
