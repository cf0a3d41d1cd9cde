/** What runs a log or a store, where the kernel lets io_uring be used and where it refuses. */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, type TestContext, test, vi } from 'vitest'
import { BlobStore, backends, KeyValueWal, Wal } from '../src/index.js'
import { asNobody, Child } from './children.js'
import { has } from './disks.js'
import { ioUring, refusing } from './forbidden.js'
import { lacks, temporary } from './helpers.js'

// The tests themselves may run with a backend that the environment chose.
beforeEach(() => void vi.stubEnv('RINGBOLT_BACKEND', ''))
afterEach(() => void vi.unstubAllEnvs())

/** Where the whole run may not use io_uring (in a container), there is nothing to compare with. */
async function needsRing(context: TestContext): Promise<void> {
  const { io_uring } = await backends()
  if (!io_uring.available) lacks(context, 'io_uring', `${io_uring.reason}`)
}

/** Whether this build of ringbolt has no use for io_uring, whatever the kernel lets it do. */
const isWithoutRing = (await backends()).io_uring.reason?.includes('this build') ?? false

/** Each service, by what opens it. */
const opened = [
  ['Wal', (backend: 'auto' | 'io_uring' | 'threads') => Wal.open(temporary(), { backend })],
  ['KeyValueWal', (backend: 'auto' | 'io_uring' | 'threads') => KeyValueWal.open(temporary(), { backend })],
  ['BlobStore', (backend: 'auto' | 'io_uring' | 'threads') => BlobStore.open(temporary(), { backend })],
] as const

test.for(opened)(
  '%s runs on the backend that is named, and on io_uring unless told',
  async ([, open], context) => {
    await needsRing(context)
    for (const [asked, had] of [
      ['threads', 'threads'],
      ['io_uring', 'io_uring'],
      ['auto', 'io_uring'],
    ] as const) {
      await using service = await open(asked)
      expect([service.backend, service.backendReason]).toEqual([had, undefined])
    }
  },
)

test.for(opened)('the environment decides for %s', async ([, open]) => {
  vi.stubEnv('RINGBOLT_BACKEND', 'threads')
  await using service = await open('io_uring')
  expect(service.backend).toBe('threads')
})

test('backends_tells_what_there_is', async context => {
  await needsRing(context)
  const { io_uring, threads } = await backends()
  expect(threads).toEqual({ available: true })
  expect(io_uring).toEqual({ available: true, kernel: release(), features: expect.any(Array) })
  for (const feature of io_uring.features) expect(feature).toMatch(/^[a-z_]+$/)
  // As often as one likes, at once too.
  const all = await Promise.all(Array.from({ length: 50 }, backends))
  for (const found of all) expect(found.io_uring).toEqual(io_uring)
})

/** Tells what the backends say, what `auto` comes to and whether it works, and what `io_uring` answers. */
const asking = `
const { backends, KeyValueWal } = await import('ringbolt')
tell(await backends())
const wal = await Wal.open(directory + '/log')
await Promise.all(Array.from({ length: 500 }, (_, index) => wal.append(Buffer.from(String(index)))))
const store = await BlobStore.open(directory + '/store')
const blob = await store.open('partition', 'blob')
await blob.write(0, Buffer.from('text'), { sync: true })
const text = Buffer.from(await blob.read(0, 4, { dontCache: true })).toString()
const entries = await KeyValueWal.open(directory + '/entries')
await entries.put(Buffer.from('key'), Buffer.from('value'))
tell([wal, store, entries].map(({ backend, backendReason }) => [backend, backendReason]))
tell([wal.durableLsn, text, entries.durableSequence])
await Promise.all([wal.close(), store.close(), entries.close()])
const asked = { backend: 'io_uring' }
tell(await Promise.all([
  failure(Wal.open(directory + '/refused', asked)),
  failure(BlobStore.open(directory + '/refused', asked)),
  failure(KeyValueWal.open(directory + '/refused', asked)),
]))
const usage = process.cpuUsage()
await new Promise(resolve => setTimeout(resolve, 300))
const { user, system } = process.cpuUsage(usage)
tell((user + system) / 1000)
const named = await Wal.open(directory + '/log', { backend: 'threads' })
tell(named.lastLsn)
await named.close()
`

const refusals = [
  ['EPERM', 'setup', 1, /seccomp|io_uring_disabled/],
  ['ENOSYS', 'setup', 38, /kernel|seccomp/],
  ['ENOMEM', 'setup', 12, /memory/],
  ['EPERM', 'enter', 1, /seccomp/],
  ['ENOSYS', 'enter', 38, /kernel|seccomp/],
  ['ENOMEM', 'enter', 12, /memory/],
  ['EPERM', 'register', 1, /seccomp/],
  ['ENOSYS', 'register', 38, /kernel|seccomp/],
  ['ENOMEM', 'register', 12, /memory/],
] as const

test.skipIf(isWithoutRing).for(refusals)(
  'where %s is the answer to io_uring_%s auto works and says why, and io_uring is refused',
  async ([error, call, errno, advice], context) => {
    // Who may not set a ring up does not come to the other calls.
    if (call !== 'setup') await needsRing(context)
    const directory = temporary()
    vi.stubEnv('RINGBOLT_BACKEND', undefined)
    // From Node 22 on libuv has a ring of its own, and ends the process where it was let set it up and may not enter it.
    const [program, ...rest] = [...refusing(context, error, ioUring[call]), process.execPath]
    const alone = spawnSync(program as string, [
      ...rest,
      '--eval',
      `require('node:net').createServer().listen(0).unref()`,
    ])
    if (alone.status !== 0) context.skip(`Node itself does not run there: ${alone.stderr}`)
    const child = new Child(directory, asking, refusing(context, error, ioUring[call]))
    const found = await child.next()
    const why = expect.stringMatching(advice)
    expect(found).toEqual({
      io_uring: { available: false, kernel: release(), features: [], reason: why },
      threads: { available: true },
    })
    expect(found.io_uring.reason).toContain(`io_uring_${call}`)
    expect(await child.next()).toEqual(Array.from({ length: 3 }, () => ['threads', why]))
    expect(await child.next()).toEqual([500, 'text', 0])
    const refused = {
      name: 'BackendError',
      code: 'ERR_BACKEND_UNAVAILABLE',
      errno: -errno,
      syscall: `io_uring_${call}`,
    }
    expect(await child.next()).toMatchObject([refused, refused, refused])
    expect(existsSync(join(directory, 'refused'))).toBe(false)
    // Nothing spins: of 300 ms of idling.
    expect(await child.next()).toBeLessThan(150)
    expect(await child.next()).toBe(500)
    expect(await child.end()).toBe(0)
  },
)

test('an_ordinary_user_without_locked_memory_has_a_backend_that_works', async context => {
  await needsRing(context)
  const { directory, through } = asNobody(context)
  if (!has('prlimit')) lacks(context, 'limits', 'prlimit is missing')
  chmodSync(directory, 0o777)
  vi.stubEnv('RINGBOLT_BACKEND', undefined)
  // Whether a ring counts as locked memory is the kernel's matter: since 5.12 that of io_uring does not.
  const child = new Child(directory, asking, ['prlimit', '--memlock=0:0', '--', ...through])
  const { io_uring } = await child.next()
  const backend = io_uring.available ? 'io_uring' : 'threads'
  for (const [name, reason] of await child.next()) {
    expect(name).toBe(backend)
    if (!io_uring.available) expect(reason).toMatch(/RLIMIT_MEMLOCK/)
  }
  expect(await child.next()).toEqual([500, 'text', 0])
  for (const error of await child.next()) expect(error === null).toBe(io_uring.available)
  expect(await child.next()).toBeLessThan(150)
  expect(await child.next()).toBe(500)
  expect(await child.end()).toBe(0)
})

test.runIf(isWithoutRing).for(opened)('%s runs on threads in a build without the ring', async ([, open]) => {
  const { io_uring, threads } = await backends()
  expect(threads).toEqual({ available: true })
  expect(io_uring).toEqual({
    available: false,
    kernel: release(),
    features: [],
    reason: expect.stringContaining('this build of ringbolt has no io_uring'),
  })
  await using service = await open('auto')
  expect([service.backend, service.backendReason]).toEqual(['threads', io_uring.reason])
  await expect(open('io_uring')).rejects.toMatchObject({
    code: 'ERR_BACKEND_UNAVAILABLE',
    syscall: 'io_uring_setup',
    message: expect.stringContaining('this build of ringbolt has no io_uring'),
  })
})
