# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Are token ids the same however they are computed, and how long are windows?

  JAXTOK_DATA=DATA python -m experiments.compressed_text.exactness

Prints the SHA-256 of the ids of some texts, coded with the shipped M1 in
windows of 64 bits, for batch sizes 1, 7, 64 and 4096, with and without jit, in
one process and in two; then the bytes per window of the three close rules.
"""

import argparse
import concurrent.futures
import hashlib
import multiprocessing
from collections.abc import Sequence

import jax
import numpy as np

from experiments import cli
from experiments.compressed_text import texts
from jaxtok.entropy import documents, shipped, window
from jaxtok.entropy.formats import CLOSE_RULES, WindowFormat

_FORMAT = WindowFormat(window_bits=64)
_BATCHES = (1, 7, 64, 4096)
_ROW = 48  # Bytes of a text.


@cli.one_line_errors()
def main(argv: Sequence[str] | None = None) -> int:
  """Prints both tables; 1 if any hash differs."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=130, help='texts to code')
  parser.add_argument(
    '--bytes', type=int, default=200_000, help='text for the close rules; 0: no'
  )
  args = parser.parse_args(argv)
  if min(args.rows, args.bytes) < 0 or not args.rows + args.bytes:
    raise ValueError(
      f'--rows={args.rows} and --bytes={args.bytes} must be at least 0, and '
      'one of them more: there is nothing to do.'
    )
  differs = args.rows and compare_ids(rows_of_mixed(args.rows))
  if args.bytes:
    compare_rules(texts.novel()[: args.bytes])
  return int(differs)


def compare_ids(rows: np.ndarray) -> bool:
  """Prints a hash for each way of coding the rows; whether any differs."""
  found = {f'batch size {n}': sha256(_in_batches(rows, n)) for n in _BATCHES}
  found['two processes'] = sha256(in_two_processes(rows))
  few = {'jit, 2 texts': sha256(encode(rows[:2], 2))}
  with jax.disable_jit():
    few['no jit, 2 texts'] = sha256(encode(rows[:2], 2))
  for name, value in (found | few).items():
    print(f'{name:18}{value}', flush=True)
  return len(set(found.values())) > 1 or len(set(few.values())) > 1


def compare_rules(text: bytes) -> None:
  """Prints the bytes per window of each close rule."""
  for bits in (16, 32, 64):
    lengths = {rule: bytes_per_window(text, bits, rule) for rule in CLOSE_RULES}
    share = 100 * lengths['cell'] / lengths['greedy_zero_pad']
    shown = ', '.join(f'{k} {v:.3f}' for k, v in lengths.items())
    print(f'b={bits}: {shown}; cell/greedy {share:.2f} %', flush=True)


def rows_of_mixed(num: int) -> np.ndarray:
  """Short texts from many files, uint8 [num, bytes]."""
  data = b''.join(part for _, part in texts.mixed(60 << 20))
  starts = np.linspace(0, len(data) - _ROW, num).astype(int)
  return np.stack([np.frombuffer(data, np.uint8, _ROW, s) for s in starts])


def encode(rows: np.ndarray, max_lanes: int) -> list[np.ndarray]:
  """The words of each row."""
  lengths = np.full(len(rows), rows.shape[1])
  coded = window.encode_windows(
    rows, lengths, shipped.model(), _FORMAT, max_lanes=max_lanes, verify=False
  )
  pairs = zip(coded.words_bkw, coded.num_words_b, strict=True)
  return [words[:num] for words, num in pairs]


def _in_batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
  """The words of each row, with other rows beside it where it takes them."""
  more = np.resize(rows, (max(size, len(rows)), rows.shape[1]))
  return encode(more, size)[: len(rows)]


def _encode_half(rows: np.ndarray) -> list[np.ndarray]:
  return encode(rows, 64)


def in_two_processes(rows: np.ndarray) -> list[np.ndarray]:
  """Each of two new processes codes half of the rows."""
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
    halves = pool.map(_encode_half, np.array_split(rows, 2))
    return [words for half in halves for words in half]


def sha256(rows: list[np.ndarray]) -> str:
  """Hash of the ids and their numbers."""
  digest = hashlib.sha256()
  for row in rows:
    digest.update(len(row).to_bytes(8, 'little') + row.astype('<u2').tobytes())
  return digest.hexdigest()


def bytes_per_window(text: bytes, bits: int, rule: str) -> float:
  """Source bytes per window with the shipped M1."""
  fmt = WindowFormat(window_bits=bits, close_rule=rule)
  [(words, _)] = documents.encode_windows(
    [text], shipped.model(), fmt, verify=False
  )
  return len(text) / len(words)


if __name__ == '__main__':
  raise SystemExit(main())
