import type { ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = {
  test: {
    include: ['__test__/**/*.test.ts'],
    // A process a file: the addon is loaded as users load it, and a crash names its file.
    pool: 'forks',
    // A stuck disk or a lost wake must fail by name, not hang the run.
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
}

export default config
