/**
 * Loads the native part and types it. The only file that imports the binding.
 */
import { createRequire } from 'node:module'
import type * as binding from '#binding'
import { BackendError } from './errors.js'

export type {
  NativeBlobAnswer,
  NativeBlobStats,
  NativeExtent,
  NativeOpened,
  NativeReader,
  NativeReport,
  NativeSegment,
  NativeWalStats,
} from '#binding'

/** The targets that builds are made for, by the names of their packages: package.json's, as napi calls them. */
export const supported: readonly string[] = [
  'linux-x64-gnu',
  'linux-arm64-gnu',
  'linux-x64-musl',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64-msvc',
  'win32-arm64-msvc',
]

/** What this machine's build would be called. */
function target(): string {
  const { platform, arch } = process
  if (platform !== 'linux') return platform === 'win32' ? `${platform}-${arch}-msvc` : `${platform}-${arch}`
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  return `${platform}-${arch}-${header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'}`
}

// Required, not imported: a failing import could not be caught without making this module asynchronous, and then
// `require('ringbolt')` would not work.
const require = createRequire(import.meta.url)

function load(): typeof binding {
  try {
    return require('#binding')
  } catch (cause) {
    throw unavailable(target(), cause)
  }
}

/** There is no native part. `cause` is the loader's, which tried every place a build could be in: the least likely first. */
function unavailable(here: string, cause: unknown): BackendError {
  const name = `@ringbolt/binding-${here}`
  if (!supported.includes(here)) {
    const message = `ringbolt has no native part for ${here}: there are builds for ${supported.join(', ')}`
    return new BackendError('ERR_BACKEND_UNAVAILABLE', message, { reason: `no build for ${here}`, cause })
  }
  const doing = `ringbolt's native part for ${here} could not be loaded`
  const reason = refusalOf(name)
  if (reason !== undefined) {
    const message = `${doing}: the package ${name} is installed and does not load (${reason}): install it anew, on the machine that runs it`
    return new BackendError('ERR_BACKEND_UNAVAILABLE', message, { reason, cause })
  }
  const message =
    `${doing}. It is the package ${name}, an optional dependency: install without \`--omit=optional\`, on the machine that ` +
    'runs it (a node_modules or a lockfile made on another platform lacks it); in a clone, `npm run build` makes it'
  return new BackendError('ERR_BACKEND_UNAVAILABLE', message, { reason: `${name} is not installed`, cause })
}

/** Why a package does not load that is there; `undefined` where it is not. */
function refusalOf(name: string): string | undefined {
  try {
    require.resolve(`${name}/package.json`)
  } catch {
    return undefined
  }
  try {
    require(name)
  } catch (error) {
    return String((error as Error).message).split('\n', 1)[0]
  }
  return 'the loader passed it over: see `cause`'
}

export const native: typeof binding = load()

/** Places in the array that `native.poll` fills. */
export const Status = {
  phase: 0,
  ended: 1,
  writtenLsn: 2,
  durableLsn: 3,
  bytesWritten: 4,
  flushesDone: 5,
  epoch: 6,
  recoveryBytes: 7,
  recoveryBytesTotal: 8,
  firstLsn: 9,
  answers: 10,
} as const

/** Values of {@link Status.phase}. */
export const Phase = { opening: 0, open: 1, failed: 2, closed: 3 } as const
