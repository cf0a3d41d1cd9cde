/** What this machine can run logs and stores with. */
import { native } from './native.js'

/** What this machine can run logs and stores with, and what to change where it cannot. */
export interface Backends {
  /** Linux's `io_uring`, which `backend: 'auto'` takes where it is available. */
  io_uring: {
    /** Whether it was used for a write, a flush and a read just now. */
    available: boolean
    /** Why it is not available, and what to do about it: for people. */
    reason?: string
    /** The kernel's release; elsewhere than on Linux the system's name. */
    kernel: string
    /** What the kernel's `io_uring` can do beyond what ringbolt needs, by the kernel's own names. */
    features: string[]
  }
  /** A pool of threads, which works everywhere. */
  threads: {
    /** Always. */
    available: true
  }
}

/**
 * Ask this machine what it can run logs and stores with. The kernel is asked each time, by doing it; it takes well
 * under a millisecond, on another thread.
 *
 * @example
 * ```ts
 * import { backends } from 'ringbolt'
 *
 * const { io_uring } = await backends()
 * if (!io_uring.available) console.warn(io_uring.reason)
 * ```
 */
export async function backends(): Promise<Backends> {
  const { reason, ...found } = await native.probeIoUring()
  return {
    io_uring: reason == null ? found : { ...found, reason },
    threads: { available: true },
  }
}
