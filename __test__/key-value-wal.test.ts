/** The key-value log: what goes in comes back, and its files are amaters' own. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type KeyValueRecord, KeyValueWal } from '../src/index.js'
import { caught, child, collect, root, temporary } from './helpers.js'

const bytes = (text: string) => Buffer.from(text)
const fixtures = join(root, 'crates/core/fixtures/amaters')

/** An entry as a line, as the listing of the fixtures has it. */
const line = (entry: KeyValueRecord) =>
  `${entry.sequence} ${entry.type} ${hex(entry.key)}${entry.type === 'put' ? ` ${hex(entry.value)}` : ''}`

const hex = (data: Uint8Array) => Buffer.from(data).toString('hex') || '-'

/** What the listing says of a directory: its entries as lines. */
function expected(name: string): string[] {
  const rows = readFileSync(join(fixtures, 'expected.txt'), 'utf8')
    .split('\n')
    .filter(row => row.startsWith(`${name}/wal_`))
    .map(row => row.split(' '))
  return rows.map(([, , , sequence, type, key, value]) => {
    return `${sequence} ${type} ${key}${type === 'put' ? ` ${value}` : ''}`
  })
}

test('what_was_put_and_deleted_comes_back_in_order_with_its_sequence', async () => {
  const directory = temporary()
  const wal = await KeyValueWal.open(directory)
  expect([wal.firstSequence, wal.lastSequence, wal.durableSequence]).toEqual([-1, -1, -1])
  expect(await wal.flush()).toBe(-1)
  expect(await wal.put(bytes('colour'), bytes('green'))).toBe(0)
  expect(await wal.put(bytes('empty'), bytes(''), { ack: 'written' })).toBe(1)
  expect(await wal.delete(bytes('colour'))).toBe(2)
  expect(await wal.append({ type: 'put', key: bytes(''), value: bytes('no key') })).toBe(3)
  const both = await wal.appendBatch([
    { type: 'delete', key: bytes('a') },
    { type: 'put', key: bytes('b'), value: bytes('c') },
  ])
  expect(both).toEqual({ first: 4, last: 5 })
  expect(await wal.flush()).toBe(5)
  const entries = [
    { sequence: 0, type: 'put', key: bytes('colour'), value: bytes('green') },
    { sequence: 1, type: 'put', key: bytes('empty'), value: bytes('') },
    { sequence: 2, type: 'delete', key: bytes('colour') },
    { sequence: 3, type: 'put', key: bytes(''), value: bytes('no key') },
    { sequence: 4, type: 'delete', key: bytes('a') },
    { sequence: 5, type: 'put', key: bytes('b'), value: bytes('c') },
  ]
  expect(await collect(wal.entries())).toEqual(entries)
  expect(await collect(wal.entries({ from: 1, to: 2n }))).toEqual(entries.slice(1, 3))
  expect(await collect(KeyValueWal.read(directory, { from: 4 }))).toEqual(entries.slice(4))
  await wal.close()
  await using again = await KeyValueWal.open(directory, { check: 'all' })
  expect(again.recovery).toMatchObject({ records: 6, created: false, cleanShutdown: true })
  expect([again.firstSequence, again.lastSequence, again.durableSequence]).toEqual([0, 5, 5])
  expect(await collect(again.entries())).toEqual(entries)
  expect(await again.put(bytes('d'), bytes('e'))).toBe(6)
})

test('a_file_is_what_the_format_says_byte_for_byte', async () => {
  const directory = temporary()
  await using wal = await KeyValueWal.open(directory)
  await wal.put(bytes(''), bytes(''))
  await wal.put(bytes('hello'), bytes('world'))
  await wal.delete(bytes('hello'))
  await wal.put(bytes('k'), bytes(''))
  expect(readFileSync(join(directory, 'wal_00000000.log')).toString('hex')).toBe(
    '190000004c415700000000000000000001000000000000000038240e91' +
      '230000004c4157000100000000000000010500000068656c6c6f05000000776f726c642cde05d6' +
      '1e0000004c4157000200000000000000020500000068656c6c6f00000000fa4d2f8d' +
      '1a0000004c415700030000000000000001010000006b00000000e45ac6cb',
  )
})

test.each(['uring', 'rotated', 'empty'])('what_amaters_wrote_is_read_as_listed: %s', async name => {
  const directory = temporary()
  cpSync(join(fixtures, name), directory, { recursive: true })
  expect((await collect(KeyValueWal.read(directory, { sequences: 'any' }))).map(line)).toEqual(expected(name))
  expect(await KeyValueWal.verify(directory, { sequences: 'any' })).toMatchObject({ ok: true, damage: [] })
  await using wal = await KeyValueWal.open(directory, { sequences: 'any' })
  expect((await collect(wal.entries())).map(line)).toEqual(expected(name))
  const last = wal.lastSequence
  expect(await wal.put(bytes('ours'), bytes('behind theirs'))).toBe(last + 1)
})

test.each(['01', '05', '10', '17', '30'])(
  'what_amaters_loses_behind_a_torn_record_is_told_and_saved: %s',
  async name => {
    const directory = temporary()
    const torn = readFileSync(join(fixtures, `torn-${name}`, 'before-reopen.bin'))
    writeFileSync(join(directory, 'wal_00000000.log'), torn)
    const wal = await KeyValueWal.open(directory)
    expect(wal.recovery).toMatchObject({ records: 1, tornBytes: Number(name) })
    expect(wal.recovery.tornAt).toMatchObject({ segment: 0, lsn: 1 })
    expect(await wal.put(bytes('next'), bytes(''))).toBe(1)
    await wal.close()

    const damaged = temporary()
    cpSync(join(fixtures, `torn-${name}`, 'wal_00000000.log'), join(damaged, 'wal_00000000.log'))
    const before = readFileSync(join(damaged, 'wal_00000000.log'))
    expect(await caught(KeyValueWal.open(damaged, { sequences: 'any' }))).toMatchObject({
      code: 'ERR_WAL_DAMAGED',
      segment: 0,
      offset: torn.length - Number(name),
      firstLsn: 1,
    })
    expect(await KeyValueWal.verify(damaged, { sequences: 'any' })).toMatchObject({
      ok: false,
      verdict: 'damage',
    })
    const saved = join(temporary(), 'saved')
    const report = await KeyValueWal.salvage(damaged, saved)
    expect(report.records).toBe(11)
    expect(report.ranges).toEqual([
      { from: 0, to: 0, newFrom: 0 },
      { from: 10, to: 19, newFrom: 1 },
    ])
    expect(report.lost).toEqual([{ from: 1, to: 9 }])
    const entries = await collect(KeyValueWal.read(saved))
    expect(entries.map(line).map(text => text.slice(text.indexOf(' ')))).toEqual(
      expected(`torn-${name}`).map(text => text.slice(text.indexOf(' '))),
    )
    expect(readFileSync(join(damaged, 'wal_00000000.log'))).toEqual(before)
  },
)

test('rotation_and_truncation_go_by_whole_files', async () => {
  const directory = temporary()
  await using wal = await KeyValueWal.open(directory, { fileBytesMax: 4096 })
  for (let index = 0; index < 30; index += 1) await wal.put(bytes(`key ${index}`), Buffer.alloc(1000))
  await wal.rotate()
  const files = readdirSync(directory).filter(name => name.endsWith('.log'))
  expect(files.length).toBeGreaterThan(8)
  expect(await wal.truncateBefore(10)).toBeLessThanOrEqual(10)
  expect(existsSync(join(directory, 'wal_00000000.log'))).toBe(false)
  expect((await collect(wal.entries())).at(-1)?.sequence).toBe(29)
  expect(await caught(collect(wal.entries({ from: 0 })))).toMatchObject({
    code: 'ERR_WAL_TRUNCATED',
    firstLsn: wal.firstSequence,
  })
  expect(await caught(collect(KeyValueWal.read(directory, { from: 0 })))).toMatchObject({
    code: 'ERR_WAL_TRUNCATED',
    firstLsn: wal.firstSequence,
  })
  expect(await caught(wal.truncateBefore(31))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await wal.truncateBefore(30)).toBeGreaterThan(10)
  await wal.close()
  await using again = await KeyValueWal.open(directory)
  expect(await again.put(bytes('a'), bytes('b'))).toBe(30)
})

test('bad_arguments_are_told_and_change_nothing', async () => {
  await using wal = await KeyValueWal.open(temporary())
  const key = bytes('key')
  for (const [doing, code] of [
    [() => wal.put('a' as never, key), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.put(key, undefined as never), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.delete(5 as never), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.append(undefined as never), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.append({ type: 'set' as never, key, value: key }), 'ERR_OUT_OF_RANGE'],
    [() => wal.append({ type: 5 as never, key }), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.appendBatch([]), 'ERR_OUT_OF_RANGE'],
    [() => wal.appendBatch([{ type: 'delete', key }, null as never]), 'ERR_INVALID_ARG_TYPE'],
    [() => wal.put(key, key, { ack: 'soon' as never }), 'ERR_OUT_OF_RANGE'],
    [() => wal.truncateBefore('1' as never), 'ERR_INVALID_ARG_TYPE'],
    [() => collect(wal.entries({ from: -1 })), 'ERR_OUT_OF_RANGE'],
    [() => collect(KeyValueWal.read('a', { sequences: 'some' as never })), 'ERR_OUT_OF_RANGE'],
    [() => KeyValueWal.open(temporary(), { fileBytesMax: 1 }), 'ERR_OUT_OF_RANGE'],
    [() => KeyValueWal.open(temporary(), { sequences: 1 as never }), 'ERR_INVALID_ARG_TYPE'],
  ] as [() => PromiseLike<unknown>, string][]) {
    expect(await caught(doing)).toMatchObject({ code })
  }
  expect(await caught(wal.put(key, Buffer.alloc(104_857_573)))).toMatchObject({
    code: 'ERR_WAL_RECORD_TOO_LARGE',
    size: 104_857_576,
    limit: 104_857_575,
  })
  expect(await wal.put(key, key)).toBe(0)
  await wal.close()
  for (const doing of [
    () => wal.put(key, key),
    () => wal.delete(key),
    () => wal.appendBatch([{ type: 'delete', key }]),
    () => wal.flush(),
    () => wal.rotate(),
    () => wal.truncateBefore(0),
    () => collect(wal.entries()),
  ]) {
    expect(await caught(doing)).toMatchObject({ code: 'ERR_WAL_CLOSED' })
  }
})

test('the_two_kinds_of_log_do_not_mistake_each_other', async () => {
  const { Wal } = await import('../src/index.js')
  const ours = temporary()
  await (await Wal.open(ours)).close()
  expect(await caught(KeyValueWal.open(ours))).toMatchObject({ code: 'ERR_WAL_NOT_EMPTY' })
  const entries = temporary()
  await (await KeyValueWal.open(entries)).close()
  expect(await caught(Wal.open(entries))).toMatchObject({ code: 'ERR_WAL_NOT_EMPTY' })
  expect(readdirSync(entries).filter(name => name.endsWith('.seg'))).toEqual([])
  await using again = await KeyValueWal.open(entries, { lockTimeoutMs: 0 })
  expect(again.lastSequence).toBe(-1)
})

test('a_second_opener_is_told_who_holds_the_lock', async () => {
  const directory = temporary()
  await using wal = await KeyValueWal.open(directory)
  await wal.put(bytes('a'), bytes('b'))
  expect(await caught(KeyValueWal.open(directory, { lockTimeoutMs: 10 }))).toMatchObject({
    code: 'ERR_WAL_LOCKED',
    pid: process.pid,
  })
  expect((await KeyValueWal.verify(directory)).records).toBe(1)
})

test('a_killed_writer_loses_nothing_acknowledged', async () => {
  const directory = temporary()
  for (let round = 0; round < 5; round += 1) {
    const ended = await child(
      directory,
      `
      import { KeyValueWal } from 'ringbolt'
      import { writeSync } from 'node:fs'
      const wal = await KeyValueWal.open(directory, { fileBytesMax: 100_000, lockTimeoutMs: 60_000 })
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${20 + round * 20})
      const put = async () => {
        for (;;) {
          const sequence = wal.lastSequence + 1
          writeSync(1, (await wal.put(Buffer.from('key ' + sequence), Buffer.alloc(sequence % 3000))) + '\\n')
        }
      }
      for (let outstanding = 0; outstanding < 16; outstanding += 1) put()
      await new Promise(() => {})`,
    )
    expect(ended.signal).toBe('SIGKILL')
    const acknowledged = Math.max(-1, ...ended.stdout.split('\n').slice(0, -1).map(Number))
    await using wal = await KeyValueWal.open(directory, { lockTimeoutMs: 60_000, check: 'all' })
    expect(wal.lastSequence).toBeGreaterThanOrEqual(acknowledged)
    let next = 0
    for await (const entry of wal.entries()) {
      expect(entry.sequence).toBe(next)
      expect(String(entry.key)).toBe(`key ${next}`)
      expect(entry.type === 'put' && entry.value.length).toBe(next % 3000)
      next += 1
    }
  }
})

test('a_salvage_goes_into_an_empty_directory_only', async () => {
  const directory = temporary()
  const wal = await KeyValueWal.open(directory)
  await wal.put(bytes('a'), bytes('b'))
  await wal.close()
  const into = temporary()
  mkdirSync(join(into, 'something'))
  expect(await caught(KeyValueWal.salvage(directory, into))).toMatchObject({
    code: 'ERR_WAL_NOT_EMPTY',
    path: into,
  })
  expect(await caught(KeyValueWal.salvage(directory, directory))).toMatchObject({ code: 'ERR_WAL_NOT_EMPTY' })
  expect(await caught(KeyValueWal.salvage(temporary(), join(into, 'new')))).toMatchObject({
    code: 'ERR_WAL_NOT_FOUND',
  })
})

test('what_synced_says_was_durable_and_is_not_there_is_reported_as_lost', async () => {
  const directory = temporary()
  const wal = await KeyValueWal.open(directory)
  for (let index = 0; index < 20; index += 1) await wal.put(bytes(`key ${index}`), Buffer.alloc(10))
  await wal.close()
  const path = join(directory, 'wal_00000000.log')
  writeFileSync(path, readFileSync(path).subarray(0, 500))
  expect(await caught(KeyValueWal.open(directory))).toMatchObject({ code: 'ERR_WAL_DAMAGED' })
  const report = await KeyValueWal.verify(directory)
  expect(report).toMatchObject({ verdict: 'damage', records: report.lastLsn + 1 })
  expect(report.damage).toHaveLength(1)
  expect(report.damage[0]?.firstLsn).toBe(report.records)
  const saved = await KeyValueWal.salvage(directory, join(temporary(), 'saved'))
  expect(saved.records).toBe(report.records)
  expect(saved.lost).toEqual([{ from: saved.records, to: saved.records }])
})
