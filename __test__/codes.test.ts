/**
 * Every code there is, reached by what a user can do or a machine can suffer: its class, the details that users are
 * told to expect with it, and a message that says what it was about. What each failure does to the rest, the other files
 * show.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, expectTypeOf, type TestContext, test, vi } from 'vitest'
import { errorCodes } from '../src/errors.js'
import {
  BackendError,
  type BackendErrorCode,
  BlobError,
  type BlobErrorCode,
  BlobStore,
  backends,
  type ErrorDetails,
  RingboltError,
  type RingboltErrorCode,
  Wal,
  WalError,
  type WalErrorCode,
} from '../src/index.js'
import { blobStore, bytes, MiB, newBlob } from './blobs.js'
import { Child } from './children.js'
import { faulty, has } from './disks.js'
import { ioUring, refusing } from './forbidden.js'
import { caught, collect, lacks, root, temporary } from './helpers.js'

/** An error, here or as a child told it. */
type Told = Partial<Error> & ErrorDetails & { code?: string }

/** Which details come with it, and how to meet it. */
type Case = [details: readonly (keyof ErrorDetails)[], meet: (context: TestContext) => Promise<Told>]

afterEach(() => void vi.unstubAllEnvs())

const segment = (directory: string) => join(directory, 'wal-0000000000000001.seg')

/** A closed log of three records, each in a batch of its own. */
async function closedLog(): Promise<string> {
  const directory = temporary()
  await using wal = await Wal.open(directory, { segmentBytes: MiB })
  for (const text of ['a', 'b', 'c']) await wal.append(bytes(text))
  return directory
}

/** CRC-32C, as docs/FORMAT.md has it. */
function crc(of: Uint8Array): number {
  let sum = 0xffffffff
  for (const byte of of) {
    sum ^= byte
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f63b78 : 0)
  }
  return ~sum >>> 0
}

/**
 * What a child tells with a log of these segments, whose files may not grow beyond 3 MiB from `then` on. So many large
 * records come first: behind 20 nothing is zeroed ahead, so that it is a record's own write that meets the limit.
 */
async function limited(
  context: TestContext,
  segmentBytes: number,
  count: number,
  then: string,
): Promise<Told> {
  if (!has('prlimit')) lacks(context, 'limits', 'prlimit is missing')
  const child = new Child(
    join(temporary(), 'log'),
    `let wal = await Wal.open(directory, { segmentBytes: ${segmentBytes} })
    const append = () => wal.append(numbered(wal.lastLsn + 1, wal.lastLsn + 1, 100_000))
    for (let count = 0; count < ${count}; count += 1) await append()
    const refused = async () => { for (;;) await append() }
    tell('ready')
    await told()
    ${then}
    await wal.close().catch(() => {})`,
  )
  await child.next()
  child.limit('fsize', 3 * MiB)
  child.go()
  const error = await child.next()
  expect(await child.end()).toBe(0)
  return error
}

/** A blob on a device that fails, with bytes that are not flushed. */
async function blobInTrouble(context: TestContext) {
  const disk = await faulty(context)
  const store = await blobStore({}, join(disk.directory, 'store'))
  const blob = await store.open('partition', 'blob')
  await blob.write(0, Buffer.alloc(MiB, 1))
  return { disk, store, blob }
}

const blobDetails = ['partition', 'blobName'] as const

/** Every code: one without a case does not compile. */
const cases: Record<RingboltErrorCode, Case> = {
  ERR_BACKEND_UNAVAILABLE: [
    ['reason', 'errno'],
    async context => {
      const { io_uring } = await backends()
      // It is stronger than the option.
      vi.stubEnv('RINGBOLT_BACKEND', undefined)
      if (!io_uring.available) return caught(Wal.open(temporary(), { backend: 'io_uring' }))
      // The addon's own answer to a call that is refused, in a process in which it is.
      const child = new Child(
        temporary(),
        `tell(await failure(Wal.open(directory, { backend: 'io_uring' })))`,
        refusing(context, 'EPERM', ioUring.setup),
      )
      return child.next()
    },
  ],
  ERR_WAL_NOT_FOUND: [['path'], () => caught(Wal.open(temporary(), { create: false }))],
  ERR_WAL_NOT_EMPTY: [['path'], () => caught(Wal.open(root))],
  ERR_WAL_LOCKED: [
    ['path', 'pid'],
    async () => {
      await using wal = await Wal.open(temporary())
      return await caught(Wal.open(wal.directory, { lockTimeoutMs: 0 }))
    },
  ],
  ERR_WAL_CLOSED: [
    ['path'],
    async () => {
      const wal = await Wal.open(temporary())
      await wal.close()
      return caught(wal.append(bytes('a')))
    },
  ],
  ERR_WAL_DAMAGED: [
    ['path', 'reason', 'segment', 'offset', 'firstLsn', 'lastLsn'],
    async () => {
      const directory = await closedLog()
      const file = readFileSync(segment(directory))
      file[2 * 4096 + 68] = 0
      writeFileSync(segment(directory), file)
      return caught(Wal.open(directory, { check: 'all' }))
    },
  ],
  ERR_WAL_UNSUPPORTED: [
    ['path', 'found', 'expected'],
    async () => {
      const directory = await closedLog()
      const path = join(directory, 'HEAD')
      const head = readFileSync(path)
      // As a later version would write it.
      head.writeUInt16LE(2, 12)
      head.writeUInt32LE(crc(head.subarray(12)), 8)
      writeFileSync(path, head)
      const error = await caught(Wal.open(directory))
      expect(error).toMatchObject({ path, found: '2', expected: '1' })
      expect(await Wal.verify(directory)).toMatchObject({ ok: false, verdict: 'unsupported' })
      expect(readFileSync(path)).toEqual(head)
      return error
    },
  ],
  ERR_WAL_RECORD_TOO_LARGE: [
    ['size', 'limit'],
    async () => {
      await using wal = await Wal.open(temporary(), { segmentBytes: MiB })
      return await caught(wal.append(Buffer.alloc(MiB)))
    },
  ],
  ERR_WAL_QUEUE_FULL: [
    ['size', 'limit'],
    async () => {
      await using wal = await Wal.open(temporary(), { queueBytesMax: 1000 })
      return await caught(() => {
        for (;;) wal.enqueue(Buffer.alloc(600))
      })
    },
  ],
  ERR_WAL_OUTCOME_UNKNOWN: [
    ['errno', 'syscall', 'path', 'offset', 'cause'],
    context => limited(context, 8 * MiB, 20, 'tell(await failure(refused()))'),
  ],
  ERR_WAL_POISONED: [
    ['errno', 'syscall', 'path', 'offset', 'cause'],
    context => limited(context, 8 * MiB, 20, 'await failure(refused()); tell(await failure(append()))'),
  ],
  ERR_WAL_NO_SPACE: [
    ['errno', 'syscall', 'path'],
    context =>
      limited(
        context,
        3 * MiB,
        1,
        `await wal.close()
        wal = await Wal.open(directory, { segmentBytes: ${4 * MiB} })
        tell(await failure(wal.rotate()))`,
      ),
  ],
  ERR_WAL_TRUNCATED: [
    ['firstLsn'],
    async () => {
      await using wal = await Wal.open(temporary())
      await wal.append(bytes('a'))
      return await caught(collect(wal.read({ from: 0 })))
    },
  ],
  ERR_WAL_IO: [
    ['errno', 'syscall', 'path'],
    async () => {
      const file = join(temporary(), 'file')
      writeFileSync(file, '')
      return caught(Wal.open(join(file, 'log')))
    },
  ],
  ERR_BLOB_PARTITION_NAME_INVALID: [
    ['partition'],
    async () => caught((await blobStore()).open('a/b', 'blob')),
  ],
  ERR_BLOB_NAME_INVALID: [
    ['partition', 'limit'],
    async () => caught((await blobStore()).open('partition', '')),
  ],
  ERR_BLOB_PARTITION_MISSING: [
    ['partition'],
    async () => caught((await blobStore()).remove('partition', 'blob')),
  ],
  ERR_BLOB_PARTITION_CORRUPT: [
    ['partition', 'path'],
    async () => {
      const store = await blobStore()
      mkdirSync(join(store.directory, 'partition', 'stray'), { recursive: true })
      return caught(store.scan('partition'))
    },
  ],
  ERR_BLOB_PARTITION_CREATION_FAILED: [
    ['partition', 'errno'],
    async () => {
      const store = await blobStore()
      rmSync(store.directory, { recursive: true })
      return caught(store.open('partition', 'blob'))
    },
  ],
  ERR_BLOB_MISSING: [
    blobDetails,
    async () => {
      const store = await blobStore()
      await store.open('partition', 'other')
      return caught(store.open('partition', 'blob', { create: false }))
    },
  ],
  ERR_BLOB_OPEN_FAILED: [
    blobDetails,
    async () => {
      const store = await blobStore()
      mkdirSync(join(store.directory, 'partition', bytes('blob').toString('hex')), { recursive: true })
      return caught(store.open('partition', 'blob'))
    },
  ],
  ERR_BLOB_CORRUPT: [
    [...blobDetails, 'reason'],
    async () => {
      const store = await blobStore()
      mkdirSync(join(store.directory, 'partition'))
      writeFileSync(
        join(store.directory, 'partition', bytes('blob').toString('hex')),
        'something else of ours',
      )
      return caught(store.open('partition', 'blob'))
    },
  ],
  ERR_BLOB_VERSION_MISMATCH: [
    [...blobDetails, 'expected', 'found'],
    async () => {
      const store = await blobStore()
      await store.open('partition', 'blob')
      return caught(store.open('partition', 'blob', { versions: [1, 1] }))
    },
  ],
  ERR_BLOB_INSUFFICIENT_LENGTH: [
    [...blobDetails, 'offset', 'length', 'size'],
    async () => caught((await newBlob()).read(0, 1)),
  ],
  ERR_BLOB_OFFSET_OVERFLOW: [
    ['offset'],
    async () => caught((await newBlob()).read(Number.MAX_SAFE_INTEGER, 1)),
  ],
  ERR_BLOB_READ_FAILED: [
    [...blobDetails, 'errno', 'syscall', 'offset'],
    async context => {
      const { disk, store, blob } = await blobInTrouble(context)
      await blob.sync()
      await store.close()
      // Nothing of it is in a cache any more.
      disk.remount()
      const again = await blobStore({}, store.directory)
      const reopened = await again.open('partition', 'blob')
      disk.fail('pread')
      return caught(reopened.read(MiB / 2, 100))
    },
  ],
  ERR_BLOB_WRITE_FAILED: [
    [...blobDetails, 'errno', 'syscall', 'offset', 'bytesDone'],
    async () => caught((await newBlob()).write(Number.MAX_SAFE_INTEGER - 1, bytes('a'))),
  ],
  ERR_BLOB_RESIZE_FAILED: [
    [...blobDetails, 'errno', 'syscall'],
    async () => caught((await newBlob()).resize(Number.MAX_SAFE_INTEGER)),
  ],
  ERR_BLOB_SYNC_FAILED: [
    [...blobDetails, 'errno', 'syscall'],
    async context => {
      const { disk, blob } = await blobInTrouble(context)
      disk.fail('pwrite')
      return caught(blob.sync())
    },
  ],
  ERR_BLOB_POISONED: [
    [...blobDetails, 'errno', 'cause'],
    async context => {
      const { disk, blob } = await blobInTrouble(context)
      disk.fail('pwrite')
      await caught(blob.sync())
      return caught(blob.sync())
    },
  ],
  ERR_BLOB_CLOSED: [
    blobDetails,
    async () => {
      const blob = await newBlob()
      await blob.close()
      return caught(blob.sync())
    },
  ],
  ERR_BLOB_STORE_CLOSED: [
    ['path'],
    async () => {
      const store = await blobStore()
      await store.close()
      return caught(store.open('partition', 'blob'))
    },
  ],
  ERR_BLOB_STORE_LOCKED: [
    ['path', 'pid'],
    async () => caught(BlobStore.open((await blobStore()).directory, { lockTimeoutMs: 0 })),
  ],
  ERR_BLOB_STORE_NOT_FOUND: [
    ['path'],
    () => caught(BlobStore.open(join(temporary(), 'none'), { create: false })),
  ],
  ERR_BLOB_STORE_IO: [
    ['path', 'errno', 'syscall'],
    async () => {
      const file = join(temporary(), 'file')
      writeFileSync(file, '')
      return caught(BlobStore.open(file))
    },
  ],
}

const className = (code: string) =>
  code.startsWith('ERR_WAL_') ? 'WalError' : code.startsWith('ERR_BLOB_') ? 'BlobError' : 'BackendError'

test.for(Object.entries(cases))('%s is met, with its details', async ([code, [details, meet]], context) => {
  const error = await meet(context)
  expect(error).toMatchObject({ name: className(code), code })
  const told = details.filter(name => error[name] !== undefined && error[name] !== null)
  expect(told).toEqual(details)
  if (error.errno !== undefined) expect(error.errno).toBeLessThan(0)
  // What it was about: a file, a blob, or a size.
  expect(error.message).toMatch(/\/|partition|blob|\d/)
  if (error instanceof Error) {
    const type = { WalError, BlobError, BackendError }[className(code)] as typeof RingboltError
    expect(error).toBeInstanceOf(type)
    expect(error).toBeInstanceOf(RingboltError)
  }
})

test('each_class_has_its_codes_as_a_literal_type_and_together_they_are_all', () => {
  expectTypeOf<WalError['code']>().toEqualTypeOf<WalErrorCode>()
  expectTypeOf<BlobError['code']>().toEqualTypeOf<BlobErrorCode>()
  expectTypeOf<BackendError['code']>().toEqualTypeOf<BackendErrorCode>()
  expectTypeOf<RingboltError['code']>().toEqualTypeOf<WalErrorCode | BlobErrorCode | BackendErrorCode>()
  expectTypeOf<string>().not.toExtend<RingboltErrorCode>()
  expect(Object.keys(cases).toSorted()).toEqual(errorCodes.toSorted())
})

test('the_readme_names_every_code', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const missing = errorCodes.filter(
    code => !readme.includes(`\`${code}\``) && !readme.includes(`\`${code.replace('ERR_BLOB_', '')}\``),
  )
  expect(missing).toEqual([])
})
