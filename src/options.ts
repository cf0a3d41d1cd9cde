/**
 * Options and other arguments: what may be given, what is the default, and what is said about anything else.
 */
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { invalidArgType, outOfRange } from './argument-errors.js'

/** When a promise of `append` resolves: `'durable'` once a power cut cannot take it, `'written'` once a crash of the process cannot. */
export type Ack = 'durable' | 'written'

/** What runs a log or a store of blobs. */
export type Backend = 'io_uring' | 'threads'

/** How to open a log. Each is optional. */
export interface WalOptions {
  /**
   * What runs the log. `'auto'` takes `'io_uring'` where it can be had, else `'threads'`, and says why
   * (`backendReason`). A named backend is honoured or refused (`ERR_BACKEND_UNAVAILABLE`). The environment variable
   * `RINGBOLT_BACKEND` is stronger than this.
   *
   * @defaultValue `'auto'`
   */
  backend?: 'auto' | Backend
  /**
   * What an append without an `ack` of its own waits for.
   *
   * @defaultValue `'durable'`
   */
  ack?: Ack
  /**
   * Make a log, and missing parent directories, where there is none. If false: `ERR_WAL_NOT_FOUND`.
   *
   * @defaultValue `true`
   */
  create?: boolean
  /**
   * Size in bytes of segments made from now on: 1 MiB to 1 GiB, a multiple of 4096. A record is at most a quarter
   * of it, a batch about half.
   *
   * @defaultValue 64 MiB
   */
  segmentBytes?: number
  /**
   * Bound on the bytes of records accepted and not yet written, 1 or more: beyond it appends reject with
   * `ERR_WAL_QUEUE_FULL`. A single record above it is taken when the queue is empty; an empty record counts as one
   * byte.
   *
   * @defaultValue 64 MiB
   */
  queueBytesMax?: number
  /**
   * How batches become durable: by writes that carry their own durability (`'dsync'`), by `'fdatasync'`, or by
   * what suits the device.
   *
   * @defaultValue `'auto'`
   */
  sync?: 'auto' | 'dsync' | 'fdatasync'
  /**
   * Write past the page cache, where the file system takes that.
   *
   * @defaultValue `true`
   */
  directIo?: boolean
  /**
   * How long to retry for the lock of a log that somebody else has open, in milliseconds.
   *
   * @defaultValue 250
   */
  lockTimeoutMs?: number
  /**
   * How much open verifies: the part that may have been in flight (`'tail'`), or every byte (`'all'`). Every read
   * checks what it reads.
   *
   * @defaultValue `'tail'`
   */
  check?: 'tail' | 'all'
  /**
   * Records acknowledged as written are durable within this, in milliseconds, 1 or more.
   *
   * @defaultValue 1000
   */
  syncIntervalMs?: number
  /**
   * Permission bits of the files made, the umask applied; directories get the matching x bits.
   *
   * @defaultValue `0o600`
   */
  fileMode?: number
  /** Is told how far a long recovery has come, each time it has read some 16 MiB more. */
  onProgress?: (progress: Progress) => void
  /** Gives up waiting for open: the promise rejects with `signal.reason`, and the log is closed once it is open. */
  signal?: AbortSignal
}

/** How to open a key-value log. Each is optional; those it shares with {@link WalOptions} mean the same. */
export interface KeyValueWalOptions extends Omit<WalOptions, 'segmentBytes' | 'directIo'> {
  /**
   * Size in bytes above which the log goes on in a new file: 4096 to 1 GiB. An entry is never split, so a file may be
   * larger by one.
   *
   * @defaultValue 64 MiB
   */
  fileBytesMax?: number
  /**
   * What sequences a file may have: each one more than the one before (`'strict'`: anything else is damage), or any,
   * as amaters' ring writer takes them from its caller.
   *
   * @defaultValue `'strict'`
   */
  sequences?: Sequences
}

/** What is asked of the sequences in a key-value log's files. */
export type Sequences = 'strict' | 'any'

/** How to check or to salvage a whole log. */
export interface WholeOptions {
  /** Gives up: the promise rejects with `signal.reason`. */
  signal?: AbortSignal
  /** Is told, a few times a second, how far it has come. */
  onProgress?: (progress: Progress) => void
}

/** How far something long has come. */
export interface Progress {
  /** Bytes done. */
  bytes: number
  /** Bytes there are to do. */
  totalBytes: number
}

/** Which records to read. */
export interface ReadOptions {
  /** The first LSN to read; the oldest kept, where it is left out. */
  from?: number | bigint
  /** The last LSN to read, inclusive; the newest durable one, where it is left out. Below `from`: nothing is read. */
  to?: number | bigint
  /**
   * Go on as more records become durable, up to `to`; end at `close()`, after the last one.
   *
   * @defaultValue false
   */
  follow?: boolean
  /** Ends the reading: the wait rejects with `signal.reason`. */
  signal?: AbortSignal
}

/** Options of one append. */
export interface AppendOptions {
  /** What to wait for, where it is not the log's own `ack`. */
  ack?: Ack
}

const MiB = 1024 * 1024
const grain = 4096

/** The longest a timer or a lock can be told to wait, in milliseconds: about 24 days, as in Node. */
export const millisecondsMax: number = 2 ** 31 - 1

/** Which of the two formats a log's files have. */
export type Format = 'segments' | 'entries'

/** What a log's numbers count from: LSNs from 1, sequences from 0. */
export const firstNumberOf = (format: Format): 0 | 1 => (format === 'entries' ? 0 : 1)

/** Options with nothing left out. */
export interface OpenRequest {
  readonly directory: string
  readonly backend: 'auto' | Backend
  readonly format: Format
  /** Of a key-value log. */
  readonly sequences: Sequences
  readonly ack: Ack
  readonly create: boolean
  /** Refuse a log that is there already. */
  readonly createOnly: boolean
  /** Of a key-value log: the size above which it goes on in a new file. */
  readonly segmentBytes: number
  readonly queueBytesMax: number
  readonly sync: 'auto' | 'dsync' | 'fdatasync'
  readonly directIo: boolean
  readonly lockTimeoutMs: number
  readonly check: 'tail' | 'all'
  readonly syncIntervalMs: number
  readonly fileMode: number
  readonly onProgress: ((progress: Progress) => void) | undefined
  readonly signal: AbortSignal | undefined
}

/** Check the arguments of open and fill in the defaults. */
export function openRequest(directory: unknown, options: unknown): OpenRequest {
  const path = directoryOf(directory)
  const given = objectOf<keyof WalOptions>('options', options)
  const segmentBytes = integerOf('options.segmentBytes', given.segmentBytes, MiB, 1024 * MiB, 64 * MiB)
  if (segmentBytes % grain !== 0)
    throw outOfRange('options.segmentBytes', `a multiple of ${grain}`, segmentBytes)
  const directIo = booleanOf('options.directIo', given.directIo, true)
  return { ...commonRequest(path, given), format: 'segments', sequences: 'strict', segmentBytes, directIo }
}

/** The same for a key-value log. */
export function openKeyValueRequest(directory: unknown, options: unknown): OpenRequest {
  const path = directoryOf(directory)
  const given = objectOf<keyof KeyValueWalOptions>('options', options)
  const fileBytesMax = integerOf('options.fileBytesMax', given.fileBytesMax, grain, 1024 * MiB, 64 * MiB)
  const sequences = sequencesOf(options)
  // Entries share blocks, which only the page cache can write.
  const own = { format: 'entries', sequences, segmentBytes: fileBytesMax, directIo: false } as const
  return { ...commonRequest(path, given), ...own }
}

/** The `sequences` among the options of a call about a key-value log. */
export function sequencesOf(options: unknown): Sequences {
  const { sequences } = objectOf<'sequences'>('options', options)
  return oneOf('options.sequences', sequences, ['strict', 'any'], 'strict')
}

type Common = Omit<OpenRequest, 'format' | 'sequences' | 'segmentBytes' | 'directIo'>

function commonRequest(directory: string, given: Given<keyof WalOptions>): Common {
  return {
    directory,
    backend: backendOf(given.backend),
    createOnly: false,
    ack: ackOf('options.ack', given.ack, 'durable'),
    create: booleanOf('options.create', given.create, true),
    queueBytesMax: integerOf(
      'options.queueBytesMax',
      given.queueBytesMax,
      1,
      Number.MAX_SAFE_INTEGER,
      64 * MiB,
    ),
    sync: oneOf('options.sync', given.sync, ['auto', 'dsync', 'fdatasync'], 'auto'),
    lockTimeoutMs: integerOf('options.lockTimeoutMs', given.lockTimeoutMs, 0, millisecondsMax, 250),
    check: oneOf('options.check', given.check, ['tail', 'all'], 'tail'),
    syncIntervalMs: integerOf('options.syncIntervalMs', given.syncIntervalMs, 1, millisecondsMax, 1000),
    fileMode: integerOf('options.fileMode', given.fileMode, 0, 0o777, 0o600),
    onProgress: functionOf('options.onProgress', given.onProgress),
    signal: signalOf('options.signal', given.signal),
  }
}

/** Which backend is wanted: what the environment says, else the option. */
export function backendOf(option: unknown): 'auto' | Backend {
  const wanted = oneOf('options.backend', option, ['auto', 'io_uring', 'threads'], 'auto')
  // Empty is how a variable is unset where it cannot be removed.
  const stronger = process.env['RINGBOLT_BACKEND'] || undefined
  return oneOf('process.env.RINGBOLT_BACKEND', stronger, ['auto', 'io_uring', 'threads'], wanted)
}

/** Which records to read, checked. `undefined` stands for the oldest kept and the newest durable one. */
export interface ReadRequest {
  readonly from: number | undefined
  readonly to: number | undefined
  readonly follow: boolean
  readonly signal: AbortSignal | undefined
}

/** Check the arguments of read. */
export function readRequest(options: unknown): ReadRequest {
  const given = objectOf<keyof ReadOptions>('options', options)
  return {
    from: given.from === undefined ? undefined : lsnOf('options.from', given.from),
    to: given.to === undefined ? undefined : lsnOf('options.to', given.to),
    follow: booleanOf('options.follow', given.follow, false),
    signal: signalOf('options.signal', given.signal),
  }
}

/** The options of a call that looks at a whole log, checked. */
export interface WholeRequest {
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: Progress) => void) | undefined
}

/** Check the options of such a call. */
export function wholeRequest(options: unknown): WholeRequest {
  const given = objectOf<keyof WholeOptions>('options', options)
  return {
    signal: signalOf('options.signal', given.signal),
    onProgress: functionOf('options.onProgress', given.onProgress),
  }
}

/** The `ack` among the options of an append. */
export function appendAck(options: unknown, fallback: Ack): Ack {
  return ackOf('options.ack', objectOf<'ack'>('options', options).ack, fallback)
}

/** A whole number of 0 or more, given as a number or a bigint. */
export function lsnOf(name: string, value: unknown): number {
  if (typeof value === 'bigint') {
    if (value >= 0n && value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value)
    throw outOfRange(name, `>= 0 and <= ${Number.MAX_SAFE_INTEGER}`, value)
  }
  return integerOf(name, value, 0, Number.MAX_SAFE_INTEGER, 0)
}

function ackOf(name: string, value: unknown, fallback: Ack): Ack {
  return oneOf(name, value, ['durable', 'written'], fallback)
}

/** An absolute path. */
export function directoryOf(value: unknown, name = 'directory'): string {
  if (value instanceof URL) {
    if (value.protocol !== 'file:') throw outOfRange(name, 'a path or a file: URL', value.href)
    return directoryOf(fileURLToPath(value), name)
  }
  if (typeof value !== 'string') throw invalidArgType(name, 'of type string or an instance of URL', value)
  // The kernel ends a path at a zero byte: it would name something else.
  if (value === '' || value.includes('\0'))
    throw outOfRange(name, 'a path that is not empty and has no zero byte', value)
  return resolve(value)
}

/** An object that may have these properties, of whatever type. */
export type Given<K extends string> = { readonly [key in K]?: unknown }

/** An object, or nothing. */
export function objectOf<K extends string>(name: string, value: unknown): Given<K> {
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null) throw invalidArgType(name, 'of type object', value)
  return value
}

/** One of these words. */
export function oneOf<const T extends string>(
  name: string,
  value: unknown,
  allowed: readonly T[],
  fallback: T,
): T {
  if (value === undefined) return fallback
  if (typeof value !== 'string') throw invalidArgType(name, 'of type string', value)
  if (!(allowed as readonly string[]).includes(value)) {
    throw outOfRange(name, `one of ${allowed.map(word => `'${word}'`).join(', ')}`, value)
  }
  return value as T
}

/** `true` or `false`. */
export function booleanOf(name: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback
  if (typeof value !== 'boolean') throw invalidArgType(name, 'of type boolean', value)
  return value
}

/** A whole number from `least` to `most`. */
export function integerOf(
  name: string,
  value: unknown,
  least: number,
  most: number,
  fallback: number,
): number {
  if (value === undefined) return fallback
  if (typeof value !== 'number') throw invalidArgType(name, 'of type number', value)
  if (!Number.isSafeInteger(value)) throw outOfRange(name, 'an integer', value)
  if (value < least || value > most) throw outOfRange(name, `>= ${least} and <= ${most}`, value)
  return value
}

function functionOf<F extends (...args: never) => void>(name: string, value: unknown): F | undefined {
  if (value !== undefined && typeof value !== 'function')
    throw invalidArgType(name, 'of type function', value)
  return value as F | undefined
}

/** An `AbortSignal`, or what looks like one. */
export function signalOf(name: string, value: unknown): AbortSignal | undefined {
  if (value === undefined) return undefined
  // By shape, as Node does: a signal of another realm or a polyfill is a signal.
  const { aborted, addEventListener, removeEventListener } = Object(value) as Partial<AbortSignal>
  const isSignal =
    typeof aborted === 'boolean' &&
    typeof addEventListener === 'function' &&
    typeof removeEventListener === 'function'
  if (!isSignal) {
    throw invalidArgType(name, 'an instance of AbortSignal', value)
  }
  return value as AbortSignal
}

/** The signal's own `throwIfAborted`, which a polyfill need not have. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw signal.reason
}
