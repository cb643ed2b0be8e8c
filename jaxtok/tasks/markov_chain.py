# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A stationary Markov chain, whose exact denoiser is a formula.

For a masked position between revealed neighbours a < l < b, the chain gives
p(x_l = v) ~ P^(l - a)[x_a, v] P^(b - l)[v, x_b]; a missing neighbour on the
left is the stationary law. With it, what a sampler draws can differ from the
source only by the sampler's own error (arXiv:2602.19619).

There is no prompt. Tokens: 0..num_symbols-1, then the mask.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtok.config import configclass
from jaxtok.tasks import base


@configclass
class MarkovChain:
  """The task; `seed` draws the transitions."""

  num_symbols: int = 6
  length: int = 16
  seed: int = 0
  concentration: float = 0.5  # Of the Dirichlet law of each row.
  floor: float = 0.02  # Added to each probability before normalising.
  num_forbidden: int = 1  # Successors that a symbol can never have.

  def __post_init__(self):
    v, cut = self.num_symbols, self.num_forbidden
    base.require(
      'MarkovChain',
      num_symbols=(v, v >= 2, '>= 2'),
      length=(self.length, self.length >= 2, '>= 2'),
      concentration=(self.concentration, self.concentration > 0, '> 0'),
      floor=(self.floor, self.floor > 0, '> 0'),
      num_forbidden=(cut, 0 <= cut <= v - 2, 'in [0, num_symbols - 2]'),
    )

  prompt_len = 0

  @property
  def answer_len(self) -> int:
    return self.length

  @property
  def mask_id(self) -> int:
    return self.num_symbols

  @property
  def vocab_size(self) -> int:
    return self.num_symbols + 1

  @functools.cached_property
  def transitions(self) -> np.ndarray:
    """P[a, b], float64; staying is always possible, so powers converge."""
    rng, v = np.random.default_rng(self.seed), self.num_symbols
    p = rng.dirichlet(np.full(v, self.concentration), v) + self.floor
    for a in range(v):
      others = np.delete(np.arange(v), [a, (a + 1) % v])  # A way round is left.
      p[a, rng.choice(others, self.num_forbidden, replace=False)] = 0
    return p / p.sum(1, keepdims=True)

  @functools.cached_property
  def stationary(self) -> np.ndarray:
    """The law of every single symbol, float64."""
    v = self.num_symbols
    system = np.concatenate([self.transitions.T - np.eye(v), np.ones((1, v))])
    right = np.append(np.zeros(v), 1.0)
    return np.linalg.lstsq(system, right, rcond=None)[0]

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: a stretch of the stationary chain."""
    row = [rng.choice(self.num_symbols, p=self.stationary)]
    for _ in range(self.length - 1):
      row.append(rng.choice(self.num_symbols, p=self.transitions[row[-1]]))
    return np.array(row, np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`: every transition is possible."""
    is_symbol = (tokens_bt < self.num_symbols).all(-1)
    safe_bt = np.minimum(tokens_bt, self.num_symbols - 1)
    p = self.transitions[safe_bt[:, :-1], safe_bt[:, 1:]]
    return is_symbol & (p > 0).all(-1)

  def exact_denoiser(
    self, tokens_bt: Int[Array, 'b t']
  ) -> Float[Array, 'b t v']:
    """Log-probabilities given the revealed symbols, by messages.

    Revealed symbols that cannot follow each other are weighted 1e-6.
    """
    p = jnp.asarray(np.maximum(self.transitions, 1e-6), jnp.float32)
    law = jnp.asarray(self.stationary, jnp.float32)
    hot = jax.nn.one_hot(tokens_bt, self.num_symbols)
    is_masked = tokens_bt[..., None] == self.mask_id
    seen_tbv = jnp.where(is_masked, 1.0, hot).swapaxes(0, 1)

    def step(matrix, message_bv, seen_bv):
      now_bv = message_bv * seen_bv
      new_bv = now_bv @ matrix
      return new_bv / new_bv.sum(-1, keepdims=True), message_bv

    b, v = tokens_bt.shape[0], self.num_symbols
    start_bv = jnp.broadcast_to(law, (b, v))
    ones_bv = jnp.ones((b, v))
    _, left_tbv = jax.lax.scan(functools.partial(step, p), start_bv, seen_tbv)
    _, right_tbv = jax.lax.scan(
      functools.partial(step, p.T), ones_bv, seen_tbv, reverse=True
    )
    joint_tbv = left_tbv * seen_tbv * right_tbv
    prob_tbv = joint_tbv / joint_tbv.sum(-1, keepdims=True)
    logits_btv = jnp.log(prob_tbv + 1e-30).swapaxes(0, 1)
    return jnp.pad(logits_btv, ((0, 0), (0, 0), (0, 1)), constant_values=-69.0)
