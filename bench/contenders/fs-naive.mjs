/** The first thing that comes to mind: write the record, flush the file, for each record. */

import fs from 'node:fs'
import { join } from 'node:path'

export async function open(directory) {
  const fd = fs.openSync(join(directory, 'log'), 'wx')
  let end = 0
  return {
    append: record =>
      new Promise((resolve, reject) => {
        const at = end
        end += record.length
        fs.write(fd, record, 0, record.length, at, (error, written) => {
          if (error !== null) return reject(error)
          if (written < record.length) return reject(new Error('a short write'))
          fs.fdatasync(fd, error => (error === null ? resolve() : reject(error)))
        })
      }),
    appendSync(record) {
      const at = end
      end += record.length
      if (fs.writeSync(fd, record, 0, record.length, at) < record.length) throw new Error('a short write')
      fs.fdatasyncSync(fd)
    },
    close: async () => fs.closeSync(fd),
  }
}
