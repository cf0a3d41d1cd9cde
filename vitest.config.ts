import type { ViteUserConfig } from 'vitest/config'

/** Another build of the addon than the one in place. It is named to ours only: vitest's own tools have a loader like ours. */
const binding = process.env['RINGBOLT_BINDING']

const config: ViteUserConfig = {
  test: {
    include: ['__test__/**/*.test.ts'],
    // A process a file: the addon is loaded as users load it, and a crash names its file.
    pool: 'forks',
    env: binding === undefined ? {} : { NAPI_RS_NATIVE_LIBRARY_PATH: binding },
    // A stuck disk or a lost wake must fail by name, not hang the run. No test takes a tenth of this on a machine of its
    // own; a slow disk that other tests use too is no failure.
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
}

export default config
