/** The input of the main job: bytes from one file or many, cut into records. */

import { createReadStream, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The longest record a log with segments of the default size takes: a quarter of 64 MiB. */
export const RECORD_BYTES_MAX = 16 * 1024 * 1024

/** An input that cannot be used, said so that a person knows what to do. */
export class SourceError extends Error {}

/** One file, or without a name the type declarations of every installed package: half a million lines or more. */
export function openSource(file) {
  const source = file === undefined ? declarations() : oneFile(file)
  if (source.bytes === 0) throw new SourceError(`${source.name} is empty: there is nothing to append`)
  return source
}

function oneFile(file) {
  let stat
  try {
    stat = statSync(file)
  } catch (error) {
    const why = error.code === 'ENOENT' ? 'there is no such file' : error.message
    throw new SourceError(`cannot read ${file}: ${why}`, { cause: error })
  }
  if (stat.isDirectory()) throw new SourceError(`${file} is a directory: name one file`)
  if (!stat.isFile())
    throw new SourceError(`${file} is not a regular file: it is read several times and compared`)
  return { name: file, paths: [file], bytes: stat.size }
}

function declarations() {
  const directory = fileURLToPath(new URL('../../node_modules', import.meta.url))
  let names
  try {
    names = readdirSync(directory, { recursive: true })
  } catch (error) {
    throw new SourceError('the default input lies in node_modules: run `npm ci` first, or name a file', {
      cause: error,
    })
  }
  // The order must be the same each time the input is read.
  const paths = names
    .filter(name => /\.d\.[cm]?ts$/.test(name))
    .sort()
    .map(name => join(directory, name))
  const files = paths.map(path => ({ path, stat: statSync(path) })).filter(({ stat }) => stat.isFile())
  return {
    name: `the ${files.length} type declarations in node_modules`,
    paths: files.map(({ path }) => path),
    bytes: files.reduce((sum, { stat }) => sum + stat.size, 0),
  }
}

/** The bytes, in order, in chunks of any length. */
export async function* chunks(source) {
  for (const path of source.paths) {
    try {
      yield* createReadStream(path, { highWaterMark: 256 * 1024 })
    } catch (error) {
      throw new SourceError(`cannot read ${path}: ${error.message}`, { cause: error })
    }
  }
}

/**
 * The lines, each with its line feed, as bytes: nothing is decoded, so any file will do. The last line may lack
 * its line feed. A line above `bytesMax` comes in pieces of that length. Where the chunks end changes nothing.
 */
export async function* records(source, bytesMax = RECORD_BYTES_MAX) {
  let begun = []
  let begunBytes = 0
  for await (const chunk of chunks(source)) {
    let at = 0
    while (at < chunk.length) {
      const feed = chunk.indexOf(0x0a, at)
      const lineEnd = feed === -1 ? chunk.length : feed + 1
      const end = Math.min(lineEnd, at + bytesMax - begunBytes)
      const piece = chunk.subarray(at, end)
      at = end
      const isWhole = (feed !== -1 && end === lineEnd) || begunBytes + piece.length === bytesMax
      if (isWhole && begunBytes === 0) {
        yield piece
      } else {
        begun.push(piece)
        begunBytes += piece.length
        if (isWhole) {
          yield Buffer.concat(begun, begunBytes)
          begun = []
          begunBytes = 0
        }
      }
    }
  }
  if (begunBytes > 0) yield Buffer.concat(begun, begunBytes)
}
