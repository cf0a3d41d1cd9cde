/** The house in order: imports go down only, one door to the binding, no dead file. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root } from './helpers.js'

/** From the top down. A file imports only from floors below its own. */
const floors = [
  ['index'],
  ['wal', 'key-value-wal', 'blob-store', 'backends'],
  ['blob-handle', 'blob-figures'],
  ['collected', 'entry', 'figures', 'whole-log', 'blob', 'blob-streams'],
  ['records', 'store'],
  ['log', 'blob-options'],
  ['environment', 'options', 'staging', 'waiters', 'calls', 'blob-errors', 'wal-errors'],
  ['in-place', 'native'],
  ['errors'],
  ['argument-errors'],
]

const source = join(root, 'src')
const files = readdirSync(source)
  .filter(name => name.endsWith('.ts'))
  .map(name => name.slice(0, -'.ts'.length))

/** Imports, re-exports and imports for effect; lines of comments, whose examples import too, are left out. */
const importsOf = (file: string) =>
  [
    ...readFileSync(join(source, `${file}.ts`), 'utf8').matchAll(/^(?! *\*).*(?:\bfrom|^import) '([^']+)'/gm),
  ].map(match => match[1] as string)

const floorOf = (file: string) => floors.findIndex(floor => floor.includes(file))

test('every_file_has_its_floor', () => {
  expect(files.toSorted()).toEqual(floors.flat().sort())
})

test('imports_go_down_only', () => {
  const wrong = files.flatMap(file =>
    importsOf(file)
      .filter(name => name.startsWith('.'))
      .map(name => name.replace(/^\.\//, '').replace(/\.js$/, ''))
      .filter(target => floorOf(target) <= floorOf(file))
      .map(target => `${file} imports ${target}`),
  )
  expect(wrong).toEqual([])
})

test('only_native_knows_the_binding', () => {
  expect(files.filter(file => importsOf(file).includes('#binding'))).toEqual(['native'])
})

test('no_file_is_dead', () => {
  const reached = new Set<string>()
  const reach = (file: string) => {
    if (reached.has(file)) return
    reached.add(file)
    for (const name of importsOf(file)) if (name.startsWith('./')) reach(name.slice(2, -'.js'.length))
  }
  reach('index')
  expect(files.filter(file => !reached.has(file))).toEqual([])
})

test('the_facade_depends_on_node_alone', () => {
  const foreign = files.flatMap(importsOf).filter(name => !/^(\.\/|node:|#binding$)/.test(name))
  expect(foreign).toEqual([])
})
