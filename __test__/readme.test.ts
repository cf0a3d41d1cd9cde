/** The README's code runs as it stands. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { child, root, temporary } from './helpers.js'

const snippets = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/^```js\n(.*?)^```/gms)].map(
  match => match[1] as string,
)

test('the_readme_has_code', () => {
  expect(snippets.length).toBeGreaterThan(0)
})

test.each(snippets)('a_snippet_of_the_readme_runs_twice', async snippet => {
  const directory = temporary()
  // The helper imports the package already, and its children run in the clone: the log goes where it vanishes.
  const body = snippet
    .replace("import { Wal } from 'ringbolt'", '')
    .replace("Wal.open('orders')", "Wal.open(directory + '/orders')")
  for (const lines of [2, 3]) {
    const { code, stderr, stdout } = await child(directory, body)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout.trim().split('\n')).toHaveLength(lines)
    expect(stdout).toContain('an order')
  }
})
