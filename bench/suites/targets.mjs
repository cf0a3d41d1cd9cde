/** Exactly what the aims (aims.mjs) speak of, and whether they hold here. */

import { AIMS, BEST_PEER } from '../aims.mjs'
import { ratio } from '../figures.mjs'
import { appendCase, enqueueCase } from './appends.mjs'
import { blobCase, blobCreateCase, onBlob } from './blobs.mjs'
import { onBusyInterruptCpu } from './busy.mjs'
import { cpuCase } from './cpu.mjs'
import { openLoopCase } from './open-loop.mjs'
import { appendSyncCase } from './sync-appends.mjs'
import { onLog, wholeLogCase } from './whole-log.mjs'

export const name = 'targets'
export const what = 'what ringbolt is aimed at, row by row, and whether it holds here'

/** What is measured of a log, or of new blobs, each in a directory of its own. */
const CASES = {
  append: appendCase,
  enqueue: enqueueCase,
  'append-sync': appendSyncCase,
  cpu: cpuCase,
  'open-loop': openLoopCase,
  'blob-create': blobCreateCase,
}

/** Aims that share a case share its measurement. */
const keyOf = ({ of, params, onBusyInterruptCpu = false }) =>
  JSON.stringify({ of, params, onBusyInterruptCpu })
const distinct = aims => [...new Map(aims.map(aim => [keyOf(aim), aim])).values()]

/** Remember which aim a case belongs to. */
async function* keyed(aim, cases) {
  for await (const its of cases) yield { ...its, key: keyOf(aim) }
}

export async function* cases(context) {
  const { match } = context.options
  const aims = distinct(AIMS.filter(({ row }) => row.includes(match)))
  const some = isWanted => aims.filter(isWanted)

  for (const aim of some(({ of, onBusyInterruptCpu }) => of in CASES && !onBusyInterruptCpu))
    yield { ...(await CASES[aim.of](context, aim.params)), key: keyOf(aim) }

  const busy = some(aim => aim.onBusyInterruptCpu)
  if (busy.length > 0)
    yield* onBusyInterruptCpu(context, async function* (condition) {
      for (const aim of busy)
        yield { ...(await CASES[aim.of](context, { ...aim.params, ...condition })), key: keyOf(aim) }
    })

  const blobs = some(({ of }) => of === 'blob')
  if (blobs.length > 0)
    yield* onBlob(context, async function* (directory) {
      for (const aim of blobs) yield* keyed(aim, blobCase(context, directory, aim.params))
    })

  const logs = some(({ of }) => of === 'whole-log')
  if (logs.length > 0)
    yield* onLog(context, async function* (log) {
      for (const aim of logs) yield* keyed(aim, wholeLogCase(log, aim.params))
    })
}

/** Whom an aim is measured against, in this result: the best peer is the one whose median is. */
function opponentOf({ against, figure, atLeast }, { entrants }) {
  if (against !== BEST_PEER) return entrants.find(({ name }) => name === against)
  const peers = entrants.filter(({ kind, lacks }) => kind === 'peer' && lacks === undefined)
  const sign = atLeast === undefined ? 1 : -1
  return peers.toSorted((a, b) => sign * (a.figures[figure].median - b.figures[figure].median))[0]
}

function judge(aim, result) {
  const { row, against, figure, atLeast, atMost } = aim
  const told = { row, against, atLeast, atMost }
  if (result === undefined) return { ...told, lacks: 'it was not measured' }
  const own = result.entrants.find(({ name }) => name === result.reference)
  const other = opponentOf(aim, result)
  if (own === undefined) return { ...told, lacks: 'ringbolt was not measured' }
  if (other === undefined || other.lacks !== undefined)
    return { ...told, lacks: other?.lacks ?? `${against} was not measured` }
  const itsRatio = ratio(figure, own.rounds, other.rounds)
  const isHeld = atLeast === undefined ? itsRatio.median <= atMost : itsRatio.median >= atLeast
  return { ...told, own: own.name, opponent: other.name, ratio: itsRatio, isHeld }
}

/** Of all that was measured: row by row, the ratio, what it should be, and whether it is. */
export function conclude(results, { options: { match } }) {
  const byKey = new Map(results.map(result => [result.key, result]))
  return AIMS.filter(({ row }) => row.includes(match)).map(aim => judge(aim, byKey.get(keyOf(aim))))
}
