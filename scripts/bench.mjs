/** `npm run bench [-- OPTIONS]`: build for speed, then measure. */

import { main, run } from './run.mjs'
import { setup } from './setup.mjs'

await main(async () => {
  const args = process.argv.slice(2)
  // Help needs no build.
  if (!args.some(argument => argument === '--help' || argument === '-h')) await setup('release')
  const { status } = await run(process.execPath, ['bench/durable-appends.mjs', ...args])
  process.exitCode = status
})
