/**
 * `writeSync` on a descriptor opened with O_DSYNC, which blocks the thread until the record is durable. The file grows
 * with each record.
 */

import fs, { constants } from 'node:fs'
import { join } from 'node:path'

export async function open(directory) {
  const { O_WRONLY, O_CREAT, O_EXCL, O_APPEND, O_DSYNC } = constants
  const fd = fs.openSync(join(directory, 'log'), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_DSYNC)
  const appendSync = record => {
    if (fs.writeSync(fd, record) < record.length) throw new Error('a short write')
  }
  // One promise a turn, so that the event loop turns at all: nothing here ever waits.
  let turn
  return {
    appendSync,
    append(record) {
      appendSync(record)
      turn ??= new Promise(resolve =>
        setImmediate(() => {
          turn = undefined
          resolve()
        }),
      )
      return turn
    },
    close: async () => fs.closeSync(fd),
  }
}
