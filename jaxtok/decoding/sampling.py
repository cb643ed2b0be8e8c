# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""From logits to the next token: temperature, top-k, top-p, min-p, bans.

The filters are applied in this order: bans, temperature, top-k, top-p (on what
top-k left, renormalised; Holtzman et al. 2019, arXiv:1904.09751), min-p
(relative to the most likely token, hence independent of the others; Nguyen et
al. 2024, arXiv:2407.01082). `is_top_p_first` swaps top-k and top-p: the mass
is then that of all tokens. Ties are broken towards the lower id everywhere, so
`top_k=1` is greedy decoding and exactly `top_k` tokens survive.

All functions work on any leading axes; positions do not influence each other.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxtok.config import configclass


@configclass
class Config:
  """Which distribution to draw from, as a change of the model's own."""

  temperature: float = 1.0  # 0 takes the most likely token.
  top_k: int = 0  # Keep this many tokens; 0 keeps all.
  top_p: float = 1.0  # Keep the fewest tokens with this much probability.
  min_p: float = 0.0  # Keep tokens with p >= min_p * max(p).

  def __post_init__(self):
    if not 0 <= self.temperature < float('inf'):
      raise ValueError(
        f'temperature={self.temperature} must be finite and >= 0 (0 is greedy).'
      )
    if self.top_k < 0:
      raise ValueError(f'top_k={self.top_k} must be >= 0 (0 keeps all tokens).')
    if not 0 < self.top_p <= 1:
      raise ValueError(
        f'top_p={self.top_p} must be in (0, 1] (1 keeps all tokens).'
      )
    if not 0 <= self.min_p <= 1:
      raise ValueError(
        f'min_p={self.min_p} must be in [0, 1] (0 keeps all tokens).'
      )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
  """Drawn tokens, one per position.

  Attributes:
    token: int32 ids.
    logprob: Log-probability of the token under the model itself, in nats.
    filtered_logprob: The same under the distribution it was drawn from; 0 for
      greedy decoding.
  """

  token: Any
  logprob: Any
  filtered_logprob: Any


def ban(
  vocab_size: int, ids: Iterable[int] = (), *, num_real: int = 0
) -> np.ndarray:
  """Marks ids that must never be drawn.

  Args:
    vocab_size: Width of the model's logits.
    ids: Banned ids, e.g. the tokenizer's padding and other specials.
    num_real: Size of the tokenizer's vocabulary; logits from there on are
      padding of the model's table. 0 means that all are real.

  Returns:
    A bool array of shape `(vocab_size,)`, True for banned ids.
  """
  banned = np.zeros(vocab_size, bool)
  for i in ids:
    if not 0 <= i < vocab_size:
      raise ValueError(
        f'ids: {i} cannot be banned, the model has ids 0 to {vocab_size - 1}.'
      )
    banned[i] = True
  if not 0 <= num_real <= vocab_size:
    raise ValueError(
      f'num_real={num_real} must be in 0..{vocab_size}, the number of logits. '
      'A tokenizer with more ids than the model has belongs to another model.'
    )
  if num_real:
    banned[num_real:] = True
  if banned.all():
    raise ValueError(f'all {vocab_size} ids are banned; none could be drawn.')
  return banned


def filter_logits(
  logits_bv: Float[Array, '*b v'],
  config: Config,
  banned_v: Bool[Array | np.ndarray, 'v'] | None = None,
  *,
  is_top_p_first: bool = False,
) -> Float[Array, '*b v']:
  """Logits of the distribution that `config` describes.

  Args:
    logits_bv: The model's logits.
    config: Static.
    banned_v: True for ids that get probability 0; see `ban`.
    is_top_p_first: Whether top-p comes before top-k, as in Dream; static.

  Returns:
    float32 logits, `-inf` where the probability is 0. With `temperature=0` the
    most likely token keeps logit 0.
  """
  logits_bv = logits_bv.astype(jnp.float32)
  if banned_v is not None:
    logits_bv = jnp.where(banned_v, -jnp.inf, logits_bv)
  if config.temperature == 0:
    best_b = jnp.argmax(logits_bv, axis=-1)
    is_best_bv = jax.nn.one_hot(best_b, logits_bv.shape[-1], dtype=bool)
    return jnp.where(is_best_bv, 0.0, -jnp.inf)
  # Subtracting the maximum first keeps tiny temperatures finite.
  logits_bv -= logits_bv.max(axis=-1, keepdims=True)
  logits_bv /= config.temperature
  if config.top_k or config.top_p < 1:
    logits_bv = _keep_top(logits_bv, config, is_top_p_first)
  if config.min_p:
    is_kept_bv = logits_bv >= np.log(config.min_p)
    logits_bv = jnp.where(is_kept_bv, logits_bv, -jnp.inf)
  return logits_bv


def _keep_top(
  logits_bv: Float[Array, '*b v'], config: Config, is_top_p_first: bool
) -> Float[Array, '*b v']:
  """Applies top-k and top-p."""
  vocab_size = logits_bv.shape[-1]
  k = min(config.top_k, vocab_size) or vocab_size
  top_bk, ids_bk = jax.lax.top_k(logits_bv, k)  # Ties: lower id first.
  if config.top_p < 1:
    probs_bk = jax.nn.softmax(top_bk, axis=-1)
    if is_top_p_first:
      total_b1 = jax.nn.logsumexp(logits_bv, axis=-1, keepdims=True)
      probs_bk = jnp.exp(top_bk - total_b1)
    mass_before_bk = jnp.cumsum(probs_bk, axis=-1) - probs_bk
    # The first token is kept even where rounding makes its prefix nonzero.
    is_kept_bk = (mass_before_bk < config.top_p).at[..., 0].set(True)
    top_bk = jnp.where(is_kept_bk, top_bk, -jnp.inf)
  return jnp.put_along_axis(
    jnp.full_like(logits_bv, -jnp.inf), ids_bk, top_bk, axis=-1, inplace=False
  )


def sample(
  logits_bv: Float[Array, 'b v'],
  rng: Array,
  config: Config,
  banned_v: Bool[Array | np.ndarray, 'v'] | None = None,
) -> Sample:
  """Draws one token per row.

  The noise of row i depends on `rng` and i only, not on other rows.

  Args:
    logits_bv: The model's logits.
    rng: A `jax.random.key`; not used when `config.temperature` is 0.
    config: Static.
    banned_v: True for ids that are never drawn; see `ban`.

  Returns:
    Tokens and their log-probabilities, each of shape `(b,)`.
  """
  filtered_bv = filter_logits(logits_bv, config, banned_v)
  if config.temperature == 0:
    token_b = jnp.argmax(filtered_bv, axis=-1).astype(jnp.int32)
  else:
    rows_b = jnp.arange(logits_bv.shape[0])
    rng_b = jax.vmap(jax.random.fold_in, (None, 0))(rng, rows_b)
    token_b = jax.vmap(jax.random.categorical)(rng_b, filtered_bv)
    token_b = token_b.astype(jnp.int32)
  return Sample(
    token=token_b,
    logprob=_logprob(logits_bv, token_b),
    filtered_logprob=_logprob(filtered_bv, token_b),
  )


def _logprob(
  logits_bv: Float[Array, 'b v'], token_b: Array
) -> Float[Array, 'b']:
  logits_bv = logits_bv.astype(jnp.float32)
  picked_b1 = jnp.take_along_axis(logits_bv, token_b[:, None], axis=-1)
  return picked_b1[:, 0] - jax.nn.logsumexp(logits_bv, axis=-1)
