import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import {
  blobNameOf,
  blobRequest,
  checkEnd,
  chunksOf,
  isReadCached,
  offsetOf,
  storeRequest,
  streamRequest,
  writeRequest,
} from '../src/blob-options.js'

const largest = Number.MAX_SAFE_INTEGER

beforeEach(() => void vi.stubEnv('RINGBOLT_BACKEND', ''))
afterEach(() => void vi.unstubAllEnvs())

test('what_is_left_out_has_the_documented_default', () => {
  expect(storeRequest('/a/b', undefined)).toEqual({
    directory: '/a/b',
    backend: 'auto',
    layout: 'v1',
    queueDepth: 64,
    lockTimeoutMs: 250,
    create: true,
    fileMode: 0o600,
    signal: undefined,
  })
  expect(blobRequest(undefined)).toEqual({ least: 0, most: 0, create: true })
  expect(isReadCached(undefined)).toBe(true)
  expect(isReadCached({})).toBe(true)
  expect(writeRequest(undefined)).toEqual({ sync: false, cached: true })
  expect(streamRequest(undefined)).toEqual({
    start: 0,
    end: largest,
    highWaterMark: 65_536,
    signal: undefined,
  })
})

test('a_directory_is_resolved_at_the_call', () => {
  expect(storeRequest('a/../b', {}).directory).toBe(resolve('b'))
  expect(storeRequest(pathToFileURL('/a b/c'), {}).directory).toBe(join('/', 'a b', 'c'))
})

test('an_offset_is_any_number_that_can_be_one', () => {
  for (const offset of [0, 1, largest]) {
    expect(offsetOf('offset', offset)).toBe(offset)
    expect(offsetOf('offset', BigInt(offset))).toBe(offset)
  }
  expect(Object.is(offsetOf('offset', 0n), 0)).toBe(true)
})

test('an_end_is_at_most_the_largest_offset', () => {
  checkEnd(largest, 0)
  checkEnd(0, largest)
  checkEnd(largest - 5, 5)
  for (const [offset, length] of [
    [largest, 1],
    [largest - 5, 6],
    [largest, largest],
  ] as const) {
    const overflow = expect.objectContaining({ code: 'ERR_BLOB_OFFSET_OVERFLOW' })
    expect(() => checkEnd(offset, length)).toThrow(overflow)
  }
})

test('a_name_is_copied_and_a_view_counts_with_exactly_its_bytes', () => {
  const { buffer } = Uint8Array.of(0, 1, 2, 3)
  const name = blobNameOf(new Uint8Array(buffer, 1, 2), 'p')
  expect([...name]).toEqual([1, 2])
  expect(name.buffer).not.toBe(buffer)
  expect([...blobNameOf('ä', 'p')]).toEqual([0xc3, 0xa4])
})

test('chunks_are_one_view_or_several_and_know_their_length', () => {
  const [one, two] = [new Uint8Array(3), new Uint16Array(2)]
  expect(chunksOf(one, 'data')).toEqual({ chunks: [one], length: 3 })
  expect(chunksOf([one, two, one], 'data').length).toBe(10)
  // A subclass that lies about its length is not believed.
  class Liar extends Uint8Array {
    override get byteLength(): number {
      return 1000
    }
  }
  expect(chunksOf(new Liar(2), 'data').length).toBe(2)
})

test('the_end_of_a_stream_is_inclusive', () => {
  expect(streamRequest({ start: 5, end: 5 })).toMatchObject({ start: 5, end: 6 })
  expect(streamRequest({ start: 5n, end: 4n })).toMatchObject({ start: 5, end: 5 })
  expect(streamRequest({ end: largest })).toMatchObject({ end: largest })
})
