/**
 * The answers of a store that fails, or ends unasked, played by hand: what becomes of the promises then. The real store is
 * behind every other file of tests.
 */
import { beforeEach, expect, test, vi } from 'vitest'
import { storeRequest } from '../src/blob-options.js'
import type { Failure } from '../src/errors.js'
import { Store } from '../src/store.js'
import { caught } from './helpers.js'

const core = vi.hoisted(() => ({
  /** 0 opening, 1 open, 2 failed, 3 closed. */
  state: 0,
  finished: [] as number[],
  answers: new Map<number, object>(),
  failure: null as Failure | null,
  closes: 0,
  released: 0,
  /** Stores there is news of. */
  news: [] as number[],
  callback: () => {},
}))

vi.mock('../src/native.js', async original => ({
  ...(await original<typeof import('../src/native.js')>()),
  native: {
    createEnvironment: (callback: () => void) => {
      core.callback = callback
      return 1
    },
    openStore: () => 7,
    takeNews: () => core.news.splice(0),
    takeFinished: (_: number, into: Buffer) => {
      const words = new Uint32Array(into.buffer)
      words[0] = core.state
      const taken = core.finished.splice(0, words.length - 1)
      words.set(taken, 1)
      return taken.length
    },
    takeAnswer: (_: number, id: number) => core.answers.get(id) ?? {},
    storeBackend: () => 'io_uring',
    storeFailure: () => core.failure,
    storeStats: () => ({ reads: 0, writes: 0, errors: 0 }),
    closeStore: () => {
      core.closes += 1
    },
    release: () => {
      core.released += 1
    },
  },
}))

const rich = (id: number) => id + 2 ** 31
const news = () => {
  core.news.push(7)
  core.callback()
}

beforeEach(() => {
  Object.assign(core, { state: 0, finished: [], failure: null, closes: 0, released: 0 })
  core.answers.clear()
})

async function opened(): Promise<Store> {
  const opening = Store.open(storeRequest('/store', undefined))
  core.state = 1
  news()
  return opening
}

test('a_store_that_cannot_be_opened_rejects_and_is_let_go_of', async () => {
  const opening = Store.open(storeRequest('/store', undefined))
  news()
  core.state = 2
  core.failure = { code: 'ERR_BLOB_STORE_LOCKED', message: 'locked', pid: 5, causes: [] }
  news()
  expect(await caught(opening)).toMatchObject({ name: 'BlobError', code: 'ERR_BLOB_STORE_LOCKED', pid: 5 })
  expect(core.released).toBe(1)
})

test('answers_come_in_any_order_and_any_number', async () => {
  const store = await opened()
  const ids: number[] = []
  const calls = Array.from({ length: 5000 }, (_, index) =>
    store.ask(id => ids.push(id), new Uint8Array([index % 256])),
  )
  core.finished = ids.toReversed()
  news()
  for (const [index, bytes] of (await Promise.all(calls)).entries())
    expect(bytes).toEqual(new Uint8Array([index % 256]))
})

test('an_answer_that_says_more_is_made_into_what_was_asked_for_or_an_error', async () => {
  const store = await opened()
  const ids: number[] = []
  const failing = store.ask(id => ids.push(id))
  const made = store.askFor(
    id => ids.push(id),
    ({ blob }, id) => [blob, id],
  )
  const throwing = store.askFor(
    id => ids.push(id),
    () => {
      throw new Error('cannot be made')
    },
  )
  core.answers.set(ids[0] as number, {
    failure: { code: 'ERR_BLOB_SYNC_FAILED', message: 'sync', errno: -5, causes: [] },
  })
  core.answers.set(ids[1] as number, { blob: 9 })
  core.finished = ids.map(rich)
  news()
  expect(await caught(failing)).toMatchObject({ code: 'ERR_BLOB_SYNC_FAILED', errno: -5 })
  expect(await made).toEqual([9, ids[1]])
  expect((await caught(throwing)).message).toBe('cannot be made')
})

test('what_is_answered_with_the_end_is_settled_before_it', async () => {
  const store = await opened()
  const ids: number[] = []
  const order: string[] = []
  const call = store.ask(id => ids.push(id)).then(() => order.push('call'))
  const closing = store.close().then(() => order.push('close'))
  expect(core.closes).toBe(1)
  core.finished = ids
  core.state = 3
  news()
  await Promise.all([call, closing])
  expect(order).toEqual(['call', 'close'])
  expect([core.closes, core.released]).toEqual([1, 1])
})

test('a_store_that_ends_unasked_answers_every_call_and_is_closed', async () => {
  const store = await opened()
  const call = store.ask(() => {})
  const told: string[] = []
  store.dependents.add({ beforeStoreEnds: () => told.push('still there') && expect(core.released).toBe(0) })
  core.state = 3
  news()
  expect(await caught(call)).toMatchObject({ code: 'ERR_BLOB_STORE_IO' })
  expect([store.isClosed, told]).toEqual([true, ['still there']])
  expect(await caught(() => store.check())).toMatchObject({ code: 'ERR_BLOB_STORE_CLOSED' })
  await store.close()
  expect([core.closes, core.released]).toEqual([0, 1])
  // Late news are for nobody.
  news()
})

test('a_signal_gives_up_waiting_and_the_store_is_closed_when_it_can_be', async () => {
  const controller = new AbortController()
  const opening = Store.open(storeRequest('/store', { signal: controller.signal }))
  const reason = new Error('no time')
  controller.abort(reason)
  expect(await caught(opening)).toBe(reason)
  expect(core.closes).toBe(1)
  core.state = 3
  news()
  expect(core.released).toBe(1)
})
