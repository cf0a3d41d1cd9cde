/**
 * The limits of a process on the size of files and on descriptors. Each test runs the log in a child that
 * has them, from the start or set while it runs. Nothing acknowledged is lost, nothing hangs, no signal kills the child.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, type TestContext, test } from 'vitest'
import { Child } from './children.js'
import { has } from './disks.js'
import { lacks, temporary } from './helpers.js'
import { expectPrefix, makeLog } from './prefix.js'

const MiB = 1024 * 1024
const EIO = -5
const EINVAL = -22
const EMFILE = -24
const EFBIG = -27

/** Started by a shell with a soft limit, so that the test can raise it. */
const limited = (limit: string) => ['bash', '-c', `ulimit -S ${limit}; exec "$@"`, 'bash']

function requireLimits(context: TestContext): void {
  for (const program of ['bash', 'prlimit']) {
    if (!has(program)) lacks(context, 'limits', `${program} is missing`)
  }
}

/** Append until that fails, one after another or some at once; tell the newest acknowledged, and what failed. */
const appendUntilRefused = `
const appendUntilRefused = async (wal, bytes, outstanding = 1) => {
  let acknowledged = wal.lastLsn
  const append = async () => {
    for (;;) {
      const lsn = wal.lastLsn + 1
      acknowledged = Math.max(acknowledged, await wal.append(numbered(lsn, lsn, bytes)))
    }
  }
  const errors = await Promise.all(Array.from({ length: outstanding }, () => failure(append())))
  tell({ acknowledged, errors, lastLsn: wal.lastLsn })
}
`

test('a_segment_above_the_limit_on_files_is_refused_at_preparation_and_taken_once_the_limit_is_raised', async context => {
  requireLimits(context)
  const directory = join(temporary(), 'log')
  await makeLog(directory)
  // In units of KiB: enough for the segment there is, and not for the larger next one.
  const child = new Child(
    directory,
    `${appendUntilRefused}
    const wal = await Wal.open(directory, { segmentBytes: 2 << 20 })
    await appendUntilRefused(wal, 10000)
    await told()
    await appendUntilRefused(wal, 10000)
    await told()
    tell(await wal.append(numbered(wal.lastLsn + 1, wal.lastLsn + 1, 10000)))
    tell(await failure(wal.close()) ?? 'closed')`,
    limited('-f 1536'),
  )
  const first = await child.next()
  const refused = { code: 'ERR_WAL_NO_SPACE', errno: EFBIG, syscall: 'fallocate' }
  expect(first.errors).toEqual([expect.objectContaining(refused)])
  expect(first.errors[0].path).toContain(directory)
  expect(first.acknowledged).toBeGreaterThan(50)
  expect(first.lastLsn).toBe(first.acknowledged)
  child.go()
  const second = await child.next()
  expect(second).toMatchObject({ acknowledged: first.acknowledged, errors: [refused] })
  child.limit('fsize', 'unlimited')
  child.go()
  expect(await child.next()).toBe(first.acknowledged + 1)
  expect(await child.next()).toBe('closed')
  expect(await child.end()).toBe(0)
  const last = first.acknowledged + 1
  expect(await expectPrefix(directory, last, last)).toBe(last)
})

test('a_new_log_above_the_limit_on_files_is_refused_and_made_once_the_limit_is_raised', async context => {
  requireLimits(context)
  const directory = join(temporary(), 'log')
  const child = new Child(
    directory,
    `tell(await failure(Wal.open(directory, { segmentBytes: 1 << 20 })))
    await told()
    const wal = await Wal.open(directory, { segmentBytes: 1 << 20 })
    tell(await wal.append(numbered(1, 1, 100)))
    await wal.close()`,
    limited('-f 512'),
  )
  expect(await child.next()).toMatchObject({ code: 'ERR_WAL_IO', errno: EFBIG, syscall: 'fallocate' })
  child.limit('fsize', 'unlimited')
  child.go()
  expect(await child.next()).toBe(1)
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(directory, 1, 1)).toBe(1)
})

/** Where the limit comes to lie: on a block, on a sector, and where no direct write may end. */
const places = { block: 3 * MiB, sector: 3 * MiB + 2560, byte: 3 * MiB + 1234 }
const errnos = { block: [EFBIG], sector: [EFBIG, EIO], byte: [EFBIG, EINVAL] }

for (const sync of ['auto', 'dsync', 'fdatasync'] as const) {
  for (const directIo of [true, false]) {
    for (const place of ['block', 'sector', 'byte'] as const) {
      const bytes = places[place]
      const how = `${sync}, ${directIo ? 'direct' : 'buffered'}, at a ${place}`
      test(`a_write_that_a_limit_cuts_short_is_finished_or_fails_and_is_never_counted (${how})`, async context => {
        requireLimits(context)
        const directory = join(temporary(), 'log')
        const child = new Child(
          directory,
          `${appendUntilRefused}
          const wal = await Wal.open(directory, { segmentBytes: 8 << 20, sync: '${sync}', directIo: ${directIo} })
          // Large ones: behind these nothing is zeroed ahead, so it is a record's write that meets the limit.
          for (let lsn = 1; lsn <= 20; lsn += 1) await wal.append(numbered(lsn, lsn, 100000))
          tell('ready')
          await told()
          await appendUntilRefused(wal, 100000, 3)
          tell(await failure(wal.append(Buffer.alloc(1))))
          tell(await failure(wal.close()))`,
        )
        expect(await child.next()).toBe('ready')
        child.limit('fsize', bytes)
        child.go()
        const { acknowledged, errors, lastLsn } = await child.next()
        expect(acknowledged).toBeGreaterThanOrEqual(20)
        // Everything acknowledged lies before the limit.
        expect(acknowledged * 100_000).toBeLessThan(bytes)
        const path = join(directory, 'wal-0000000000000001.seg')
        // The part of a sector that is left before the limit is no direct write (EINVAL); the part of a block is one
        // that is cut short there for ever (EIO).
        const errno = directIo ? expect.toBeOneOf(errnos[place]) : EFBIG
        const syscall = expect.stringMatching(/^pwrite/)
        const cause = { name: 'WalError', code: 'ERR_WAL_IO', errno, syscall, path }
        expect(errors).toHaveLength(3)
        for (const error of errors) {
          const code = expect.stringMatching(/^ERR_WAL_(OUTCOME_UNKNOWN|POISONED)$/)
          expect(error).toMatchObject({ code, errno, syscall, path, cause })
        }
        expect(errors.map(({ code }: { code: string }) => code)).toContain('ERR_WAL_OUTCOME_UNKNOWN')
        expect(await child.next()).toMatchObject({ code: 'ERR_WAL_POISONED', cause })
        expect(await child.next()).toMatchObject({ code: 'ERR_WAL_POISONED', cause })
        expect(await child.end()).toBe(0)
        await expectPrefix(directory, acknowledged, lastLsn)
      })
    }
  }
}

test('without_a_descriptor_to_spare_an_open_log_goes_on_until_it_needs_the_next_segment_and_again_after', async context => {
  requireLimits(context)
  const directory = join(temporary(), 'log')
  const child = new Child(
    directory,
    `${appendUntilRefused}
    const wal = await Wal.open(directory, { segmentBytes: 1 << 20 })
    await wal.append(numbered(1, 1, 100))
    tell('ready')
    await told()
    await appendUntilRefused(wal, 10000, 4)
    // HEAD, which is due about now, cannot be replaced either.
    await new Promise(resolve => setTimeout(resolve, 1200))
    tell(await failure(wal.rotate()))
    tell(await failure(wal.truncateBefore(10)))
    tell(await failure(wal.flush()) ?? 'flushed')
    await told()
    for (let count = 0; count < 300; count += 1)
      await wal.append(numbered(wal.lastLsn + 1, wal.lastLsn + 1, 10000))
    tell(await wal.truncateBefore(10))
    await wal.close()
    tell(wal.lastLsn)`,
  )
  await child.next()
  child.limit('nofile', 3)
  child.go()
  const { acknowledged, errors, lastLsn } = await child.next()
  const refused = { code: 'ERR_WAL_NO_SPACE', errno: EMFILE, syscall: 'open' }
  for (const error of errors) expect(error).toMatchObject(refused)
  expect(acknowledged).toBeGreaterThan(50)
  expect(lastLsn).toBe(acknowledged)
  expect(await child.next()).toMatchObject(refused)
  expect(await child.next()).toMatchObject({ code: 'ERR_WAL_IO', errno: EMFILE, syscall: 'open' })
  expect(await child.next()).toBe('flushed')
  child.limit('nofile', 1000)
  child.go()
  expect(await child.next()).toBe(10)
  const last = await child.next()
  expect(last).toBe(acknowledged + 300)
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(directory, last, last)).toBe(last)
})

test('without_a_descriptor_to_spare_a_log_closes_and_nothing_is_lost', async context => {
  requireLimits(context)
  const directory = join(temporary(), 'log')
  const child = new Child(
    directory,
    `const wal = await Wal.open(directory, { segmentBytes: 1 << 20 })
    tell(await wal.append(numbered(1, 1, 100)))
    await told()
    tell(await failure(wal.close()) ?? 'closed')`,
  )
  await child.next()
  child.limit('nofile', 3)
  child.go()
  expect(await child.next()).toBe('closed')
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(directory, 1, 1)).toBe(1)
})

test('whatever_number_of_descriptors_is_left_open_succeeds_or_says_that_they_ran_out', async context => {
  requireLimits(context)
  const directory = temporary()
  await makeLog(join(directory, 'log'))
  const child = new Child(
    directory,
    `await (await Wal.open(directory + '/first')).close()
    tell('ready')
    for (;;) {
      if ((await told()) === undefined) break
      // An opened log is left to its close, which may need a descriptor too.
      const open = async name => failure((await Wal.open(directory + name, { segmentBytes: 1 << 20 })).close())
      tell([await open('/log').catch(plain) ?? 'opened', await open('/new').catch(plain) ?? 'opened'])
    }`,
  )
  await child.next()
  const used = new Set(readdirSync(`/proc/${child.pid}/fd`).map(Number))
  const unused = Array.from({ length: 256 }, (_, number) => number).filter(number => !used.has(number))
  const outcomes: unknown[] = []
  for (let spare = 0; outcomes.at(-1) !== 'opened'; spare += 1) {
    expect(spare).toBeLessThan(64)
    // Every number below the limit may be given out.
    child.limit('nofile', unused[spare] as number)
    child.go()
    for (const outcome of await child.next()) {
      outcomes.push(outcome)
      if (outcome === 'opened') continue
      // Not the backend: where there is no descriptor for a ring it is threads, which need none.
      expect(outcome).toMatchObject({ code: 'ERR_WAL_IO', errno: EMFILE, syscall: expect.any(String) })
    }
  }
  expect(outcomes.length).toBeGreaterThan(6)
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(join(directory, 'log'), 10, 10)).toBe(10)
})
