/**
 * An open handle of a blob, from this side of the crossing. Its arguments were checked.
 */
import { invalidState } from './argument-errors.js'
import { type BlobName, blobClosed, insufficientLength, told } from './blob-errors.js'
import { couldReadInPlace, hurry, inNextTurn, mayReadInPlace } from './in-place.js'
import { native } from './native.js'
import { byteLengthOf, unshared } from './staging.js'
import type { Dependent, Store } from './store.js'

const { set, subarray } = Uint8Array.prototype

export class Blob implements BlobName, Dependent {
  readonly store: Store
  readonly partition: string
  readonly name: Uint8Array
  readonly version: number
  /** The handle's number on the other side. */
  readonly #number: number
  #closing: Promise<void> | undefined
  /** As it was when it was closed, and as the calls before that left it. */
  #lastSize = 0

  constructor(store: Store, { partition, name }: BlobName, blob: number, version: number) {
    this.store = store
    this.partition = partition
    this.name = name
    this.version = version
    this.#number = blob
    store.dependents.add(this)
  }

  get told(): string {
    return told(this)
  }

  get isClosed(): boolean {
    return this.#closing !== undefined || this.store.isClosed
  }

  get size(): number {
    return this.isClosed ? this.#lastSize : native.blobSize(this.store.id, this.#number)
  }

  /** @throws BlobError if the handle takes no more calls. */
  check(): void {
    if (this.#closing !== undefined) throw blobClosed(this)
    this.store.check()
  }

  /** @throws BlobError if the blob ends before these bytes do. */
  #checkSize(offset: number, length: number): void {
    const { size } = this
    if (offset + length <= size) return
    this.store.countRefused()
    throw insufficientLength(this, offset, length, size)
  }

  read(offset: number, length: number, cached: boolean): Promise<Uint8Array> {
    this.check()
    if (length === 0) {
      this.store.countEmptyRead()
      return Promise.resolve(Buffer.alloc(0))
    }
    this.#checkSize(offset, length)
    const bytes = Buffer.allocUnsafeSlow(length)
    if (!cached || !couldReadInPlace(length)) return this.#ask(offset, bytes, cached, bytes)
    if (!mayReadInPlace(length)) return this.#readLater(offset, bytes, length, bytes)
    return this.#readNow(offset, bytes) ? Promise.resolve(bytes) : this.#ask(offset, bytes, true, bytes)
  }

  /** In place, from the page cache. */
  #readNow(offset: number, into: Uint8Array): boolean {
    return native.readBlobNow(this.store.id, this.#number, offset, into as Buffer)
  }

  /** In place in a later turn, as soon as one has room for it; asked for where it is not all there then. */
  #readLater<T>(offset: number, bytes: Buffer, length: number, outcome: Uint8Array | (() => T)): Promise<T> {
    return new Promise<T>(resolve => {
      const read = (mayWait: boolean): void => {
        if (mayWait && !mayReadInPlace(length)) inNextTurn(read)
        else if (!mayWait || !this.#readNow(offset, bytes)) resolve(this.#ask(offset, bytes, true, outcome))
        else if (typeof outcome !== 'function') resolve(outcome as T)
        // It may throw.
        else resolve(Promise.resolve().then(outcome))
      }
      inNextTurn(read)
    })
  }

  /** Into memory that nobody has seen, nor sees before the answer: it is lent to the kernel. */
  #ask<T>(offset: number, into: Buffer, cached: boolean, outcome: Uint8Array | (() => T)): Promise<T> {
    return this.store.read(this.#number, offset, into, cached, outcome)
  }

  async readMany(
    ranges: readonly { offset: number; length: number }[],
    cached: boolean,
  ): Promise<Uint8Array[]> {
    this.check()
    const { store } = this
    for (const { offset, length } of ranges) if (length > 0) this.#checkSize(offset, length)
    const all: Buffer[] = ranges.map(({ length }) => Buffer.allocUnsafeSlow(length))
    const asked: number[] = []
    for (const [index, { length }] of ranges.entries()) {
      if (length > 0) asked.push(index)
      else store.countEmptyRead()
    }
    let inPlace = 0
    while (
      cached &&
      inPlace < asked.length &&
      mayReadInPlace(all[asked[inPlace] as number]?.length as number)
    )
      inPlace += 1
    if (asked.length === 0) return all
    await new Promise<void>((resolve, reject) => {
      let left = asked.length
      const settle = { reject, resolve: () => --left === 0 && resolve() }
      const buffers = asked.map(index => all[index] as Buffer)
      const ids = store.begin(new Array(asked.length).fill(settle), buffers)
      const plan = new Float64Array(2 * asked.length)
      for (const [place, index] of asked.entries()) {
        plan[2 * place] = (ranges[index] as { offset: number }).offset
        plan[2 * place + 1] = ids[place] as number
      }
      native.readBlobMany(store.id, this.#number, Buffer.from(plan.buffer), buffers, inPlace, cached)
      for (let place = 0; place < inPlace; place += 1)
        if (plan[2 * place + 1] === -1) store.settled(ids[place] as number)
    })
    return all
  }

  async readInto(offset: number, targets: readonly Uint8Array[], length: number): Promise<void> {
    this.check()
    if (length === 0) return this.store.countEmptyRead()
    this.#checkSize(offset, length)
    const [target] = targets as [Uint8Array]
    // Straight into it, but for memory that another thread may write to at the same time.
    const isPlain = targets.length === 1 && target === unshared(target)
    const isNow = mayReadInPlace(length)
    if (isNow && isPlain && this.#readNow(offset, target)) return
    const bytes = Buffer.allocUnsafeSlow(length)
    const sizes = targets.map(byteLengthOf)
    const fill = () => scatter(bytes, targets, sizes)
    if (!isNow && couldReadInPlace(length)) return this.#readLater(offset, bytes, length, fill)
    if (isNow && !isPlain && this.#readNow(offset, bytes)) return fill()
    return this.#ask(offset, bytes, true, fill)
  }

  write(
    offset: number,
    chunks: readonly Uint8Array[],
    length: number,
    { sync, cached }: { sync: boolean; cached: boolean },
  ): Promise<void> {
    this.check()
    const { store } = this
    if (length === 0) {
      store.countEmptyWrite()
      return Promise.resolve()
    }
    const views = chunks.map(unshared)
    const [view] = views as [Uint8Array]
    return store.ask(
      id =>
        views.length === 1
          ? native.writeBlob(store.id, id, this.#number, offset, view, sync, cached)
          : native.writeBlobChunks(store.id, id, this.#number, offset, views, sync, cached),
      () => this.#sized(Math.max(this.#lastSize, offset + length)),
    )
  }

  resize(length: number): Promise<void> {
    this.check()
    const { store } = this
    return store.ask(
      id => native.resizeBlob(store.id, id, this.#number, length),
      () => this.#sized(length),
    )
  }

  /** A change was answered. Of a handle that was closed meanwhile, core knows no size any more. */
  #sized(size: number): void {
    if (this.isClosed) this.#lastSize = size
  }

  sync(): Promise<void> {
    this.check()
    const { store } = this
    return store.ask(id => native.syncBlob(store.id, id, this.#number))
  }

  close(): Promise<void> {
    const { store } = this
    if (this.#closing === undefined) {
      // It goes with its store.
      if (store.isClosed) return store.close()
      hurry()
      this.beforeStoreEnds()
      store.dependents.delete(this)
      this.#closing = store.ask(id => native.closeBlob(store.id, id, this.#number))
    }
    return this.#closing
  }

  beforeStoreEnds(): void {
    this.#lastSize = this.size
  }
}

/** Give each target its bytes: all of them or, where one is no longer what it was at the call, none. */
function scatter(bytes: Uint8Array, targets: readonly Uint8Array[], sizes: readonly number[]): undefined {
  for (const [index, target] of targets.entries()) {
    const now = byteLengthOf(target)
    const size = sizes[index] as number
    if (now < size) {
      throw invalidState(`target ${index} has ${now} bytes, and had ${size} when the read began`)
    }
  }
  let start = 0
  for (const [index, target] of targets.entries()) {
    const end = start + (sizes[index] as number)
    // A detached one, which `set` would refuse, had no bytes either when the read began.
    if (end > start) set.call(target, subarray.call(bytes, start, end))
    start = end
  }
}
