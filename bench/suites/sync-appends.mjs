/** Appends that block the thread until they are durable. */

export const name = 'sync-appends'
export const what = 'appends that block the thread: appendSync and the like'

export async function appendSyncCase(context, { bytes }) {
  const entrants = await context.logEntrants((_, { isSync }) =>
    isSync === false ? undefined : { load: 'append-sync', bytes },
  )
  return { operation: 'append-sync', params: { bytes }, shows: ['rate', 'p50', 'p99'], entrants }
}

export async function* cases(context) {
  for (const bytes of context.options.bytes) yield await appendSyncCase(context, { bytes })
}
