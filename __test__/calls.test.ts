import { expect, test } from 'vitest'
import { Calls, type Outcome } from '../src/calls.js'
import { caught } from './helpers.js'

/** A call, and what becomes of it. */
function begun(calls: Calls, outcome?: Outcome): { id: number; promise: Promise<unknown> } {
  let id = -1
  const promise = new Promise<unknown>((resolve, reject) => {
    id = calls.add(resolve, reject, outcome)
  })
  return { id, promise }
}

test('each_call_settles_by_its_number_with_what_was_kept_for_it', async () => {
  const calls = new Calls()
  const bytes = new Uint8Array(1)
  const [one, two, three] = [begun(calls, bytes), begun(calls), begun(calls, () => 'made')]
  expect([one.id, two.id, three.id, calls.count]).toEqual([0, 1, 2, 3])
  calls.resolve(2)
  calls.reject(1, new Error('no'))
  calls.resolve(0)
  expect(await one.promise).toBe(bytes)
  expect((await caught(two.promise)).message).toBe('no')
  expect(await three.promise).toBe('made')
  expect(calls.count).toBe(0)
})

test('numbers_are_used_again_so_that_the_table_stays_small', async () => {
  const calls = new Calls()
  for (let round = 0; round < 100; round += 1) {
    const some = Array.from({ length: 3 }, () => begun(calls))
    expect(some.map(({ id }) => id).toSorted()).toEqual([0, 1, 2])
    for (const { id } of some) calls.resolve(id)
    await Promise.all(some.map(({ promise }) => promise))
  }
})

test('what_an_outcome_throws_rejects_its_call_and_no_other', async () => {
  const calls = new Calls()
  const error = new Error('detached')
  const failing = begun(calls, () => {
    throw error
  })
  const fine = begun(calls)
  calls.resolve(failing.id)
  calls.resolve(fine.id)
  expect(await caught(failing.promise)).toBe(error)
  expect(await fine.promise).toBeUndefined()
})

test('an_outcome_told_with_the_answer_comes_before_the_one_that_was_kept', async () => {
  const calls = new Calls()
  const call = begun(calls)
  calls.resolve(call.id, () => [1, 2])
  expect(await call.promise).toEqual([1, 2])
})

test('all_that_are_left_can_be_rejected_at_once', async () => {
  const calls = new Calls()
  const some = Array.from({ length: 5 }, () => begun(calls))
  calls.resolve(1)
  calls.resolve(3)
  const reason = new Error('over')
  calls.rejectAll(reason)
  const settled = await Promise.allSettled(some.map(({ promise }) => promise))
  expect(settled.map(({ status }) => status)).toEqual([
    'rejected',
    'fulfilled',
    'rejected',
    'fulfilled',
    'rejected',
  ])
  expect(calls.count).toBe(0)
})
