/** `npm run bench [-- SUITE…] [OPTIONS]`: build for speed, then measure (bench/main.mjs). */

import { main, run } from './run.mjs'
import { setup } from './setup.mjs'

await main(async () => {
  const args = process.argv.slice(2)
  // Help needs no build.
  if (!args.some(argument => argument === '--help' || argument === '-h')) await setup('release')
  const { status } = await run(process.execPath, ['bench/main.mjs', ...args])
  process.exitCode = status
})
