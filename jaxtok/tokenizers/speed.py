# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast tokenizers are, on one core.

  python -m jaxtok.tokenizers.speed
  python -m jaxtok.tokenizers.speed --vocab_size=16384 book.txt notes.txt
  python -m jaxtok.tokenizers.speed --path=gpt2/tokenizer.json book.txt

Without files, the text is the source of Python's standard library. The BPE is
trained on that text, or read from `--path`. The rows take turns; each shows
its best of `--repeats` passes, in processor time, because other programs
disturb the clock.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
  """One measurement.

  Attributes:
    name: What was measured.
    megabytes: Megabytes of text per second (1e6 bytes).
    tokens: Tokens of the text; 0 if not counted.
  """

  name: str
  megabytes: float
  tokens: int


def standard_library(max_bytes: int) -> list[bytes]:
  """Sources of the standard library, up to `max_bytes` in all."""
  folder = pathlib.Path(sysconfig.get_path('stdlib'))
  documents: list[bytes] = []
  for path in sorted(folder.glob('*.py')) + sorted(folder.glob('[a-r]*/*.py')):
    documents.append(path.read_bytes()[:max_bytes])
    max_bytes -= len(documents[-1])
    if max_bytes <= 0:
      break
  return documents


def read_files(names: Sequence[str], max_bytes: int) -> list[bytes]:
  """The content of files, up to `max_bytes` in all."""
  documents = []
  for name in names:
    path = pathlib.Path(name)
    if not path.is_file():
      raise FileNotFoundError(f'{name!r} is no file.')
    documents.append(path.read_bytes()[:max_bytes])
    max_bytes -= len(documents[-1])
  if not any(documents):
    raise ValueError(f'no text: {", ".join(names)} hold no bytes.')
  return documents


def measure(
  documents: list[bytes], tokenizers: dict[str, Any], repeats: int
) -> list[Row]:
  """Times encoding and decoding of documents, one after the other.

  Args:
    documents: The text.
    tokenizers: Name to tokenizer; those that `tokenizers` can express are
      measured in that library too.
    repeats: Passes per row; the best counts.
  """
  works: dict[str, Callable[[], Any]] = {}
  counts: dict[str, int] = {}
  for name, tokenizer in tokenizers.items():
    batch = tokenizer.encode_batch(documents, num_threads=1)
    counts[f'{name}: encode_batch'] = len(batch.values)
    works[f'{name}: encode_batch'] = lambda t=tokenizer: t.encode_batch(
      documents, num_threads=1
    )
    works[f'{name}: decode_batch'] = lambda t=tokenizer, b=batch: (
      t.decode_batch(b)
    )
    if hasattr(tokenizer, 'slow_reason'):
      texts = [d.decode('utf-8', 'replace') for d in documents]
      other = tokenizer.to_hf()
      row = f'{name}: tokenizers.encode_batch'
      works[row] = lambda o=other, x=texts: o.encode_batch(
        x, add_special_tokens=False
      )
  size = sum(map(len, documents)) / 1e6
  best = {row: float('inf') for row in works}
  for _ in range(repeats):
    for row, work in works.items():
      start = time.process_time()
      work()
      best[row] = min(best[row], time.process_time() - start)
  return [
    Row(r, size / max(s, 1e-9), counts.get(r, 0)) for r, s in best.items()
  ]


def table(rows: list[Row], num_bytes: int) -> str:
  """The measurements, as text."""
  width = max(len(row.name) for row in rows)
  lines = [f'{"":{width}}  {"MB/s":>8}  bytes/token']
  for row in rows:
    ratio = f'{num_bytes / row.tokens:11.2f}' if row.tokens else ''
    lines.append(f'{row.name:{width}}  {row.megabytes:8.1f}  {ratio}'.rstrip())
  rates = {row.name: row.megabytes for row in rows}
  for name, rate in rates.items():
    ours = rates.get(name.replace(': tokenizers.', ': '))
    if ': tokenizers.' in name and ours:
      lines.append(f'{name.split(":")[0]} is {ours / rate:.1f}x tokenizers')
  return '\n'.join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.tokenizers.speed',
    description='Measures tokenizers on one core, in MB/s of text.',
  )
  parser.add_argument('files', nargs='*', help='text; default: stdlib sources')
  parser.add_argument('--vocab_size', type=int, default=16_384)
  parser.add_argument('--path', default='', help='read a BPE, do not train')
  parser.add_argument('--pattern', default='', help='split; see hf.Config')
  parser.add_argument('--max_bytes', type=int, default=10_000_000)
  parser.add_argument('--repeats', type=int, default=3)
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the table; returns the exit code."""
  args = parse_args(argv)
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'
  from jaxtok.tokenizers import bytes as byte_tokenizer
  from jaxtok.tokenizers import hf

  try:
    if args.files:
      documents = read_files(args.files, args.max_bytes)
    else:
      documents = standard_library(args.max_bytes)
    size = sum(map(len, documents))
    print(f'{len(documents)} documents, {size / 1e6:.1f} MB')
    if args.path:
      bpe = hf.Config(path=args.path, pattern=args.pattern).make()
    else:
      start = time.monotonic()
      bpe = hf.train_bpe(
        documents, args.vocab_size, pattern=args.pattern or 'gpt2'
      )
      print(f'trained {bpe} in {time.monotonic() - start:.1f} s')
  except (OSError, ValueError) as e:
    print(f'error: {e}', file=sys.stderr)
    return 1
  if getattr(bpe, 'slow_reason', ''):
    print(f'not on the fast path: {bpe.slow_reason}')
  chosen = {'bytes': byte_tokenizer.Config().make(), 'BPE': bpe}
  print(table(measure(documents, chosen, args.repeats), size))
  return 0


if __name__ == '__main__':
  sys.exit(main())
