import { expect, test } from 'vitest'
import { byteLengthOf, bytesOf, Staging, unshared } from '../src/staging.js'

test('records_lie_behind_their_lengths_in_little_endian', () => {
  const staging = new Staging(1000)
  staging.push(Uint8Array.of(7, 8), 2)
  staging.push(new Uint8Array(0), 0)
  staging.push(new Uint8Array(300).fill(9), 300)
  expect(staging.count).toBe(3)
  expect(staging.length).toBe(4 + 2 + 4 + 4 + 300)
  expect([...staging.bytes.subarray(0, 15)]).toEqual([2, 0, 0, 0, 7, 8, 0, 0, 0, 0, 44, 1, 0, 0, 9])
  expect(staging.fits(1000 - staging.length)).toBe(true)
  expect(staging.fits(1000 - staging.length + 1)).toBe(false)
  staging.clear()
  expect([staging.count, staging.length]).toEqual([0, 0])
})

test('exactly_the_bytes_of_any_view_are_taken', () => {
  const { buffer } = Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7)
  for (const view of [
    new Uint8Array(buffer, 2, 4),
    Buffer.from(buffer, 2, 4),
    new DataView(buffer, 2, 4),
    new Uint16Array(buffer, 2, 2),
    new Int8Array(buffer, 2, 4),
    new Float32Array(buffer.slice(2, 6)),
  ]) {
    expect([...bytesOf(view, 'record')]).toEqual([2, 3, 4, 5])
  }
})

test('a_detached_view_of_any_kind_counts_as_zero_bytes', () => {
  for (const make of [
    (buffer: ArrayBuffer) => new Uint8Array(buffer, 2, 4),
    (buffer: ArrayBuffer) => new Uint16Array(buffer),
    (buffer: ArrayBuffer) => new DataView(buffer, 2, 4),
  ]) {
    const buffer = new ArrayBuffer(8)
    const view = make(buffer)
    structuredClone(buffer, { transfer: [buffer] })
    expect(byteLengthOf(bytesOf(view, 'record'))).toBe(0)
    new Staging(8).push(bytesOf(view, 'record'), 0)
  }
})

test('what_is_no_view_is_refused_as_node_does_it', () => {
  for (const wrong of [
    'text',
    5,
    null,
    undefined,
    {},
    [1, 2],
    new ArrayBuffer(4),
    new Proxy(new Uint8Array(1), {}),
  ]) {
    expect(() => bytesOf(wrong, 'record')).toThrow(
      expect.objectContaining({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }),
    )
  }
})

test('a_subclass_cannot_lie_about_its_length', () => {
  class Liar extends Uint8Array {
    override get byteLength() {
      return 1
    }
    override get length() {
      return 1
    }
  }
  expect(byteLengthOf(new Liar(8))).toBe(8)
})

test('shared_memory_is_copied_and_other_memory_is_not', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(1)
  const copy = unshared(shared)
  shared.fill(2)
  expect([...copy]).toEqual([1, 1, 1, 1])
  const own = Uint8Array.of(1)
  expect(unshared(own)).toBe(own)
})

test('what_cannot_be_copied_leaves_the_staging_as_it_was', () => {
  // As with shared memory that another thread grows between the question for its size and the copy.
  const staging = new Staging(64)
  staging.push(Buffer.from('first'), 5)
  const grown = new Uint8Array(100)
  expect(() => staging.push(grown, 10)).toThrow(RangeError)
  expect(() => staging.pushAll([Buffer.from('second'), grown], [6, 10])).toThrow(RangeError)
  expect([staging.length, staging.count]).toEqual([9, 1])
  staging.push(Buffer.from('second'), 6)
  expect(Buffer.from(staging.bytes.subarray(13, 19)).toString()).toBe('second')
})
