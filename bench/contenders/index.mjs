/**
 * Who appends. Each is a module with `open(directory, options)`, which resolves to
 *
 *     { append(record): Promise      resolves only when the record is durable
 *       appendSync?(record)          returns only when it is
 *       enqueue?(record), durable?() as many records as you like, then one promise for all of them
 *       close(): Promise, backend?: string }
 *
 * The code of peers is written once, the way their own documentation advises, and not touched while ours is tuned.
 */

const CONTENDERS = [
  { name: 'ringbolt-io_uring', module: 'ringbolt', options: { backend: 'io_uring' }, isOurs: true },
  { name: 'ringbolt-threads', module: 'ringbolt', options: { backend: 'threads' }, isOurs: true },
  { name: 'fs-group-commit', module: 'fs-group-commit' },
  { name: 'fs-naive', module: 'fs-naive' },
  { name: 'fs-blocking', module: 'fs-blocking' },
  { name: 'better-sqlite3', module: 'better-sqlite3', package: 'better-sqlite3' },
  { name: 'classic-level', module: 'classic-level', package: 'classic-level' },
  { name: 'lmdb', module: 'lmdb', package: 'lmdb' },
]

/** In the order of tables. */
export const NAMES = CONTENDERS.map(({ name }) => name)
export const OURS = CONTENDERS.filter(({ isOurs }) => isOurs).map(({ name }) => name)
export const isOurs = name => OURS.includes(name)

/** The npm packages that these contenders need. */
export const packagesOf = names =>
  CONTENDERS.filter(({ name }) => names.includes(name)).flatMap(contender => contender.package ?? [])

export async function open(name, directory) {
  const { module, options } = CONTENDERS.find(contender => contender.name === name)
  return (await import(`./${module}.mjs`)).open(directory, options)
}
