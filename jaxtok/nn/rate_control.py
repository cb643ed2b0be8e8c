# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Controllers that steer how much a model shortens its sequence.

A controller is a part of the model with a state of its own:

  coef = controller.coef()        # Used in this step's loss or forward pass.
  controller.update(observed)     # Once after each training step.

The state is an `nnx.Variable` that is no `nnx.Param`: the training step keeps
it in `State.rest`, so the optimizer leaves it alone and checkpoints hold it.
Only the training step advances it: a model with controllers defines
`advance(metrics)`, which `train.step` calls once per step with the metrics of
the whole batch, over all devices and microbatches. Evaluation and generation
never do.

  PI            of MrT5 (Kallini et al. 2025, arXiv:2410.20771, section 3.3)
  RatioLoss     of H-Net (Hwang et al. 2025, arXiv:2507.07955, section 2.2.2)
  RandomTarget  of MergeDNA (arXiv:2511.14806, section 3.4)

All are off, with a coefficient of 0, for their first `delay` updates.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxtok.config import configclass


class ControllerState(nnx.Variable):
  """State of a controller: float32 or int32 scalars."""


class RateController(Protocol):
  """Protocol of controllers."""

  def coef(self) -> Float[Array, '']:
    """The coefficient of this step."""
    ...

  def update(self, observed: Float[Array, '']) -> None:
    """Takes in what the whole batch of a training step showed."""
    ...


def _check_delay(delay: int) -> None:
  if delay < 0:
    raise ValueError(f'delay={delay} must be >= 0 (training steps).')


@configclass
class PI:
  """Hyper-parameters of `PIController`; defaults are the paper's.

  `two_sided` and `ramp` are ours, for a share that a task cannot spare. There
  the paper's controller runs away: once too much is deleted, what is left helps
  so little that the loss alone deletes the rest, and a coefficient that is
  never negative cannot stop it.
  """

  target: float = 0.5  # What is observed should become this.
  kp: float = 0.5
  ki: float = 1e-5
  decay: float = 0.9  # Of the smoothed proportional part.
  delay: int = 0  # Steps before it begins.
  ramp: int = 0  # Steps after these in which the target rises from 0.
  two_sided: bool = False  # The coefficient may be negative.

  def __post_init__(self):
    _check_delay(self.delay)
    if self.ramp < 0:
      raise ValueError(f'ramp={self.ramp} must be >= 0 (training steps).')
    if not 0 <= self.decay < 1:
      raise ValueError(f'decay={self.decay} must be in [0, 1).')

  def make(self) -> 'PIController':
    return PIController(self)


class PIController(nnx.Module):
  """Proportional-integral control of the coefficient of a regulariser.

  With `err = target - observed`: `P = decay P + (1 - decay) kp err`, `I = I +
  ki err`, and the coefficient of the next step is `max(0, P + I)`, or `P + I`
  if it is two-sided. A larger coefficient must raise what is observed.
  """

  def __init__(self, config: PI):
    self.config = config
    self.proportional = ControllerState(jnp.zeros(()))
    self.integral = ControllerState(jnp.zeros(()))
    self.steps = ControllerState(jnp.zeros((), jnp.int32))

  def coef(self) -> Float[Array, '']:
    """The regulariser's coefficient; 0 until `delay` steps have passed."""
    coef = self.proportional[...] + self.integral[...]
    return coef if self.config.two_sided else jnp.maximum(0.0, coef)

  def target(self) -> Float[Array, '']:
    """What should be observed in the step to come."""
    c = self.config
    past = (self.steps[...] - c.delay).astype(jnp.float32)
    risen = jnp.clip(past / c.ramp, 0.0, 1.0) if c.ramp else 1.0
    return jnp.float32(c.target) * risen

  def update(self, observed: Float[Array, '']) -> None:
    """Advances the state; during the delay only the count of steps."""
    c = self.config
    error = jnp.where(
      self.steps[...] < c.delay, 0.0, self.target() - observed
    ).astype(jnp.float32)
    self.proportional[...] = (
      c.decay * self.proportional[...] + (1 - c.decay) * c.kp * error
    )
    self.integral[...] = self.integral[...] + c.ki * error
    self.steps[...] = self.steps[...] + 1


@configclass
class Ratio:
  """Hyper-parameters of `RatioLoss`."""

  length: float = 6.0  # Target N: positions per unit.
  weight: float = 0.03  # Of the loss.
  delay: int = 0  # Steps before it begins.

  def __post_init__(self):
    _check_delay(self.delay)
    if self.length <= 1:
      raise ValueError(
        f'length={self.length} positions per unit must be > 1; 1 means that '
        'nothing is shortened.'
      )

  def make(self) -> 'RatioLoss':
    return RatioLoss(self)


class RatioLoss(nnx.Module):
  """A loss that is least where units have `length` positions on average.

  With F the share of positions that begin a unit and G the mean probability of
  a beginning: `N / (N-1) ((N-1) F G + (1-F) (1-G))`, which is 1 at F = G =
  1/N. Gradients flow through G only.
  """

  def __init__(self, config: Ratio):
    self.config = config
    self.steps = ControllerState(jnp.zeros((), jnp.int32))

  def coef(self) -> Float[Array, '']:
    """The loss's weight; 0 until `delay` steps have passed."""
    is_on = self.steps[...] >= self.config.delay
    return jnp.where(is_on, jnp.float32(self.config.weight), 0.0)

  def update(self, observed: Float[Array, '']) -> None:
    """Counts the step; what was observed plays no part."""
    del observed
    self.steps[...] = self.steps[...] + 1

  def loss(
    self,
    start_bt: Bool[Array, 'b t'],
    prob_bt: Float[Array, 'b t'],
    valid_bt: Bool[Array, 'b t'],
    *,
    by_row: bool = False,
  ) -> Float[Array, '#b']:
    """The loss without the weight; 1 at the target.

    F and G are means over all positions of the batch: rows may have shorter
    and longer units, as long as those of the batch are as long as wanted.

    Args:
      start_bt: Where units begin.
      prob_bt: Probability of a beginning.
      valid_bt: Positions that are no padding.
      by_row: Whether F and G are those of each row, as is reported.

    Returns:
      One number, or one for each row.
    """
    n, axis = self.config.length, 1 if by_row else None
    total = lambda x: jnp.where(valid_bt, x, 0.0).sum(axis=axis)
    count_b = jnp.maximum(total(1.0), 1.0)
    mean = lambda x: jnp.atleast_1d(total(x) / count_b)
    f_b = jax.lax.stop_gradient(mean(start_bt.astype(jnp.float32)))
    g_b = mean(prob_bt)
    return n / (n - 1) * ((n - 1) * f_b * g_b + (1 - f_b) * (1 - g_b))


@configclass
class Random:
  """Hyper-parameters of `RandomTarget`."""

  mean: float = 0.5  # Of the share of positions that are left.
  std: float = 0.05
  low: float = 0.4
  high: float = 0.6
  num_targets: int = 5  # Shares low..high that occur, evenly spaced.
  seed: int = 0
  delay: int = 0  # Steps before it begins; until then, coef is `mean`.

  def __post_init__(self):
    _check_delay(self.delay)
    if not 0 < self.low <= self.mean <= self.high <= 1:
      raise ValueError(
        f'shares must satisfy 0 < low={self.low} <= mean={self.mean} <= high='
        f'{self.high} <= 1.'
      )
    if self.num_targets < 2 or self.std < 0:
      raise ValueError(
        f'num_targets={self.num_targets} must be >= 2, std={self.std} >= 0.'
      )

  def make(self) -> 'RandomTarget':
    return RandomTarget(self)


class RandomTarget(nnx.Module):
  """Draws the share of positions that are left anew for each training step.

  The draw depends on the seed and the number of steps only. It is rounded to
  one of few shares, so that shapes which depend on it are few.
  """

  def __init__(self, config: Random):
    self.config = config
    self.steps = ControllerState(jnp.zeros((), jnp.int32))

  def index(self) -> Array:
    """Number of the share of this step in `shares`."""
    c = self.config
    key = jax.random.fold_in(jax.random.key(c.seed), self.steps[...])
    draw = c.mean + c.std * jax.random.normal(key)
    draw = jnp.where(self.steps[...] < c.delay, c.mean, draw)
    draw = jnp.clip(draw, c.low, c.high)
    width = max(c.high - c.low, 1e-9) / (c.num_targets - 1)
    return jnp.round((draw - c.low) / width).astype(jnp.int32)

  @property
  def shares(self) -> tuple[float, ...]:
    """The shares that occur; static."""
    c = self.config
    width = (c.high - c.low) / (c.num_targets - 1)
    return tuple(c.low + i * width for i in range(c.num_targets))

  def coef(self) -> Float[Array, '']:
    """The share of this step."""
    return jnp.asarray(self.shares, jnp.float32)[self.index()]

  def update(self, observed: Float[Array, '']) -> None:
    """Goes on to the next draw; what was observed plays no part."""
    del observed
    self.steps[...] = self.steps[...] + 1
