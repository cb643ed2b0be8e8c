# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes and decodes mixed real data with the shipped M1, and counts errors.

  JAXTOK_DATA=DATA python -m experiments.compressed_text.round_trip \\
      --num_bytes=100_000_000 --workdir=runs/round_trip
  JAXTOK_DATA=DATA python -m experiments.compressed_text.round_trip \\
      --num_bytes=10_000_000 --window_bits=64 --workdir=runs/round_trip64

Windows of 16 bits, with rule `cell` or `--close_rule=delay`, go through the
dictionary, all others through the integer model. Texts are parts (up to a MB
for the dictionary, 4096 bytes for the model) of the data sets (text, tables,
arrays) and of the compiled modules of Python and JAX.
Progress is kept in the workdir after each batch: the same command goes on where
it was stopped. At the end all 65,536 words are decoded one by one (with the
dictionary only).
"""

import argparse
import hashlib
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from experiments import cli
from experiments.compressed_text import texts
from jaxtok.entropy import dictionary_rules, documents, shipped
from jaxtok.entropy.formats import WindowFormat
from jaxtok.tokenizers import neural

# By whether there is a dictionary; without, texts are lanes of one call.
_BATCH_BYTES = {True: 1 << 24, False: 1 << 19}
_TEXT_BYTES = {True: 1 << 20, False: 1 << 12}


@cli.one_line_errors()
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; 1 if anything came back wrong."""
  args = _parser().parse_args(argv)
  if args.num_bytes < 1:
    raise ValueError(f'--num_bytes={args.num_bytes} must be at least 1.')
  fmt = WindowFormat(window_bits=args.window_bits, close_rule=args.close_rule)
  tokenizer = neural.NeuralCompressionTokenizer(fmt=fmt)
  state = run(tokenizer, args.num_bytes, pathlib.Path(args.workdir))
  if tokenizer.words is not None:
    state['words that do not decode'] = wrong_words(tokenizer)
  for name, value in state.items():
    print(f'{name:26}{value}')
  if state['bytes'] < args.num_bytes:
    raise ValueError(
      f'--num_bytes={args.num_bytes}, but the files that JAXTOK_DATA and the '
      f'modules have hold only {state["bytes"]} bytes. Ask for fewer.'
    )
  return int(bool(state['errors'] or state.get('words that do not decode')))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--num_bytes', type=int, default=1_000_000)
  add('--window_bits', type=int, default=16)
  # The third rule does not promise to decode.
  add('--close_rule', default='cell', choices=dictionary_rules.RULES)
  add('--workdir', required=True, help='folder of the progress file')
  return parser


def _batches(
  num_bytes: int, size: int, text_size: int
) -> Iterator[list[tuple[str, bytes]]]:
  """Texts of at most `text_size` bytes in batches of at least `size`."""
  batch, total = [], 0
  for name, data in texts.mixed(num_bytes):
    for start in range(0, len(data), text_size):
      batch.append((f'{name}+{start}', data[start : start + text_size]))
      total += len(batch[-1][1])
      if total >= size:
        yield batch
        batch, total = [], 0
  if batch:
    yield batch


def run(
  tokenizer: neural.NeuralCompressionTokenizer,
  num_bytes: int,
  workdir: pathlib.Path,
) -> dict[str, int | float | str]:
  """Round trips; goes on from the progress file if it is of the same task."""
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / 'progress.json'
  task = f'{tokenizer.fingerprint} {num_bytes}'
  new = {
    'task': task,
    'window': str(tokenizer.fmt),
    'batches': 0,
    'texts': 0,
    'bytes': 0,
    'tokens': 0,
    'errors': 0,
    'seconds': 0.0,
    'ids SHA-256': hashlib.sha256().hexdigest(),
  }
  state = json.loads(path.read_text()) if path.exists() else new
  if state['task'] != task:
    raise ValueError(
      f'--workdir={workdir} holds the progress of another task. Use another '
      'workdir, or the same data, settings and --num_bytes.'
    )
  is_fast = tokenizer.words is not None
  batches = _batches(num_bytes, _BATCH_BYTES[is_fast], _TEXT_BYTES[is_fast])
  rest = itertools.islice(batches, state['batches'], None)
  with tqdm.tqdm(
    total=num_bytes, initial=state['bytes'], unit='B', unit_scale=True
  ) as bar:
    for batch in rest:
      bar.update(_check(tokenizer, batch, state))
      path.write_text(json.dumps(state, indent=2))
  return state


def _check(tokenizer, batch, state) -> int:
  """One batch; adds to the counts, and returns its bytes."""
  start = time.perf_counter()
  data = [x for _, x in batch]
  rows = _words(tokenizer, data)
  back = tokenizer.decompress([row.reshape(-1) for row in rows])
  for (name, want), got in zip(batch, back, strict=True):
    if got != want:
      state['errors'] += 1
      print(f'{name} does not come back', flush=True)
  # A hash of hashes, so that it can go on from a file.
  digest = hashlib.sha256(state['ids SHA-256'].encode())
  for row in rows:
    digest.update(row.astype('<u2').tobytes())
  num = sum(map(len, data))
  state['ids SHA-256'] = digest.hexdigest()
  state['batches'] += 1
  state['texts'] += len(data)
  state['bytes'] += num
  state['tokens'] += sum(row.size for row in rows)
  state['seconds'] += time.perf_counter() - start
  return num


def _words(tokenizer, data: list[bytes]) -> list[np.ndarray]:
  """Words of documents, without the tokenizer's own check of the model."""
  if tokenizer.words is not None:
    return [words for words, _ in tokenizer.compress(data)]
  coded = documents.encode_windows(
    data, tokenizer.model, tokenizer.fmt, verify=False
  )
  return [words for words, _ in coded]


def wrong_words(tokenizer: neural.NeuralCompressionTokenizer) -> int:
  """How many of the 65,536 words do not decode to their string alone."""
  words = tokenizer.words or shipped.window_dictionary()
  wrong = 0
  for word in range(1 << 16):
    string = [x for x in words.string(word) if x < 256]
    wrong += words.decode([word]) != bytes(string)
    wrong += not words.string(word)
  return wrong


if __name__ == '__main__':
  raise SystemExit(main())
