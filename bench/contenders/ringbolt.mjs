/** ringbolt with its defaults, on one of its backends. */

import { Wal } from '../ringbolt.mjs'

export async function open(directory, { backend }) {
  const wal = await Wal.open(directory, { backend })
  return {
    backend: wal.backend,
    append: record => wal.append(record),
    appendSync: record => wal.appendSync(record),
    enqueue: record => wal.enqueue(record),
    durable: () => wal.durable(),
    close: () => wal.close(),
  }
}
