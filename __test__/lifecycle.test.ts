/** How a log ends: closed, collected, with its worker, with its process. */
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { Wal } from '../src/index.js'
import { caught, child, collect, expectHeldNoMoreThan, held, root, temporary, texts } from './helpers.js'

const bytes = (text: string) => Buffer.from(text)

test('close_answers_every_pending_append_and_gives_the_same_promise_again', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  const promises = Array.from({ length: 5000 }, (_, index) => wal.append(bytes(String(index))))
  const batch = wal.appendBatch([bytes('x'), bytes('y')])
  const last = wal.enqueue(bytes('z'))
  const durable = wal.durable()
  const flushed = wal.flush()
  const closing = wal.close()
  expect(wal.closed).toBe(true)
  expect(wal.close()).toBe(closing)
  expect(wal[Symbol.asyncDispose]()).toBe(closing)
  await closing
  expect((await Promise.all(promises)).at(-1)).toBe(5000)
  expect(await batch).toEqual({ first: 5001, last: 5002 })
  expect(await durable).toBe(last)
  expect(await flushed).toBe(last)
  expect(wal.close()).toBe(closing)
  await using again = await Wal.open(directory)
  expect(again.recovery).toMatchObject({ records: last, cleanShutdown: true })
})

// `RINGBOLT_LONG=1` does so 2,000 times: 18 ms each, most of them in the flushes of opening and closing.
const opens = process.env['RINGBOLT_LONG'] === undefined ? 200 : 2_000

test('opens_and_closes_leave_no_file_no_thread_and_no_memory_behind', async () => {
  const directory = temporary()
  const cycle = async () => {
    const wal = await Wal.open(directory, { segmentBytes: 1024 * 1024 })
    await wal.append(bytes('a'))
    await wal.close()
  }
  const warmUp = opens / 10
  for (let round = 0; round < warmUp; round += 1) await cycle()
  const [before, memory] = [held(), process.memoryUsage().rss]
  for (let round = 0; round < opens; round += 1) await cycle()
  await expectHeldNoMoreThan(before)
  // A few pages for each of them would be seen. What JavaScript's heap does by itself is less.
  expect(process.memoryUsage().rss - memory).toBeLessThan(64 * 1024 * 1024)
  await using wal = await Wal.open(directory)
  expect(wal.recovery.records).toBe(opens + warmUp)
}, 600_000)

test('many_logs_are_open_at_once', async () => {
  const directory = temporary()
  const wals = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      Wal.open(join(directory, String(index)), { segmentBytes: 1024 * 1024 }),
    ),
  )
  await Promise.all(wals.flatMap(wal => Array.from({ length: 50 }, () => wal.append(bytes('a')))))
  expect(wals.map(wal => wal.durableLsn)).toEqual(wals.map(() => 50))
  await Promise.all(wals.map(wal => wal.close()))
})

test('an_idle_log_does_not_keep_the_process_alive_and_is_closed_by_its_end', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `
    const wal = await Wal.open(directory)
    await wal.append(Buffer.from('a'))
    await wal.append(Buffer.from('b'), { ack: 'written' })
    globalThis.wal = wal`,
  )
  expect(ended).toMatchObject({ code: 0, signal: null, stderr: '' })
  await using wal = await Wal.open(directory)
  expect(wal.recovery).toMatchObject({ records: 2, cleanShutdown: true })
})

test.each([
  ['open', `Wal.open(directory).then(wal => { globalThis.wal = wal; console.log('settled') })`],
  [
    'append',
    `const wal = await Wal.open(directory); wal.append(Buffer.from('a')).then(() => console.log('settled'))`,
  ],
  [
    'written',
    `const wal = await Wal.open(directory); wal.append(Buffer.from('a'), { ack: 'written' }).then(() => console.log('settled'))`,
  ],
  ['flush', `const wal = await Wal.open(directory); wal.flush().then(() => console.log('settled'))`],
  [
    'durable',
    `const wal = await Wal.open(directory); wal.enqueue(Buffer.from('a')); wal.durable().then(() => console.log('settled'))`,
  ],
  [
    'drained',
    `const wal = await Wal.open(directory, { queueBytesMax: 10 }); wal.enqueue(Buffer.alloc(100)); wal.drained().then(() => console.log('settled'))`,
  ],
  [
    'appendBatch',
    `const wal = await Wal.open(directory); wal.appendBatch([Buffer.from('a')]).then(() => console.log('settled'))`,
  ],
  ['close', `const wal = await Wal.open(directory); wal.close().then(() => console.log('settled'))`],
  [
    'read',
    `const wal = await Wal.open(directory); await wal.append(Buffer.from('a')); wal.read().next().then(() => console.log('settled'))`,
  ],
])('a pending %s keeps the process alive until it settles', async (_, body) => {
  const ended = await child(temporary(), body)
  expect(ended).toMatchObject({ code: 0, stdout: 'settled\n', stderr: '' })
})

test('an_enqueued_record_is_a_pending_call_until_it_is_written', async () => {
  const directory = temporary()
  const ended = await child(
    directory,
    `
    const wal = await Wal.open(directory)
    for (let index = 0; index < 10000; index += 1) wal.enqueue(Buffer.from('a'))`,
  )
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  await using wal = await Wal.open(directory)
  expect(wal.recovery.records).toBe(10_000)
})

test('a_program_that_stops_the_clock_does_not_stop_its_appends', async () => {
  const ended = await child(
    temporary(),
    `
    const timers = process.getBuiltinModule('node:timers')
    for (const name of ['setImmediate', 'setInterval', 'setTimeout']) globalThis[name] = timers[name] = () => {}
    const wal = await Wal.open(directory)
    for (let index = 0; index < 3; index += 1) console.log(await wal.append(Buffer.from('a')))
    await wal.close()`,
    [],
    30_000,
  )
  expect(ended).toMatchObject({ code: 0, stdout: '1\n2\n3\n', stderr: '' })
})

test('nor_does_one_that_stopped_it_before_it_loaded_the_package', async () => {
  // As @sinonjs/fake-timers does it. The loop is held by somebody else: nothing here can.
  const stopped = `
    const timers = process.getBuiltinModule('node:timers')
    const held = setInterval(() => {}, 1000)
    globalThis.letGo = () => held.unref()
    for (const name of ['setImmediate', 'setInterval'])
      globalThis[name] = timers[name] = Object.assign(() => ({ ref() {}, unref() {} }), { clock: {} })`
  const ended = await child(
    temporary(),
    `
    const wal = await Wal.open(directory)
    for (let index = 0; index < 3; index += 1) console.log(await wal.append(Buffer.from('a')))
    await wal.close()
    letGo()`,
    ['--import', `data:text/javascript,${encodeURIComponent(stopped)}`],
    30_000,
  )
  expect(ended).toMatchObject({ code: 0, stdout: '1\n2\n3\n', stderr: '' })
})

test('a_suspended_read_does_not_keep_the_process_alive', async () => {
  const ended = await child(
    temporary(),
    `
    const wal = await Wal.open(directory)
    await Promise.all(Array.from({ length: 10000 }, () => wal.append(Buffer.alloc(100))))
    globalThis.reading = wal.read()
    await reading.next()
    console.log('first')`,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'first\n', stderr: '' })
})

test('exit_with_work_in_flight_neither_hangs_nor_crashes_nor_loses', async () => {
  const directory = temporary()
  for (let round = 1; round <= 5; round += 1) {
    const ended = await child(
      directory,
      `
      const wal = await Wal.open(directory, { lockTimeoutMs: 60_000 })
      let acknowledged = wal.lastLsn
      process.on('exit', () => process.stdout.write(String(acknowledged)))
      for (let index = 0; index < 20000; index += 1) wal.append(Buffer.alloc(200)).then(lsn => {
        acknowledged = lsn
        if (index === 500) process.exit(7)
      })`,
    )
    expect(ended).toMatchObject({ code: 7, signal: null, stderr: '' })
    await using wal = await Wal.open(directory, { lockTimeoutMs: 60_000 })
    expect(wal.lastLsn).toBeGreaterThanOrEqual(Number(ended.stdout))
  }
})

test('a_terminated_worker_leaves_its_log_to_be_opened_at_once', async () => {
  const directory = temporary()
  for (let round = 1; round <= 10; round += 1) {
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads')
      import(workerData.module).then(async ({ Wal }) => {
        const wal = await Wal.open(workerData.directory, { lockTimeoutMs: 0 })
        for (;;) {
          const lsns = await Promise.all(Array.from({ length: 500 }, () => wal.append(Buffer.alloc(300))))
          parentPort.postMessage(lsns.at(-1))
        }
      })`,
      { eval: true, workerData: { directory, module: join(root, 'dist', 'index.js') } },
    )
    let acknowledged = 0
    await new Promise<void>((resolve, reject) => {
      worker.on('error', reject)
      worker.on('message', (lsn: number) => {
        acknowledged = lsn
        resolve()
      })
    })
    await worker.terminate()
    // The lock is free the moment the worker is gone, and everything it handed over is there.
    await using wal = await Wal.open(directory, { lockTimeoutMs: 0 })
    expect(wal.recovery.cleanShutdown).toBe(true)
    expect(wal.lastLsn).toBeGreaterThanOrEqual(acknowledged)
  }
})

test('a_worker_that_ends_by_itself_closes_its_log', async () => {
  const directory = temporary()
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads')
    import(workerData.module).then(async ({ Wal }) => {
      globalThis.wal = await Wal.open(workerData.directory)
      await wal.append(Buffer.from('a'))
      for await (const _ of wal.read()) break
    })`,
    { eval: true, workerData: { directory, module: join(root, 'dist', 'index.js') } },
  )
  expect(await new Promise(resolve => worker.once('exit', resolve))).toBe(0)
  await using wal = await Wal.open(directory, { lockTimeoutMs: 0 })
  expect(wal.recovery).toMatchObject({ records: 1, cleanShutdown: true })
})

test('a_collected_log_is_closed_then_with_one_warning', async () => {
  const ended = await child(
    temporary(),
    `
    const turn = () => new Promise(resolve => setTimeout(resolve, 10))
    async function drop(directory) {
      // What a caller's function closes over is the caller's: it must not keep the log.
      const wal = await Wal.open(directory, { onProgress: () => wal, signal: new AbortController().signal })
      await wal.append(Buffer.from('a'))
    }
    let warnings = 0
    process.on('warning', warning => { warnings += 1; console.log(warning.code) })
    for (const name of ['/one', '/two']) {
      await drop(directory + name)
      for (let tries = 0; ; tries += 1) {
        globalThis.gc()
        await turn()
        try {
          await (await Wal.open(directory + name, { lockTimeoutMs: 0 })).close()
          break
        } catch (error) {
          if (error.code !== 'ERR_WAL_LOCKED' || tries > 500) throw error
        }
      }
    }
    console.log(warnings)`,
    ['--expose-gc'],
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'RINGBOLT_WAL_COLLECTED\n1\n' })
  expect(ended.stderr).toContain('garbage collected without close()')
})

test('promises_of_a_collected_log_settle_all_the_same', async () => {
  const ended = await child(
    temporary(),
    `
    const promises = await (async () => {
      const wal = await Wal.open(directory)
      return Array.from({ length: 1000 }, () => wal.append(Buffer.alloc(1000)))
    })()
    globalThis.gc()
    console.log((await Promise.all(promises)).at(-1))`,
    ['--expose-gc', '--no-warnings'],
  )
  expect(ended).toMatchObject({ code: 0, stdout: '1000\n' })
})

test('a_closed_log_that_is_collected_warns_nobody', async () => {
  const ended = await child(
    temporary(),
    `
    await (async () => { await (await Wal.open(directory)).close() })()
    for (let round = 0; round < 20; round += 1) { globalThis.gc(); await new Promise(resolve => setTimeout(resolve, 5)) }`,
    ['--expose-gc'],
  )
  expect(ended).toMatchObject({ code: 0, stderr: '' })
})

test('require_works_too', async () => {
  const ended = await child(
    temporary(),
    `
    const { createRequire } = await import('node:module')
    const ringbolt = createRequire(process.cwd() + '/')('ringbolt')
    console.log(ringbolt.Wal === Wal)`,
  )
  expect(ended.stdout).toBe('true\n')
})

test('an_open_that_failed_holds_nothing', async () => {
  const directory = temporary()
  const wal = await Wal.open(directory)
  const errors = await Promise.all(
    Array.from({ length: 5 }, () => caught(Wal.open(directory, { lockTimeoutMs: 20 }))),
  )
  expect(errors.map(error => error.code)).toEqual(errors.map(() => 'ERR_WAL_LOCKED'))
  await wal.append(bytes('a'))
  await wal.close()
  await using again = await Wal.open(directory, { lockTimeoutMs: 0 })
  expect(await texts(again.read())).toEqual(['a'])
  expect(await collect(again.read({ from: 2 }))).toEqual([])
})

test('process_exit_waits_for_no_disk', async () => {
  const directory = temporary()
  // Goal: exit() ends the process, whatever is queued, and loses nothing acknowledged. Method: exit in the very
  // tick that queues more than a disk takes in it; the log's own word that it was not closed.
  const ended = await child(
    directory,
    `
    const wal = await Wal.open(directory, { queueBytesMax: 2 ** 30 })
    console.log(await wal.append(Buffer.from('a')))
    const record = Buffer.alloc(2 ** 20)
    for (let index = 0; index < 400; index += 1) wal.enqueue(record)
    process.exit(0)`,
  )
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: '1\n', stderr: '' })
  await using wal = await Wal.open(directory, { lockTimeoutMs: 60_000 })
  expect(wal.recovery.cleanShutdown).toBe(false)
  expect(wal.lastLsn).toBeGreaterThanOrEqual(1)
})

test('reading_that_began_goes_on_over_a_close', async () => {
  const ended = await child(
    temporary(),
    `
    const { pbkdf2 } = await import('node:crypto')
    const wal = await Wal.open(directory)
    await wal.append(Buffer.from('a'))
    // The one thread of the pool is busy, so that nothing of the reading is done before the log has ended.
    process.env.UV_THREADPOOL_SIZE = '1'
    pbkdf2('a', 'b', 300_000, 32, 'sha256', () => {})
    const reading = wal.read().next()
    await wal.close()
    console.log(String((await reading).value.data))`,
  )
  expect(ended).toMatchObject({ code: 0, stdout: 'a\n', stderr: '' })
})
