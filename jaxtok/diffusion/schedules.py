# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How likely a token is still clean at time t.

Time runs from 0 (clean) to 1 (all masked); `alpha(t)` is the probability that
a token is clean, decreasing. `weight(t) = -alpha'(t) / (1 - alpha(t))` is the
rate at which tokens are revealed in reverse, which weighs the cross-entropy of
masked tokens in the likelihood bound. The bound of a denoiser that ignores time
does not depend on the schedule, only its variance does (Sahoo et al. 2024,
arXiv:2406.07524).

Schedules are pytrees of numbers, so that they can be traced and learned.
"""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@runtime_checkable
class Schedule(Protocol):
  """Protocol of schedules; times of any shape, float32 results."""

  def alpha(self, t: Float[Array, '...']) -> Float[Array, '...']:
    """Probability that a token is clean at time t."""
    ...

  def weight(self, t: Float[Array, '...']) -> Float[Array, '...']:
    """`-alpha'(t) / (1 - alpha(t))`, in 1 / time."""
    ...


def _schedule(cls):
  """A frozen dataclass whose fields are leaves, but for static ones."""
  return jax.tree_util.register_dataclass(
    dataclasses.dataclass(frozen=True)(cls)
  )


def _static(default: float) -> Any:
  return dataclasses.field(default=default, metadata=dict(static=True))


def time_of(
  schedule: Schedule, share: Float[Array, '...'], num_times: int = 4096
) -> Float[Array, '...']:
  """When a share of the tokens is masked, by interpolation between times."""
  times = jnp.linspace(0.0, 1.0, num_times + 1)
  return jnp.interp(share, 1 - schedule.alpha(times), times)


@_schedule
class Linear:
  """`alpha = 1 - t`, called log-linear by MDLM; the weight is 1/t."""

  def alpha(self, t):
    return 1 - t

  def weight(self, t):
    return 1 / t


@_schedule
class Polynomial:
  """`alpha = (1 - eps) (1 - t**power)`; 1 is linear (MD4).

  Differs from the paper (Shi et al. 2024, arXiv:2406.04329), where alpha ends
  at eps instead of 0: what is still clean at the end would make the bound's
  prior term infinite.

  Attributes:
    power: > 0.
    eps: Probability that a token is masked at time 0, which bounds the weight;
      static. What is masked there costs ln v nats each, see `md4`.
  """

  power: Any = 1.0
  eps: float = _static(1e-4)

  def alpha(self, t):
    return (1 - self.eps) * (1 - t**self.power)

  def weight(self, t):
    slope = (1 - self.eps) * self.power * t ** (self.power - 1)
    return slope / (self.eps + (1 - self.eps) * t**self.power)


@_schedule
class Cosine:
  """`alpha = (1 - eps) (1 - cos(pi/2 (1 - t)))`; see `Polynomial` for eps."""

  eps: float = _static(1e-4)

  def alpha(self, t):
    return (1 - self.eps) * (1 - jnp.sin(jnp.pi / 2 * t))

  def weight(self, t):
    slope = (1 - self.eps) * jnp.pi / 2 * jnp.cos(jnp.pi / 2 * t)
    return slope / (self.eps + (1 - self.eps) * jnp.sin(jnp.pi / 2 * t))


@_schedule
class Geometric:
  """`alpha = exp(-low**(1 - t) high**t)`: noise grows by a constant factor.

  Lou et al. 2023, arXiv:2310.16834. A share exp(-high) of the tokens is still
  clean at the end, and 1 - exp(-low) masked at time 0.
  """

  low: Any = 1e-5
  high: Any = 20.0

  def noise(self, t):
    """Total noise sigma, `-ln alpha`."""
    return self.low ** (1 - t) * self.high**t

  def alpha(self, t):
    return jnp.exp(-self.noise(t))

  def weight(self, t):
    sigma = self.noise(t)
    return jnp.log(self.high / self.low) * sigma / jnp.expm1(sigma)


KINDS = ('linear', 'polynomial', 'cosine', 'geometric')


def make(kind: str, *, power: float = 1.0, eps: float = 1e-4) -> Schedule:
  """The schedule of a name in `KINDS`.

  Raises:
    ValueError: If there is no such kind, or a number is out of range.
  """
  if power <= 0 or not 0 < eps < 1:
    raise ValueError(
      f'power={power} must be > 0 and eps={eps} in (0, 1). Try 1 and 1e-4.'
    )
  choices = {
    'linear': Linear(),
    'polynomial': Polynomial(power, eps),
    'cosine': Cosine(eps),
    'geometric': Geometric(),
  }
  if kind not in choices:
    raise ValueError(
      f'schedule={kind!r} does not exist. Use one of: {", ".join(KINDS)}.'
    )
  return choices[kind]


def times(rng: Array, num: int) -> Float[Array, 'b']:
  """Times in [0, 1), uniform each, one in each of `num` equal strata.

  `t_i = (u + i / num) mod 1` with one shared u (Kingma et al. 2021,
  arXiv:2107.00630; MD4): the average over rows has a lower variance
  than of independent times. Rows are those of the global batch.
  """
  u = jax.random.uniform(rng)
  return (u + jnp.arange(num) / num) % 1


def reveal_probability(
  schedule: Schedule, t: Float[Array, '...'], s: Float[Array, '...']
) -> Float[Array, '...']:
  """Probability that a token masked at t is revealed on the way to s < t."""
  alpha_t = schedule.alpha(t)
  return (schedule.alpha(s) - alpha_t) / (1 - alpha_t)


def check_steps(num_steps: int) -> None:
  """Raises ValueError if it is negative."""
  if num_steps < 0:
    raise ValueError(
      f'num_steps={num_steps} must be >= 0; 0 is continuous time.'
    )


def of_steps(
  schedule: Schedule, t: Float[Array, '...'], num_steps: int
) -> tuple[Float[Array, '...'], Float[Array, '...']]:
  """Times and weights of the bound of a process of finitely many steps.

  A time is moved to the end of its step (k/T, (k + 1)/T], the weight of masked
  tokens is T times the probability that a step reveals them. With T to
  infinity it is `schedule.weight`.

  Args:
    schedule: The schedule.
    t: In [0, 1).
    num_steps: T >= 1, static.
  """
  # The product may round up to T.
  k = jnp.minimum(jnp.floor(t * num_steps), num_steps - 1)
  t, s = (k + 1) / num_steps, k / num_steps
  return t, num_steps * reveal_probability(schedule, t, s)


def grid(num_steps: int, *, kind: str = 'uniform') -> Float[Array, 'n']:
  """Times from 1 to 0, `num_steps` + 1 of them.

  Args:
    num_steps: Static.
    kind: 'uniform', or 'cosine', which takes small steps near 1 (MD4:
      few tokens are known there, so errors of parallel drawing are large).
  """
  if num_steps < 1:
    raise ValueError(f'num_steps={num_steps} must be >= 1.')
  if kind not in ('uniform', 'cosine'):
    raise ValueError(f"kind={kind!r} must be 'uniform' or 'cosine'.")
  t = 1 - jnp.arange(num_steps + 1) / num_steps
  return t if kind == 'uniform' else jnp.sin(math.pi / 2 * t)
