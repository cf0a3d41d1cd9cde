/**
 * A child appends to a log on an ext4 in a file, under load, and the file system is shut down at a random moment as if
 * the power went: what is in memory is dropped, the journal too. The file system is mounted again, which recovers its
 * journal, and the log opened: nothing acknowledged before the cut is missing, nothing is there that was not appended.
 *
 * What was acknowledged is taken down before the call that cuts, by the same program: a flush that races with the cut can
 * succeed over dropped data. The child writes what it knows to a file on another file system.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Child } from './children.js'
import { cutter } from './cutter.js'
import { ext4 } from './disks.js'
import { temporary } from './helpers.js'
import { expectPrefix } from './prefix.js'

const isLong = process.env['RINGBOLT_LONG'] !== undefined
const rounds = isLong ? 50 : 5

/** Batches and records of all sizes, many at a time; some wait only to be written, and count when `durable()` says so. */
const appending = `
import { openSync } from 'node:fs'
const [acknowledgements, sync, directIo] = process.argv.slice(2)
const out = openSync(acknowledgements, 'a')
const wal = await Wal.open(directory, { segmentBytes: 1 << 20, lockTimeoutMs: 60_000, sync, directIo: directIo === 'true' })
const acknowledged = lsn => writeSync(out, lsn + '\\n')
const append = async seed => {
  for (let turn = seed; ; turn += 1) {
    const first = wal.lastLsn + 1
    if (turn % 7 === 0) {
      const last = first + 4
      const records = Array.from({ length: 5 }, (_, index) => numbered(first + index, last, (turn * 131) % 3000))
      acknowledged((await wal.appendBatch(records)).last)
    } else if (turn % 11 === 0) {
      await wal.append(numbered(first, first, 100), { ack: 'written' })
      acknowledged(await wal.durable(first))
    } else if (turn % 97 === 0) {
      await wal.rotate()
      const kept = Math.max(1, wal.durableLsn - 500)
      await wal.truncateBefore(kept)
    } else {
      acknowledged(await wal.append(numbered(first, first, (turn * turn * 131) % (turn % 5 === 0 ? 60000 : 3000))))
    }
  }
}
tell('ready')
// The file system is gone under them: they all end, and how is no matter here.
await Promise.allSettled(Array.from({ length: 24 }, (_, seed) => append(seed * 31)))
await failure(wal.close())
`

for (const [sync, directIo] of [
  ['auto', true],
  ['fdatasync', false],
  ['dsync', true],
] as const) {
  test(
    `a_power_cut_loses_nothing_acknowledged (${sync}, ${directIo ? 'direct' : 'buffered'})`,
    async context => {
      const disk = ext4(context)
      const acknowledgements = join(temporary(), 'acknowledged')
      writeFileSync(acknowledgements, '')
      for (let round = 0; round < rounds; round += 1) {
        const cut = await cutter(context, disk, acknowledgements)
        const child = new Child(disk.log, appending, [], [acknowledgements, sync, String(directIo)])
        expect(await child.next()).toBe('ready')
        await sleep(20 + Math.random() * (isLong ? 1500 : 300))
        const known = await cut()
        expect(await child.end()).toBe(0)
        const lines = readFileSync(acknowledgements).subarray(0, known).toString().trim().split('\n')
        const acknowledged = lines.reduce((newest, line) => Math.max(newest, Number(line)), 0)
        disk.remount()
        const last = await expectPrefix(disk.log, acknowledged, Number.MAX_SAFE_INTEGER)
        // A number that was given out and lost is given out again: what was acknowledged before is known to be there.
        writeFileSync(acknowledgements, `${last}\n`)
      }
      expect(readFileSync(acknowledgements, 'utf8')).not.toBe('0\n')
    },
    isLong ? 600_000 : 180_000,
  )
}
