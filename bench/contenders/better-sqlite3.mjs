/**
 * better-sqlite3 in WAL mode, as its docs/performance.md advises, with `synchronous = FULL`, which the same page says
 * durability takes here. Records of one turn of the event loop share a transaction.
 */

import { join } from 'node:path'
import Database from 'better-sqlite3'

export async function open(directory) {
  const database = new Database(join(directory, 'log.db'))
  database.pragma('journal_mode = WAL')
  database.pragma('synchronous = FULL')
  database.exec('CREATE TABLE log (id INTEGER PRIMARY KEY, record BLOB NOT NULL)')
  const insert = database.prepare('INSERT INTO log (record) VALUES (?)')
  const insertAll = database.transaction(records => {
    for (const record of records) insert.run(record)
  })

  let records = []
  let waiters = []
  function commit() {
    const [committed, answered] = [records, waiters]
    records = []
    waiters = []
    try {
      insertAll(committed)
    } catch (error) {
      for (const { reject } of answered) reject(error)
      return
    }
    for (const { resolve } of answered) resolve()
  }
  return {
    append: record =>
      new Promise((resolve, reject) => {
        if (records.push(record) === 1) setImmediate(commit)
        waiters.push({ resolve, reject })
      }),
    appendSync: record => insert.run(record),
    close: async () => database.close(),
  }
}
