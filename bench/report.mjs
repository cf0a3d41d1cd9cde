/** What came out, for people: tables, and a page with charts. */

import { describeDisk } from '../scripts/machine.mjs'
import { table } from '../scripts/table.mjs'
import { FIGURES, format } from './figures.mjs'

/** What it was measured on, in words. */
export const describe = ({ kernel, cpu, node, disk }) =>
  `${kernel}, ${cpu}, Node ${node}, disk: ${describeDisk(disk)}`

const range = (figure, { least, most }) => `${format(figure, least)}–${format(figure, most)}`
const times = value => (value >= 100 ? value.toFixed(0) : value.toFixed(2))
const timesRange = ({ least, most }) => `${times(least)}–${times(most)}`

/** One case: who, the figures' medians, the first one's range, and ours by theirs. */
function printCase({ benchmark, shows, reference, entrants }) {
  const [first, ...others] = shows
  const columns = others.filter(figure => entrants.some(({ figures }) => figures?.[figure] !== undefined))
  const label = figure => FIGURES[figure].label
  const rows = [
    ['', label(first), 'range', ...columns.map(label), `${reference ?? 'ringbolt'} ÷ it`, 'range'],
  ]
  const lacking = []
  for (const { name, lacks, figures, ratio } of entrants) {
    if (lacks !== undefined) {
      lacking.push(`  ${name}: not measured: ${lacks}`)
      continue
    }
    rows.push([
      name,
      format(first, figures[first].median),
      range(first, figures[first]),
      ...columns.map(figure => format(figure, figures[figure]?.median)),
      ratio === undefined ? '' : times(ratio.median),
      ratio === undefined ? '' : timesRange(ratio),
    ])
  }
  console.log(`\n${benchmark}`)
  if (rows.length > 1) console.log(table(rows))
  for (const line of lacking) console.log(line)
}

const aimOf = ({ atLeast, atMost }) => (atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`)

function printAims(aims) {
  const rows = [['what', 'against', 'ratio', 'range', 'aim', '']]
  for (const aim of aims) {
    const { row, against, opponent, ratio, isHeld, lacks } = aim
    if (lacks !== undefined) rows.push([row, against, '', '', aimOf(aim), `not measured: ${lacks}`])
    else {
      const whom = opponent === against ? against : `${against}: ${opponent}`
      rows.push([row, whom, times(ratio.median), timesRange(ratio), aimOf(aim), isHeld ? 'held' : 'not held'])
    }
  }
  console.log(`\n${table(rows, { alignLast: 'left' })}`)
  const count = isHeld => aims.filter(aim => aim.lacks === undefined && aim.isHeld === isHeld).length
  const lacking = aims.filter(({ lacks }) => lacks !== undefined).length
  console.log(`\n${count(true)} held, ${count(false)} not held, ${lacking} not measured`)
}

export const print = { case: printCase, aims: printAims }

const escaped = text => String(text).replace(/[&<>"]/g, character => `&#${character.charCodeAt(0)};`)

const WIDTH = 960
const ROW_HEIGHT = 22
const LABEL_WIDTH = 170
const BAR_WIDTH = WIDTH - LABEL_WIDTH - 220

/**
 * Bars from zero: the median of each, a line from the least to the most. With a `mark`, that is half the width, a line across
 * it, and what is more than twice as much is cut off.
 */
function bars(rows, { text, mark }) {
  const most = mark === undefined ? Math.max(...rows.map(row => row.most)) : 2 * mark
  const x = value => LABEL_WIDTH + Math.min(1, value / most) * BAR_WIDTH
  const height = rows.length * ROW_HEIGHT
  const parts = rows.map((row, index) => {
    const top = index * ROW_HEIGHT
    const middle = top + ROW_HEIGHT / 2
    return [
      `<text x="${LABEL_WIDTH - 8}" y="${middle}" class="label">${escaped(row.label)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${top + 3}" width="${x(row.median) - LABEL_WIDTH}" height="${ROW_HEIGHT - 6}" class="${row.kind}"/>`,
      `<path d="M${x(row.least)} ${middle}H${x(row.most)}m0 -4v8M${x(row.least)} ${middle - 4}v8" class="range"/>`,
      `<text x="${x(mark === undefined ? row.most : most) + 8}" y="${middle}">${escaped(text(row))}</text>`,
    ].join('')
  })
  if (mark !== undefined) parts.push(`<path d="M${x(mark)} 0V${height}" class="mark"/>`)
  return `<svg viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">${parts.join('')}</svg>`
}

function chartOf({ benchmark, shows: [figure], entrants }) {
  const present = entrants.filter(({ lacks }) => lacks === undefined)
  if (present.length === 0) return ''
  const rows = present.map(({ name, kind, figures }) => ({ label: name, kind, ...figures[figure] }))
  const { label, isMoreBetter } = FIGURES[figure]
  const title = `<h2>${escaped(benchmark)}</h2><p>${escaped(label)}, ${isMoreBetter ? 'more' : 'less'} is better</p>`
  const text = row => `${format(figure, row.median)} (${range(figure, row)})`
  return title + bars(rows, { text })
}

/** How near each aim is: 1 is where it holds, more is better whether the ratio is to be large or small. */
function chartOfAims(aims) {
  const measured = aims.filter(({ lacks }) => lacks === undefined)
  if (measured.length === 0) return ''
  const parts = measured.map(({ row, opponent, ratio, atLeast, atMost, isHeld }) => {
    const near = value => (atLeast === undefined ? atMost / value : value / atLeast)
    const [least, most] = [near(ratio.least), near(ratio.most)].toSorted((a, b) => a - b)
    const bar = { label: opponent, kind: isHeld ? 'ours' : 'missed', median: near(ratio.median), least, most }
    const text = () => `${times(ratio.median)} (${timesRange(ratio)}), ${aimOf({ atLeast, atMost })}`
    return `<h3>${escaped(row)}</h3>${bars([bar], { text, mark: 1 })}`
  })
  return `<h2>Aims</h2><p>The line is where an aim holds: at its right it does.</p>${parts.join('')}`
}

const STYLE = `
  body { font: 14px/1.4 system-ui, sans-serif; max-width: ${WIDTH}px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
  h2 { font-size: 16px; margin: 1.6em 0 0 } h3 { font-size: 13px; font-weight: normal; margin: 0.6em 0 0 } p { margin: 0 0 0.4em; color: #666 }
  svg { display: block; max-width: 100%; height: auto } text { font-size: 12px; dominant-baseline: middle; fill: #222 } .label { text-anchor: end }
  rect { fill: #9db4c8 } rect.ours { fill: #2a7f62 } rect.limit { fill: #d9d9d9 } rect.missed { fill: #c8553d }
  .range { stroke: #222; fill: none } .mark { stroke: #222; stroke-dasharray: 4 3 }`

/** A page that needs nothing else. */
export function page({ name, started, conditions, options, results, aims }) {
  const head = `<p>${escaped(describe(conditions))}</p><p>${escaped(started)}: ${options.rounds} rounds of ${options.seconds} s; bars are medians, lines go from the least to the most</p>`
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>ringbolt: ${escaped(name)}</title>
<style>${STYLE}</style>
<h1>ringbolt: ${escaped(name)}</h1>
${head}
${aims === undefined ? '' : chartOfAims(aims)}
${results.map(chartOf).join('\n')}
</html>
`
}
