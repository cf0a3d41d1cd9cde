/**
 * Rounds: in each, every entrant of a case once, in turn forwards and backwards, so that what the machine does meanwhile
 * happens to all of them.
 *
 * A case is `{ operation, params, shows, entrants }`: `shows` names its figures, the first of them the one that counts. An
 * entrant is `{ name, kind: 'ours' | 'peer' | 'limit', measure(): Promise<figures> }`, or `{ …, lacks: reason }`.
 */

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import { Lack } from './conditions.mjs'
import { ratio, spread } from './figures.mjs'

const PROGRAM = fileURLToPath(new URL('measure.mjs', import.meta.url))

/** Measure in a process of its own (measure.mjs). */
export function measure(request) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [PROGRAM, JSON.stringify(request)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    let errors = ''
    child.stdout.setEncoding('utf8').on('data', text => (output += text))
    child.stderr.setEncoding('utf8').on('data', text => (errors += text))
    child.once('error', reject).once('close', (status, signal) => {
      if (status !== 0) {
        const [message] = /^(?:\w*Error|Uncaught).*$/m.exec(errors) ?? [errors.trim().split('\n').at(-1)]
        return reject(new Error(message || `ended by ${signal ?? `status ${status}`}`))
      }
      const { unavailable, ...figures } = JSON.parse(output)
      if (unavailable === undefined) resolve(figures)
      else reject(new Lack(unavailable))
    })
  })
}

/** What is being measured, for who watches; nothing ends it. */
export function progress(text = '') {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text.slice(0, process.stderr.columns - 1)}`)
}

export const nameOf = ({ operation, params }) =>
  `${operation}/${Object.entries(params)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')}`

/** Measure a case; who fails is left out from then on, with the reason. */
export async function runCase({ operation, params, shows, entrants }, rounds) {
  const benchmark = nameOf({ operation, params })
  const measured = entrants.map(({ name, kind, lacks }) => ({ name, kind, lacks, rounds: [] }))
  for (let round = 0; round < rounds; round += 1) {
    const order = entrants.map((_, index) => (round % 2 === 0 ? index : entrants.length - 1 - index))
    for (const index of order) {
      const own = measured[index]
      if (own.lacks !== undefined) continue
      progress(`${benchmark}, round ${round + 1}: ${own.name}`)
      try {
        own.rounds.push(await entrants[index].measure())
      } catch (error) {
        own.lacks = error.message
      }
    }
  }
  progress()
  const reference = measured.find(({ kind, lacks }) => kind === 'ours' && lacks === undefined)
  for (const own of measured) {
    if (own.lacks !== undefined) continue
    const present = Object.keys(own.rounds[0]).filter(name => typeof own.rounds[0][name] === 'number')
    own.figures = Object.fromEntries(present.map(name => [name, spread(own.rounds.map(its => its[name]))]))
    if (reference !== undefined && own !== reference)
      own.ratio = ratio(shows[0], reference.rounds, own.rounds)
  }
  return { benchmark, operation, params, shows, reference: reference?.name, entrants: measured }
}
