/** After a removal: who had the blob open keeps what it had, and the name is free for an independent one. */
import { expect, test } from 'vitest'
import { blobStore, bytes, MiB, names, pattern, text } from './blobs.js'
import { caught } from './helpers.js'

test('a_removed_blob_is_read_on_through_handles_that_were_open', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('kept'))
  await blob.sync()
  await store.remove('partition', 'blob')
  expect([await text(blob), blob.size]).toEqual(['kept', 4])
  expect(await caught(store.open('partition', 'blob', { create: false }))).toMatchObject({
    code: 'ERR_BLOB_MISSING',
  })
})

test('a_removed_partition_is_read_on_whole_large_blobs_too', async () => {
  const store = await blobStore()
  const data = pattern(5 * MiB)
  const small = await Promise.all(
    Array.from({ length: 20 }, async (_, index) => {
      const blob = await store.open('partition', `blob ${index}`)
      await blob.write(0, bytes(`content ${index}`))
      return blob
    }),
  )
  const large = await store.open('partition', 'large')
  await large.write(0, data)
  await store.remove('partition')
  expect(await caught(store.scan('partition'))).toMatchObject({ code: 'ERR_BLOB_PARTITION_MISSING' })
  for (const [index, blob] of small.entries()) expect(await text(blob)).toBe(`content ${index}`)
  for (const options of [{}, { dontCache: true }])
    expect(data.equals(await large.read(0, data.length, options))).toBe(true)
})

test('bytes_that_were_never_synced_are_read_on_after_a_removal', async () => {
  const store = await blobStore()
  const blob = await store.open('partition', 'blob')
  await blob.write(0, bytes('never synced'))
  await store.remove('partition', 'blob')
  expect(await text(blob)).toBe('never synced')
})

test('opening_a_removed_name_makes_an_independent_blob', async () => {
  const store = await blobStore()
  const old = await store.open('partition', 'blob')
  await old.write(0, bytes('the old one'))
  await store.remove('partition', 'blob')
  const young = await store.open('partition', 'blob')
  expect([young.size, old.size]).toEqual([0, 11])
  await young.write(0, bytes('young'))
  await old.write(0, bytes('THE'))
  expect([await text(young), await text(old)]).toEqual(['young', 'THE old one'])
  await old.close()
  expect(await text(young)).toBe('young')
})

test('every_handle_of_a_removed_blob_goes_on_sharing_it', async () => {
  const store = await blobStore()
  const one = await store.open('partition', 'blob')
  const other = await store.open('partition', 'blob')
  await one.write(0, bytes('shared'))
  await store.remove('partition', 'blob')
  await other.write(6, bytes(' still'))
  await other.close()
  expect(await text(one)).toBe('shared still')
})

test('many_generations_of_a_name_keep_apart', async () => {
  const store = await blobStore()
  const generations = []
  for (let index = 0; index < 20; index += 1) {
    const blob = await store.open('partition', 'blob', { versions: [index, index] })
    await blob.write(0, bytes(`generation ${index}`))
    generations.push(blob)
    if (index % 2 === 0) await store.remove('partition', 'blob')
    else await store.remove('partition')
  }
  for (const [index, blob] of generations.entries())
    expect([await text(blob), blob.version]).toEqual([`generation ${index}`, index])
})

test('a_removal_durably_takes_the_name_while_others_stay', async () => {
  const store = await blobStore()
  await Promise.all(['a', 'b', 'c'].map(name => store.open('partition', name)))
  await store.remove('partition', 'b')
  expect(await names(store)).toEqual(['a', 'c'])
  expect(await store.partitions()).toEqual(['partition'])
})

test('a_read_sees_every_change_that_settled_before_it_began_through_any_handle', async () => {
  const store = await blobStore()
  const first = await store.open('partition', 'blob')
  const second = await store.open('partition', 'blob')
  for (let round = 1; round < 100; round += 1) {
    await first.write(0, Buffer.alloc(100, round))
    expect(await second.read(0, 100)).toEqual(Buffer.alloc(100, round))
    await second.resize(round)
    expect(first.size).toBe(round)
    expect(await caught(first.read(0, round + 1))).toMatchObject({ size: round })
  }
})

test('what_was_closed_unsynced_is_there_at_the_next_open', async () => {
  const store = await blobStore()
  for (let round = 0; round < 10; round += 1) {
    const blob = await store.open('partition', 'blob')
    expect(blob.size).toBe(round)
    await blob.write(round, bytes('x'))
    await blob.close()
  }
})
