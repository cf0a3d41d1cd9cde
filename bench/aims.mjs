/**
 * What ringbolt is aimed at: ratios between it and others within one interleaved run, everything durable. No test asserts
 * on them; `npm run bench -- targets` tells which hold on the machine it runs on.
 *
 * `of` and `params` name the case (suites/targets.mjs builds it), `figure` what is compared, `against` whom with: the name
 * of an entrant, or {@link BEST_PEER}.
 */

export const BEST_PEER = 'the best peer'

const HAND_WRITTEN = 'fs-group-commit'
const BY_RATE = { figure: 'rate' }

/** What is also to hold with a busy thread on the CPU that takes the disk's interrupts. */
const APPENDS = [
  {
    row: '100 B append, 1 outstanding, awaited',
    of: 'append',
    params: { outstanding: 1, bytes: 100 },
    aims: [
      { against: HAND_WRITTEN, atLeast: 1.6 },
      { against: 'better-sqlite3', atLeast: 1.2 },
    ],
  },
  {
    row: '100 B, 64 outstanding',
    of: 'append',
    params: { outstanding: 64, bytes: 100 },
    aims: [{ against: BEST_PEER, atLeast: 1.5 }],
  },
  {
    row: '100 B, 1000 outstanding',
    of: 'append',
    params: { outstanding: 1000, bytes: 100 },
    aims: [{ against: BEST_PEER, atLeast: 1.7 }],
  },
  {
    row: '100 B, 4096 outstanding',
    of: 'append',
    params: { outstanding: 4096, bytes: 100 },
    aims: [{ against: BEST_PEER, atLeast: 1.9 }],
  },
  {
    row: '100 B by enqueue, one durable() per 4096',
    of: 'enqueue',
    params: { bytes: 100 },
    aims: [{ against: BEST_PEER, atLeast: 2.5 }],
  },
  {
    row: '4 KiB, 64 outstanding',
    of: 'append',
    params: { outstanding: 64, bytes: 4096 },
    aims: [{ against: BEST_PEER, atLeast: 2.0 }],
  },
  {
    row: '64 KiB, 16 outstanding',
    of: 'append',
    params: { outstanding: 16, bytes: 65536 },
    aims: [{ against: BEST_PEER, atLeast: 1.8 }],
  },
]

const LOGS = [
  {
    row: 'appendSync 100 B',
    of: 'append-sync',
    params: { bytes: 100 },
    ...BY_RATE,
    against: 'fs-blocking',
    atLeast: 1.3,
  },
  {
    row: 'CPU per durable append, 64 outstanding',
    of: 'cpu',
    params: { of: 'cpu', outstanding: 64, bytes: 100 },
    figure: 'cpuMicroseconds',
    against: HAND_WRITTEN,
    atMost: 0.7,
  },
  {
    row: 'event loop delay p99, 1000 outstanding',
    of: 'cpu',
    params: { of: 'event-loop-delay', outstanding: 1000, bytes: 100 },
    figure: 'eventLoopDelay',
    against: HAND_WRITTEN,
    atMost: 1.0,
  },
  {
    row: 'p99 of an append at 20,000/s, JavaScript busy',
    of: 'open-loop',
    params: { rate: 20_000, bytes: 100, busy: 'javascript' },
    figure: 'p99',
    against: HAND_WRITTEN,
    atMost: 1.0,
  },
]

const blob = (work, outstanding) => ({ of: 'blob', params: { work, outstanding }, ...BY_RATE })
const wholeLog = (work, figure) => ({ of: 'whole-log', params: { work, cache: 'warm' }, figure })

const BLOBS = [
  ...[
    [16, 0.9],
    [64, 0.95],
    [256, 0.95],
  ].map(([outstanding, atLeast]) => ({
    row: `blob random 4 KiB uncached read, ${outstanding} outstanding`,
    ...blob('read-direct', outstanding),
    against: 'fio',
    atLeast,
  })),
  {
    row: 'blob 4 KiB cached readInto, one by one',
    ...blob('read-into-cached', 1),
    against: 'node:fs',
    atLeast: 20,
  },
  {
    row: 'blob 4 KiB write with sync, 64 outstanding',
    ...blob('write-sync', 64),
    against: 'fio',
    atLeast: 0.7,
  },
  {
    row: 'blob create + 4 KiB + sync, 16 outstanding',
    of: 'blob-create',
    params: { outstanding: 16 },
    ...BY_RATE,
    against: 'node:fs',
    atLeast: 2,
  },
]

const WHOLE_LOGS = [
  {
    row: 'recovery scan, warm',
    ...wholeLog('open-checked', 'bytesPerSecond'),
    against: 'checksum in memory',
    atLeast: 0.5,
  },
  {
    row: 'verify, warm',
    ...wholeLog('verify', 'bytesPerSecond'),
    against: 'checksum in memory',
    atLeast: 0.5,
  },
  {
    row: 'replay of 100 B records through readBatches',
    ...wholeLog('read-batches', 'recordsPerSecond'),
    against: 'lines in memory',
    atLeast: 2,
  },
]

const BUSY_AT_LEAST = 1.3

const quiet = APPENDS.flatMap(({ aims, ...work }) => aims.map(aim => ({ ...work, ...BY_RATE, ...aim })))
const busy = APPENDS.map(({ row, of, params }) => ({
  row: `${row}, a busy thread on the disk's interrupts`,
  of,
  params,
  onBusyInterruptCpu: true,
  ...BY_RATE,
  against: BEST_PEER,
  atLeast: BUSY_AT_LEAST,
}))

export const AIMS = [...quiet, ...busy, ...LOGS, ...BLOBS, ...WHOLE_LOGS]
