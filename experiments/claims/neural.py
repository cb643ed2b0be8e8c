# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Equal-Info Windows can be learned from; plain arithmetic coding cannot.

Lester et al. 2024, arXiv:2404.03626: models of 25 M to 2 B parameters on the
arithmetic code of C4 end at the loss of a uniform model, whatever their size
(1.46 bits/byte), while on windows of 16 bits, with coder and M1 reset at each
of them, they reach 1.47 to 0.99. Longer windows are harder.

Check: M2 of 0.4 M parameters on tokens of 8 bits, 1,200 steps of 1,024 tokens
of Python's standard library, M1 an order-3 table counted on the same text; nats
per token on held-out files. (600 steps are too few: the second token of a
window is just being learned then, 0.005, 0.049 and -0.124 nats from the first.)
What a token's own frequency tells is subtracted: the gain is the unigram
entropy of the evaluated tokens less the cross-entropy.

  distance_ac       |cross-entropy on AC - ln 256|
  gain_b16          on windows of 16 bits
  second_less_first cross-entropy of the second token of a window, which sees
                    the first, less that of the first
  gain_b16_less_b32, gain_b32_less_b64   the gain falls with longer windows
  kl_b16_less_b32, kl_b32_less_b64   KL of tokens from uniform in windows of 16,
                    32 and 64 bits (bits per token, corrected for bias): how
                    much there is to learn without any context

The effect does not depend on size: the code of one token is a function of all
text before it in plain arithmetic coding, and of at most one other token here.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from experiments.compressed_text import m2, methods
from jaxtok import train
from jaxtok.analysis import bit_ngrams, trivial
from jaxtok.data import text

TITLE = 'Equal-Info Windows'
PAPER = 'Lester et al. 2024, arXiv:2404.03626'
CLAIM = (
  'Language models learn from Equal-Info Windows, the more the shorter they '
  'are, and nothing from plain arithmetic coding.'
)
THRESHOLD = {
  'distance_ac': 'every <= 0.03',
  'gain_b16': 'every >= 0.4',
  'second_less_first': 'every <= 0',
  'gain_b16_less_b32': 'every >= 0',
  'gain_b32_less_b64': 'every >= 0',
  'kl_b16_less_b32': 'every >= 0',
  'kl_b32_less_b64': 'every >= 0',
}
SEEDS = (0, 1, 2)

_WINDOWS = (16, 32, 64)
_TRAINED = {'ac': 'ac_v256'} | {
  f'b{bits}': f'equalinfo_b{bits}_v256' for bits in _WINDOWS
}


def get_config(method: str, seed: int, steps: int, max_bytes: int) -> Any:
  """A short run on so many bytes of the standard library."""
  config = methods.get_config(method, 'tiny')
  config.data.source = text.Stdlib(max_bytes=max_bytes)
  config.seed = seed
  m2.set_steps(config, steps)
  return config


def token_ids(
  config: Any, tokenizer: Any, split: str, max_bytes: int = 0
) -> np.ndarray:
  """The tokens of a split, from the cache that training uses too."""
  tokens = config.data.make(tokenizer).tokens(split, max_bytes)
  numbers = np.arange(len(tokens.lengths))
  ids, _ = tokens.read(numbers, 0 * numbers, tokens.lengths)
  return ids


def divergence(config: Any, window_bits: int, max_bytes: int) -> float:
  """KL of 8-bit tokens from uniform, in bits per token."""
  its = dataclasses.replace(config.tokenizer, window_bits=window_bits)
  tokenizer = its.make(lambda: config.data.documents('train'))
  ids = token_ids(config, tokenizer, 'train', max_bytes)
  found = bit_ngrams.divergence(
    bit_ngrams.bits_of(ids, 8), (8,), num_parts=1, overlapping=False
  )
  return found.corrected.item()


def measure(
  workdir: pathlib.Path,
  *,
  seed: int,
  steps: int = 1200,
  max_bytes: int = 3_000_000,
) -> dict[str, float]:
  """Trains on each kind of tokens; see the module."""
  found, gain, rows = {}, {}, {}
  for name, method in _TRAINED.items():
    config = get_config(method, seed, steps, max_bytes)
    run = train.run(config, workdir / method)
    row, its = run.metrics('eval/val')[-1], config.evals['val']
    rows[name] = row
    ids = token_ids(config, run.tokenizer, its.split, its.max_bytes)
    unigram = trivial.entropy_nats(np.bincount(ids))
    gain[name] = unigram - row['nats']
    found |= {f'nats_{name}': row['nats'], f'unigram_{name}': unigram}
  kl = {b: divergence(config, b, max_bytes // 3) for b in _WINDOWS}
  return found | {
    'distance_ac': abs(found['nats_ac'] - math.log(256)),
    'gain_b16': gain['b16'],
    'gain_b16_less_b32': gain['b16'] - gain['b32'],
    'gain_b32_less_b64': gain['b32'] - gain['b64'],
    'second_less_first': rows['b16']['nats_1'] - rows['b16']['nats_0'],
    'kl_b16_less_b32': kl[16] - kl[32],
    'kl_b32_less_b64': kl[32] - kl[64],
    'kl_b16': kl[16],
  }
