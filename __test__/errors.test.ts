import { inspect } from 'node:util'
import { expect, test, vi } from 'vitest'
import { BackendError, BlobError, errorCodes, errorOf, RingboltError, WalError } from '../src/errors.js'
import { native } from '../src/native.js'
import { outcomeUnknown, poisoned } from '../src/wal-errors.js'

test('the_codes_in_rust_are_those_in_typescript', () => {
  expect([...errorCodes].sort()).toEqual(native.codes().sort())
})

test('a_failure_becomes_an_error_of_its_class_with_what_applies_and_its_causes', () => {
  const error = errorOf({
    code: 'ERR_WAL_POISONED',
    message: 'later',
    path: '/a',
    errno: -5,
    causes: [
      { code: 'ERR_WAL_OUTCOME_UNKNOWN', message: 'in flight', causes: [] },
      { code: 'ERR_WAL_IO', message: 'write', errno: -5, syscall: 'pwritev2', causes: [] },
    ],
  })
  expect(error).toBeInstanceOf(WalError)
  expect(error).toMatchObject({
    name: 'WalError',
    code: 'ERR_WAL_POISONED',
    message: 'later',
    path: '/a',
    errno: -5,
  })
  expect(Object.keys(error)).not.toContain('pid')
  expect(error.cause).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN' })
  expect((error.cause as Error).cause).toMatchObject({ code: 'ERR_WAL_IO', errno: -5, syscall: 'pwritev2' })
  expect(((error.cause as Error).cause as Error).cause).toBeUndefined()
  expect(errorOf({ code: 'ERR_BACKEND_UNAVAILABLE', message: '', causes: [] })).toBeInstanceOf(BackendError)
})

test('an_error_of_a_blob_tells_which_blob_with_its_name_as_bytes', () => {
  const error = errorOf({
    code: 'ERR_BLOB_WRITE_FAILED',
    message: 'write',
    partition: 'p',
    blobName: [0x61, 0xff],
    errno: -28,
    offset: 10,
    length: 5,
    bytesDone: 3,
    causes: [{ code: 'ERR_BLOB_SYNC_FAILED', message: 'sync', causes: [] }],
  })
  expect(error).toBeInstanceOf(BlobError)
  expect(error instanceof WalError).toBe(false)
  expect(error).toMatchObject({ name: 'BlobError', partition: 'p', offset: 10, length: 5, bytesDone: 3 })
  expect(error.blobName).toEqual(Buffer.from([0x61, 0xff]))
  expect(error.cause).toBeInstanceOf(BlobError)
})

test('what_the_kernel_said_shows_on_what_follows_from_it', () => {
  const first = errorOf({
    code: 'ERR_WAL_IO',
    message: 'write',
    errno: -5,
    syscall: 'write',
    path: '/a',
    offset: 7,
    causes: [],
  })
  for (const error of [outcomeUnknown(first), poisoned(first)]) {
    expect(error).toMatchObject({ errno: -5, syscall: 'write', path: '/a', offset: 7, cause: first })
  }
})

test('instanceof_tells_the_classes_apart_and_leaves_subclasses_alone', () => {
  const error = new WalError('ERR_WAL_CLOSED', 'closed')
  expect(error instanceof WalError && error instanceof RingboltError && error instanceof Error).toBe(true)
  expect((error as unknown) instanceof BackendError).toBe(false)
  class Mine extends WalError {}
  expect(error instanceof Mine).toBe(false)
  expect(new Mine('ERR_WAL_CLOSED', '') instanceof Mine).toBe(true)
  for (const other of [null, undefined, 'WalError', {}, new Error('x')])
    expect((other as unknown) instanceof WalError).toBe(false)
})

test('instanceof_works_across_two_copies_of_the_package', async () => {
  vi.resetModules()
  const copy = await import('../src/errors.js')
  expect(copy.WalError).not.toBe(WalError)
  const error: unknown = new copy.WalError('ERR_WAL_CLOSED', 'closed')
  expect(error instanceof WalError && error instanceof RingboltError).toBe(true)
  expect(error instanceof BackendError).toBe(false)
})

test('an_error_prints_its_name_its_message_and_its_details', () => {
  const text = inspect(new WalError('ERR_WAL_LOCKED', 'taken', { pid: 7, path: '/a' }))
  expect(text).toMatch(/^WalError: taken\n/)
  expect(text).toContain("code: 'ERR_WAL_LOCKED'")
  expect(text).toContain('pid: 7')
  expect(text).not.toContain('errno')
  expect(text).not.toContain('Symbol')
})

test('a_panic_below_becomes_an_exception_and_the_process_goes_on', () => {
  // There is no such log: the facade never asks that.
  expect(() => native.close(0)).toThrow('ringbolt has a bug, please report it')
})
