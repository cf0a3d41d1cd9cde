/** What nobody holds any more: it is closed, and what was under way for it ends as if it were held. */
import { expect, test } from 'vitest'
import { child, temporary } from './helpers.js'

const flags = ['--expose-gc']
const prelude = `
  const turn = () => new Promise(resolve => setTimeout(resolve, 5))
  const until = async isSo => {
    for (let tries = 0; !(await isSo()); tries += 1) {
      if (tries > 1000) throw new Error('it never came')
      globalThis.gc()
      await turn()
    }
  }
  process.on('warning', warning => console.log(warning.code))
`

test('collected_handles_are_closed_then_with_one_warning', async () => {
  const ended = await child(
    temporary(),
    `${prelude}
    const store = await BlobStore.open(directory)
    await (async () => {
      for (let index = 0; index < 20; index += 1) {
        const blob = await store.open('partition', String(index))
        await blob.write(0, Buffer.from('x'))
      }
    })()
    await until(() => store.stats().openBlobs === 0)
    await turn()
    console.log('closed')`,
    flags,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'RINGBOLT_BLOB_COLLECTED\nclosed\n' })
  expect(ended.stderr).toContain('garbage collected without close()')
})

test('a_collected_store_is_closed_then_with_one_warning', async () => {
  const ended = await child(
    temporary(),
    `${prelude}
    for (const name of ['/one', '/two']) {
      await (async () => {
        // What a caller's signal closes over is the caller's: it must not keep the store.
        const store = await BlobStore.open(directory + name, { signal: new AbortController().signal })
        await (await store.open('partition', 'blob')).close()
      })()
      await until(() => BlobStore.open(directory + name, { lockTimeoutMs: 0 }).then(
        async store => { await store.close(); return true },
        error => { if (error.code !== 'ERR_BLOB_STORE_LOCKED') throw error; return false },
      ))
    }
    console.log('closed')`,
    flags,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'RINGBOLT_STORE_COLLECTED\nclosed\n' })
})

test('a_handle_keeps_its_store_and_a_stream_its_handle', async () => {
  const ended = await child(
    temporary(),
    `${prelude}
    const blob = await (await BlobStore.open(directory)).open('partition', 'blob')
    for (let round = 0; round < 20; round += 1) { globalThis.gc(); await turn() }
    await blob.write(0, Buffer.from('held'))
    const stream = (await (await BlobStore.open(directory + '/other')).open('partition', 'blob')).createWriteStream()
    for (let round = 0; round < 20; round += 1) { globalThis.gc(); await turn() }
    await new Promise((resolve, reject) => stream.on('error', reject).end('written', resolve))
    console.log(String(await blob.read(0, 4)))
    await blob.close()
    process.exit(0)`,
    flags,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'held\n', stderr: '' })
})

test('calls_of_a_collected_handle_settle_all_the_same', async () => {
  const ended = await child(
    temporary(),
    `${prelude}
    const store = await BlobStore.open(directory)
    const promises = await (async () => {
      const blob = await store.open('partition', 'blob')
      await blob.write(0, Buffer.alloc(2 ** 20, 7))
      return Array.from({ length: 300 }, (_, index) => index % 3 === 0
        ? blob.write(2 ** 20 + index, Buffer.alloc(1000))
        : blob.read(index, 2 ** 19, { dontCache: index % 2 === 0 }))
    })()
    globalThis.gc()
    const settled = await Promise.all(promises)
    console.log(settled.every((bytes, index) => index % 3 === 0 || (bytes.length === 2 ** 19 && bytes.every(byte => byte === 7))))`,
    [...flags, '--no-warnings'],
  )
  expect(ended).toMatchObject({ code: 0, stdout: expect.stringContaining('true\n') })
})

test('buffers_in_flight_survive_collections_and_hold_what_was_read', async () => {
  // Goal: memory lent to the kernel stays where it is. Method: collect as often as can be while reads are in flight
  // and their promises are all that is held, and keep the heap moving.
  const ended = await child(
    temporary(),
    `${prelude}
    const store = await BlobStore.open(directory)
    const blob = await store.open('partition', 'blob')
    const data = Buffer.from(Array.from({ length: 2 ** 16 }, (_, index) => (index * 7919) % 251))
    await blob.write(0, data)
    for (let round = 0; round < 60; round += 1) {
      const sizes = [1, 8, 63, 64, 65, 100, 4096, 5000]
      const reads = Array.from({ length: 200 }, (_, index) => {
        const [offset, length] = [index * 13, sizes[index % 8]]
        return blob.read(offset, length, { dontCache: index % 2 === 0 }).then(bytes => data.subarray(offset, offset + length).equals(bytes))
      })
      const many = blob.readMany([{ offset: 3, length: 10 }, { offset: 9, length: 30000 }]).then(([one, other]) =>
        data.subarray(3, 13).equals(one) && data.subarray(9, 30009).equals(other))
      const garbage = Array.from({ length: 1000 }, () => new Uint8Array(32))
      globalThis.gc({ type: 'minor' })
      globalThis.gc()
      if (!(await Promise.all([...reads, many])).every(Boolean) || garbage.length !== 1000) throw new Error('foreign bytes')
    }
    console.log('whole')
    await store.close()`,
    flags,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'whole\n', stderr: '' })
})

test('what_was_closed_is_collected_without_a_word', async () => {
  const ended = await child(
    temporary(),
    `${prelude}
    await (async () => {
      const store = await BlobStore.open(directory)
      const blob = await store.open('partition', 'blob')
      const other = await store.open('partition', 'other')
      await blob.close()
      await store.close()
    })()
    for (let round = 0; round < 20; round += 1) { globalThis.gc(); await turn() }`,
    flags,
  )
  expect(ended).toMatchObject({ code: 0, stdout: '', stderr: '' })
})
