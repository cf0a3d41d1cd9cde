import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { storeRequest } from '../src/blob-options.js'
import { appendAck, lsnOf, openRequest, readRequest } from '../src/options.js'

const wrongType = expect.objectContaining({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' })
const outOfRange = expect.objectContaining({ name: 'RangeError', code: 'ERR_OUT_OF_RANGE' })

// The tests themselves may run with a backend that the environment chose.
beforeEach(() => void vi.stubEnv('RINGBOLT_BACKEND', ''))
afterEach(() => void vi.unstubAllEnvs())

test('what_is_left_out_has_the_documented_default', () => {
  expect(openRequest('/a/b', undefined)).toEqual({
    directory: '/a/b',
    backend: 'auto',
    format: 'segments',
    sequences: 'strict',
    ack: 'durable',
    create: true,
    createOnly: false,
    segmentBytes: 64 * 1024 * 1024,
    queueBytesMax: 64 * 1024 * 1024,
    sync: 'auto',
    directIo: true,
    lockTimeoutMs: 250,
    check: 'tail',
    syncIntervalMs: 1000,
    fileMode: 0o600,
    onProgress: undefined,
    signal: undefined,
  })
  expect(openRequest('/a/b', { ack: undefined })).toEqual(openRequest('/a/b', {}))
})

test('a_directory_is_resolved_at_the_call', () => {
  expect(openRequest('a/../b', {}).directory).toBe(resolve('b'))
  expect(openRequest(pathToFileURL('/a b/c'), {}).directory).toBe(join('/', 'a b', 'c'))
})

test.each([
  [undefined, wrongType],
  [null, wrongType],
  [7, wrongType],
  [Buffer.from('/a'), wrongType],
  ['', outOfRange],
  ['/a\0b', outOfRange],
  [new URL('http://a/b'), outOfRange],
])('directory %o is refused', (directory, error) => {
  expect(() => openRequest(directory, {})).toThrow(error)
})

test.each([
  ['a', wrongType],
  [null, wrongType],
  [{ backend: 'uring' }, outOfRange],
  [{ backend: 1 }, wrongType],
  [{ ack: 'none' }, outOfRange],
  [{ ack: null }, wrongType],
  [{ create: 1 }, wrongType],
  [{ segmentBytes: '1' }, wrongType],
  [{ segmentBytes: 1024 * 1024 - 4096 }, outOfRange],
  [{ segmentBytes: 1024 * 1024 + 1 }, outOfRange],
  [{ segmentBytes: 1024 * 1024 * 1024 + 4096 }, outOfRange],
  [{ segmentBytes: Number.NaN }, outOfRange],
  [{ queueBytesMax: 0 }, outOfRange],
  [{ queueBytesMax: 1.5 }, outOfRange],
  [{ queueBytesMax: Number.POSITIVE_INFINITY }, outOfRange],
  [{ sync: 'fsync' }, outOfRange],
  [{ directIo: 'yes' }, wrongType],
  [{ lockTimeoutMs: -1 }, outOfRange],
  [{ lockTimeoutMs: 2 ** 31 }, outOfRange],
  [{ check: true }, wrongType],
  [{ syncIntervalMs: 0 }, outOfRange],
  [{ fileMode: 0o1000 }, outOfRange],
  [{ onProgress: 'often' }, wrongType],
  [{ signal: {} }, wrongType],
  [{ signal: new EventTarget() }, wrongType],
])('options %o are refused', (options, error) => {
  expect(() => openRequest('/a', options)).toThrow(error)
})

test('the_environment_is_stronger_than_the_backend_asked_for', () => {
  vi.stubEnv('RINGBOLT_BACKEND', 'threads')
  expect(openRequest('/a', { backend: 'io_uring' }).backend).toBe('threads')
  expect(storeRequest('/a', {}).backend).toBe('threads')
  expect(() => openRequest('/a', { backend: 'uring' })).toThrow(outOfRange)
  vi.stubEnv('RINGBOLT_BACKEND', 'uring')
  const error = expect.objectContaining({
    code: 'ERR_OUT_OF_RANGE',
    message: expect.stringMatching(/RINGBOLT_BACKEND.*'auto', 'io_uring', 'threads'.*uring/),
  })
  expect(() => openRequest('/a', {})).toThrow(error)
  expect(() => storeRequest('/a', { backend: 'threads' })).toThrow(error)
  vi.stubEnv('RINGBOLT_BACKEND', '')
  expect(openRequest('/a', { backend: 'io_uring' }).backend).toBe('io_uring')
  expect(openRequest('/a', {}).backend).toBe('auto')
})

test('an_lsn_is_a_safe_integer_or_a_bigint', () => {
  expect(lsnOf('lsn', 0)).toBe(0)
  expect(lsnOf('lsn', 2n ** 53n - 1n)).toBe(Number.MAX_SAFE_INTEGER)
  for (const wrong of [-1, 1.5, Number.NaN, 2 ** 53, -1n, 2n ** 53n])
    expect(() => lsnOf('lsn', wrong)).toThrow(outOfRange)
  for (const wrong of ['1', null, {}]) expect(() => lsnOf('lsn', wrong)).toThrow(wrongType)
})

test('ranges_and_acks_are_checked', () => {
  expect(readRequest(undefined)).toEqual({
    from: undefined,
    to: undefined,
    follow: false,
    signal: undefined,
  })
  expect(readRequest({ from: 3n, to: 2, follow: true })).toEqual({
    from: 3,
    to: 2,
    follow: true,
    signal: undefined,
  })
  expect(() => readRequest({ from: 'x' })).toThrow(wrongType)
  expect(() => readRequest({ to: -1 })).toThrow(outOfRange)
  expect(() => readRequest(5)).toThrow(wrongType)
  expect(appendAck({}, 'written')).toBe('written')
  expect(appendAck({ ack: 'durable' }, 'written')).toBe('durable')
  expect(() => appendAck({ ack: 'x' }, 'written')).toThrow(outOfRange)
  expect(() => appendAck(null, 'written')).toThrow(wrongType)
})
