/**
 * What the kernel does not let this user do: a child runs the log as an ordinary user, where not everything is theirs.
 * Open says which file it was, and nothing is changed.
 */
import { chownSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Wal } from '../src/index.js'
import { asNobody, Child } from './children.js'
import { ext4, ran } from './disks.js'
import { caught } from './helpers.js'
import { expectPrefix, makeLog } from './prefix.js'

test('where_an_ordinary_user_may_not_write_open_says_so_and_changes_nothing', async context => {
  const { directory, through } = asNobody(context)
  const log = join(directory, 'log')
  await makeLog(log)
  mkdirSync(join(directory, 'theirs'))
  chownSync(join(directory, 'theirs'), 65_534, 65_534)
  const child = new Child(
    directory,
    `const open = async (name, options) => failure((await Wal.open(directory + name, options)).close())
    for (const [name, options] of [['/log'], ['/log', { create: false }], ['/new'], ['/theirs/new']])
      tell(await open(name, options).catch(plain) ?? 'opened')`,
    through,
  )
  const denied = { name: 'WalError', code: 'ERR_WAL_IO', errno: -13 }
  const before = statSync(log).mtimeMs
  for (const path of [log, log, join(directory, 'new')]) {
    const error = await child.next()
    expect(error).toMatchObject({ ...denied, syscall: expect.any(String) })
    expect(error.path).toContain(path)
  }
  expect(await child.next()).toBe('opened')
  expect(await child.end()).toBe(0)
  expect(statSync(log).mtimeMs).toBe(before)
  expect(await expectPrefix(log, 10, 10)).toBe(10)
})

test('a_log_with_a_file_that_is_not_the_users_is_refused_and_names_the_file', async context => {
  const { directory, through } = asNobody(context)
  const log = join(directory, 'log')
  await makeLog(log)
  // All of it is the user's but the segment: an older run of the program was started by root.
  for (const path of [log, join(log, 'HEAD'), join(log, 'LOCK')]) chownSync(path, 65_534, 65_534)
  const child = new Child(log, `tell(await failure(Wal.open(directory)))`, through)
  expect(await child.next()).toMatchObject({
    code: 'ERR_WAL_IO',
    errno: -13,
    syscall: 'open',
    path: join(log, 'wal-0000000000000001.seg'),
  })
  expect(await child.end()).toBe(0)
  expect(await expectPrefix(log, 10, 10)).toBe(10)
})

test('a_file_that_may_not_be_changed_is_refused_as_not_permitted', async context => {
  const { log } = ext4(context)
  await makeLog(log)
  const segment = join(log, 'wal-0000000000000001.seg')
  ran('chattr', '+i', segment)
  expect(await caught(Wal.open(log))).toMatchObject({
    code: 'ERR_WAL_IO',
    errno: -1,
    syscall: 'open',
    path: segment,
  })
  ran('chattr', '-i', segment)
  expect(await expectPrefix(log, 10, 10)).toBe(10)
})
