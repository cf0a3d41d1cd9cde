/**
 * Single system calls that fail: a tracer lets the one meant answer with an error, once or for a while, in a child that
 * runs the log on a healthy disk. So what follows would succeed, and must not be believed.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Child, injected } from './children.js'
import { temporary } from './helpers.js'
import { expectPrefix } from './prefix.js'

const EIO = -5

/** Some acknowledged records, then whatever the test does. */
const opened = `
const wal = await Wal.open(directory, { segmentBytes: 1 << 20 })
const append = (bytes = 100) => wal.append(numbered(wal.lastLsn + 1, wal.lastLsn + 1, bytes))
for (let count = 0; count < 10; count += 1) await append()
tell('ready')
await told()
`

/** HEAD follows a second after the last record (docs/FORMAT.md): so that it is not what meets the failure. */
const headFollows = `
const { readFileSync } = await import('node:fs')
while (Number(readFileSync(directory + '/HEAD').readBigUInt64LE(48)) !== wal.durableLsn)
  await new Promise(resolve => setTimeout(resolve, 20))
`

/** In what the failed call leaves behind: pending ones do not know, later ones are refused, close says so. */
const poisoned = `
tell(await failure(wal.append(Buffer.from('later'))))
tell(await failure(wal.flush()))
tell(await failure(wal.close()))
`

async function expectPoisoned(child: Child, cause: object): Promise<void> {
  for (let call = 0; call < 3; call += 1) {
    expect(await child.next()).toMatchObject({ name: 'WalError', code: 'ERR_WAL_POISONED', cause })
  }
  expect(await child.end()).toBe(0)
}

test('a_write_that_fails_once_is_not_tried_again', async context => {
  const directory = join(temporary(), 'log')
  const child = new Child(directory, `${opened} tell(await failure(append())) ${poisoned}`)
  await child.next()
  await injected(context, child, 'pwritev2', 'error=EIO:when=1')
  child.go()
  const cause = {
    code: 'ERR_WAL_IO',
    errno: EIO,
    syscall: 'pwritev2',
    path: join(directory, 'wal-0000000000000001.seg'),
  }
  expect(await child.next()).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', errno: EIO, cause })
  await expectPoisoned(child, cause)
  await expectPrefix(directory, 10, 11)
})

test('a_write_of_nothing_is_an_error_and_not_a_loop', async context => {
  const directory = join(temporary(), 'log')
  const child = new Child(directory, `${opened} tell(await failure(append())) ${poisoned}`)
  await child.next()
  await injected(context, child, 'pwritev2', 'retval=0')
  child.go()
  const cause = { code: 'ERR_WAL_IO', errno: EIO, syscall: 'pwritev2' }
  expect(await child.next()).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', cause })
  await expectPoisoned(child, cause)
  await expectPrefix(directory, 10, 11)
})

test('a_write_that_a_signal_interrupts_is_no_failure', async context => {
  const directory = join(temporary(), 'log')
  const child = new Child(directory, `${opened} tell(await append()); await wal.close(); tell('closed')`)
  await child.next()
  await injected(context, child, 'pwritev2', 'error=EINTR:when=1..3')
  child.go()
  expect(await child.next()).toBe(11)
  expect(await child.next()).toBe('closed')
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(directory, 11, 11)).toBe(11)
})

test('where_a_durable_write_is_refused_the_record_is_flushed_and_a_flush_that_fails_once_ends_the_log', async context => {
  const directory = join(temporary(), 'log')
  const child = new Child(
    directory,
    `${opened}
    const lsn = await append()
    ${headFollows}
    tell(lsn)
    await told()
    tell(await failure(append()))
    ${poisoned}`,
  )
  await child.next()
  const refusing = await injected(context, child, 'pwritev2', 'error=EOPNOTSUPP:when=1')
  child.go()
  expect(await child.next()).toBe(11)
  await refusing()
  // Refused once is refused for good: the flush is a call of its own from here on.
  await injected(context, child, 'fdatasync', 'error=EIO:when=1')
  child.go()
  const cause = {
    code: 'ERR_WAL_IO',
    errno: EIO,
    syscall: 'fdatasync',
    path: join(directory, 'wal-0000000000000001.seg'),
  }
  expect(await child.next()).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', errno: EIO, cause })
  await expectPoisoned(child, cause)
  await expectPrefix(directory, 11, 12)
})

/** Past half a segment the next is made: so this is not asked for, and the directory's sync is part of it. */
const fillHalf = `
let acknowledged = wal.lastLsn
const filling = (async () => {
  for (;;) acknowledged = await append(10000)
})()
const failed = await failure(filling)
tell([acknowledged, failed])
`

for (const [what, call, syscall] of [
  ['a_directory_sync', 'fsync', 'fsync'],
  ['a_sync_of_the_new_segment', 'fdatasync', 'fdatasync'],
  ['a_write_to_the_new_segment', 'pwrite64', 'pwrite'],
  ['a_reservation', 'fallocate', 'fallocate'],
  ['a_rename', 'rename,renameat,renameat2', 'rename'],
] as const) {
  test(`${what}_that_fails_ends_the_log_before_anything_depends_on_it`, async context => {
    const directory = join(temporary(), 'log')
    const child = new Child(directory, `${opened} ${fillHalf} ${poisoned}`)
    await child.next()
    await injected(context, child, call, 'error=EIO')
    child.go()
    const [acknowledged, failed] = await child.next()
    const cause = { code: 'ERR_WAL_IO', errno: EIO, syscall, path: expect.stringContaining(directory) }
    expect(failed.code).toBeOneOf(['ERR_WAL_OUTCOME_UNKNOWN', 'ERR_WAL_POISONED'])
    expect(failed).toMatchObject({ cause })
    await expectPoisoned(child, cause)
    await expectPrefix(directory, acknowledged, acknowledged + 1)
  })
}

test('a_directory_sync_that_fails_while_HEAD_is_replaced_removes_no_segment', async context => {
  const directory = join(temporary(), 'log')
  const child = new Child(
    directory,
    `${opened}
    for (let count = 0; count < 300; count += 1) await append(10000)
    const flushed = await wal.flush()
    ${headFollows}
    tell(flushed)
    await told()
    tell(await failure(wal.truncateBefore(200)))
    ${poisoned}`,
  )
  await child.next()
  child.go()
  const acknowledged = await child.next()
  await injected(context, child, 'fsync', 'error=EIO', [directory])
  const before = readdirSync(directory)
  child.go()
  const cause = { code: 'ERR_WAL_IO', errno: EIO, syscall: 'fsync', path: directory }
  expect(await child.next()).toMatchObject({ code: 'ERR_WAL_OUTCOME_UNKNOWN', cause })
  await expectPoisoned(child, cause)
  expect(readdirSync(directory)).toEqual(before)
  // Which HEAD there is nobody can tell; whichever it is, the log begins at or before 200.
  await expectPrefix(directory, acknowledged, acknowledged)
})

test('a_directory_sync_that_fails_while_the_log_is_made_fails_open_and_the_next_open_makes_it', async context => {
  const directory = join(temporary(), 'parent', 'log')
  const child = new Child(
    directory,
    `tell('ready')
    await told()
    for (let again = 0; again < 2; again += 1) tell(await failure(Wal.open(directory)))`,
  )
  await child.next()
  await injected(context, child, 'fsync', 'error=EIO')
  child.go()
  for (let again = 0; again < 2; again += 1) {
    const error = await child.next()
    expect(error).toMatchObject({ name: 'WalError', code: 'ERR_WAL_IO', errno: EIO, syscall: 'fsync' })
    expect(directory).toContain(error.path)
  }
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(directory, 0, 0)).toBe(0)
})

for (const file of ['HEAD', 'wal-0000000000000001.seg']) {
  test(`a_read_of_${file}_that_fails_during_recovery_fails_open_and_changes_nothing`, async context => {
    const directory = join(temporary(), 'log')
    const child = new Child(
      directory,
      `${opened}
      await wal.close()
      tell(await failure(Wal.open(directory, { check: 'all' })))
      await told()
      tell(await failure((await Wal.open(directory)).close()) ?? 'fine')`,
    )
    await child.next()
    const path = join(directory, file)
    const end = await injected(context, child, 'pread64', 'error=EIO', [path])
    child.go()
    expect(await child.next()).toMatchObject({ code: 'ERR_WAL_IO', errno: EIO, syscall: 'pread', path })
    await end()
    child.go()
    expect(await child.next()).toBe('fine')
    expect(await child.end()).toBe(0)
    expect(await expectPrefix(directory, 10, 10)).toBe(10)
  })
}

/** Each of these fails in its turn while a log that was killed is opened again. */
for (const call of ['pwrite64', 'fdatasync', 'fsync', 'rename,renameat,renameat2']) {
  test(`whichever_${call.split(',')[0]}_fails_during_recovery_the_next_open_recovers_everything`, async context => {
    const directory = join(temporary(), 'log')
    const writer = new Child(directory, opened)
    await writer.next()
    await writer.kill()
    let opens = 0
    for (let at = 1; opens === 0; at += 1) {
      expect(at).toBeLessThan(50)
      const child = new Child(
        directory,
        `tell('ready')
        await told()
        try {
          const wal = await Wal.open(directory, { segmentBytes: 1 << 20, lockTimeoutMs: 60_000 })
          tell(wal.lastLsn)
          process.kill(process.pid, 'SIGKILL')
        } catch (error) {
          tell(plain(error))
        }`,
      )
      await child.next()
      await injected(context, child, call, `error=EIO:when=${at}`)
      child.go()
      const outcome = await child.next()
      if (outcome === 10) opens += 1
      else expect(outcome).toMatchObject({ code: 'ERR_WAL_IO', errno: EIO })
      await child.end()
    }
    expect(await expectPrefix(directory, 10, 10)).toBe(10)
  })
}
