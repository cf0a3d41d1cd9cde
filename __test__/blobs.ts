/** What the tests of blobs share. */
import { onTestFinished } from 'vitest'
import { type BlobHandle, type BlobOpenOptions, BlobStore, type BlobStoreOptions } from '../src/index.js'
import { temporary } from './helpers.js'

export const MiB: number = 1024 * 1024

export const bytes = (text: string): Buffer<ArrayBuffer> => Buffer.from(text)

/** A store in a directory of its own, closed and removed after the test. */
export async function blobStore(
  options: BlobStoreOptions = {},
  directory: string = temporary(),
): Promise<BlobStore> {
  const store = await BlobStore.open(directory, options)
  // Held, so that none is collected, and that said, while the test runs.
  const held: BlobHandle[] = []
  const open = store.open.bind(store)
  store.open = async (...of) => {
    const blob = await open(...of)
    held.push(blob)
    return blob
  }
  onTestFinished(async () => {
    await store.close()
    held.length = 0
  })
  return store
}

/** A new blob in a store of its own. */
export async function newBlob(options?: BlobOpenOptions): Promise<BlobHandle> {
  return (await blobStore()).open('partition', 'blob', options)
}

/** All of a blob, as text. */
export async function text(blob: BlobHandle): Promise<string> {
  return Buffer.from(await blob.read(0, blob.size)).toString()
}

/** Names as text. */
export const names = async (store: BlobStore, partition = 'partition'): Promise<string[]> =>
  (await store.scan(partition)).map(name => Buffer.from(name).toString())

/** Bytes that differ from place to place, and from seed to seed. */
export function pattern(length: number, seed = 1): Buffer {
  const made = Buffer.allocUnsafe(length)
  let state = seed >>> 0 || 1
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    made[index] = state >>> 24
  }
  return made
}
