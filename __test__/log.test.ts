/**
 * The answers of a service that fails, runs out of space or disagrees, played by hand: what becomes of the
 * promises then. The real service is behind every other file of tests.
 */
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import type { Failure } from '../src/errors.js'
import { Log } from '../src/log.js'
import { openRequest } from '../src/options.js'
import { caught } from './helpers.js'

interface Run {
  firstLsn: number
  count: number
  epoch: number
  durable: boolean
  apart: boolean
}

const service = vi.hoisted(() => ({
  // phase, ended, written, durable, bytes, flushes, epoch
  status: [0, 0, 0, 0, 0, 0, 0],
  runs: [] as Run[],
  wanted: [] as number[],
  flushes: 0,
  closes: 0,
  released: 0,
  failure: null as Failure | null,
  refusal: null as { epoch: number; fromLsn: number; failure: Failure } | null,
  answer: null as Failure | null,
  /** Microseconds that a write takes while it is idle. */
  idle: -1,
  batchBytesMax: 0,
  /** The last LSN of the log that is opened. */
  recovered: 0,
  /** Logs there is news of. */
  news: [] as number[],
  callback: () => {},
}))

vi.mock('../src/native.js', async original => ({
  ...(await original<typeof import('../src/native.js')>()),
  native: {
    createEnvironment: (callback: () => void) => {
      service.callback = callback
      return 1
    },
    openWal: () => 7,
    takeNews: () => service.news.splice(0),
    poll: (_: number, into: Buffer) => new Float64Array(into.buffer).set(service.status),
    opened: () => ({
      firstLsn: 1,
      lastLsn: service.recovered,
      recordBytesMax: 16 * 1024 * 1024,
      batchBytesMax: service.batchBytesMax,
    }),
    submit: (
      _: number,
      __: Uint8Array,
      ___: number,
      count: number,
      firstLsn: number,
      epoch: number,
      durable: boolean,
    ) => {
      service.runs.push({ firstLsn, count, epoch, durable, apart: false })
      return service.answer
    },
    submitApart: (_: number, records: Uint8Array[], firstLsn: number, epoch: number, durable: boolean) => {
      service.runs.push({ firstLsn, count: records.length, epoch, durable, apart: true })
      return service.answer
    },
    wantDurable: (_: number, lsn: number) => service.wanted.push(lsn),
    flush: () => {
      service.flushes += 1
      return service.flushes
    },
    close: () => {
      service.closes += 1
    },
    release: () => {
      service.released += 1
    },
    failure: () => service.failure,
    refusal: () => service.refusal,
    stats: () => ({}),
    idle: () => service.idle,
  },
}))

const open = 1
const failed = 2
const closed = 3

beforeEach(() => {
  Object.assign(service, {
    status: [0, 0, 0, 0, 0, 0, 0],
    runs: [],
    wanted: [],
    flushes: 0,
    closes: 0,
    released: 0,
  })
  Object.assign(service, {
    failure: null,
    refusal: null,
    answer: null,
    idle: -1,
    batchBytesMax: 32 * 1024 * 1024,
    recovered: 0,
  })
})

/** News: these watermarks. */
function tell(
  phase: number,
  ended: 0 | 1,
  written: number,
  durable: number,
  bytes: number,
  flushes = 0,
  epoch = 0,
): void {
  service.status = [phase, ended, written, durable, bytes, flushes, epoch]
  service.news.push(7)
  service.callback()
}

const tick = () => new Promise<void>(resolve => setImmediate(resolve))

async function opened(options = {}): Promise<Log> {
  const opening = Log.open(openRequest('/log', options))
  tell(open, 0, 0, 0, 0)
  return opening
}

const record = new Uint8Array(10)
const failure = (code: string, details: Partial<Failure> = {}): Failure => ({
  code,
  message: code,
  causes: [],
  ...details,
})
const fault = failure('ERR_WAL_IO', { errno: -5, syscall: 'pwritev2', path: '/log/wal' })
const full = failure('ERR_WAL_NO_SPACE', { errno: -28, path: '/log' })

test('a_tick_is_one_submission_and_what_is_large_goes_apart_in_its_place', async () => {
  const log = await opened()
  log.append(record, false)
  log.append(record, false)
  log.append(new Uint8Array(600_000), true)
  log.append(record, false)
  log.appendBatch([record, record], true)
  expect(service.runs).toEqual([
    { firstLsn: 1, count: 2, epoch: 0, durable: false, apart: false },
    { firstLsn: 3, count: 1, epoch: 0, durable: true, apart: true },
  ])
  await tick()
  expect(service.runs.slice(2)).toEqual([{ firstLsn: 4, count: 3, epoch: 0, durable: true, apart: false }])
})

test('a_full_staging_is_submitted_in_the_middle_of_the_tick_and_a_batch_is_never_split', async () => {
  const log = await opened()
  const large = new Uint8Array(200_000)
  log.append(large, true)
  log.append(large, true)
  log.appendBatch([large, record], true)
  expect(service.runs).toEqual([{ firstLsn: 1, count: 2, epoch: 0, durable: true, apart: false }])
  await tick()
  expect(service.runs[1]).toEqual({ firstLsn: 3, count: 2, epoch: 0, durable: true, apart: false })
})

test('what_is_collected_never_passes_what_one_batch_may_have', async () => {
  service.batchBytesMax = 300_000
  const log = await opened()
  const large = new Uint8Array(200_000)
  log.append(large, true)
  log.append(large, true)
  await tick()
  expect(service.runs).toMatchObject([
    { firstLsn: 1, count: 1, apart: false },
    { firstLsn: 2, count: 1, apart: false },
  ])
})

test('each_kind_of_waiter_settles_at_its_own_watermark', async () => {
  const log = await opened()
  const settled: string[] = []
  log.append(record, true).then(lsn => settled.push(`durable ${lsn}`))
  log.append(record, false).then(lsn => settled.push(`written ${lsn}`))
  log.durable(1).then(lsn => settled.push(`asked 1: ${lsn}`))
  log.flush().then(lsn => settled.push(`flushed ${lsn}`))
  await tick()
  tell(open, 0, 2, 0, 20)
  await tick()
  expect(settled).toEqual(['written 2'])
  tell(open, 0, 2, 1, 20)
  await tick()
  expect(settled.slice(1)).toEqual(['durable 1', 'asked 1: 1'])
  tell(open, 0, 2, 2, 20, 1)
  await tick()
  expect(settled.slice(3)).toEqual(['flushed 2'])
  expect(log.queuedBytes).toBe(0)
})

test('durable_asks_the_service_only_where_nobody_has', async () => {
  const log = await opened()
  log.enqueue(record)
  const staged = log.durable(undefined)
  await tick()
  expect(service.runs[0]?.durable).toBe(true)
  log.enqueue(record)
  await tick()
  expect(service.runs[1]?.durable).toBe(false)
  const asked = [log.durable(2), log.durable(2), log.durable(1)]
  expect(service.wanted).toEqual([2])
  tell(open, 0, 2, 2, 20)
  expect(await Promise.all([staged, ...asked])).toEqual([2, 2, 2, 2])
  expect(await log.durable(undefined)).toBe(2)
  expect(service.wanted).toEqual([2])
})

test('a_failed_write_rejects_everything_pending_and_poisons_what_comes', async () => {
  const log = await opened()
  const before = log.append(record, true)
  const pending = [
    log.append(record, true),
    log.append(record, false),
    log.appendBatch([record, record], true),
    log.durable(undefined),
    log.flush(),
  ].map(caught)
  const staged = caught(log.append(record, true))
  service.failure = fault
  tell(failed, 0, 1, 1, 10)
  expect(await before).toBe(1)
  for (const error of await Promise.all([...pending, staged])) {
    expect(error).toMatchObject({
      name: 'WalError',
      code: 'ERR_WAL_OUTCOME_UNKNOWN',
      errno: -5,
      syscall: 'pwritev2',
    })
    expect(error.cause).toMatchObject({ code: 'ERR_WAL_IO', path: '/log/wal' })
  }
  for (const doing of [
    () => log.append(record, true),
    () => log.enqueue(record),
    () => log.durable(undefined),
    () => log.flush(),
    () => log.drained(),
    () => log.check(),
  ]) {
    const error = await caught(doing)
    expect(error).toMatchObject({ code: 'ERR_WAL_POISONED', errno: -5 })
    expect(error.cause).toMatchObject({ code: 'ERR_WAL_IO' })
  }
  // Nothing of the staging went on after the failure.
  await tick()
  expect(service.runs).toHaveLength(1)
  expect(log.queuedBytes).toBe(0)
  // It closes all the same, and says so once everything is released.
  const closing = caught(log.close())
  expect(service.closes).toBe(1)
  expect(service.released).toBe(0)
  tell(closed, 1, 1, 1, 10)
  expect(service.released).toBe(1)
  expect(await closing).toMatchObject({ code: 'ERR_WAL_POISONED', cause: { code: 'ERR_WAL_IO' } })
  expect(await caught(() => log.append(record, true))).toMatchObject({ code: 'ERR_WAL_CLOSED' })
})

test('a_failure_while_closing_rejects_what_is_pending_and_the_close', async () => {
  const log = await opened()
  const pending = caught(log.append(record, true))
  const closing = caught(log.close())
  service.failure = fault
  tell(closed, 1, 0, 0, 0)
  expect(await pending).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN' })
  expect(await closing).toMatchObject({ code: 'ERR_WAL_POISONED' })
})

test('a_log_that_ended_after_a_failure_can_be_closed_at_once', async () => {
  const log = await opened()
  service.failure = fault
  tell(closed, 1, 0, 0, 0)
  expect(service.released).toBe(1)
  expect(await caught(log.close())).toMatchObject({ code: 'ERR_WAL_POISONED' })
  expect(service.closes).toBe(0)
})

test('refused_records_give_their_numbers_back_and_the_log_goes_on', async () => {
  const log = await opened()
  const kept = log.append(record, true)
  await tick()
  const refused = caught(log.append(record, true))
  const asked = caught(log.durable(2))
  await tick()
  const staged = caught(log.append(record, false))
  service.refusal = { epoch: 1, fromLsn: 2, failure: full }
  tell(open, 0, 0, 0, 0, 0, 1)
  for (const error of await Promise.all([refused, asked, staged])) {
    expect(error).toMatchObject({ code: 'ERR_WAL_NO_SPACE', errno: -28 })
  }
  // What lies before them is still on its way, and still counted.
  expect(log.lastLsn).toBe(1)
  expect(log.queuedBytes).toBe(10)
  tell(open, 0, 1, 1, 10, 0, 1)
  expect(await kept).toBe(1)
  expect(log.queuedBytes).toBe(0)
  const again = log.append(record, true)
  await tick()
  expect(service.runs.at(-1)).toMatchObject({ firstLsn: 2, count: 1, epoch: 1 })
  tell(open, 0, 2, 2, 20, 0, 1)
  expect(await again).toBe(2)
})

test('an_enqueued_record_among_the_refused_poisons_and_durable_says_why', async () => {
  const log = await opened()
  const kept = log.append(record, true)
  await tick()
  log.enqueue(record)
  const asked = caught(log.durable(undefined))
  const flushed = caught(log.flush())
  await tick()
  service.refusal = { epoch: 1, fromLsn: 2, failure: full }
  // The flush is answered by the service, which knows of records only: it is not as if these had never been.
  tell(open, 0, 0, 0, 0, 1, 1)
  expect(await asked).toMatchObject({ code: 'ERR_WAL_NO_SPACE' })
  expect(await flushed).toMatchObject({ code: 'ERR_WAL_NO_SPACE' })
  expect(await caught(() => log.durable(undefined))).toMatchObject({ code: 'ERR_WAL_NO_SPACE' })
  expect(await caught(() => log.durable(2))).toMatchObject({ code: 'ERR_WAL_NO_SPACE' })
  expect(await caught(() => log.durable(3))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await caught(() => log.append(record, true))).toMatchObject({
    code: 'ERR_WAL_POISONED',
    cause: { code: 'ERR_WAL_NO_SPACE' },
  })
  expect(service.closes).toBe(1)
  // What was accepted before drains.
  tell(closed, 1, 1, 1, 10, 0, 1)
  expect(await kept).toBe(1)
  expect(await caught(log.close())).toMatchObject({
    code: 'ERR_WAL_POISONED',
    cause: { code: 'ERR_WAL_NO_SPACE' },
  })
})

test('an_enqueued_record_already_written_does_not_poison', async () => {
  const log = await opened()
  log.enqueue(record)
  await tick()
  tell(open, 0, 1, 0, 10)
  const refused = caught(log.append(record, true))
  await tick()
  service.refusal = { epoch: 1, fromLsn: 2, failure: full }
  tell(open, 0, 1, 1, 10, 0, 1)
  expect(await refused).toMatchObject({ code: 'ERR_WAL_NO_SPACE' })
  log.check()
})

test('a_service_that_refuses_what_was_checked_poisons_rather_than_shift_the_numbers', async () => {
  const log = await opened()
  service.answer = failure('ERR_WAL_QUEUE_FULL')
  const staged = caught(log.append(record, true))
  await tick()
  expect(await staged).toMatchObject({
    code: 'ERR_WAL_OUTCOME_UNKNOWN',
    cause: { code: 'ERR_WAL_QUEUE_FULL' },
  })
  expect(await caught(() => log.append(record, true))).toMatchObject({ code: 'ERR_WAL_POISONED' })
  expect(service.closes).toBe(1)
})

test('an_idle_service_gets_half_of_what_is_outstanding_in_the_middle_of_the_tick', async () => {
  const log = await opened()
  const append = (count: number) => {
    for (let left = count; left > 0; left -= 1) log.append(record, true).catch(() => {})
  }
  // Nobody knows yet how many more there will be.
  service.idle = 20
  append(100)
  expect(service.runs).toMatchObject([{ firstLsn: 1, count: 64 }])
  service.idle = -1
  append(1000)
  expect(service.runs).toHaveLength(1)
  await tick()
  expect(service.runs.slice(1)).toMatchObject([{ firstLsn: 65, count: 1036 }])
  // As many were outstanding before they settled.
  tell(open, 0, 1100, 1100, 0)
  service.idle = 800
  append(550)
  expect(service.runs).toHaveLength(2)
  append(1)
  expect(service.runs.slice(2)).toMatchObject([{ firstLsn: 1101, count: 550 }])
  await tick()
  // A disk that takes longer than all of them is not handed them in two writes.
  tell(open, 0, 1651, 1651, 0)
  service.idle = 1500
  append(1000)
  expect(service.runs).toHaveLength(4)
  await tick()
  // Nor is one that nobody waits for.
  service.idle = 0
  for (let left = 5000; left > 0; left -= 1) log.enqueue(record)
  expect(service.runs).toHaveLength(5)
  await tick()
})

test('what_a_log_recovered_is_not_outstanding', async () => {
  service.recovered = 1_000_000
  const opening = Log.open(openRequest('/log', {}))
  tell(open, 0, 1_000_000, 1_000_000, 0)
  const log = await opening
  service.idle = 20
  for (let left = 100; left > 0; left -= 1) log.append(record, true).catch(() => {})
  expect(service.runs).toMatchObject([{ firstLsn: 1_000_001, count: 64 }])
  await tick()
})

test('a_failure_met_in_the_middle_of_a_tick_leaves_no_promise_unanswered', async () => {
  const log = await opened()
  service.idle = 0
  service.answer = failure('ERR_WAL_QUEUE_FULL')
  const staged = Array.from({ length: 64 }, () => caught(log.append(record, true)))
  expect(await caught(() => log.append(record, true))).toMatchObject({ code: 'ERR_WAL_POISONED' })
  for (const answer of await Promise.all(staged)) {
    expect(answer).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN' })
  }
})

test('records_handed_over_in_the_middle_of_a_tick_are_refused_with_those_behind_them', async () => {
  const log = await opened()
  service.idle = 0
  const answers = Array.from({ length: 300 }, () => caught(log.append(record, true)))
  expect(service.runs).toMatchObject([
    { firstLsn: 1, count: 64 },
    { firstLsn: 65, count: 64 },
    { firstLsn: 129, count: 128 },
  ])
  // It had no space for the first part before it got the second, which it drops: its epoch is over.
  service.refusal = { epoch: 1, fromLsn: 1, failure: full }
  await tick()
  expect(service.runs.slice(3)).toMatchObject([{ firstLsn: 257, count: 44, epoch: 0 }])
  tell(open, 0, 0, 0, 0, 0, 1)
  for (const answer of await Promise.all(answers)) expect(answer).toMatchObject({ code: 'ERR_WAL_NO_SPACE' })
  expect(log.queuedBytes).toBe(0)
  log.append(record, true).catch(() => {})
  await tick()
  expect(service.runs.slice(4)).toMatchObject([{ firstLsn: 1, count: 1, epoch: 1 }])
})

test('a_service_found_failed_in_the_middle_of_a_tick_answers_the_whole_tick_with_its_news', async () => {
  const log = await opened()
  service.idle = 0
  service.answer = failure('ERR_WAL_POISONED')
  const answers = Array.from({ length: 300 }, () => caught(log.append(record, true)))
  await tick()
  service.failure = fault
  tell(failed, 0, 0, 0, 0)
  for (const answer of await Promise.all(answers)) {
    expect(answer).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN' })
  }
})

test('a_service_that_refuses_a_record_apart_answers_its_append', async () => {
  const log = await opened()
  service.answer = failure('ERR_WAL_CLOSED')
  expect(await caught(() => log.append(new Uint8Array(600_000), true))).toMatchObject({
    code: 'ERR_WAL_POISONED',
  })
})

test('an_open_that_fails_rejects_once_the_thread_has_ended', async () => {
  const opening = caught(Log.open(openRequest('/log', {})))
  let isSettled = false
  opening.then(() => {
    isSettled = true
  })
  service.failure = failure('ERR_WAL_LOCKED', { pid: 5 })
  tell(failed, 0, 0, 0, 0)
  await tick()
  expect(isSettled).toBe(false)
  tell(closed, 1, 0, 0, 0)
  expect(await opening).toMatchObject({ code: 'ERR_WAL_LOCKED', pid: 5 })
  expect(service.released).toBe(1)
})

test('the_loop_is_held_while_somebody_waits_and_no_longer', async () => {
  // The logs of the tests above still wait: here the loop has other holders to forget. Of the timers of this process only
  // the one that holds the loop is looked at: the test runner has some too.
  vi.resetModules()
  let timer: NodeJS.Timeout | undefined
  vi.doMock('node:timers', async original => {
    const timers = await original<typeof import('node:timers')>()
    const setInterval = (work: () => void, delay: number) => {
      timer = timers.setInterval(work, delay)
      return timer
    }
    return { default: { ...timers, setInterval } }
  })
  onTestFinished(() => vi.doUnmock('node:timers'))
  const { Log } = await import('../src/log.js')
  const isHeld = () => timer?.hasRef() ?? false
  expect(isHeld()).toBe(false)
  const opening = Log.open(openRequest('/log', {}))
  expect(isHeld()).toBe(true)
  tell(open, 0, 0, 0, 0)
  const log = await opening
  expect(isHeld()).toBe(false)
  log.enqueue(record)
  await tick()
  expect(isHeld()).toBe(true)
  tell(open, 0, 1, 0, 10)
  expect(isHeld()).toBe(false)
  const flushed = log.flush()
  expect(isHeld()).toBe(true)
  tell(open, 0, 1, 1, 10, 1)
  await flushed
  expect(isHeld()).toBe(false)
  const closing = log.close()
  expect(isHeld()).toBe(true)
  tell(closed, 1, 1, 1, 10, 1)
  await closing
  expect(isHeld()).toBe(false)
})
