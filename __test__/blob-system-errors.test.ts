/**
 * What the system refuses a store: space, rights, a device that fails. Each has its typed error with what the kernel said,
 * nothing hangs, and what was acknowledged stays.
 */
import { chownSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type BlobHandle, BlobStore } from '../src/index.js'
import { blobStore, bytes, MiB, names, pattern, text } from './blobs.js'
import { asNobody, Child } from './children.js'
import { ext4, faulty, has, ran, ranOnceFree } from './disks.js'
import { caught, lacks } from './helpers.js'

const EIO = -5
const EACCES = -13
const EMFILE = -24
const EFBIG = -27
const ENOSPC = -28
const EROFS = -30

const about = { name: 'BlobError', partition: 'partition', blobName: bytes('blob') }
const chunk = pattern(100_000)

/** Write one chunk behind the other until that fails; how many were acknowledged, and why no more. */
async function fillUp(blob: BlobHandle): Promise<{ count: number; error: Error & { bytesDone?: number } }> {
  let count = 0
  const error = await caught(async () => {
    for (; ; count += 1) await blob.write(count * chunk.length, chunk)
  })
  return { count, error }
}

async function expectChunks(blob: BlobHandle, count: number): Promise<void> {
  for (let index = 0; index < count; index += 1)
    expect(chunk.equals(await blob.read(index * chunk.length, chunk.length))).toBe(true)
}

test('on_a_full_disk_a_write_is_refused_and_the_blob_goes_on_once_there_is_room', async context => {
  const disk = ext4(context)
  const filler = join(disk.directory, 'other')
  writeFileSync(filler, Buffer.alloc(4 * MiB))
  const store = await blobStore({}, join(disk.directory, 'store'))
  const blob = await store.open('partition', 'blob')
  const { count, error } = await fillUp(blob)
  expect(count).toBeGreaterThan(5)
  expect(error).toMatchObject({ ...about, code: 'ERR_BLOB_WRITE_FAILED', errno: ENOSPC })
  expect(error.bytesDone).toBeGreaterThanOrEqual(0)
  expect(error.bytesDone).toBeLessThan(chunk.length)
  await expectChunks(blob, count)
  rmSync(filler)
  await blob.write(count * chunk.length, chunk)
  await blob.sync()
  await store.close()
  disk.remount()
  const again = await blobStore({}, join(disk.directory, 'store'))
  await expectChunks(await again.open('partition', 'blob'), count + 1)
})

test('where_there_is_no_room_for_a_blob_none_is_opened_and_what_was_begun_does_not_hinder', async context => {
  const disk = ext4(context)
  const store = await blobStore({}, join(disk.directory, 'store'))
  const old = await store.open('partition', 'old')
  await old.write(0, bytes('old'), { sync: true })
  const free = disk.fill()
  const error = await caught(store.open('partition', 'blob'))
  expect(error).toMatchObject({ ...about, errno: ENOSPC })
  expect(error.code).toMatch(/^ERR_BLOB_(OPEN|WRITE|SYNC)_FAILED$/)
  expect(await caught(store.open('other', 'blob'))).toMatchObject({ partition: 'other', errno: ENOSPC })
  expect(await text(old)).toBe('old')
  free()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('young'), { sync: true })
  expect(await text(blob)).toBe('young')
  expect(await names(store)).toEqual(['blob', 'old'])
})

test('a_store_on_a_read_only_file_system_is_refused', async context => {
  const disk = ext4(context)
  const directory = join(disk.directory, 'store')
  await (await BlobStore.open(directory)).close()
  ranOnceFree('mount', '-o', 'remount,ro', disk.directory)
  const readOnly = { name: 'BlobError', code: 'ERR_BLOB_STORE_IO', errno: EROFS, syscall: expect.any(String) }
  expect(await caught(BlobStore.open(directory))).toMatchObject(readOnly)
  expect(await caught(BlobStore.open(join(disk.directory, 'another')))).toMatchObject(readOnly)
  ran('mount', '-o', 'remount,rw', disk.directory)
  await (await BlobStore.open(directory)).close()
})

test('a_file_system_that_turns_read_only_under_load_answers_every_call_and_loses_nothing_synced', async context => {
  const disk = ext4(context, 'errors=remount-ro')
  const directory = join(disk.directory, 'store')
  const store = await BlobStore.open(directory)
  const blobs = await Promise.all(
    Array.from({ length: 8 }, (_, index) => store.open('partition', `blob ${index}`)),
  )
  const synced = blobs.map(() => 0)
  const load = blobs.map((blob, index) =>
    caught(async () => {
      for (;;) {
        const round = (synced[index] as number) + 1
        await blob.write(0, Buffer.alloc(5000, round), { sync: true })
        synced[index] = round
      }
    }),
  )
  while (Math.min(...synced) < 5) await new Promise(resolve => setTimeout(resolve, 5))
  writeFileSync(`/sys/fs/ext4/${disk.device}/trigger_fs_error`, '1')
  for (const error of await Promise.all(load)) {
    expect(error.code).toMatch(/^ERR_BLOB_(WRITE|SYNC)_FAILED$/)
    expect([EROFS, EIO]).toContain(error.errno)
  }
  expect(await caught(store.open('partition', 'new'))).toMatchObject({ errno: EROFS })
  await store.close()
  disk.remount()
  const again = await blobStore({}, directory)
  for (const [index, round] of synced.entries()) {
    const read = await (await again.open('partition', `blob ${index}`)).read(0, 5000)
    // The write after the last that was acknowledged may be there as well, in part.
    const may = [round % 256, (round + 1) % 256]
    expect([...new Set(read)].filter(byte => !may.includes(byte))).toEqual([])
  }
})

test('a_flush_that_fails_poisons_its_blob_through_every_handle_until_it_is_removed', async context => {
  const disk = await faulty(context)
  const directory = join(disk.directory, 'store')
  const store = await blobStore({}, directory)
  const blob = await store.open('partition', 'blob')
  const other = await store.open('partition', 'blob')
  await blob.write(0, bytes('synced'), { sync: true })
  await blob.write(0, Buffer.alloc(50_000, 1))
  disk.fail('pwrite')
  const error = await caught(blob.sync())
  expect(error).toMatchObject({ ...about, code: 'ERR_BLOB_SYNC_FAILED', errno: EIO })
  expect(error.syscall).toBeTypeOf('string')
  disk.heal()
  const poisoned = {
    ...about,
    code: 'ERR_BLOB_POISONED',
    errno: EIO,
    cause: { code: 'ERR_BLOB_SYNC_FAILED' },
  }
  const late = await caught(store.open('partition', 'blob'))
  expect(late).toMatchObject(poisoned)
  for (const handle of [blob, other]) {
    for (const doing of [
      () => handle.write(0, bytes('x')),
      () => handle.write(0, bytes('x'), { sync: true }),
      () => handle.resize(1),
      () => handle.sync(),
      () => handle.sync(),
    ]) {
      expect(await caught(doing())).toMatchObject(poisoned)
    }
    // It can be read, and looked at.
    expect(await handle.read(0, 10)).toHaveLength(10)
    expect(handle.size).toBe(50_000)
    // Arguments come first.
    expect(await caught(handle.write(-1, bytes('x')))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  }
  await blob.close()
  expect(await caught(blob.sync())).toMatchObject({ code: 'ERR_BLOB_CLOSED' })
  // A new one of the name has nothing to do with it, and neither has another blob.
  await store.remove('partition', 'blob')
  const young = await store.open('partition', 'blob')
  await young.write(0, bytes('young'), { sync: true })
  expect(await caught(other.sync())).toMatchObject(poisoned)
  expect(await text(young)).toBe('young')
  await other.close()
})

test('a_store_that_is_opened_again_knows_of_no_failed_flush', async context => {
  const disk = await faulty(context)
  const directory = join(disk.directory, 'store')
  const store = await BlobStore.open(directory)
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('synced'), { sync: true })
  disk.fail('pwrite')
  expect(await caught(blob.write(0, bytes('lost?'), { sync: true }))).toMatchObject({
    ...about,
    code: 'ERR_BLOB_SYNC_FAILED',
    errno: EIO,
  })
  disk.heal()
  expect(await caught(blob.write(0, bytes('x')))).toMatchObject({ code: 'ERR_BLOB_POISONED' })
  await store.close()
  // Whether the kernel still knows of it, and says so once, is the kernel's affair.
  await BlobStore.open(directory).then(
    first => first.close(),
    error => expect(error).toMatchObject({ code: 'ERR_BLOB_STORE_IO', errno: EIO }),
  )
  const again = await blobStore({}, directory)
  const reopened = await again.open('partition', 'blob')
  expect(['synced', 'lost?d']).toContain(await text(reopened))
  await reopened.write(0, bytes('better'), { sync: true })
  expect(await text(reopened)).toBe('better')
})

test('a_read_that_the_device_refuses_says_where_and_works_again_once_the_device_does', async context => {
  const disk = await faulty(context)
  const directory = join(disk.directory, 'store')
  const first = await BlobStore.open(directory)
  const data = pattern(8 * MiB)
  await (await first.open('partition', 'blob')).write(0, data, { sync: true })
  await first.close()
  // Nothing of it is in a cache any more.
  disk.remount()
  const store = await blobStore({}, directory)
  const blob = await store.open('partition', 'blob')
  disk.fail('pread')
  const failed = { ...about, code: 'ERR_BLOB_READ_FAILED', errno: EIO }
  const [offset, length] = [5 * MiB, 10_000]
  const into = Buffer.alloc(length)
  for (const [doing, at] of [
    [() => blob.read(offset, length, { dontCache: true }), offset],
    [() => blob.read(offset + MiB, length), offset + MiB],
    [() => blob.readInto(offset + 2 * MiB, into), offset + 2 * MiB],
    [
      () =>
        blob.readMany(
          [
            { offset, length: 10 },
            { offset, length: 20 },
          ],
          { dontCache: true },
        ),
      offset,
    ],
  ] as const) {
    expect(await caught(doing())).toMatchObject({ ...failed, offset: at })
  }
  disk.heal()
  const expected = data.subarray(offset, offset + length)
  expect(expected.equals(await blob.read(offset, length, { dontCache: true }))).toBe(true)
  expect(expected.equals(await blob.read(offset, length))).toBe(true)
  await blob.readInto(offset, into)
  expect(expected.equals(into)).toBe(true)
})

test('where_an_ordinary_user_may_not_go_each_call_says_what_it_was_about', async context => {
  const { directory, through } = asNobody(context)
  const root = join(directory, 'store')
  {
    await using store = await BlobStore.open(root)
    await store.open('theirs', 'blob')
    await store.open('partition', 'blob')
  }
  // The store and one partition are the user's, the other partition is not.
  for (const path of [root, join(root, '.hold'), join(root, 'theirs')]) chownSync(path, 65_534, 65_534)
  const child = new Child(
    directory,
    `tell(await failure(BlobStore.open(directory + '/none')))
    const store = await BlobStore.open(directory + '/store')
    tell(await failure(store.open('partition', 'blob')))
    tell(await failure(store.open('partition', 'new')))
    tell(await failure(store.scan('partition')))
    tell(await failure(store.open('theirs', 'blob')))
    tell(await failure(store.open('theirs', 'new')) ?? 'opened')
    tell(await failure(store.open('new', 'new')) ?? 'opened')
    await store.close()`,
    through,
  )
  expect(await child.next()).toMatchObject({ name: 'BlobError', code: 'ERR_BLOB_STORE_IO', errno: EACCES })
  const denied = { name: 'BlobError', partition: 'partition', errno: EACCES, syscall: expect.any(String) }
  expect(await child.next()).toMatchObject({ ...denied, code: 'ERR_BLOB_OPEN_FAILED' })
  expect(await child.next()).toMatchObject({ ...denied, code: 'ERR_BLOB_OPEN_FAILED' })
  expect(await child.next()).toMatchObject(denied)
  // The directory is theirs, the file is not.
  expect(await child.next()).toMatchObject({ ...denied, partition: 'theirs', code: 'ERR_BLOB_OPEN_FAILED' })
  expect(await child.next()).toBe('opened')
  expect(await child.next()).toBe('opened')
  expect(await child.end()).toBe(0)
})

test('a_write_cut_short_by_the_limit_on_files_tells_how_much_was_done', async context => {
  if (!has('bash')) lacks(context, 'limits', 'bash is missing')
  const { directory } = await blobStore().then(async store => {
    await store.close()
    return store
  })
  // In units of KiB. The file's first 4 are its header.
  const child = new Child(
    directory,
    `const store = await BlobStore.open(directory)
    const blob = await store.open('partition', 'blob')
    tell(await failure(blob.write(0, Buffer.alloc(12000, 7))))
    tell([...new Set(await blob.read(0, 4096))])
    tell(await failure(blob.resize(100000)))
    tell(await failure(blob.write(0, Buffer.alloc(100, 8), { sync: true })) ?? 'written')
    await store.close()`,
    ['bash', '-c', 'ulimit -S -f 12; exec "$@"', 'bash'],
  )
  const error = await child.next()
  expect(error).toMatchObject({ code: 'ERR_BLOB_WRITE_FAILED', errno: EFBIG, offset: expect.any(Number) })
  expect(error.bytesDone).toBe(8192)
  expect(await child.next()).toEqual([7])
  expect(await child.next()).toMatchObject({ code: 'ERR_BLOB_RESIZE_FAILED', errno: EFBIG })
  expect(await child.next()).toBe('written')
  expect(await child.end()).toBe(0)
})

test('without_descriptors_open_says_so_and_works_again_when_some_were_closed', async context => {
  if (!has('prlimit')) lacks(context, 'limits', 'prlimit is missing')
  const { directory } = await blobStore().then(async store => {
    await store.close()
    return store
  })
  const child = new Child(
    directory,
    `const store = await BlobStore.open(directory)
    const first = await store.open('partition', 'first')
    const blobs = []
    tell('ready')
    await told()
    const error = await failure((async () => { for (;;) blobs.push(await store.open('partition', 'blob ' + blobs.length)) })())
    tell([error, blobs.length])
    await first.write(0, Buffer.from('x'))
    await Promise.all(blobs.map(blob => blob.close()))
    tell(await failure(store.open('partition', 'again')) ?? 'opened')
    await store.close()`,
  )
  await child.next()
  child.limit('nofile', 100)
  child.go()
  const [error, count] = await child.next()
  expect(error).toMatchObject({ partition: 'partition', errno: EMFILE })
  expect(count).toBeGreaterThan(10)
  expect(await child.next()).toBe('opened')
  expect(await child.end()).toBe(0)
})
