# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""ReMDM: revealed tokens may be masked again, so that errors are repaired.

Wang et al. 2025, arXiv:2503.00307. In a step from alpha_t to alpha_s a revealed
position is masked with probability sigma, and a masked one revealed with
probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), so that the share
of masked positions is that of the schedule for any

  0 <= sigma <= sigma_max = min(1, (1 - alpha_s) / alpha_t).

The rules of the paper are given to `ancestral.decode(remask=...)`; `Config`
makes them. `Lowest`, which is ours, is for `samplers.decode`, where a selector
reveals. Numbers of rules are leaves of a pytree. Axes: b rows, t positions.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.diffusion import samplers, schedules, selectors

# eta as released, for 1024 steps; the paper's weights by confidence have none.
ETAS = {'cap': 0.008, 'rescale': 0.015, 'confidence': 1.0, 'loop': 0.02}


def _rule(cls):
  cls = dataclasses.dataclass(frozen=True)(cls)
  names = [f.name for f in dataclasses.fields(cls)]
  return jax.tree_util.register_dataclass(cls, names, [])


def sigma_max(
  alpha_t: Float[Array, ''], alpha_s: Float[Array, '']
) -> Float[Array, '']:
  """Largest remasking probability; 1 where nothing is revealed yet."""
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.minimum(1.0, (1 - alpha_s) / jnp.maximum(alpha_t, tiny))


def _everywhere(canvas, sigma):
  return jnp.broadcast_to(sigma, canvas.tokens_bt.shape)


@_rule
class Cap:
  """`min(eta, sigma_max)`."""

  eta: Any

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    sigma = jnp.minimum(self.eta, sigma_max(alpha_t, alpha_s))
    return _everywhere(canvas, sigma)


@_rule
class Rescale:
  """`eta sigma_max`."""

  eta: Any

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    return _everywhere(canvas, self.eta * sigma_max(alpha_t, alpha_s))


@_rule
class Confidence:
  """`eta sigma_max softmax(-psi)` over the revealed positions of the row.

  psi is the probability that the token had when it was revealed, the denoiser's
  own, also where tokens are drawn by temperature or top-p. Choosing by it
  drops unlikely tokens more often than likely ones, so that even with an exact
  denoiser and many steps the samples are not those of the data: two independent
  symbols that are 1 with probability p < 1/2 come out as 1 less often, as a 1
  beside a 0 is drawn anew more often than the 0. The other rules, which do not
  look at tokens, keep the distribution but for what is revealed in one step.
  Masked positions have a weight of 0, as released: they are revealed as without
  remasking, and more of them are left than the schedule says.
  """

  eta: Any = 1.0

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    is_open_bt = is_free_bt & ~canvas.is_masked_bt
    score_bt = jnp.where(is_open_bt, -canvas.psi_bt, -jnp.inf)
    # A row without revealed positions has only -inf, whose softmax is nan.
    score_bt = jnp.where(is_open_bt.any(-1, keepdims=True), score_bt, 0.0)
    share_bt = jnp.where(is_open_bt, jax.nn.softmax(score_bt, axis=-1), 0.0)
    return self.eta * sigma_max(alpha_t, alpha_s) * share_bt


@_rule
class Loop:
  """`min(eta, sigma_max)` while alpha stands still; see `loop_alphas`."""

  eta: Any

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    sigma = jnp.minimum(self.eta, sigma_max(alpha_t, alpha_s))
    return _everywhere(canvas, jnp.where(alpha_t == alpha_s, sigma, 0.0))


_RULES = {
  'cap': Cap,
  'rescale': Rescale,
  'confidence': Confidence,
  'loop': Loop,
}


@_rule
class Lowest:
  """The `num` revealed positions of lowest psi, for `samplers.decode`.

  Fewer where the step has revealed `num` or less, so that a row gains at least
  one token with each call: `Random(2)` with `Lowest(1)` makes as many calls as
  there are tokens, twice those of `Random(2)`. Of equal psi the first.

  Differs from the paper, which knows no selectors: it is the limit of
  `Confidence` in which the least probable is dropped for sure.
  """

  num: Any = 1

  def __call__(
    self,
    canvas: samplers.Canvas,
    is_free_bt: Bool[Array, 'b t'],
    num_new_b: Int[Array, 'b'],
  ) -> Bool[Array, 'b t']:
    is_open_bt = is_free_bt & ~canvas.is_masked_bt
    num_b = jnp.minimum(self.num, num_new_b - 1)
    rank_bt = selectors.ranks(-canvas.psi_bt, is_open_bt)
    return is_open_bt & (rank_bt < num_b[:, None])


def loop_alphas(
  num_steps: int,
  *,
  alpha_on: float = 0.9,
  t_on: float = 0.55,
  t_off: float = 0.05,
) -> Float[Array, 'n']:
  """Alphas that rise linearly to `alpha_on`, stand still, and rise to 1.

  Args:
    num_steps: Static; there is one alpha more.
    alpha_on: Where alpha stands still.
    t_on: Time, from 1 down to 0, at which it begins to.
    t_off: Time at which it ends.

  Raises:
    ValueError: If the numbers are out of order.
  """
  _check_loop(alpha_on, t_on, t_off)
  t = 1 - jnp.arange(num_steps + 1) / num_steps
  rise = alpha_on * (1 - t) / (1 - t_on)
  end = 1 - (1 - alpha_on) * t / t_off
  return jnp.where(t > t_on, rise, jnp.where(t > t_off, alpha_on, end))


def _check_loop(alpha_on: float, t_on: float, t_off: float) -> None:
  if not (0 < alpha_on < 1 and 0 < t_off < t_on < 1):
    raise ValueError(
      f'alpha_on={alpha_on} must be in (0, 1), and 0 < t_off={t_off} < '
      f't_on={t_on} < 1.'
    )


@configclass
class Config:
  """A rule of the paper and the alphas that go with it."""

  kind: str = 'rescale'  # One of `ETAS`.
  eta: float | None = None  # In [0, 1]; None is that of `ETAS`.
  alpha_on: float = 0.9  # Of kind 'loop' alone, see `loop_alphas`; likewise:
  t_on: float = 0.55
  t_off: float = 0.05

  def __post_init__(self):
    if self.kind not in ETAS:
      raise ValueError(f'kind={self.kind!r} must be one of {", ".join(ETAS)}.')
    if self.eta is not None and not 0 <= self.eta <= 1:
      raise ValueError(f'eta={self.eta} must be in [0, 1]: a probability.')
    _check_loop(self.alpha_on, self.t_on, self.t_off)

  def make(self) -> Cap | Rescale | Confidence | Loop:
    """The rule."""
    eta = ETAS[self.kind] if self.eta is None else self.eta
    return _RULES[self.kind](eta)

  def alphas(self, num_steps: int) -> Float[Array, 'n']:
    """Of the linear schedule, but for 'loop'.

    Raises:
      ValueError: If alpha never stands still although it should.
    """
    if self.kind != 'loop':
      return schedules.Linear().alpha(schedules.grid(num_steps))
    alphas = loop_alphas(
      num_steps, alpha_on=self.alpha_on, t_on=self.t_on, t_off=self.t_off
    )
    if not (alphas[1:] == alphas[:-1]).any():
      raise ValueError(
        f'num_steps={num_steps} has no step between t_on={self.t_on} and '
        f't_off={self.t_off}, so that nothing would be masked again. Take more '
        f'than {2 / (self.t_on - self.t_off):.0f} steps.'
      )
    return alphas
