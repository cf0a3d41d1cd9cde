/**
 * Goal: whatever order of opens, reads, writes, resizes, removals and closes, a blob is what a buffer in memory would be.
 * Method: random calls from a seed on 64 handles of a few blobs, many of them under way at once, beside such buffers;
 * each read is compared. `RINGBOLT_LONG=1` makes a million calls; `RINGBOLT_SEED` repeats a run.
 */
import { expect, test } from 'vitest'
import { type BlobHandle, BlobStore } from '../src/index.js'
import { caught, temporary } from './helpers.js'

const isLong = process.env['RINGBOLT_LONG'] !== undefined
const steps = isLong ? 1_000_000 : 6000
const seed = Number(process.env['RINGBOLT_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const sizeMax = 200_000

/** A blob as it should be. */
class Model {
  bytes = Buffer.alloc(0)

  write(offset: number, data: Uint8Array): void {
    const size = Math.max(this.bytes.length, offset + data.length)
    this.resize(size)
    this.bytes.set(data, offset)
  }

  resize(size: number): void {
    const { bytes } = this
    this.bytes = Buffer.alloc(size)
    bytes.copy(this.bytes)
  }
}

interface Open {
  handle: BlobHandle
  model: Model
}

function random(from: number): (below: number) => number {
  let state = from
  return below => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

test(
  'a_blob_is_what_a_buffer_in_memory_would_be',
  async () => {
    const directory = temporary()
    const pick = random(seed)
    let store = await BlobStore.open(directory)
    const names = new Map<string, Model>()
    const handles: Open[] = []
    const of = <T>(items: readonly T[]): T => items[pick(items.length)] as T

    const open = async () => {
      const name = `${pick(3)}/${pick(8)}`
      const [partition, blob] = name.split('/') as [string, string]
      const model = names.get(name) ?? new Model()
      names.set(name, model)
      handles.push({ handle: await store.open(partition, blob), model })
    }

    const remove = async () => {
      const partition = String(pick(3))
      const isWhole = pick(10) === 0
      const blob = String(pick(8))
      const gone = [...names.keys()].filter(name =>
        isWhole ? name.startsWith(`${partition}/`) : name === `${partition}/${blob}`,
      )
      const removed = isWhole ? store.remove(partition) : store.remove(partition, blob)
      // Where nothing was there, its partition may have been, empty.
      await (gone.length > 0 ? removed : removed.catch(error => expect(error.code).toMatch(/MISSING$/)))
      for (const name of gone) names.delete(name)
    }

    /** Changes that are not awaited one by one take effect in the order of the calls. */
    const change = ({ handle, model }: Open): Promise<void> => {
      const kind = pick(10)
      if (kind < 2) {
        const size = kind === 0 ? pick(sizeMax) : Math.min(model.bytes.length, pick(sizeMax))
        model.resize(size)
        return handle.resize(size)
      }
      const length = kind < 8 ? pick(5000) : pick(60_000)
      const offset = pick(Math.min(model.bytes.length + 5000, sizeMax))
      const data = Buffer.alloc(length, 1 + pick(255))
      const cut = pick(length + 1)
      if (length > 0) model.write(offset, data)
      return handle.write(offset, pick(3) === 0 ? [data.subarray(0, cut), data.subarray(cut)] : data, {
        sync: pick(20) === 0,
        dontCache: pick(4) === 0,
      })
    }

    const check = async ({ handle, model }: Open): Promise<void> => {
      const { bytes } = model
      expect(handle.size).toBe(bytes.length)
      const offset = pick(bytes.length + 1)
      const length = pick(Math.min(bytes.length - offset, 40_000) + 1)
      const expected = bytes.subarray(offset, offset + length)
      const dontCache = pick(3) === 0
      let read: Uint8Array
      switch (pick(4)) {
        case 0:
          read = Buffer.alloc(length)
          await handle.readInto(
            offset,
            pick(2) === 0 ? read : [read.subarray(0, length >> 1), read.subarray(length >> 1)],
          )
          break
        case 1:
          read = Buffer.concat(
            await handle.readMany(
              [
                { offset, length: length >> 1 },
                { offset: offset + (length >> 1), length: length - (length >> 1) },
              ],
              { dontCache },
            ),
          )
          break
        default:
          read = await handle.read(offset, length, { dontCache })
      }
      if (!expected.equals(read)) throw new Error(`${length} bytes at ${offset} are not what was written`)
      if (pick(20) === 0) {
        expect(await caught(handle.read(offset, bytes.length - offset + 1))).toMatchObject({
          code: 'ERR_BLOB_INSUFFICIENT_LENGTH',
          size: bytes.length,
        })
      }
    }

    let done = 0
    try {
      while (done < steps) {
        while (handles.length < 64) await open()
        // Changes of all blobs at once, then reads of all at once.
        const changes = Array.from({ length: 16 }, () => change(of(handles)))
        if (pick(8) === 0) changes.push(of(handles).handle.sync())
        await Promise.all(changes)
        await Promise.all(Array.from({ length: 16 }, () => check(of(handles))))
        done += 32
        if (pick(4) === 0) await remove()
        if (pick(2) === 0)
          await Promise.all(handles.splice(pick(60), pick(4)).map(({ handle }) => handle.close()))
        if (pick(200) === 0) {
          handles.length = 0
          await store.close()
          store = await BlobStore.open(directory, { layout: pick(2) === 0 ? 'v0' : 'v1' })
        }
      }
      await store.close()
      store = await BlobStore.open(directory)
      handles.length = 0
      for (const [name, model] of names) {
        const [partition, blob] = name.split('/') as [string, string]
        const handle = await store.open(partition, blob, { create: false })
        expect(model.bytes.equals(await handle.read(0, handle.size))).toBe(true)
      }
      await store.close()
    } catch (error) {
      throw new Error(`after ${done} calls of RINGBOLT_SEED=${seed}: ${(error as Error).message}`, {
        cause: error,
      })
    }
  },
  isLong ? 3_600_000 : 180_000,
)
