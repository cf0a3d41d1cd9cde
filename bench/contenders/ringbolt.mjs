/** ringbolt with its defaults. */

import { Wal } from 'ringbolt'

export const name = 'ringbolt'

export async function open(directory) {
  const wal = await Wal.open(directory)
  return {
    backend: wal.backendReason === undefined ? wal.backend : `${wal.backend} (${wal.backendReason})`,
    append: record => wal.append(record),
    close: () => wal.close(),
  }
}
