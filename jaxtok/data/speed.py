# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast text becomes batches, and how much memory that takes.

  python -m jaxtok.data.speed
  python -m jaxtok.data.speed --tokenizer=bpe
  python -m jaxtok.data.speed --megabytes=2000

Writes a file of that size (shuffled pieces of the standard library) to a
temporary folder, reads all of it as rows, then as shuffled training batches
through grain, and deletes it. Speeds are source bytes per second of processor
time, over all threads: per core, that is, and hardly disturbed by other
programs. Memory is what the process holds (VmRSS), and its highest value.
"""

import argparse
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxtok import config as config_lib
from jaxtok.data import text

_TOKENIZERS = {
  'bytes': {'type': 'jaxtok.tokenizers.bytes:Config'},
  'bpe': {'type': 'jaxtok.tokenizers.hf:Train', 'max_bytes': 2_000_000},
}


def write_corpus(path: pathlib.Path, num_bytes: int) -> None:
  """Pieces of the standard library in random order, again and again."""
  data = b''.join(text.Config().documents('train'))
  pieces = [data[at : at + 8192] for at in range(0, len(data), 8192)]
  rng = np.random.default_rng(0)
  with open(path, 'wb') as file:
    while file.tell() < num_bytes:
      chosen = b''.join(pieces[i] for i in rng.permutation(len(pieces)))
      file.write(chosen[: num_bytes - file.tell()])


def memory() -> str:
  """Resident memory now, and the highest so far, in MB."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
  status = pathlib.Path('/proc/self/status')
  if not status.exists():
    return f'memory: highest {peak:.0f} MB'
  fields = dict(
    line.split(':', 1)
    for line in status.read_text().splitlines()
    if ':' in line
  )
  now = int(fields['VmRSS'].split()[0]) / 1e3
  return f'memory: now {now:.0f} MB, highest {peak:.0f} MB'


class Timer:
  """Prints a line per measurement."""

  def __init__(self):
    self.start()

  def start(self) -> None:
    """Begins a measurement."""
    self._cpu, self._wall = time.process_time(), time.monotonic()

  def stop(self, name: str, num_bytes: int) -> None:
    """Ends it: megabytes per second of processor time, and by the clock."""
    cpu = num_bytes / 1e6 / (time.process_time() - self._cpu)
    wall = num_bytes / 1e6 / (time.monotonic() - self._wall)
    print(
      f'{name:<34}{cpu:7.1f} MB/s per core {wall:7.1f} MB/s by the clock   '
      f'{memory()}',
      flush=True,
    )


def read_rows(data: text.Text, batch_size: int) -> int:
  """Makes each row once; returns the source bytes."""
  rows, total = data.rows('train'), 0
  group = max(1, (1 << 17) // data.config.seq_len // batch_size) * batch_size
  for start in range(0, len(rows), group):
    batch = rows.batch(np.arange(start, min(start + group, len(rows))))
    total += int(batch['num_bytes_bt'].sum())
  return total


def read_batches(batches: Iterator[Any], num_bytes: int) -> int:
  """Draws batches with at least `num_bytes`; returns the source bytes."""
  total = 0
  while total < num_bytes:
    total += int(next(batches)['num_bytes_bt'].sum())
  return total


def measure(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """Runs all measurements in a temporary folder."""
  corpus, size = folder / 'corpus.txt', int(args.megabytes * 1e6)
  write_corpus(corpus, size)
  config = text.Config(
    source=text.Files(
      path=str(corpus), validation=str(corpus), test=str(corpus)
    ),
    seq_len=args.seq_len,
    packing=args.packing,
  )
  tokenizer = config_lib.from_dict(_TOKENIZERS[args.tokenizer]).make(
    documents=lambda: config.documents('train')
  )
  data = config.make(tokenizer, cache_dir=folder / 'cache')
  print(
    f'{args.tokenizer}, {size / 1e6:.0f} MB, rows of {args.seq_len} tokens, '
    f'batches of {args.batch_size}, packing {args.packing}; {memory()}'
  )
  timer, both = Timer(), Timer()
  data.tokens('train')
  if args.tokenizer != 'bytes':
    timer.stop('tokenizing into the cache', size)
  timer.start()
  total = read_rows(data, args.batch_size)
  timer.stop('rows in order', total)
  if args.tokenizer != 'bytes':
    both.stop('both together', total)
  if total != size:
    raise AssertionError(f'{total} bytes were charged, of {size}.')
  batches = data.train_iterator(batch_size=args.batch_size, seed=0)
  next(batches)
  timer.start()
  total = read_batches(batches, size)
  timer.stop('shuffled batches through grain', total)
  batches.close()


def main(argv: Sequence[str]) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.data.speed',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--tokenizer', choices=sorted(_TOKENIZERS), default='bytes'
  )
  parser.add_argument('--packing', choices=['window', 'pack'], default='window')
  parser.add_argument('--megabytes', type=float, default=100)
  parser.add_argument('--seq_len', type=int, default=256)
  parser.add_argument('--batch_size', type=int, default=32)
  args = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    measure(args, pathlib.Path(folder))


if __name__ == '__main__':
  main(sys.argv[1:])
