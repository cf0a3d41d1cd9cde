/** Reads and writes of one large blob, beside fio and node:fs on the very same file; and blobs made anew. */

import { spawnSync } from 'node:child_process'

import { dropCache, prepareCache } from '../conditions.mjs'
import { fio, hasFio, inMilliseconds } from '../fio.mjs'
import { blobFile, fill, HEADER_BYTES, WARM_UP_SECONDS, WORKS } from '../loads/blob.mjs'
import { measure } from '../rounds.mjs'

export const name = 'blobs'
export const what = 'reads and writes of a blob beside fio and node:fs; blobs made, written and synced'

/** Everything that can be chosen with --works. */
export const BLOB_WORKS = [...Object.keys(WORKS), 'create']

const CREATE_BYTES = 4096
const SHOWS = ['rate']

/** Cases that need the blob: it is made before them and removed after. */
export async function* onBlob(context, body) {
  const { directory, remove } = context.kept()
  try {
    await fill(directory, context.options.size)
    yield* body(directory)
  } finally {
    remove()
  }
}

/** One of the works on the blob; nothing where its cache cannot be made cold. */
export async function* blobCase(context, directory, { work: name, outstanding }) {
  const work = WORKS[name]
  const params = { outstanding, bytes: work.bytes, cache: work.cache }
  if (work.cache === 'cold' && !dropCache()) {
    yield { skipped: `blob-${name}`, reason: 'the page cache cannot be dropped: that takes root' }
    return
  }
  const { size, seconds } = context.options
  const path = blobFile(directory)
  const prepared = run => {
    prepareCache(work.cache, [path])
    return run()
  }
  const request = { load: 'blob', directory, work: name, size, seconds, outstanding }
  const entrants = await context.blobEntrants(backend => prepared(() => measure({ ...request, backend })))
  if (hasFio()) {
    const limit = async () => fioRate(path, work, { size, seconds, outstanding })
    entrants.push({ name: 'fio', kind: 'limit', measure: () => prepared(limit) })
  }
  if (context.hasPeers)
    entrants.push({ name: 'node:fs', kind: 'peer', measure: () => prepared(() => measure(request)) })
  yield { operation: `blob-${name}`, what: work.what, params, shows: SHOWS, entrants }
}

/** New blobs, each written once and made durable with its name. */
export async function blobCreateCase(context, { outstanding }) {
  const request = { load: 'blob-create', outstanding, bytes: CREATE_BYTES }
  const entrants = await context.blobEntrants(backend => context.lasting({ ...request, backend }))
  if (context.hasPeers)
    entrants.push({ name: 'node:fs', kind: 'peer', measure: () => context.lasting(request) })
  return { operation: 'blob-create', params: { outstanding, bytes: CREATE_BYTES }, shows: SHOWS, entrants }
}

function fioRate(path, work, { size, seconds, outstanding }) {
  const job = fio([
    '--ioengine=io_uring',
    `--filename=${path}`,
    `--offset=${HEADER_BYTES}`,
    `--size=${size}`,
    `--bs=${work.bytes}`,
    `--iodepth=${outstanding}`,
    '--time_based',
    `--runtime=${inMilliseconds(seconds)}`,
    `--ramp_time=${inMilliseconds(WARM_UP_SECONDS)}`,
    '--norandommap',
    '--overwrite=1',
    ...work.fio,
  ])
  return { rate: job.read.iops + job.write.iops }
}

export async function* cases(context) {
  const { works, outstanding } = context.options
  const onOne = works.filter(work => work !== 'create')
  if (onOne.length > 0) {
    yield* onBlob(context, async function* (directory) {
      for (const work of onOne) {
        for (const count of outstanding) yield* blobCase(context, directory, { work, outstanding: count })
      }
    })
  }
  if (works.includes('create')) {
    spawnSync('sync')
    for (const count of outstanding) yield await blobCreateCase(context, { outstanding: count })
  }
}
