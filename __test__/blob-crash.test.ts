/**
 * A child writes, syncs, opens and removes blobs, many calls at a time, and takes down in a file what was acknowledged. It
 * is killed, or the power of its disk is cut, at a random moment, and the store is opened again. After a kill everything
 * that had resolved is there; after a power cut everything that had resolved as durable.
 */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { BlobStore } from '../src/index.js'
import { Child } from './children.js'
import { cutter } from './cutter.js'
import { ext4 } from './disks.js'
import { temporary } from './helpers.js'

const isLong = process.env['RINGBOLT_LONG'] !== undefined
const blobs = 6
const slots = 8
/** A sector is old or new, whatever happens; a slot has several, and is written by one call. */
const sectorBytes = 512
const slotBytes = 4 * sectorBytes
/** Where the first slot is, at a sector of the file's: behind the header of V0 that is not where the data begins. */
const firstAt = { v1: 0, v0: sectorBytes - 8 }

type Layout = keyof typeof firstAt
const layouts: readonly Layout[] = ['v1', 'v0']

/**
 * One line each: `i` about to be written, `w` written, `s` durable: blob, slot, number; `+` opened, `?` about to be removed,
 * `-` removed.
 */
const working = `
import { openSync } from 'node:fs'
const out = openSync(process.argv[2], 'a')
const say = (...words) => writeSync(out, words.join(' ') + '\\n')
const store = await BlobStore.open(directory, { lockTimeoutMs: 60_000, layout: process.argv[3] })
const firstAt = process.argv[3] === 'v0' ? ${firstAt.v0} : 0
const write = async index => {
  const blob = await store.open('data', 'blob ' + index)
  await blob.resize(Math.max(blob.size, firstAt + ${slots * slotBytes}))
  const before = Buffer.from(await blob.read(firstAt, ${slots * slotBytes}))
  const numbers = Array.from({ length: ${slots} }, (_, slot) =>
    Math.max(...[0, 1, 2, 3].map(sector => before.readUInt32LE(slot * ${slotBytes} + sector * ${sectorBytes}))))
  for (let turn = 0; ; turn += 1) {
    const slot = (turn * 5 + index) % ${slots}
    const number = numbers[slot] += 1
    const data = Buffer.alloc(${slotBytes}, number % 251)
    for (let at = 0; at < data.length; at += ${sectorBytes}) data.writeUInt32LE(number, at)
    const sync = turn % 3 === 1
    say('i', index, slot, number)
    const chunks = turn % 2 === 0 ? data : [data.subarray(0, 700), data.subarray(700)]
    await blob.write(firstAt + slot * ${slotBytes}, chunks, { sync, dontCache: turn % 7 === 0 })
    say('w', index, slot, number)
    if (turn % 3 === 0) await blob.sync()
    if (turn % 3 !== 2) say('s', index, slot, number)
  }
}
const name = async index => {
  for (let turn = 0; ; turn += 1) {
    const [partition, name] = ['names-' + turn % 3, [process.pid, index, turn].join('-')]
    const blob = await store.open(partition, name)
    say('+', partition, name)
    await blob.close()
    if (turn % 2 === 0) continue
    say('?', partition, name)
    await store.remove(partition, name)
    say('-', partition, name)
  }
}
tell('ready')
// Under a power cut they all end, and how is no matter here.
await Promise.allSettled([...Array.from({ length: ${blobs} }, (_, index) => write(index)), name(0), name(1)])
await failure(store.close())
`

/** What is known of a store. */
class Known {
  /** By blob and slot, the newest number that must be there, and the newest that may. */
  readonly least = new Map<string, number>()
  readonly most = new Map<string, number>()
  /** By partition and name, whether it is there; those of which that is open are left out. */
  readonly names = new Map<string, boolean>()
  writes = 0

  /** `kept` says which acknowledgements what happened may not take back. */
  constructor(lines: readonly string[], kept: 'w' | 's') {
    for (const line of lines) {
      const [kind, first, second, number] = line.split(' ') as [string, string, string, string]
      const key = `${first} ${second}`
      if (kind === 'i') {
        this.most.set(key, Math.max(this.most.get(key) ?? 0, Number(number)))
      } else if (kind === 'w' || kind === 's') {
        if (kind === kept) this.least.set(key, Number(number))
        this.writes += 1
      } else if (kind === '?') {
        this.names.delete(key)
      } else {
        this.names.set(key, kind === '+')
      }
    }
  }

  async expectIn(directory: string, layout: Layout): Promise<void> {
    const first = firstAt[layout]
    await using store = await BlobStore.open(directory, { lockTimeoutMs: 60_000 })
    for (let index = 0; index < blobs; index += 1) {
      await using blob = await store.open('data', `blob ${index}`)
      const length = Math.min(Math.max(blob.size - first, 0), slots * slotBytes)
      const bytes = Buffer.from(await blob.read(first, length))
      for (let slot = 0; slot < slots; slot += 1) {
        const least = this.least.get(`${index} ${slot}`) ?? 0
        const most = this.most.get(`${index} ${slot}`) ?? 0
        if (least > 0) expect(bytes.length).toBeGreaterThanOrEqual((slot + 1) * slotBytes)
        for (
          let at = slot * slotBytes;
          at < Math.min((slot + 1) * slotBytes, bytes.length);
          at += sectorBytes
        ) {
          const sector = bytes.subarray(at, at + sectorBytes)
          const number = sector.readUInt32LE(0)
          const where = `blob ${index}, slot ${slot}, sector at ${at}`
          expect(number, where).toBeGreaterThanOrEqual(least)
          expect(number, where).toBeLessThanOrEqual(most)
          expect(
            sector.subarray(4).every(byte => byte === number % 251),
            where,
          ).toBe(true)
        }
      }
    }
    const found = new Set<string>()
    for (const partition of await store.partitions())
      for (const name of await store.scan(partition)) found.add(`${partition} ${name}`)
    for (const [key, isThere] of this.names) expect(found.has(key), key).toBe(isThere)
  }
}

/** The whole lines: the last may be cut off, and then nothing had followed from it. */
const linesOf = (file: string, length = Number.POSITIVE_INFINITY) => {
  const bytes = readFileSync(file).subarray(0, length)
  return bytes
    .subarray(0, bytes.lastIndexOf('\n') + 1)
    .toString()
    .split('\n')
    .filter(Boolean)
}
/** So that the next child does not go on in a line that was cut off. */
const cutToWholeLines = (file: string) => truncateSync(file, readFileSync(file).lastIndexOf('\n') + 1)

/** What was told while the power was being cut may be so or not: written about to be, names in the middle of it. */
function doubtful(line: string): string {
  const [kind, ...what] = line.split(' ')
  return [kind === 'i' || kind === 'w' || kind === 's' ? 'i' : '?', ...what].join(' ')
}

for (const layout of layouts) {
  test(
    `a_kill_loses_nothing_that_had_resolved (${layout})`,
    async () => {
      const directory = join(temporary(), 'store')
      const acknowledgements = join(temporary(), 'acknowledged')
      writeFileSync(acknowledgements, '')
      let known = new Known([], 'w')
      // And until something was written, which a busy machine may not come to before the first kills.
      for (let round = 0; round < (isLong ? 300 : 12) || known.writes <= 100; round += 1) {
        const child = new Child(directory, working, [], [acknowledgements, layout])
        expect(await child.next()).toBe('ready')
        await sleep(1 + Math.random() * 60)
        expect(await child.kill()).toBe('SIGKILL')
        cutToWholeLines(acknowledgements)
        known = new Known(linesOf(acknowledgements), 'w')
        // In some rounds the next child meets what the kill left, and is killed over it.
        if (Math.random() < 0.7) await known.expectIn(directory, layout)
      }
      await known.expectIn(directory, layout)
    },
    isLong ? 1_200_000 : 180_000,
  )

  test(
    `a_power_cut_loses_nothing_that_had_resolved_as_durable (${layout})`,
    async context => {
      const disk = ext4(context)
      const directory = join(disk.directory, 'store')
      const acknowledgements = join(temporary(), 'acknowledged')
      writeFileSync(acknowledgements, '')
      let lines: string[] = []
      for (let round = 0; round < (isLong ? 50 : 5) || lines.length <= 100; round += 1) {
        const cut = await cutter(context, disk, acknowledgements)
        const child = new Child(directory, working, [], [acknowledgements, layout])
        expect(await child.next()).toBe('ready')
        await sleep(20 + Math.random() * (isLong ? 1000 : 250))
        const length = await cut()
        expect(await child.end()).toBe(0)
        const before = linesOf(acknowledgements, length)
        const meanwhile = linesOf(acknowledgements).slice(before.length)
        lines = lines.concat(before, meanwhile.map(doubtful))
        disk.remount()
        const known = new Known(lines, 's')
        await known.expectIn(directory, layout)
        writeFileSync(acknowledgements, '')
      }
    },
    isLong ? 600_000 : 180_000,
  )
}
