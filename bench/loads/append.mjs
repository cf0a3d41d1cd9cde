/** What is done to a log, for a while, and how it went. */

import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks'

import { open } from '../contenders/index.mjs'

const WARM_UP_SECONDS = 0.3
/** How long the JavaScript thread works at a stretch where it is to be busy. */
const BUSY_SLICE_MS = 1
/** Every n-th latency is measured where many are outstanding: looking at the clock must not become the work. */
const SAMPLE_MASK = 15

const newRecord = bytes => Buffer.alloc(bytes, 'durable ')
const newLatency = () => createHistogram({ lowest: 1, highest: 3_600_000_000_000, figures: 3 })
const record = (latency, milliseconds) => latency.record(Math.max(1, Math.round(milliseconds * 1e6)))
const pause = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000))

/** In milliseconds; nothing where nothing was measured. */
function percentiles(latency) {
  if (latency.count === 0) return {}
  const at = percent => latency.percentile(percent) / 1e6
  return { p50: at(50), p99: at(99), p999: at(99.9) }
}

function spin(milliseconds) {
  const until = performance.now() + milliseconds
  while (performance.now() < until);
}

/** Keep the JavaScript thread at work, in slices; answers a function that ends it. */
function keepBusy() {
  let isBusy = true
  const slice = () => {
    if (!isBusy) return
    spin(BUSY_SLICE_MS)
    setImmediate(slice)
  }
  slice()
  return () => {
    isBusy = false
  }
}

/** Processor time of all threads and work done, from here to the call of what this answers. */
function measuring(done) {
  const [count, cpu, time] = [done(), process.cpuUsage(), performance.now()]
  return () => {
    const { user, system } = process.cpuUsage(cpu)
    const completed = done() - count
    return {
      rate: completed / ((performance.now() - time) / 1000),
      cpuMicroseconds: completed === 0 ? undefined : (user + system) / completed,
    }
  }
}

/** Keep so many appends outstanding: as many loops that each await their append. */
async function append(log, { outstanding, bytes, seconds, isBusy = false, eventLoop = false }) {
  const bytesOfRecord = newRecord(bytes)
  const sampleMask = outstanding < 16 ? 0 : SAMPLE_MASK
  const latency = newLatency()
  let isRunning = true
  let isMeasuring = false
  let issued = 0
  let completed = 0
  const loop = async () => {
    while (isRunning) {
      if ((issued++ & sampleMask) === 0) {
        const started = performance.now()
        await log.append(bytesOfRecord)
        if (isMeasuring) record(latency, performance.now() - started)
      } else {
        await log.append(bytesOfRecord)
      }
      completed += 1
    }
  }
  const endBusy = isBusy ? keepBusy() : () => {}
  const loops = Promise.all(Array.from({ length: outstanding }, loop))
  // A loop that fails ends the wait, not only the run.
  const pass = duration => Promise.race([pause(duration), loops])

  await pass(WARM_UP_SECONDS)
  const delay = eventLoop ? monitorEventLoopDelay({ resolution: 1 }) : undefined
  delay?.enable()
  isMeasuring = true
  const measured = measuring(() => completed)
  await pass(seconds)
  const figures = measured()
  isMeasuring = false
  delay?.disable()
  isRunning = false
  endBusy()
  await loops
  return { ...figures, ...percentiles(latency), eventLoopDelay: delay && delay.percentile(99) / 1e6 }
}

/** So many records without a promise, then one for all of them; and again. */
async function enqueue(log, { outstanding, bytes, seconds }) {
  const bytesOfRecord = newRecord(bytes)
  let completed = 0
  const run = async duration => {
    const until = performance.now() + duration * 1000
    while (performance.now() < until) {
      for (let count = 0; count < outstanding; count += 1) log.enqueue(bytesOfRecord)
      await log.durable()
      completed += outstanding
    }
  }
  await run(WARM_UP_SECONDS)
  const measured = measuring(() => completed)
  await run(seconds)
  return measured()
}

/** One after the other, each blocking the thread. */
async function appendSync(log, { bytes, seconds }) {
  const bytesOfRecord = newRecord(bytes)
  const latency = newLatency()
  let completed = 0
  const run = (duration, isMeasuring) => {
    const until = performance.now() + duration * 1000
    for (let now = performance.now(); now < until; ) {
      const started = now
      log.appendSync(bytesOfRecord)
      now = performance.now()
      if (isMeasuring) record(latency, now - started)
      completed += 1
    }
  }
  run(WARM_UP_SECONDS, false)
  const measured = measuring(() => completed)
  run(seconds, true)
  return { ...measured(), ...percentiles(latency) }
}

/**
 * Appends that are due at fixed times, whether the earlier ones are done or not. Latency counts from the time an append
 * was due, not from when it was at last called: who stalls is charged for all that should have happened meanwhile.
 */
async function openLoop(log, { rate, bytes, seconds, isBusy = false }) {
  const bytesOfRecord = newRecord(bytes)
  const latency = newLatency()
  const total = Math.round(rate * (WARM_UP_SECONDS + seconds))
  const warmUp = Math.round(rate * WARM_UP_SECONDS)
  const interval = 1000 / rate
  const begin = performance.now()
  const limit = begin + (WARM_UP_SECONDS + seconds) * 4000
  let issued = 0
  let settled = 0
  await new Promise((resolve, reject) => {
    const issue = () => {
      const index = issued++
      const due = begin + index * interval
      log.append(bytesOfRecord).then(() => {
        if (index >= warmUp) record(latency, performance.now() - due)
        settled += 1
        if (settled === total) resolve()
      }, reject)
    }
    const turn = () => {
      if (settled === total) return
      if (isBusy) spin(BUSY_SLICE_MS)
      const count = Math.min(total, 1 + Math.floor((performance.now() - begin) / interval))
      while (issued < count && performance.now() < limit) issue()
      if (performance.now() < limit) setImmediate(turn)
      else reject(new Error(`${rate} a second are more than it can take`))
    }
    turn()
  })
  return percentiles(latency)
}

/** With a log that is opened for it, in a directory of its own. */
const onLog =
  work =>
  async ({ contender, directory, ...request }) => {
    const log = await open(contender, directory)
    const figures = await work(log, request)
    await log.close()
    return { ...figures, backend: log.backend }
  }

export const LOADS = {
  /** Whether it is there at all. */
  probe: onLog(async log => {
    await log.append(newRecord(1))
    return { isSync: log.appendSync !== undefined }
  }),
  append: onLog(append),
  enqueue: onLog(enqueue),
  'append-sync': onLog(appendSync),
  'open-loop': onLog(openLoop),
}
