# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small tables as plain text and as Markdown."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def markdown(header: Sequence[str], rows: Rows, *, num_text: int = 1) -> str:
  """A Markdown table; columns after the first `num_text` go to the right."""
  line = lambda cells: f'| {" | ".join(cells)} |'
  rule = ['---' if i < num_text else '---:' for i in range(len(header))]
  escaped = [[cell.replace('|', '\\|') for cell in row] for row in rows]
  return '\n'.join(map(line, [list(header), rule, *escaped])) + '\n'


def plain(header: Sequence[str], rows: Rows) -> str:
  """A table for a terminal; all but the first column are right-aligned."""
  table = [list(header), *map(list, rows)]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  lines = [
    '  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in table
  ]
  lines.insert(1, '  '.join('-' * width for width in widths))
  return '\n'.join(lines) + '\n'
