/**
 * classic-level (LevelDB) with `sync: true`. Many puts at once go by `batch`, as its README advises: what is appended
 * while one is on its way joins the next.
 */

import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'

export async function open(directory) {
  const database = new ClassicLevel(join(directory, 'log'), {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
  })
  await database.open()
  let count = 0
  let operations = []
  let waiters = []
  let isBusy = false

  async function commit() {
    isBusy = true
    while (operations.length > 0) {
      const [committed, answered] = [operations, waiters]
      operations = []
      waiters = []
      try {
        await database.batch(committed, { sync: true })
        for (const { resolve } of answered) resolve()
      } catch (error) {
        for (const { reject } of answered) reject(error)
      }
      // Who was just answered appends again before the next group is cut.
      await new Promise(process.nextTick)
    }
    isBusy = false
  }
  return {
    append: record =>
      new Promise((resolve, reject) => {
        const key = Buffer.allocUnsafe(8)
        key.writeUIntBE(0, 0, 2)
        key.writeUIntBE(count++, 2, 6)
        operations.push({ type: 'put', key, value: record })
        waiters.push({ resolve, reject })
        if (!isBusy && operations.length === 1) process.nextTick(() => isBusy || commit())
      }),
    close: () => database.close(),
  }
}
