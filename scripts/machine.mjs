/** What a number was measured on. A figure without it means nothing. */

import { readFileSync, realpathSync } from 'node:fs'
import os from 'node:os'

function readOrUndefined(path) {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}

/**
 * The file system a directory is on, and what the device below says about its write cache, as far as Linux tells.
 * On tmpfs nothing outlives the power, however often it is flushed.
 */
export function diskOf(directory) {
  const path = realpathSync(directory)
  let best
  for (const line of (readOrUndefined('/proc/self/mountinfo') ?? '').split('\n')) {
    // id parent major:minor root mountpoint options … - type source options
    const [before, after] = line.split(' - ')
    if (after === undefined) continue
    const fields = before.split(' ')
    const mountPoint = fields[4].replace(/\\(\d{3})/g, (_, octal) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    )
    const holds =
      path === mountPoint || path.startsWith(mountPoint.endsWith('/') ? mountPoint : `${mountPoint}/`)
    // Of equal length the later one counts: it is mounted over the earlier.
    if (holds && mountPoint.length >= (best?.mountPoint.length ?? 0)) {
      best = { mountPoint, device: fields[2], fileSystem: after.split(' ')[0] }
    }
  }
  if (best === undefined) return { fileSystem: 'unknown' }
  // A partition has no queue of its own: its disk's is one up.
  const queue = name =>
    readOrUndefined(`/sys/dev/block/${best.device}/queue/${name}`) ??
    readOrUndefined(`/sys/dev/block/${best.device}/../queue/${name}`)
  const fua = queue('fua')
  return {
    fileSystem: best.fileSystem,
    device: best.device,
    writeCache: queue('write_cache'),
    fua: fua === undefined ? undefined : fua === '1',
  }
}

/** One line for {@link diskOf}. */
export function describeDisk({ fileSystem, writeCache, fua }) {
  const parts = [fileSystem]
  if (writeCache !== undefined) parts.push(`${writeCache} cache`)
  if (fua !== undefined) parts.push(fua ? 'FUA' : 'no FUA')
  return parts.join(', ')
}

/** Kernel, processor and Node. */
export function machine() {
  const cpus = os.cpus()
  return {
    kernel: `${os.type()} ${os.release()}`,
    cpu: `${cpus.length} × ${cpus[0]?.model.trim() ?? 'unknown'}`,
    node: process.version,
  }
}
