/**
 * The workflows, as far as they can be looked at without GitHub: they parse, take nothing that can change under them, and
 * what they run is there. A mistake in them would be met on the day of a release.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { supported } from '../src/native.js'
import { root } from './helpers.js'

interface Step {
  uses?: string
  run?: string
  with?: Record<string, unknown>
}

interface Job {
  uses?: string
  needs?: string | string[]
  if?: string
  environment?: string
  permissions?: Record<string, string>
  'timeout-minutes'?: number
  strategy?: { matrix: Record<string, unknown[]> & { include?: Record<string, unknown>[] } }
  steps?: Step[]
}

interface Workflow {
  on: Record<string, unknown>
  permissions: Record<string, string>
  jobs: Record<string, Job>
}

const folder = join(root, '.github', 'workflows')
const texts = Object.fromEntries(
  readdirSync(folder).map(name => [name.replace(/\.yml$/, ''), readFileSync(join(folder, name), 'utf8')]),
)
/** By their names. A duplicate key, or anything that is only nearly YAML, throws. */
const workflows: Record<string, Workflow> = Object.fromEntries(
  Object.entries(texts).map(([name, text]) => [name, parse(text, { strict: true })]),
)
const { ci, build, release } = workflows as Record<'ci' | 'build' | 'release', Workflow>

const jobs = Object.entries(workflows).flatMap(([name, workflow]) =>
  Object.entries(workflow.jobs).map(([job, body]) => ({ at: `${name}/${job}`, body })),
)
const steps = jobs.flatMap(({ at, body }) => (body.steps ?? []).map(step => ({ at, ...step })))

const { scripts, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>
  devDependencies: Record<string, string>
}

test('every_action_is_pinned_by_its_commit_and_says_its_version', () => {
  const uses = [
    ...Object.values(texts)
      .join('\n')
      .matchAll(/uses: (.*)$/gm),
  ].map(match => match[1] as string)
  expect(uses).toHaveLength([...steps, ...jobs.map(({ body }) => body)].filter(({ uses }) => uses).length)
  const loose = uses.filter(
    action =>
      !/^(?:\.\/\.github\/workflows\/\w+\.yml|[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$/.test(action),
  )
  expect(loose).toEqual([])
  // One action has one version everywhere, and a workflow that is called is there.
  const byName = new Map<string, Set<string>>()
  for (const [name, at] of uses.map(action => action.split('@') as [string, string?]))
    byName.set(name, (byName.get(name) ?? new Set()).add(at ?? ''))
  expect([...byName].filter(([, versions]) => versions.size > 1)).toEqual([])
  for (const name of byName.keys()) if (name.startsWith('./')) expect(existsSync(join(root, name))).toBe(true)
})

test('what_the_steps_run_is_there', () => {
  const missing: string[] = []
  let count = 0
  for (const { at, run } of steps) {
    const found = [
      ...(run ?? '').matchAll(
        /npm run (?<script>[\w:]+)|npm (?<own>test|start)\b|node (?<file>scripts\/\S+)/g,
      ),
      ...(run ?? '').matchAll(/npx (?:--no-install )?(?<tool>\w+)/g),
    ]
    for (const { 0: text, groups } of found) {
      count += 1
      const { script, own, file, tool } = groups as Record<string, string | undefined>
      const name = script ?? own
      if (name !== undefined && scripts[name] === undefined) missing.push(`${at}: ${text}`)
      if (file !== undefined && !existsSync(join(root, file))) missing.push(`${at}: ${text}`)
      if (tool !== undefined && devDependencies[tool] === undefined) missing.push(`${at}: ${text}`)
    }
  }
  expect(missing).toEqual([])
  expect(count).toBeGreaterThan(15)
})

test('what_a_workflow_may_do_is_little_and_every_job_has_an_end', () => {
  for (const { permissions } of Object.values(workflows)) expect(permissions).toEqual({ contents: 'read' })
  const more = jobs.filter(({ body }) => body.permissions !== undefined).map(({ at }) => at)
  expect(more).toEqual(['release/publish'])
  const endless = jobs.filter(({ body }) => !body.uses && !body['timeout-minutes']).map(({ at }) => at)
  expect(endless).toEqual([])
  for (const step of steps)
    if (step.uses?.startsWith('actions/checkout@'))
      expect(step.with).toEqual({ 'persist-credentials': false })
})

test('each_target_is_built_once_and_what_was_packed_for_it_is_tried', () => {
  const listed = (jobs: Record<string, Job>, key: string) =>
    Object.values(jobs).flatMap(job => (job.strategy?.matrix.include ?? []).flatMap(row => row[key] ?? []))
  expect(listed(build.jobs, 'target').toSorted()).toEqual(supported.toSorted())
  const tried = [
    ...listed(release.jobs, 'target'),
    ...listed({ musl: release.jobs['try-musl'] as Job }, 'arch').map(arch => `linux-${arch}-musl`),
  ]
  expect(tried.toSorted()).toEqual(supported.toSorted())
  // And no row of a matrix is one that nothing runs.
  expect(release.jobs['try']?.strategy?.matrix['target']?.toSorted()).toEqual(
    listed(release.jobs, 'target').toSorted(),
  )
})

test('a_change_is_tested_on_every_line_of_node_with_the_ring_and_without_and_on_each_system', () => {
  const matrix = (job: string) => ci.jobs[job]?.strategy?.matrix
  for (const job of ['linux', 'refused', 'others']) expect(matrix(job)?.['node']).toEqual([20, 22, 24, 26])
  expect(matrix('others')?.['runner']?.join()).toMatch(/macos.*windows/)
  // Nothing relaxes the profile where io_uring is to be refused, and where the ring is to be there a skip is a failure.
  const runs = (job: string) => JSON.stringify(ci.jobs[job]?.steps)
  expect(runs('refused')).toContain('docker run')
  expect(runs('refused')).not.toMatch(/seccomp|privileged/)
  expect(runs('linux')).toContain('"RINGBOLT_REQUIRE":"io_uring"')
})

test('only_what_was_counted_and_tried_is_published_and_without_a_token', () => {
  const { gate, publish } = release.jobs as Record<'gate' | 'publish', Job>
  expect(gate.needs).toBe('build')
  expect(JSON.stringify(gate.steps)).toContain('release.mjs prepare')
  expect(release.jobs['try']?.needs).toBe('gate')
  expect(release.jobs['try-musl']?.needs).toBe('gate')
  expect(publish.needs).toEqual(['try', 'try-musl'])
  expect(publish.if).toBe("github.ref_type == 'tag'")
  expect(publish.environment).toBe('npm')
  expect(publish.permissions).toEqual({ contents: 'read', 'id-token': 'write' })
  // It builds nothing and installs nothing: what it publishes was packed by the gate.
  expect(publish.steps?.flatMap(({ run }) => run ?? [])).toEqual([
    'node scripts/release.mjs publish --packages packages',
  ])
  expect(texts['release']).not.toMatch(/secrets\.|NODE_AUTH_TOKEN|NPM_TOKEN/)
  expect(readFileSync(join(root, 'scripts', 'release.mjs'), 'utf8')).toContain("'--provenance'")
})
