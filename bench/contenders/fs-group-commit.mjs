/**
 * Group commit by hand over node:fs, the way a careful person writes it and no worse:
 *
 * - what is appended while a group is on its way joins the next one: one write and one fdatasync a group;
 * - the groups go over zeros written beforehand, so that a flush need not commit a new file size, in files of
 *   64 MiB of which the next is prepared in the background, its name synced too;
 * - a group carries its length and a checksum, a record its length: enough to find the torn tail after a crash;
 * - records are copied at the call, into one of two buffers that take turns;
 * - callbacks instead of promises towards node:fs, because they cost less.
 *
 * What it lacks beside a log: recovery, damage told from a torn tail, a lock, what happens after a failed flush.
 */

import fs from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import { join } from 'node:path'
import zlib from 'node:zlib'

const FILE_BYTES = 64 * 1024 * 1024
const ZEROS = Buffer.alloc(1024 * 1024)
/** Of a group: magic, payload length, record count, checksum. */
const HEADER_BYTES = 16
const MAGIC = 0x50524731
const BUFFER_BYTES = 256 * 1024

export async function open(directory) {
  const log = new GroupCommit(directory)
  await log.begin()
  return { append: record => log.append(record), close: () => log.close() }
}

class GroupCommit {
  #directory
  #file
  #fileCount = 0
  #position = 0
  #next
  /** The group that records join, and the one on its way. */
  #joining = new Group()
  #writing = new Group()
  #isBusy = false
  #failure
  #idle

  constructor(directory) {
    this.#directory = directory
  }

  async begin() {
    this.#file = await this.#prepare()
    this.#next = this.#prepare()
  }

  append(record) {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      if (this.#joining.count === 0 && !this.#isBusy) process.nextTick(() => this.#commit())
      this.#joining.add(record, resolve, reject)
    })
  }

  async close() {
    if (this.#isBusy || this.#joining.count > 0) await new Promise(resolve => (this.#idle = resolve))
    await this.#file.close()
    await (await this.#next).close()
  }

  #commit() {
    if (this.#isBusy || this.#joining.count === 0) return
    this.#isBusy = true
    const group = this.#joining
    this.#joining = this.#writing
    this.#writing = group
    const bytes = group.seal()
    if (this.#position + bytes.length <= FILE_BYTES) this.#write(bytes, 0)
    else {
      this.#rotate().then(
        () => this.#write(bytes, 0),
        error => this.#done(error),
      )
    }
  }

  #write(bytes, from) {
    fs.write(this.#file.fd, bytes, from, bytes.length - from, this.#position, (error, written) => {
      if (error !== null) return this.#done(error)
      this.#position += written
      if (from + written < bytes.length) return this.#write(bytes, from + written)
      fs.fdatasync(this.#file.fd, error => this.#done(error))
    })
  }

  #done(error) {
    const group = this.#writing
    this.#isBusy = false
    if (error === null) {
      group.resolve()
      this.#commit()
    } else {
      this.#failure = error
      group.reject(error)
      this.#joining.reject(error)
    }
    if (!this.#isBusy && this.#joining.count === 0) this.#idle?.()
  }

  async #rotate() {
    await this.#file.close()
    this.#file = await this.#next
    this.#position = 0
    this.#next = this.#prepare()
  }

  async #prepare() {
    const path = join(this.#directory, `${String(this.#fileCount++).padStart(8, '0')}.log`)
    const file = await openFile(path, 'wx')
    for (let at = 0; at < FILE_BYTES; at += ZEROS.length) await file.write(ZEROS, 0, ZEROS.length, at)
    await file.sync()
    const directory = await openFile(this.#directory)
    await directory.sync()
    await directory.close()
    return file
  }
}

class Group {
  #bytes = Buffer.allocUnsafe(BUFFER_BYTES)
  #length = HEADER_BYTES
  #resolvers = []
  #rejecters = []

  get count() {
    return this.#resolvers.length
  }

  add(record, resolve, reject) {
    const end = this.#length + 4 + record.length
    if (end > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(end, this.#bytes.length * 2))
      this.#bytes.copy(larger, 0, 0, this.#length)
      this.#bytes = larger
    }
    this.#bytes.writeUInt32LE(record.length, this.#length)
    this.#bytes.set(record, this.#length + 4)
    this.#length = end
    this.#resolvers.push(resolve)
    this.#rejecters.push(reject)
  }

  seal() {
    this.#bytes.writeUInt32LE(MAGIC, 0)
    this.#bytes.writeUInt32LE(this.#length - HEADER_BYTES, 4)
    this.#bytes.writeUInt32LE(this.count, 8)
    this.#bytes.writeUInt32LE(zlib.crc32(this.#bytes.subarray(HEADER_BYTES, this.#length)), 12)
    return this.#bytes.subarray(0, this.#length)
  }

  resolve() {
    for (const resolve of this.#resolvers) resolve()
    this.#clear()
  }

  reject(error) {
    for (const reject of this.#rejecters) reject(error)
    this.#clear()
  }

  #clear() {
    this.#resolvers.length = 0
    this.#rejecters.length = 0
    this.#length = HEADER_BYTES
  }
}
