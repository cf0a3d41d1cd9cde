import { expect, test } from 'vitest'
import { Waiters } from '../src/waiters.js'

const never = () => expect.unreachable()

test('waiters_settle_up_to_the_watermark_in_order_and_with_what_they_waited_for', async () => {
  const waiters = new Waiters(4)
  const order: number[] = []
  for (let lsn = 1; lsn <= 10; lsn += 1) waiters.add(lsn, value => order.push(value), never)
  waiters.settle(0)
  expect(order).toEqual([])
  waiters.settle(7)
  expect(order).toEqual([1, 2, 3, 4, 5, 6, 7])
  expect(waiters.count).toBe(3)
  waiters.settle(10, 99)
  expect(order.slice(7)).toEqual([99, 99, 99])
})

test('the_ring_goes_round_and_grows_without_losing_anybody', () => {
  const waiters = new Waiters(4)
  const order: number[] = []
  let lsn = 0
  for (let round = 0; round < 200; round += 1) {
    for (let index = 0; index < round % 13; index += 1) {
      lsn += 1
      waiters.add(lsn, value => order.push(value), never)
    }
    waiters.settle(lsn - (round % 7))
  }
  waiters.settle(lsn)
  expect(order).toEqual(Array.from({ length: lsn }, (_, index) => index + 1))
})

test('targets_out_of_order_settle_in_order_and_equal_ones_as_they_came', () => {
  const waiters = new Waiters(2)
  const order: string[] = []
  for (const [lsn, name] of [
    [5, 'a'],
    [3, 'b'],
    [5, 'c'],
    [1, 'd'],
    [3, 'e'],
  ] as const) {
    waiters.add(lsn, () => order.push(name), never)
  }
  waiters.settle(3)
  expect(order).toEqual(['d', 'b', 'e'])
  waiters.settle(5)
  expect(order).toEqual(['d', 'b', 'e', 'a', 'c'])
})

test('rejection_takes_everybody_from_an_lsn_on_in_order_and_leaves_the_others', async () => {
  const waiters = new Waiters(4)
  const first = waiters.wait(1)
  const refused: number[] = []
  for (let lsn = 2; lsn <= 9; lsn += 1) waiters.add(lsn, never, () => refused.push(lsn))
  waiters.reject(2, new Error('full'))
  expect(refused).toEqual([2, 3, 4, 5, 6, 7, 8, 9])
  expect(waiters.count).toBe(1)
  // The numbers are free again.
  const second = waiters.wait(2)
  waiters.settle(2)
  expect(await Promise.all([first, second])).toEqual([1, 2])
})
