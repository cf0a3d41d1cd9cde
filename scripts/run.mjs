/** Child processes for the scripts here: run one, show what it prints, and stop at the first that fails. */

import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** The clone's root; commands run there unless told. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** A step that failed in a way its own output explains: no stack trace adds to it. */
export class StepError extends Error {
  constructor(message, status = 1) {
    super(message)
    this.status = status
  }
}

/** Whether a program can be run at all. */
export function isInstalled(program, ...args) {
  const { error, status } = spawnSync(program, args, { stdio: 'ignore' })
  return error === undefined && status === 0
}

/** How `spawn` is told of a command. On Windows npm's programs are scripts, which only a shell can start. */
function command(program, args) {
  if (process.platform !== 'win32' || !['npm', 'npx'].includes(program)) return [program, args, {}]
  return [[program, ...args.map(arg => `"${arg}"`)].join(' '), [], { shell: true }]
}

/**
 * Run a command to its end, showing its output as it comes.
 *
 * Resolves to its exit status and, with `capture`, to everything it printed.
 */
export function run(program, args, { env = {}, cwd = ROOT, capture = false } = {}) {
  return new Promise((resolve, reject) => {
    const [start, rest, how] = command(program, args)
    const child = spawn(start, rest, {
      ...how,
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', capture ? 'pipe' : 'inherit', capture ? 'pipe' : 'inherit'],
    })
    let output = ''
    const show = (from, to) =>
      from?.setEncoding('utf8').on('data', text => {
        output += text
        to.write(text)
      })
    show(child.stdout, process.stdout)
    show(child.stderr, process.stderr)
    child.on('error', reject)
    child.on('close', (status, signal) => resolve({ status: status ?? 1, signal, output }))
  })
}

/** As {@link run}, and a status other than 0 ends the script with the same status. */
export async function runOrFail(program, args, options) {
  const result = await run(program, args, options)
  if (result.status !== 0) {
    const end =
      result.signal === null ? `exited with status ${result.status}` : `was killed by ${result.signal}`
    throw new StepError(`\`${program} ${args.join(' ')}\` ${end}`, result.status)
  }
  return result
}

/** Run a script's main function; what it throws becomes the exit status. */
export async function main(body) {
  try {
    await body()
  } catch (error) {
    console.error(error instanceof StepError ? `\n${error.message}` : error)
    process.exitCode = error instanceof StepError ? error.status : 1
  }
}
