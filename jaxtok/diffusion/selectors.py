# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rules that say which masked positions to reveal at a decoding step.

A selector maps a `View` to booleans [b, t]. Every selector returns only
allowed positions, at least one in each row that has any, and looks at no other
row. Its numbers are leaves of a pytree, so that a sweep over thresholds
compiles once. Ties go to the lowest index.

Top-k confidence: Chang et al. 2022, arXiv:2202.04200. Margin: Kim et al. 2025,
arXiv:2502.06768. Threshold and factor: Wu et al. 2025, arXiv:2505.22618.
Entropy bound: Ben-Hamu et al. 2025, arXiv:2505.24857. Margin of the right
token: arXiv:2602.09501.

Axes: b rows, t positions of the answer, v vocabulary.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
  """What a selector sees.

  Attributes:
    probs_btv: Float32 distribution of the denoiser, without noise, zero at the
      mask token.
    tokens_bt: The token that would be written at each position.
    is_masked_bt: Positions not yet revealed.
    allowed_bt: Those that may be revealed now (the current block).
    progress_b: Denoiser calls of the row so far over the answer's positions.
    rngs_b: One key per row, new at each step.
  """

  probs_btv: Float[Array, 'b t v']
  tokens_bt: Int[Array, 'b t']
  is_masked_bt: Bool[Array, 'b t']
  allowed_bt: Bool[Array, 'b t']
  progress_b: Float[Array, 'b']
  rngs_b: Any

  @property
  def confidence_bt(self) -> Float[Array, 'b t']:
    """Largest probability of each position."""
    return self.probs_btv.max(-1)

  @property
  def token_probs_bt(self) -> Float[Array, 'b t']:
    """Probability of the token that would be written."""
    return jnp.take_along_axis(
      self.probs_btv, self.tokens_bt[..., None], axis=-1
    )[..., 0]


@runtime_checkable
class Selector(Protocol):
  """Protocol of selectors."""

  def __call__(self, view: View) -> Bool[Array, 'b t']: ...


def ranks(
  score_bt: Float[Array, 'b t'], allowed_bt: Bool[Array, 'b t']
) -> Int[Array, 'b t']:
  """Rank of each allowed position, best score first, from 0.

  Positions that are not allowed come after all others.
  """
  score_bt = jnp.where(allowed_bt, score_bt, -jnp.inf)
  # An allowed score may be -inf too: allowed positions still come first.
  order_bt = jnp.lexsort((-score_bt, ~allowed_bt), axis=-1)
  return jnp.argsort(order_bt, axis=-1)


def _top(score_bt, allowed_bt, k):
  return allowed_bt & (ranks(score_bt, allowed_bt) < jnp.maximum(k, 1))


def entropy(probs_btv: Float[Array, 'b t v']) -> Float[Array, 'b t']:
  """Entropy in nats; 0 log 0 = 0."""
  return jax.scipy.special.entr(probs_btv).sum(-1)


def margin(probs_btv: Float[Array, 'b t v']) -> Float[Array, 'b t']:
  """Gap between the two largest probabilities."""
  best_bt2 = jax.lax.top_k(probs_btv, 2)[0]
  return best_bt2[..., 0] - best_bt2[..., 1]


def noise(view: View) -> Float[Array, 'b t']:
  """A uniform number for each position, from the key of its row."""
  num = view.allowed_bt.shape[1]
  return jax.vmap(lambda r: jax.random.uniform(r, (num,)))(view.rngs_b)


PROXIES = ('entropy', 'confidence', 'margin')  # See `EntropyBound`.


def _selector(cls):
  """A frozen dataclass whose fields are leaves, but for static ones."""
  return jax.tree_util.register_dataclass(
    dataclasses.dataclass(frozen=True)(cls)
  )


@_selector
class Random:
  """`k` positions at random."""

  k: Any = 1

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    return _top(noise(view), view.allowed_bt, self.k)


@_selector
class TopK:
  """The `k` whose token is most probable."""

  k: Any = 1

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    return _top(view.token_probs_bt, view.allowed_bt, self.k)


@_selector
class Margin:
  """The `k` with the largest gap between the two best tokens."""

  k: Any = 1

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    return _top(margin(view.probs_btv), view.allowed_bt, self.k)


@_selector
class Entropy:
  """The `k` with the lowest entropy."""

  k: Any = 1

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    return _top(-entropy(view.probs_btv), view.allowed_bt, self.k)


@_selector
class Threshold:
  """All of confidence at least `threshold`, and the most confident one.

  Implementations differ (>, >=, a tolerance); this is >=.
  """

  threshold: Any = 0.9

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    conf_bt, allowed_bt = view.confidence_bt, view.allowed_bt
    # An argmax is less work than the sort of `ranks`.
    best_b1 = jnp.where(allowed_bt, conf_bt, -1).argmax(-1, keepdims=True)
    is_best_bt = jnp.arange(conf_bt.shape[1]) == best_b1
    return allowed_bt & (is_best_bt | (conf_bt >= self.threshold))


@_selector
class Factor:
  """The largest n whose ranks i <= n all have c_(i) >= 1 - factor / (i + 1).

  Differs from the published loop, which accepts the last rank even if it
  failed its test.
  """

  factor: Any = 1.0

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    conf_bt, allowed_bt = view.confidence_bt, view.allowed_bt
    rank_bt = ranks(conf_bt, allowed_bt)
    passes_bt = conf_bt >= 1 - self.factor / (rank_bt + 2)
    fails_bt = allowed_bt & ~passes_bt
    first_b = jnp.where(fails_bt, rank_bt, rank_bt.shape[1]).min(-1)
    return allowed_bt & (rank_bt < jnp.maximum(first_b, 1)[:, None])


@_selector
class EntropyBound:
  """The longest prefix U with sum H(U) - max H(U) <= gamma.

  H are entropies. The prefix is of the positions by their expected error, the
  lowest first, for which there are three proxies: 'entropy', 'confidence' (one
  minus the largest probability) and 'margin' (minus the gap of the best two).
  """

  gamma: Any = 0.5
  proxy: str = dataclasses.field(default='entropy', metadata=dict(static=True))

  def __post_init__(self):
    if self.proxy not in PROXIES:
      raise ValueError(
        f'proxy={self.proxy!r} must be one of {", ".join(PROXIES)}.'
      )

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    h_bt, allowed_bt = entropy(view.probs_btv), view.allowed_bt
    if self.proxy == 'entropy':
      score_bt = -h_bt
    elif self.proxy == 'confidence':
      score_bt = view.confidence_bt
    else:
      score_bt = margin(view.probs_btv)
    rank_bt = ranks(score_bt, allowed_bt)
    order_bt = jnp.argsort(rank_bt, axis=-1)
    sorted_bt = jnp.take_along_axis(
      jnp.where(allowed_bt, h_bt, 0.0), order_bt, axis=-1
    )
    # One more position never lowers the bound.
    largest_bt = jax.lax.cummax(sorted_bt, axis=1)
    bound_bt = jnp.cumsum(sorted_bt, axis=-1) - largest_bt
    num_b = (bound_bt <= self.gamma).sum(-1)
    return allowed_bt & (rank_bt < jnp.maximum(num_b, 1)[:, None])


@_selector
class OracleMargin:
  """The `k` whose token of a given right answer most exceeds all others.

  `answers_bt` holds that answer, row by row. Where a prompt has several right
  answers it is one of them: then this is a yardstick and not an upper bound.
  """

  answers_bt: Any
  k: Any = 1

  def __call__(self, view: View) -> Bool[Array, 'b t']:
    right_btv = jax.nn.one_hot(
      self.answers_bt, view.probs_btv.shape[-1], dtype=bool
    )
    right_bt = jnp.where(right_btv, view.probs_btv, 0).sum(-1)
    other_bt = jnp.where(right_btv, 0, view.probs_btv).max(-1)
    return _top(right_bt - other_bt, view.allowed_bt, self.k)
