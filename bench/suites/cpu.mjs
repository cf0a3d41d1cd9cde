/** What an append costs besides time: processor time of all threads, and how long the event loop is held up. */

export const name = 'cpu'
export const what = 'processor time per append, and delay of the event loop'

/** What counts is the first of `shows`. The delay is sampled every millisecond, which is why that is not always on. */
export async function cpuCase(context, { outstanding, bytes, of }) {
  const eventLoop = of === 'event-loop-delay'
  const entrants = await context.logEntrants(() => ({ load: 'append', outstanding, bytes, eventLoop }))
  const shows = [eventLoop ? 'eventLoopDelay' : 'cpuMicroseconds', 'rate']
  return { operation: of, params: { outstanding, bytes }, shows, entrants }
}

export async function* cases(context) {
  const [bytes] = context.options.bytes
  for (const of of ['cpu', 'event-loop-delay']) {
    for (const outstanding of context.options.outstanding)
      yield await cpuCase(context, { outstanding, bytes, of })
  }
}
