# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Equal-Info Windows can be learned from; plain arithmetic coding cannot.

Lester et al. 2024, arXiv:2404.03626: models of 25 M to 2 B parameters on the
arithmetic code of C4 end at the loss of a uniform model, whatever their size
(1.46 bits/byte), while on windows of 16 bits, with coder and M1 reset at each
of them, they reach 1.47 to 0.99. Longer windows are harder.

Check: M2 of 0.4 M parameters on tokens of 8 bits, 600 steps of 1,024 tokens of
Python's standard library, M1 an order-3 table counted on the same text; nats
per token on held-out files. What a token's own frequency tells is subtracted:
the gain is the unigram entropy of the evaluated tokens less the cross-entropy.

  distance_ac       |cross-entropy on AC - ln 256|
  gain_b16, _b32, _b64
  gain_b16_less_b32, gain_b32_less_b64
  second_less_first cross-entropy of the second token of a 16-bit window, which
                    sees the first, less that of the first
  kl_b16_less_b32, kl_b32_less_b64   KL of 8-bit tokens from uniform (bits,
                    corrected for bias): the same order without any model

The effect does not depend on size: the code of one token is a function of all
text before it in plain arithmetic coding, and of at most one other token here.
"""

import math
import pathlib
from typing import Any

import numpy as np

from experiments.compressed_text import m2, methods
from jaxtok import runs, train
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
  'gain_b16_less_b32': 'every >= 0',
  'gain_b32_less_b64': 'every >= 0',
  'second_less_first': 'every <= 0',
  'kl_b16_less_b32': 'every >= 0',
  'kl_b32_less_b64': 'every >= 0',
}
SEEDS = (0, 1, 2)

_METHODS = {
  'ac': 'ac_v256',
  'b16': 'equalinfo_b16_v256',
  'b32': 'equalinfo_b32_v256',
  'b64': 'equalinfo_b64_v256',
}


def get_config(method: str, seed: int, steps: int, max_bytes: int) -> Any:
  """A short run on so many bytes of the standard library."""
  config = methods.get_config(method, 'tiny')
  config.data.source = text.Stdlib(max_bytes=max_bytes)
  config.seed = seed
  m2.set_steps(config, steps)
  return config


def token_ids(run: runs.Run, split: str, max_bytes: int = 0) -> np.ndarray:
  """The tokens of a split, from the cache that training has made."""
  text_of = run.config.data.make(run.tokenizer)
  tokens = text_of.tokens(split, max_bytes)
  numbers = np.arange(len(tokens.lengths))
  ids, _ = tokens.read(numbers, 0 * numbers, tokens.lengths)
  return ids


def measure(
  workdir: pathlib.Path,
  *,
  seed: int,
  steps: int = 600,
  max_bytes: int = 3_000_000,
) -> dict[str, float]:
  """Trains on the four kinds of tokens; see the module."""
  nats, unigram, kl, found = {}, {}, {}, {}
  for name, method in _METHODS.items():
    run = train.run(
      get_config(method, seed, steps, max_bytes), workdir / method
    )
    row = run.metrics('eval/val')[-1]
    nats[name] = row['nats']
    its = run.config.evals['val']
    counts = np.bincount(token_ids(run, its.split, its.max_bytes))
    unigram[name] = trivial.entropy_nats(counts)
    bits = bit_ngrams.bits_of(token_ids(run, 'train'), 8)
    kl[name] = bit_ngrams.divergence(
      bits, (8,), num_parts=1, overlapping=False
    ).corrected.item()
    if name == 'b16':
      found['second_less_first'] = row['nats_1'] - row['nats_0']
    found |= {f'nats_{name}': nats[name], f'unigram_{name}': unigram[name]}
  gain = {name: unigram[name] - nats[name] for name in nats}
  return found | {
    'distance_ac': abs(nats['ac'] - math.log(256)),
    'gain_b16': gain['b16'],
    'gain_b32': gain['b32'],
    'gain_b64': gain['b64'],
    'gain_b16_less_b32': gain['b16'] - gain['b32'],
    'gain_b32_less_b64': gain['b32'] - gain['b64'],
    'kl_b16_less_b32': kl['b16'] - kl['b32'],
    'kl_b32_less_b64': kl['b32'] - kl['b64'],
    'kl_b16': kl['b16'],
    'kl_ac': kl['ac'],
  }
