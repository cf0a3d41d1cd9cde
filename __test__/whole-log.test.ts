/** A log that is looked at without being opened: beside its writer, damaged, not there at all. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { type Progress, Wal } from '../src/index.js'
import { ranOnceFree } from './disks.js'
import { caught, child, collect, smallDisk, temporary, texts } from './helpers.js'

const MiB = 1024 * 1024
const bytes = (text: string) => Buffer.from(text)

/** Every file of a log, byte for byte. */
const contents = (directory: string) =>
  Object.fromEntries(
    readdirSync(directory).map(name => [name, readFileSync(join(directory, name)).toString('base64')]),
  )

test('a_log_is_read_beside_its_writer_and_no_byte_changes', async () => {
  const directory = temporary()
  await using wal = await Wal.open(directory, { segmentBytes: MiB })
  for (const text of ['a', 'b', 'c']) await wal.append(bytes(text))
  // The log's own last change for now: HEAD follows a second later (docs/FORMAT.md).
  const proven = () => readFileSync(join(directory, 'HEAD')).readBigUInt64LE(48)
  await expect.poll(proven, { timeout: 60_000 }).toBe(3n)
  const before = contents(directory)
  expect(await texts(Wal.read(directory))).toEqual(['a', 'b', 'c'])
  expect(await texts(Wal.read(directory, { from: 2, to: 2n }))).toEqual(['b'])
  expect(await collect(Wal.read(directory, { from: 3, to: 2 }))).toEqual([])
  expect(await collect(Wal.read(directory, { from: 4 }))).toEqual([])
  expect(contents(directory)).toEqual(before)
  expect(await wal.append(bytes('d'))).toBe(4)
  expect(await texts(Wal.read(directory))).toEqual(['a', 'b', 'c', 'd'])
})

test('a_reader_follows_a_writer_that_rotates_truncates_closes_and_comes_back', async () => {
  const directory = temporary()
  let wal = await Wal.open(directory, { segmentBytes: MiB })
  await wal.append(Buffer.alloc(1000, 1))
  const seen: number[] = []
  const reading = (async () => {
    for await (const { lsn, data } of Wal.read(directory, { follow: true, to: 400 })) {
      seen.push(lsn)
      expect(data).toEqual(Buffer.alloc(1000, lsn % 251))
    }
  })()
  while (wal.lastLsn < 400) {
    await Promise.all(
      Array.from({ length: 10 }, () => wal.append(Buffer.alloc(1000, (wal.lastLsn + 1) % 251))),
    )
    if (wal.lastLsn % 50 === 1) await wal.rotate()
    if (wal.lastLsn === 201) {
      await wal.close()
      wal = await Wal.open(directory, { segmentBytes: MiB })
    }
  }
  await reading
  expect(seen).toEqual(Array.from({ length: 400 }, (_, index) => index + 1))
  await wal.truncateBefore(300)
  expect((await collect(Wal.read(directory)))[0]?.lsn).toBe(300)
  expect(await caught(collect(Wal.read(directory, { from: 299 })))).toMatchObject({
    code: 'ERR_WAL_TRUNCATED',
    firstLsn: 300,
  })
  await wal.close()
})

test('what_is_damaged_is_told_after_the_records_before_it', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory, { segmentBytes: MiB })
  for (const text of ['a', 'b', 'c']) await wal.append(bytes(text))
  await wal.close()
  const segment = join(directory, 'wal-0000000000000001.seg')
  const damaged = readFileSync(segment)
  damaged[2 * 4096 + 68] = 0
  writeFileSync(segment, damaged)
  const seen: string[] = []
  const error = await caught(async () => {
    for await (const { data } of Wal.read(directory)) seen.push(String(data))
  })
  expect(error).toMatchObject({ code: 'ERR_WAL_DAMAGED', segment: 1, offset: 2 * 4096, firstLsn: 2 })
  expect(seen).toEqual(['a'])
})

test('what_is_no_log_is_told', async () => {
  const directory = temporary()
  expect(await caught(collect(Wal.read(directory)))).toMatchObject({ code: 'ERR_WAL_NOT_FOUND' })
  expect(await caught(collect(Wal.read(join(directory, 'none'))))).toMatchObject({
    code: 'ERR_WAL_NOT_FOUND',
  })
  expect(await caught(collect(Wal.read(5 as never)))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  expect(await caught(collect(Wal.read('')))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' })
  expect(await caught(collect(Wal.read(directory, { from: 'a' as never })))).toMatchObject({
    code: 'ERR_INVALID_ARG_TYPE',
  })
  expect(await caught(collect(Wal.read(directory, { signal: AbortSignal.abort() })))).toMatchObject({
    name: 'AbortError',
  })
  expect(readdirSync(directory)).toEqual([])
})

test('a_log_on_a_read_only_file_system_is_read', async context => {
  const disk = smallDisk(context, 'size=5m')
  const directory = join(disk, 'log')
  const wal = await Wal.open(directory, { segmentBytes: MiB })
  await wal.append(bytes('a'))
  await wal.close()
  rmSync(join(directory, 'LOCK'))
  ranOnceFree('mount', '-o', 'remount,ro', disk)
  expect(await texts(Wal.read(directory))).toEqual(['a'])
})

test('a_log_of_another_process_is_followed', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  await wal.append(bytes('1'))
  const following = child(
    directory,
    `
    for await (const { lsn, data } of Wal.read(directory, { follow: true })) {
      console.log(lsn, String(data))
      if (lsn === 1) await (await import('node:fs/promises')).writeFile(directory + '/one-was-seen', '')
      if (lsn === 3) break
    }`,
  )
  await vi.waitFor(() => expect(existsSync(join(directory, 'one-was-seen'))).toBe(true), { timeout: 60_000 })
  await wal.append(bytes('2'))
  wal.enqueue(bytes('3'))
  await wal.close()
  expect(await following).toMatchObject({ code: 0, stdout: '1 1\n2 2\n3 3\n', stderr: '' })
})

/** A log of three records in segment 1, the second of them damaged. */
async function damaged(directory: string): Promise<void> {
  const wal = await Wal.open(directory, { segmentBytes: MiB })
  for (const text of ['a', 'b', 'c']) await wal.append(bytes(text))
  await wal.close()
  const segment = join(directory, 'wal-0000000000000001.seg')
  const content = readFileSync(segment)
  content[2 * 4096 + 68] = 0
  writeFileSync(segment, content)
}

test('verify_names_every_damaged_place_and_never_rejects_for_it', async () => {
  const directory = temporary()
  {
    await using wal = await Wal.open(directory, { segmentBytes: MiB })
    for (const text of ['a', 'b', 'c']) await wal.append(bytes(text))
    const report = await Wal.verify(directory)
    expect(report).toMatchObject({
      ok: true,
      verdict: 'clean',
      records: 3,
      bytes: 3,
      segments: 1,
      damage: [],
    })
    expect([report.firstLsn, report.lastLsn]).toEqual([1, 3])
    expect(report.durationMs).toBeGreaterThan(0)
  }
  const broken = temporary()
  await damaged(broken)
  const before = contents(broken)
  const report = await Wal.verify(broken)
  expect(report).toMatchObject({ ok: false, verdict: 'damage', records: 2, lastLsn: 3 })
  expect(report.damage).toMatchObject([{ segment: 1, offset: 2 * 4096, firstLsn: 2, lastLsn: 2 }])
  expect(contents(broken)).toEqual(before)
  writeFileSync(join(broken, 'HEAD'), 'nonsense')
  expect((await Wal.verify(broken)).damage[0]).toMatchObject({ segment: -1, offset: -1 })
  expect(await caught(Wal.verify(temporary()))).toMatchObject({ code: 'ERR_WAL_NOT_FOUND' })
  expect(await caught(Wal.verify(5 as never))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  expect(await caught(Wal.verify(broken, { onProgress: 5 as never }))).toMatchObject({
    code: 'ERR_INVALID_ARG_TYPE',
  })
  const reason = new Error('no time')
  expect(await caught(Wal.verify(broken, { signal: AbortSignal.abort(reason) }))).toBe(reason)
})

test('salvage_saves_every_intact_record_and_says_what_is_lost', async () => {
  const directory = temporary()
  await damaged(directory)
  const before = contents(directory)
  const into = join(temporary(), 'saved', 'here')
  expect(await Wal.salvage(directory, into)).toEqual({
    records: 2,
    bytes: 2,
    lost: [{ from: 2, to: 2 }],
    ranges: [
      { from: 1, to: 1, newFrom: 1 },
      { from: 3, to: 3, newFrom: 2 },
    ],
  })
  expect(contents(directory)).toEqual(before)
  await using wal = await Wal.open(into, { check: 'all' })
  expect(await texts(wal.read())).toEqual(['a', 'c'])
  expect(wal.recovery.cleanShutdown).toBe(true)
  expect(await caught(Wal.salvage(directory, into))).toMatchObject({ code: 'ERR_WAL_NOT_EMPTY' })
  const other = temporary()
  writeFileSync(join(other, 'letters.txt'), 'dear')
  expect(await caught(Wal.salvage(directory, other))).toMatchObject({
    code: 'ERR_WAL_NOT_EMPTY',
    path: other,
  })
  expect(readdirSync(other)).toEqual(['letters.txt'])
  expect(await caught(Wal.salvage(temporary(), join(other, 'new')))).toMatchObject({
    code: 'ERR_WAL_NOT_FOUND',
  })
  expect(await caught(Wal.salvage(directory, undefined as never))).toMatchObject({
    code: 'ERR_INVALID_ARG_TYPE',
  })
})

test('a_large_log_is_salvaged_whole_with_large_records', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory, { segmentBytes: 256 * MiB })
  const large = Buffer.alloc(40 * MiB, 'large')
  await wal.append(large)
  for (let index = 0; index < 10_000; index += 1) wal.enqueue(bytes(`record ${index}`))
  await wal.close()
  rmSync(join(directory, 'HEAD'))
  expect(await caught(Wal.open(directory))).toMatchObject({ code: 'ERR_WAL_DAMAGED' })
  const told: Progress[] = []
  const into = join(temporary(), 'saved')
  const report = await Wal.salvage(directory, into, { onProgress: progress => told.push(progress) })
  expect(report).toMatchObject({ records: 10_001, lost: [], ranges: [{ from: 1, to: 10_001, newFrom: 1 }] })
  expect(told.length).toBeGreaterThan(0)
  const saved = await collect(Wal.read(into))
  expect(saved).toHaveLength(10_001)
  expect(large.equals(saved[0]?.data as Buffer)).toBe(true)
  expect(String(saved.at(-1)?.data)).toBe('record 9999')
})

test('a_salvage_goes_nowhere_near_its_source_and_tells_the_first_error', async context => {
  const directory = temporary()
  await damaged(directory)
  for (const into of ['saved', 'torn', 'a/b']) {
    expect(await caught(Wal.salvage(directory, join(directory, into)))).toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
    })
  }
  expect(readdirSync(directory).toSorted()).toEqual(['HEAD', 'LOCK', 'wal-0000000000000001.seg'])
  const disk = smallDisk(context, 'size=80m')
  const large = temporary()
  const wal = await Wal.open(large, { queueBytesMax: 2 ** 30 })
  for (let index = 0; index < 120; index += 1) wal.enqueue(Buffer.alloc(MiB))
  await wal.close()
  expect(await caught(Wal.salvage(large, join(disk, 'saved')))).toMatchObject({
    code: 'ERR_WAL_NO_SPACE',
    errno: -28,
  })
})

test('a_process_that_exits_waits_for_no_check', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  for (let index = 0; index < 300; index += 1) {
    if (wal.queuedBytes > 32 * MiB) await wal.drained()
    wal.enqueue(Buffer.alloc(MiB))
  }
  await wal.close()
  const whole = await Wal.verify(directory)
  const ended = await child(
    directory,
    `
    const checking = Wal.verify(directory, { onProgress: () => {} })
    checking.catch(() => {})
    await new Promise(resolve => setTimeout(resolve, 20))
    process.on('exit', () => console.log('exits'))
    process.exit(0)`,
  )
  expect(whole.records).toBe(300)
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'exits\n', stderr: '' })
})
