/** `npm run bench [-- NAME] [OPTIONS]`: build for speed, then measure. NAME is a program in bench/. */

import { main, run, StepError } from './run.mjs'
import { setup } from './setup.mjs'

const PROGRAMS = ['durable-appends', 'whole-log', 'blobs']

await main(async () => {
  const args = process.argv.slice(2)
  const name = args[0] === undefined || args[0].startsWith('-') ? PROGRAMS[0] : args.shift()
  if (!PROGRAMS.includes(name))
    throw new StepError(`there is no benchmark "${name}", but ${PROGRAMS.join(', ')}`, 2)
  // Help needs no build.
  if (!args.some(argument => argument === '--help' || argument === '-h')) await setup('release')
  const { status } = await run(process.execPath, [`bench/${name}.mjs`, ...args])
  process.exitCode = status
})
