/** Partitions, names, versions and headers: what open, scan and remove are held to. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { BlobError, BlobStore } from '../src/index.js'
import { blobStore, bytes, names, pattern, text } from './blobs.js'
import { caught, temporary } from './helpers.js'

const hex = (name: string) => Buffer.from(name).toString('hex')

test('a_blob_that_was_removed_is_not_listed', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('x'))
  expect(await names(store)).toEqual(['blob'])
  await store.remove('partition', 'blob')
  expect(await names(store)).toEqual([])
  expect(await caught(store.remove('partition', 'blob'))).toMatchObject({ code: 'ERR_BLOB_MISSING' })
})

test('every_blob_that_was_made_is_listed_sorted_by_its_bytes', async () => {
  const store = await blobStore()
  const made = [[2], [1, 255], [1], [255], [0], [1, 0]].map(name => Uint8Array.from(name))
  await Promise.all(made.map(name => store.open('partition', name)))
  expect((await store.scan('partition')).map(name => [...name])).toEqual([
    [0],
    [1],
    [1, 0],
    [1, 255],
    [2],
    [255],
  ])
  expect(await store.partitions()).toEqual(['partition'])
})

test('many_names_are_listed', async () => {
  const store = await blobStore()
  const made = Array.from({ length: 500 }, (_, index) => `a rather long name of a blob, number ${index}`)
  await Promise.all(made.map(async name => (await store.open('partition', name)).close()))
  expect(await names(store)).toEqual(made.toSorted())
})

test('partitions_have_plain_names', async () => {
  const store = await blobStore()
  const good = ['partition', 'my_partition', 'my-partition', 'partition123', 'A1', 'a'.repeat(255)]
  for (const partition of good) {
    const blob = await store.open(partition, 'blob')
    await blob.close()
    expect(await names(store, partition)).toEqual(['blob'])
  }
  expect(await store.partitions()).toEqual(good.toSorted())
  for (const partition of good) await store.remove(partition)
  expect(await store.partitions()).toEqual([])
  for (const partition of [
    'my/partition',
    'my.partition',
    'my partition',
    '../escape',
    '',
    '.hold',
    'é',
    'a\n',
    'a'.repeat(256),
  ]) {
    for (const doing of [
      () => store.open(partition, 'blob'),
      () => store.remove(partition, 'blob'),
      () => store.remove(partition),
      () => store.scan(partition),
    ]) {
      const error = await caught(doing())
      expect(error).toBeInstanceOf(BlobError)
      expect(error).toMatchObject({ code: 'ERR_BLOB_PARTITION_NAME_INVALID', partition })
    }
  }
  expect(readdirSync(store.directory)).toEqual(['.hold'])
})

test('any_bytes_are_a_name_and_a_string_is_its_utf8', async () => {
  const store = await blobStore()
  const all = Uint8Array.from({ length: 127 }, (_, index) => 255 - index)
  const blob = await store.open('partition', all)
  expect(blob.name).toEqual(Buffer.from(all))
  expect((await store.open('partition', 'ß/..\0 x')).name).toEqual(bytes('ß/..\0 x'))
  expect((await store.open('partition', '𝄞')).name).toEqual(bytes('𝄞'))
  // The name is taken at the call.
  const name = Uint8Array.of(1, 2)
  const opening = store.open('partition', name)
  name.fill(9)
  expect([...(await opening).name]).toEqual([1, 2])
  for (const wrong of ['', new Uint8Array(0), 'x'.repeat(128), new Uint8Array(128)]) {
    expect(await caught(store.open('partition', wrong))).toMatchObject({
      name: 'BlobError',
      code: 'ERR_BLOB_NAME_INVALID',
      partition: 'partition',
      limit: 127,
    })
    expect(await caught(store.remove('partition', wrong))).toMatchObject({ code: 'ERR_BLOB_NAME_INVALID' })
  }
  for (const lone of ['\ud800', 'a\udc00b'])
    expect(await caught(store.open('partition', lone))).toMatchObject({ code: 'ERR_BLOB_NAME_INVALID' })
  expect(await store.scan('partition')).toHaveLength(4)
})

test('a_version_is_the_greatest_that_was_asked_for_and_must_be_among_those_later', async () => {
  const store = await blobStore()
  expect((await store.open('partition', 'plain')).version).toBe(0)
  expect((await store.open('partition', 'blob', { versions: [1, 1] })).version).toBe(1)
  expect((await store.open('partition', 'blob', { versions: [0, 2] })).version).toBe(1)
  const error = await caught(store.open('partition', 'blob', { versions: [2, 3] }))
  expect(error).toMatchObject({
    code: 'ERR_BLOB_VERSION_MISMATCH',
    partition: 'partition',
    blobName: bytes('blob'),
  })
  expect(error.found).toBe('1')
  expect(error.expected).toMatch(/2.*3/)
  // Also of a blob that no handle has open.
  const other = await store.open('partition', 'other', { versions: [7, 65_535] })
  expect(other.version).toBe(65_535)
  await other.close()
  expect(await caught(store.open('partition', 'other'))).toMatchObject({
    code: 'ERR_BLOB_VERSION_MISMATCH',
    found: '65535',
  })
})

test('what_is_missing_is_made_or_told', async () => {
  const store = await blobStore()
  const create = false
  expect(await caught(store.open('partition', 'blob', { create }))).toMatchObject({
    code: 'ERR_BLOB_PARTITION_MISSING',
    partition: 'partition',
  })
  expect(await caught(store.remove('partition', 'blob'))).toMatchObject({
    code: 'ERR_BLOB_PARTITION_MISSING',
  })
  expect(await caught(store.remove('partition'))).toMatchObject({ code: 'ERR_BLOB_PARTITION_MISSING' })
  expect(await caught(store.scan('partition'))).toMatchObject({ code: 'ERR_BLOB_PARTITION_MISSING' })
  expect(await store.partitions()).toEqual([])
  await store.open('partition', 'blob')
  expect(await caught(store.open('partition', 'none', { create }))).toMatchObject({
    code: 'ERR_BLOB_MISSING',
    partition: 'partition',
    blobName: bytes('none'),
  })
  expect((await store.open('partition', 'blob', { create })).size).toBe(0)
})

test('a_v0_file_has_eight_bytes_before_the_data', async () => {
  const store = await blobStore({ layout: 'v0' })
  const file = join(store.directory, 'partition', hex('blob'))
  const blob = await store.open('partition', 'blob', { versions: [0, 0x0102] })
  expect(readFileSync(file)).toEqual(Buffer.from('CWIC\0\0\x01\x02', 'latin1'))
  await blob.write(0, bytes('hello world'))
  expect(readFileSync(file).subarray(8).toString()).toBe('hello world')
  expect(blob.size).toBe(11)
  await blob.resize(5)
  expect(statSync(file).size).toBe(13)
  await blob.resize(0)
  expect(statSync(file).size).toBe(8)
  await blob.write(0, bytes('nine char'))
  await blob.close()
  expect((await store.open('partition', 'blob', { versions: [0, 0xffff] })).size).toBe(9)
})

test('a_v1_file_has_a_page_before_the_data_and_proves_itself', async () => {
  const store = await blobStore()
  const file = join(store.directory, 'partition', hex('blob'))
  const blob = await store.open('partition', 'blob', { versions: [0, 3] })
  await blob.write(0, bytes('hello'))
  const raw = readFileSync(file)
  expect(raw.subarray(0, 8)).toEqual(Buffer.from('CWIK\0\x01\0\x03', 'latin1'))
  expect(raw.subarray(12, 4096).every(byte => byte === 0)).toBe(true)
  expect(raw.subarray(4096).toString()).toBe('hello')
})

test('both_layouts_are_read_whatever_new_blobs_get', async () => {
  const directory = temporary()
  for (const layout of ['v0', 'v1'] as const) {
    await using store = await BlobStore.open(directory, { layout })
    await using blob = await store.open('partition', layout)
    await blob.write(0, bytes(layout))
  }
  for (const layout of ['v1', 'v0'] as const) {
    await using store = await BlobStore.open(directory, { layout })
    for (const name of ['v0', 'v1']) {
      await using blob = await store.open('partition', name, { create: false })
      expect(await text(blob)).toBe(name)
    }
  }
})

test('a_creation_that_was_interrupted_is_completed_and_other_damage_is_told', async () => {
  const directory = temporary()
  mkdirSync(join(directory, 'partition'))
  const write = (name: string, content: Uint8Array | string) =>
    writeFileSync(join(directory, 'partition', hex(name)), content)
  // What a crash in the middle of a creation leaves: any beginning of a header, or zeros.
  for (let length = 0; length <= 8; length += 1) {
    write(`prefix ${length}`, Buffer.from('CWIK\0\x01\0\0', 'latin1').subarray(0, length))
    write(`zeros ${length}`, Buffer.alloc(length))
  }
  write('junk', 'no blob of ours, and of more bytes than a header')
  write('layout', Buffer.from('CWIC\0\x07\0\0data', 'latin1'))
  const padded = Buffer.alloc(5000)
  await using store = await BlobStore.open(directory)
  {
    await using blob = await store.open('partition', 'whole')
    await blob.write(0, bytes('data'))
  }
  readFileSync(join(directory, 'partition', hex('whole'))).copy(padded)
  padded[100] = 1
  write('padding', padded)
  for (let length = 0; length <= 8; length += 1) {
    for (const kind of ['prefix', 'zeros']) {
      await using blob = await store.open('partition', `${kind} ${length}`)
      expect(blob.size).toBe(0)
      await blob.write(0, bytes('data'))
      expect(await text(blob)).toBe('data')
    }
  }
  for (const name of ['junk', 'layout', 'padding']) {
    const file = join(directory, 'partition', hex(name))
    const before = readFileSync(file)
    const error = await caught(store.open('partition', name))
    expect(error).toMatchObject({ code: 'ERR_BLOB_CORRUPT', partition: 'partition', blobName: bytes(name) })
    expect(error.reason).toBeTypeOf('string')
    expect(readFileSync(file).equals(before)).toBe(true)
  }
})

test('what_is_no_blob_is_reported_by_scan_and_open', async () => {
  const store = await blobStore()
  await (await store.open('partition', 'blob')).close()
  const directory = join(store.directory, 'partition')
  const strays: [string, () => void][] = [
    ['subdirectory', () => mkdirSync(join(directory, 'subdirectory'))],
    ['not-hex', () => writeFileSync(join(directory, 'not-hex'), '')],
    ['ABCD', () => writeFileSync(join(directory, 'ABCD'), '')],
    ['abc', () => writeFileSync(join(directory, 'abc'), '')],
    ['beef', () => symlinkSync(join(directory, hex('blob')), join(directory, 'beef'))],
  ]
  for (const [stray, make] of strays) {
    make()
    const error = await caught(store.scan('partition'))
    expect(error).toMatchObject({ code: 'ERR_BLOB_PARTITION_CORRUPT', partition: 'partition' })
    expect(error.path).toBe(join(directory, stray))
    execFileSync('rm', ['-r', join(directory, stray)])
  }
  // What begins with a dot, or is no UTF-8, is nobody's that we know, and is left alone.
  writeFileSync(join(directory, '.hidden'), '')
  execFileSync('bash', ['-c', `touch "$0"/$'\\xff\\xfe'`, directory])
  expect(await names(store)).toEqual(['blob'])
  // Something else where a blob's file would be.
  mkdirSync(join(directory, hex('directory')))
  expect(await caught(store.open('partition', 'directory'))).toMatchObject({
    code: 'ERR_BLOB_OPEN_FAILED',
    partition: 'partition',
    blobName: bytes('directory'),
  })
  symlinkSync('/etc/hostname', join(directory, hex('link')))
  expect(await caught(store.open('partition', 'link'))).toMatchObject({ code: 'ERR_BLOB_OPEN_FAILED' })
  expect(await caught(store.remove('partition'))).toMatchObject({ code: 'ERR_BLOB_PARTITION_CORRUPT' })
  expect(readdirSync(directory)).toContain(hex('blob'))
})

test('a_file_where_the_store_or_a_partition_should_be_is_told', async () => {
  const directory = temporary()
  const file = join(directory, 'file')
  writeFileSync(file, 'x')
  for (const root of [file, join(file, 'below')]) {
    const error = await caught(BlobStore.open(root))
    expect(error).toMatchObject({ name: 'BlobError', code: 'ERR_BLOB_STORE_IO', errno: -20 })
    expect(error.path).toContain(file)
  }
  const store = await blobStore()
  writeFileSync(join(store.directory, 'partition'), 'x')
  expect(await caught(store.open('partition', 'blob'))).toMatchObject({
    code: 'ERR_BLOB_PARTITION_CREATION_FAILED',
    partition: 'partition',
  })
})

test('opens_and_removals_of_one_name_at_once_each_come_to_an_end', async () => {
  const store = await blobStore()
  const doings = Array.from({ length: 300 }, (_, index) =>
    index % 3 === 2
      ? store.remove('partition', 'blob').catch(error => expect(error.code).toMatch(/MISSING$/))
      : store.open('partition', 'blob').then(async blob => {
          await blob.write(0, pattern(100, index + 1))
          expect(await blob.read(0, 100)).toHaveLength(100)
          await blob.close()
        }),
  )
  await Promise.all(doings)
})
