/**
 * lmdb with its defaults: puts of one turn share a transaction, and commits overlap their flushes. `separateFlushed` gives
 * the promise that its README calls truly durable; the one of the put itself resolves at the commit.
 */

import { join } from 'node:path'
import { open as openDatabase } from 'lmdb'

export async function open(directory) {
  const database = openDatabase({
    path: join(directory, 'log'),
    keyEncoding: 'uint32',
    encoding: 'binary',
    separateFlushed: true,
  })
  let count = 0
  return {
    // A put that fails rejects the outer promise, which nobody handles: that ends the measurement, as it should.
    append: record => database.put(count++, record).flushed,
    close: () => database.close(),
  }
}
