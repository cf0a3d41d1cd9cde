/** The README's code runs as it stands. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { backends } from '../src/index.js'
import { child, root, temporary } from './helpers.js'

const snippets = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/^```js\n(.*?)^```/gms)].map(
  match => match[1] as string,
)

test('the_readme_has_code', () => {
  expect(snippets.length).toBeGreaterThan(0)
})

/** What a snippet prints, run as it stands but for where its log goes, which vanishes. */
async function run(directory: string, snippet: string): Promise<string[]> {
  const body = snippet
    .replace(/^import \{ (?:Wal|BlobStore) \} from 'ringbolt'$/m, '')
    .replace(/open\('(\w+)'\)/, "open(directory + '/$1')")
  const { code, stderr, stdout } = await child(directory, body)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return stdout.trim().split('\n')
}

test('the_first_snippet_finds_at_its_second_run_what_the_first_left', async () => {
  const directory = temporary()
  for (const lines of [2, 3]) {
    const printed = await run(directory, snippets[0] as string)
    expect(printed).toHaveLength(lines)
    expect(printed.join()).toContain('an order')
  }
})

test.each([
  ['keys and values', 1, "Map(1) { 'colour' => 'green' }"],
  ['blobs', 2, '8199 a page'],
])('the_snippet_on_%s_runs_twice', async (_, index, printed) => {
  const directory = temporary()
  for (let round = 0; round < 2; round += 1) {
    expect(await run(directory, snippets[index] as string)).toEqual([printed])
  }
})

test('the_snippet_on_backends_says_why_there_is_no_io_uring', async () => {
  const { io_uring } = await backends()
  const { code, stderr } = await child(temporary(), snippets[3] as string)
  expect({ code, stderr: stderr.trim() }).toEqual({ code: 0, stderr: io_uring.reason ?? '' })
})

test('every_snippet_is_run', () => {
  expect(snippets).toHaveLength(4)
})
