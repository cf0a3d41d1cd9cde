/** What the suites have in common: the options, and who is there to be measured. */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { isOurs, OURS } from './contenders/index.mjs'
import { measure } from './rounds.mjs'

export class Context {
  #probes = new Map()
  #lasting = []

  /** @param options As the command line says, `directory` and `contenders` among them. */
  constructor(options) {
    this.options = options
  }

  /** A directory that is there while `work` runs, on the disk that is measured. */
  async within(work, parent = this.options.directory) {
    const directory = mkdtempSync(join(parent, 'run-'))
    try {
      return await work(directory)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }

  /** A directory for several cases, until it is removed. */
  kept() {
    const directory = mkdtempSync(join(this.options.directory, 'run-'))
    return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) }
  }

  /** Measure, in a process of its own and a fresh directory, once what was written before is on the disk. */
  fresh(request, parent) {
    return this.within(directory => this.#settled({ ...request, directory }), parent)
  }

  #settled(request) {
    spawnSync('sync', ['-f', request.directory])
    return measure({ seconds: this.options.seconds, ...request })
  }

  /**
   * As {@link fresh}, but the directory stays until {@link removeLasting}: for what makes thousands of files. ext4
   * without a journal gives nobody an inode that was freed within the last minute, and looks at each of them for every
   * file that is made; so who comes next would be charged with the removal.
   */
  lasting(request) {
    const { directory, remove } = this.kept()
    this.#lasting.push(remove)
    return this.#settled({ ...request, directory })
  }

  /** At the end of everything. */
  removeLasting() {
    for (const remove of this.#lasting.splice(0)) remove()
  }

  /** What a contender answers when it is opened: `{ lacks }` where it cannot be had. */
  #probe(request) {
    const key = JSON.stringify(request)
    if (!this.#probes.has(key)) {
      this.#probes.set(
        key,
        this.fresh(request).catch(error => ({ lacks: error.message })),
      )
    }
    return this.#probes.get(key)
  }

  /** The chosen contenders that append, each doing this to a log. `requestOf` may answer `undefined`: not this one. */
  async logEntrants(requestOf, parent) {
    const entrants = []
    for (const contender of this.options.contenders) {
      const { lacks, ...traits } = await this.#probe({ load: 'probe', contender })
      const request = requestOf(contender, traits)
      if (request === undefined) continue
      const kind = isOurs(contender) ? 'ours' : 'peer'
      const run = () => this.fresh({ ...request, contender }, parent)
      entrants.push({ name: contender, kind, lacks, measure: run })
    }
    return entrants
  }

  /** The chosen backends of ours, each doing this with a store of blobs. */
  async blobEntrants(run) {
    const entrants = []
    for (const name of OURS.filter(name => this.options.contenders.includes(name))) {
      const backend = name.slice('ringbolt-'.length)
      const { lacks } = await this.#probe({ load: 'blob-probe', backend })
      entrants.push({ name, kind: 'ours', lacks, measure: () => run(backend) })
    }
    return entrants
  }

  /** Whether one of the contenders that are not ours was chosen, `node:fs` with either of its ways. */
  get hasPeers() {
    return this.options.contenders.some(name => !isOurs(name))
  }
}
