# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Overlapping k-mers leak what is masked and waste positions; BPE does not.

Zhou et al. 2023, arXiv:2306.15006, sections 2 and 3.1, argue that a masked
overlapping k-mer can be read off its neighbours, and that BPE gives as good a
model for far fewer positions (on GUE: 21 times fewer parameters and 56 times
less GPU time than the best model before).

Check 1, on random bases: a rule without parameters reads masked tokens off the
tokens that are left, and guesses A for bases that no token shows. Masks are
those of `objectives.masked_lm`, 15 % of the tokens: 6-mers alone, 6-mers in
runs of six, and BPE tokens, of which the rule guesses the most frequent.

Check 2, on made-up sequences of 200 bases with one of two words in them (of 10
bases, 10 % of which are drawn anew, among words of 14 other kinds): the same
model (width 64, 2 layers) is trained from random weights on 4,000 sequences, 3
epochs, over BPE tokens (512) and over overlapping 6-mers; Matthews correlation
on 1,000 others, and matmul FLOPs of attention scores and sums per sequence.
"""

import pathlib

import jax
import numpy as np

from experiments.dna import finetune
from experiments.dna.configs import dnabert2
from jaxtok.data import planted
from jaxtok.models import base
from jaxtok.objectives import masked_lm
from jaxtok.tokenizers import dna

TITLE = 'DNABERT-2'
PAPER = 'Zhou et al. 2023, arXiv:2306.15006'
CLAIM = (
  'A masked overlapping 6-mer can be read off its neighbours, a BPE token '
  'cannot; and over BPE tokens a model classifies as well for a third of the '
  'FLOPs of attention.'
)
THRESHOLD = {
  'lookup_6mers': 'every >= 0.99',
  'lookup_6mers_in_runs': '<= 0.3',
  'lookup_bpe': '<= 0.05',
  'bases_per_token': '>= 3.5',
  'mcc_bpe': '>= 0.8',
  'mcc_6mers_less_bpe': '<= 0.03',
  'attention_flops_ratio': '<= 0.3334',
}
SEEDS = (0, 1, 2)
K = 6
_NUM_BASES = 60_000


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Both checks; see the module."""
  del workdir
  return _leaks(seed) | _classifies(seed)


def _leaks(seed: int) -> dict[str, float]:
  rng = np.random.default_rng(seed)
  bases = rng.integers(0, 4, _NUM_BASES)
  text = np.frombuffer(dna.BASES, np.uint8)[bases].tobytes()
  num = _NUM_BASES - K + 1
  ids = dna.TrainBpe(vocab_size=512).make(lambda: [text]).encode(text)
  chosen = _chosen(len(ids), 1, seed)
  common = np.bincount(ids[~chosen]).argmax()
  return {
    'lookup_6mers': read_off(bases, K, _chosen(num, 1, seed)),
    'lookup_6mers_in_runs': read_off(bases, K, _chosen(num, K, seed)),
    'lookup_bpe': float((ids[chosen] == common).mean()),
  }


def _chosen(num: int, span: int, seed: int) -> np.ndarray:
  """Which tokens of a row are masked."""
  rate = masked_lm.Config().rate
  can_bt = np.ones((1, num), bool)
  chosen_bt = masked_lm.choose(can_bt, rate, span, jax.random.key(seed))
  return np.asarray(chosen_bt)[0]


def read_off(bases: np.ndarray, k: int, is_masked: np.ndarray) -> float:
  """Share of the masked overlapping k-mers that their neighbours give away.

  Args:
    bases: Numbers 0..3.
    k: Letters of a token; token i is `bases[i : i + k]`.
    is_masked: Of each token.
  """
  is_shown = np.zeros(len(bases), bool)
  for i in range(k):
    is_shown[i : i + len(is_masked)] |= ~is_masked
  guessed = np.where(is_shown, bases, 0)
  windows = np.lib.stride_tricks.sliding_window_view
  is_right = (windows(guessed, k) == windows(bases, k)).all(axis=1)
  return float(is_right[is_masked].mean())


def _classifies(seed: int) -> dict[str, float]:
  task = finetune.Task(data=planted.Motifs(seed=seed), epochs=3)
  config = dnabert2.get_config('tiny')
  text = task.data.read('train').sequences
  tokenizers = {
    'bpe': dna.TrainBpe(vocab_size=512).make(lambda: text),
    '6mers': dna.Config(k=K, overlapping=True).make(),
  }
  mcc, attention = {}, {}
  for name, tokenizer in tokenizers.items():
    model = config.pretrain.model
    model.vocab_size = tokenizer.vocab_size
    encoder = finetune.Encoder(model, tokenizer, None)
    found = finetune.finetune(encoder, task, config.finetune, seed=seed)
    mcc[name] = found['mcc']
    rows = finetune.rows(task, tokenizer)['train']
    # Rows as they are on average, not as long as the longest.
    length = int(np.ceil(rows.lengths_n.mean()))
    attention[name] = model.flops(base.Shape(b=1, t=length))['attention']
  num_tokens = len(tokenizers['bpe'].encode_batch(text).values)
  return {
    'bases_per_token': sum(map(len, text)) / num_tokens,
    'mcc_bpe': mcc['bpe'],
    'mcc_6mers': mcc['6mers'],
    'mcc_6mers_less_bpe': mcc['6mers'] - mcc['bpe'],
    'attention_flops_ratio': attention['bpe'] / attention['6mers'],
  }
