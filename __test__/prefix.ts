/** Records that tell which they are, and the check that a log holds what was acknowledged and nothing invented. */
import { expect, onTestFinished } from 'vitest'
import { Wal, type WalOptions } from '../src/index.js'

/** Open a log with segments of 1 MiB; closed after the test, before its disk is taken away. */
export async function openLog(directory: string, options: WalOptions = {}): Promise<Wal> {
  const wal = await Wal.open(directory, { segmentBytes: 1 << 20, lockTimeoutMs: 60_000, ...options })
  onTestFinished(() => wal.close().catch(() => {}))
  return wal
}

/** A record of this LSN, in a batch that ends with `last`; with so many bytes more. */
export function numbered(lsn: number, last: number, bytes: number): Buffer {
  const record = Buffer.alloc(16 + bytes, lsn % 251)
  record.writeDoubleLE(lsn, 0)
  record.writeDoubleLE(last, 8)
  return record
}

/** Append a record of its own, as the next LSN. */
export function appendNumbered(wal: Wal, bytes: number): Promise<number> {
  const lsn = wal.lastLsn + 1
  return wal.append(numbered(lsn, lsn, bytes))
}

/** Append a batch of `count` records. */
export function appendBatchNumbered(wal: Wal, count: number, bytes: number): Promise<{ last: number }> {
  const first = wal.lastLsn + 1
  const last = wal.lastLsn + count
  return wal.appendBatch(Array.from({ length: count }, (_, index) => numbered(first + index, last, bytes)))
}

/** A log of a few numbered records, closed. */
export async function makeLog(directory: string, records = 10): Promise<void> {
  const wal = await openLog(directory)
  for (let count = 0; count < records; count += 1) await appendNumbered(wal, 1000)
  await wal.close()
}

/**
 * Open the log again and read all of it: numbered records without a gap, up to at least `acknowledged` and at most
 * `issued`, the last batch whole. Answers the last LSN.
 */
export async function expectPrefix(
  directory: string,
  acknowledged: number,
  issued: number,
  options: WalOptions = {},
): Promise<number> {
  const wal = await openLog(directory, { check: 'all', ...options })
  let due = wal.firstLsn
  let lastOfBatch = due - 1
  for await (const { lsn, data } of wal.read()) {
    expect(lsn).toBe(due)
    const record = data as Buffer
    lastOfBatch = record.readDoubleLE(8)
    const isRight = record.readDoubleLE(0) === lsn && record.subarray(16).every(byte => byte === lsn % 251)
    if (!isRight || lastOfBatch < lsn) expect.fail(`the record of LSN ${lsn} is another`)
    due += 1
  }
  expect(due - 1).toBe(wal.lastLsn)
  expect(lastOfBatch).toBe(wal.lastLsn)
  expect(wal.lastLsn).toBeGreaterThanOrEqual(acknowledged)
  expect(wal.lastLsn).toBeLessThanOrEqual(issued)
  await wal.close()
  return wal.lastLsn
}
