# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A Markov chain whose symbols are renamed in each record.

Who reads it knows the chain and not the names: the setting of a lexinvariant
model (Huang et al. 2023, arXiv:2305.16349). With v symbols there are v! ways to
name them, few enough to try all: the exact optimum is a mixture, in which each
naming has the weight of the text so far under it.

Axes: b records, t positions, v symbols, p namings.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np
from jaxtyping import Float, Int

from jaxtok.config import configclass
from jaxtok.tasks import base, markov_chain


@dataclasses.dataclass(frozen=True)
class Optimum:
  """What can be known after each symbol, float64.

  Attributes:
    logprob_btv: Of the next symbol, nats.
    plain_btv: Probability of each plain symbol behind the newest symbol.
  """

  logprob_btv: Float[np.ndarray, 'b t v']
  plain_btv: Float[np.ndarray, 'b t v']


@configclass
class Deciphering:
  """The task: a stretch of the chain, all of it answer, under new names."""

  chain: markov_chain.MarkovChain = dataclasses.field(
    default_factory=lambda: markov_chain.MarkovChain(
      length=64, concentration=0.12, floor=0.005, num_forbidden=0
    )
  )

  def __post_init__(self):
    num = self.chain.num_symbols
    rule = '<= 8; all namings are tried'
    base.require('Deciphering', num_symbols=(num, num <= 8, rule))

  prompt_len = 0

  @property
  def answer_len(self) -> int:
    return self.chain.length

  @property
  def mask_id(self) -> int:
    return self.chain.mask_id

  @property
  def vocab_size(self) -> int:
    return self.chain.vocab_size

  @functools.cached_property
  def namings(self) -> Int[np.ndarray, 'p v']:
    """All of them: names to plain symbols."""
    symbols = range(self.chain.num_symbols)
    return np.array(list(itertools.permutations(symbols)), np.int32)

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`."""
    plain_t = self.chain.draw(rng)
    names_v = rng.permutation(self.chain.num_symbols)
    return names_v[plain_t].astype(np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`: under some naming every transition is possible."""
    num = self.chain.num_symbols
    is_symbol_b = (tokens_bt < num).all(-1)
    plain_pbt = self.namings[:, np.minimum(tokens_bt, num - 1)]
    p = self.chain.transitions[plain_pbt[..., :-1], plain_pbt[..., 1:]]
    return is_symbol_b & (p > 0).all(-1).any(0)

  def optimum(self, tokens_bt: Int[np.ndarray, 'b t']) -> Optimum:
    """The exact optimum of whoever knows the chain and not the names."""
    b, t = tokens_bt.shape
    v = self.chain.num_symbols
    with np.errstate(divide='ignore'):
      law_v = np.log(self.chain.stationary)
      law_vv = np.log(self.chain.transitions)
    logprob_btv, plain_btv = np.zeros((b, t, v)), np.zeros((b, t, v))
    plain_bp = self.namings[:, tokens_bt[:, 0]].T
    weight_bp = law_v[plain_bp]
    for i in range(t):
      if i:
        before_bp, plain_bp = plain_bp, self.namings[:, tokens_bt[:, i]].T
        weight_bp = weight_bp + law_vv[before_bp, plain_bp]
      share_bp = np.exp(weight_bp - weight_bp.max(1, keepdims=True))
      share_bp /= share_bp.sum(1, keepdims=True)
      next_bpv = self.chain.transitions[plain_bp[..., None], self.namings]
      logprob_btv[:, i] = np.log(np.einsum('bp,bpv->bv', share_bp, next_bpv))
      hot_bpv = plain_bp[..., None] == np.arange(v)
      plain_btv[:, i] = np.einsum('bp,bpv->bv', share_bp, hot_bpv)
    return Optimum(logprob_btv, plain_btv)

  @property
  def entropy_rate(self) -> float:
    """Nats per symbol of the chain for whoever knows the names too."""
    p, law = self.chain.transitions, self.chain.stationary
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    return float(-(law @ terms.sum(1)))

  @property
  def uniform(self) -> float:
    """Nats per symbol of whoever knows nothing."""
    return math.log(self.chain.num_symbols)
