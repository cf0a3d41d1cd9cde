/** How long an append takes when appends come at a fixed rate, whatever became of the earlier ones. */

export const name = 'open-loop'
export const what = 'latency at fixed rates, the JavaScript thread idle and busy'

export async function openLoopCase(context, { rate, bytes, ...condition }) {
  const isBusy = condition.busy === 'javascript'
  const entrants = await context.logEntrants(() => ({ load: 'open-loop', rate, bytes, isBusy }))
  const params = { rate, bytes, ...condition }
  return { operation: 'open-loop', params, shows: ['p99', 'p50', 'p999'], entrants }
}

export async function* cases(context) {
  const [bytes] = context.options.bytes
  for (const rate of context.options.rates) {
    yield await openLoopCase(context, { rate, bytes })
    yield await openLoopCase(context, { rate, bytes, busy: 'javascript' })
  }
}
