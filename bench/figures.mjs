/** What is measured: what each figure is called, how it is written, and whether more of it is better. */

const MiB = 1024 * 1024

const whole = value => Math.round(value).toLocaleString('en')

export const FIGURES = {
  rate: { label: 'per second', format: whole, isMoreBetter: true },
  p50: { label: 'p50 ms', format: value => value.toFixed(3) },
  p99: { label: 'p99 ms', format: value => value.toFixed(3) },
  p999: { label: 'p99.9 ms', format: value => value.toFixed(3) },
  cpuMicroseconds: { label: 'CPU µs each', format: value => value.toFixed(2) },
  eventLoopDelay: { label: 'event loop p99 ms', format: value => value.toFixed(3) },
  seconds: { label: 'seconds', format: value => value.toFixed(3) },
  bytesPerSecond: { label: 'MiB/s', format: value => whole(value / MiB), isMoreBetter: true },
  recordsPerSecond: { label: 'records/s', format: whole, isMoreBetter: true },
  grownBytes: { label: 'memory grew by MiB', format: value => whole(value / MiB) },
}

export const format = (figure, value) => (value === undefined ? '' : FIGURES[figure].format(value))

/** The middle one, or what lies between the two. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Of what was measured in each round. */
export const spread = values => ({
  median: median(values),
  least: Math.min(...values),
  most: Math.max(...values),
})

/** One contender's figure by another's, round by round. */
export const ratio = (figure, its, others) =>
  spread(its.map((figures, round) => figures[figure] / others[round][figure]))
