# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding without ambiguity costs a few percent of compression.

Lester et al. 2024, arXiv:2404.03626, pad the code of a window with zeros
(`greedy_zero_pad`), which is not uniquely decodable, and offer `delay`, which
is, at a cost (2.66 to 2.20 bytes per token of 8 bits at b=16). Ours, `cell`,
gives each word of a window to exactly one string, so that every word decodes.

Check: symbols per window of held-out files of Python's standard library under
an order-3 table, and whether texts come back. `ambiguous`: share of zero-padded
16-bit windows that are also the code of another prefix of the same text.
"""

import pathlib
from typing import Any

import numpy as np

from jaxtok.data import source, text
from jaxtok.entropy import documents as documents_lib
from jaxtok.entropy import reference, table
from jaxtok.entropy.formats import CLOSE_RULES, WindowFormat

TITLE = 'Rule `cell`'
PAPER = 'Lester et al. 2024, arXiv:2404.03626'
CLAIM = (
  'Windows that decode without ambiguity keep 95 % of the symbols of zero '
  "padding, and more than the paper's delay rule."
)
THRESHOLD = {
  'cell_to_greedy': 'every >= 0.95',  # The least over window sizes.
  'cell_to_delay': 'every >= 1',  # Likewise.
  'texts_lost': 'every <= 0',  # Of cell and delay.
}
SEEDS = (0, 1, 2)

_BITS = (16, 32, 64, 128)


def measure(
  workdir: pathlib.Path, *, seed: int, num_bytes: int = 50_000
) -> dict[str, float]:
  """Codes one text under each rule and window size; see the module."""
  del workdir
  config = text.Config(source=text.Stdlib(max_bytes=3_000_000))
  model = table.fit(config.documents('train'), order=3, num_rows=1 << 15)
  texts = _sample(config, num_bytes, seed)
  found, lost = {}, 0
  for bits in _BITS:
    for rule in CLOSE_RULES:
      fmt = WindowFormat(window_bits=bits, close_rule=rule)
      rows = documents_lib.encode_windows(texts, model, fmt)
      spans = np.concatenate([spans for _, spans in rows])
      found[f'{rule}_b{bits}'] = float(spans.mean())
      if fmt.is_lossless:
        words = [words for words, _ in rows]
        decoded = documents_lib.decode_windows(words, model, fmt)
        lost += sum(a != b for a, b in zip(texts, decoded, strict=True))
  ratio = lambda other: min(
    found[f'cell_b{bits}'] / found[f'{other}_b{bits}'] for bits in _BITS
  )
  return found | {
    'cell_to_greedy': ratio('greedy_zero_pad'),
    'cell_to_delay': ratio('delay'),
    'texts_lost': lost,
    'ambiguous': _ambiguous(model, texts),
  }


def _sample(config: Any, num_bytes: int, seed: int) -> list[bytes]:
  """Held-out pieces of 10,000 bytes, drawn at random."""
  data = b''.join(source.documents(config.source.make('validation')))
  starts = np.random.default_rng(seed).integers(
    0, len(data) - 10_000, num_bytes // 10_000
  )
  return [data[at : at + 10_000] for at in starts.tolist()]


def _ambiguous(model: Any, texts: list[bytes], num_windows: int = 200) -> float:
  """Share of zero-padded words that several prefixes of the text have."""
  rows = np.asarray(model.cdf_rv)

  def next_cdf(symbols: tuple[int, ...]) -> list[int]:
    context = ((reference.EOS,) * model.order + symbols)[-model.order :]
    row = table.context_row(np.array([context], np.uint32), len(rows))
    return rows[int(row[0])].tolist()

  ambiguous = 0
  for i in range(num_windows):
    data = texts[i % len(texts)]
    at = i // len(texts) * 37
    symbols = list(data[at : at + 64])
    _, word = reference.encode_window(symbols, next_cdf, 16, 'greedy_zero_pad')
    ambiguous += len(reference.candidate_lengths(word, next_cdf, 16)) > 1
  return ambiguous / num_windows
