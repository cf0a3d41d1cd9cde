/**
 * One measurement, in a process of its own, so that nobody inherits another's heap, compiled code or threads:
 *
 *     node bench/measure.mjs '{ "load": "append", "contender": "lmdb", … }'
 *
 * prints figures by name as one line of JSON, or `{ "unavailable": … }` where the contender cannot be had here.
 */

import { writeSync } from 'node:fs'

import * as append from './loads/append.mjs'
import * as blob from './loads/blob.mjs'
import * as wholeLog from './loads/whole-log.mjs'

const LOADS = { ...append.LOADS, ...blob.LOADS, ...wholeLog.LOADS }

/** What is the machine's lack, or a package's, and no failure of the measurement. */
const LACKS = ['ERR_BACKEND_UNAVAILABLE', 'ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND', 'ERR_DLOPEN_FAILED']

const { load, ...request } = JSON.parse(process.argv[2])
let answer
try {
  answer = await LOADS[load](request)
} catch (error) {
  // The package `bindings` knows no code for what a build that failed has left out.
  if (!LACKS.includes(error.code) && !/could not locate the bindings file/i.test(error.message)) throw error
  answer = { unavailable: error.message.split('\n')[0] }
}
writeSync(1, `${JSON.stringify(answer)}\n`)
// A peer that keeps a thread or a handle open must not hold this up.
process.exit(0)
