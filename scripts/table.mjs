/** Rows of cells as lines of aligned columns: the first column to the left, the others to the right unless told. */
export function table(rows, { indent = 2, align = 'right', alignLast = align } = {}) {
  const columns = Math.max(...rows.map(row => row.length))
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(...rows.map(row => String(row[column] ?? '').length)),
  )
  return rows
    .map(row => {
      const cells = row.map((cell, column) => {
        const left = column === 0 || (column === columns - 1 ? alignLast : align) === 'left'
        return left ? String(cell).padEnd(widths[column]) : String(cell).padStart(widths[column])
      })
      return (' '.repeat(indent) + cells.join('  ')).trimEnd()
    })
    .join('\n')
}
