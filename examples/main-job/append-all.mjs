/** Appending as fast as the log takes it, and no faster. */

/** So many appends are outstanding at most, and so many bytes: half of what the log queues by default. */
export const OUTSTANDING_MAX = 1024
const OUTSTANDING_BYTES_MAX = 32 * 1024 * 1024

/**
 * Append every record and wait until all are durable.
 *
 * Appends are not awaited one by one: each is begun while others are on their way, so the log can write them
 * together. `onDurable(lsn, nanoseconds)` is called when an append's promise has resolved, and not before.
 */
export async function appendAll(wal, records, onDurable) {
  let outstanding = 0
  let outstandingBytes = 0
  let failure
  let resume

  const settled = bytes => {
    outstanding -= 1
    outstandingBytes -= bytes
    // Go on when half of them are done: a few large helpings cost less than many small ones.
    if (
      resume !== undefined &&
      outstanding <= OUTSTANDING_MAX / 2 &&
      outstandingBytes <= OUTSTANDING_BYTES_MAX / 2
    )
      resume()
  }
  const room = () =>
    new Promise(resolve => {
      resume = () => {
        resume = undefined
        resolve()
      }
    })

  const append = async record => {
    const started = performance.now()
    try {
      const lsn = await wal.append(record)
      onDurable(lsn, Math.round((performance.now() - started) * 1e6))
    } catch (error) {
      failure ??= error
    } finally {
      settled(record.length)
    }
  }

  for await (const record of records) {
    if (failure !== undefined) break
    outstanding += 1
    outstandingBytes += record.length
    void append(record)
    if (outstanding >= OUTSTANDING_MAX || outstandingBytes >= OUTSTANDING_BYTES_MAX) await room()
  }
  while (outstanding > 0) await new Promise(resolve => setImmediate(resolve))
  if (failure !== undefined) throw failure
}
