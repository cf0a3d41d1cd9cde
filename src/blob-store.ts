/**
 * A store of blobs as users see it: arguments are checked here, `Store` does the rest.
 */
import { Blob } from './blob.js'
import { type BlobStats, statsOf } from './blob-figures.js'
import { type BlobHandle, handleOf } from './blob-handle.js'
import {
  type BlobOpenOptions,
  type BlobStoreOptions,
  blobNameOf,
  blobRequest,
  partitionOf,
  storeRequest,
} from './blob-options.js'
import { collectedStores } from './collected.js'
import { native } from './native.js'
import type { Backend } from './options.js'
import { Store } from './store.js'

/**
 * A directory of blobs. A blob has a name in a partition; a partition is there as long as something put a blob into it.
 *
 * A partition's name is 1 to 255 of the characters `A-Z`, `a-z`, `0-9`, `_` and `-`. A blob's name is any 1 to 127
 * bytes; a string stands for its bytes in UTF-8.
 *
 * Only one store can have a directory open, in any process or worker thread. An open store that nobody waits for does
 * not keep the process alive; a pending call does.
 *
 * @example
 * ```ts
 * import { BlobStore } from 'ringbolt'
 *
 * await using store = await BlobStore.open('data/blobs')
 * await using blob = await store.open('images', 'logo.png')
 * await blob.write(0, bytes, { sync: true })
 * console.log(blob.size, await store.scan('images'))
 * ```
 */
export class BlobStore implements AsyncDisposable {
  readonly #store: Store

  private constructor(store: Store) {
    this.#store = store
    collectedStores.register(this, store, this)
  }

  /**
   * Open the store in `directory`; make it if there is none. A relative path is resolved at the call; missing parent
   * directories are made. What an earlier process wrote and did not sync is synced first, which takes as long as there
   * is to write.
   *
   * @throws BlobError `ERR_BLOB_STORE_LOCKED` (with the `pid` of its owner), `ERR_BLOB_STORE_NOT_FOUND`,
   * `ERR_BLOB_STORE_IO`
   * @throws BackendError `ERR_BACKEND_UNAVAILABLE`
   *
   * @example
   * ```ts
   * const store = await BlobStore.open('data/blobs', { queueDepth: 128 })
   * ```
   */
  static async open(directory: string | URL, options?: BlobStoreOptions): Promise<BlobStore> {
    return new BlobStore(await Store.open(storeRequest(directory, options)))
  }

  /** The store's directory, an absolute path. */
  get directory(): string {
    return this.#store.directory
  }

  /** What runs the store. */
  get backend(): Backend {
    return this.#store.backend as Backend
  }

  /** Why it is not `io_uring`, where `'auto'` took something else. */
  get backendReason(): string | undefined {
    return this.#store.backendReason
  }

  /** Whether {@link BlobStore.close} was called. */
  get closed(): boolean {
    return this.#store.isClosed
  }

  /**
   * Open a blob; make it, and its partition, if there is none. Resolved, its name is durable: it is there after a crash
   * of the system, with whatever of its bytes was synced. The same blob may be opened any number of times.
   *
   * @throws BlobError `ERR_BLOB_PARTITION_NAME_INVALID`, `ERR_BLOB_NAME_INVALID`, `ERR_BLOB_MISSING`,
   * `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_VERSION_MISMATCH` (`expected`, `found`), `ERR_BLOB_CORRUPT` (`reason`),
   * `ERR_BLOB_OPEN_FAILED`, `ERR_BLOB_PARTITION_CREATION_FAILED`, `ERR_BLOB_SYNC_FAILED`, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * await using blob = await store.open('images', 'logo.png', { create: false })
   * ```
   */
  async open(partition: string, name: string | Uint8Array, options?: BlobOpenOptions): Promise<BlobHandle> {
    const store = this.#store
    const key = { partition: partitionOf(partition), name: blobNameOf(name, partition) }
    const { least, most, create } = blobRequest(options)
    store.check()
    return store.askFor(
      id => native.openBlob(store.id, id, key.partition, key.name, least, most, create),
      ({ blob, version }) => handleOf(new Blob(store, key, blob as number, version as number), this),
    )
  }

  /**
   * Remove a blob or, without a name, a partition and all that is in it. Resolved, it is durably gone. Handles that are
   * open keep what they had until they are closed; opening the name again makes an independent blob.
   *
   * @throws BlobError `ERR_BLOB_PARTITION_NAME_INVALID`, `ERR_BLOB_NAME_INVALID`, `ERR_BLOB_MISSING`,
   * `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_PARTITION_CORRUPT` if a directory lies in the partition, `ERR_BLOB_OPEN_FAILED`,
   * `ERR_BLOB_SYNC_FAILED`, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * await store.remove('images', 'logo.png')
   * ```
   */
  async remove(partition: string, name?: string | Uint8Array): Promise<void> {
    const store = this.#store
    const from = partitionOf(partition)
    const bytes = name === undefined ? undefined : blobNameOf(name, from)
    store.check()
    return store.ask(id =>
      bytes === undefined
        ? native.removePartition(store.id, id, from)
        : native.removeBlob(store.id, id, from, bytes),
    )
  }

  /**
   * The names of the blobs in a partition, sorted by their bytes.
   *
   * @throws BlobError `ERR_BLOB_PARTITION_NAME_INVALID`, `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_PARTITION_CORRUPT`
   * (`path`) if something lies in it that is no blob, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * for (const name of await store.scan('images')) console.log(String(name))
   * ```
   */
  async scan(partition: string): Promise<Uint8Array[]> {
    const store = this.#store
    const of = partitionOf(partition)
    store.check()
    return store.askFor(
      id => native.scanPartition(store.id, id, of),
      ({ namesBytes }, id) => {
        const bytes = Buffer.allocUnsafeSlow(namesBytes as number)
        native.takeNames(store.id, id, bytes)
        return namesIn(bytes)
      },
    )
  }

  /**
   * The names of the partitions, sorted.
   *
   * @throws BlobError `ERR_BLOB_STORE_IO`, `ERR_BLOB_STORE_CLOSED`
   *
   * @example
   * ```ts
   * for (const partition of await store.partitions()) await store.scan(partition)
   * ```
   */
  async partitions(): Promise<string[]> {
    const store = this.#store
    store.check()
    return store.askFor(
      id => native.listPartitions(store.id, id),
      ({ partitions }) => partitions as string[],
    )
  }

  /** Figures since it was opened; of a closed one, up to its end. */
  stats(): BlobStats {
    return statsOf(this.#store)
  }

  /**
   * Settle the calls under way, close every handle, and let go of the directory. Syncs nothing. Later calls reject with
   * `ERR_BLOB_STORE_CLOSED`. May be called again, and returns the same promise.
   */
  close(): Promise<void> {
    collectedStores.unregister(this)
    return this.#store.close()
  }

  /** The same as {@link BlobStore.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Each behind its length. */
function namesIn(bytes: Buffer): Uint8Array[] {
  const names: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + (bytes[at] as number)
    // Each in memory of its own: one that is kept does not keep the list.
    names.push(Buffer.from(bytes.subarray(at + 1, end)))
    at = end
  }
  return names
}
