/** `npm start [-- FILE]`: build for speed, then run the main job on real input. */

import { main, run } from './run.mjs'
import { setup } from './setup.mjs'

await main(async () => {
  const args = process.argv.slice(2)
  // Help needs no build.
  if (!args.some(argument => argument === '--help' || argument === '-h')) await setup('release')
  const { status } = await run(process.execPath, ['examples/main-job/main.mjs', ...args])
  process.exitCode = status
})
