# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How many tokens each call of a denoiser reveals, and which come first.

The numbers are LLaDA's (Nie et al. 2025, arXiv:2502.09992), Dream's (Ye et al.
2025, arXiv:2508.15487), or those of a noise schedule: of the tokens masked at
time t, a share (alpha_s - alpha_t) / (1 - alpha_t) is revealed by time s < t.

Axes: b rows, c calls of the denoiser, t positions of the answer, v vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.diffusion import schedules, selectors

ORDERS = ('confidence', 'random', 'margin', 'entropy', 'origin')
SCHEDULES = ('even', 'dream', 'rounded', 'binomial')
PLANNED = ('rounded', 'binomial')  # Those that need `plan`.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Budget:
  """A selector with a fixed number of tokens for each step.

  'even' spreads what a block has over its steps, the first ones get one more.
  'dream' reveals `int(n (1 - s / t))` of n masked tokens between times t and s
  of `linspace(1, 0.001, steps + 1)`, and all at the last step. Where that is 0
  it reveals one: a step that reveals none would repeat the call before.
  'rounded' and 'binomial' reveal what `plan` says.

  First come the most probable token ('confidence'), the largest gap of the best
  two ('margin'), the lowest entropy, or any ('random'). With 'origin' each
  position is revealed with probability `1 - s / t`, whatever the others do: a
  step may reveal none, which costs a call, and the last one reveals all.

  Attributes:
    steps: Of a block; static.
    length: Of the answer; static.
    order: See `ORDERS`; static.
    schedule: See `SCHEDULES`; static.
    order_temperature: See `pretrained.Config`; static.
    late_v: Tokens that are revealed last, or None.
    counts_bc: Tokens of each call; for 'rounded' and 'binomial'.
  """

  steps: int = dataclasses.field(metadata=dict(static=True))
  length: int = dataclasses.field(metadata=dict(static=True))
  order: str = dataclasses.field(metadata=dict(static=True))
  schedule: str = dataclasses.field(metadata=dict(static=True))
  order_temperature: float = dataclasses.field(
    default=0.0, metadata=dict(static=True)
  )
  late_v: Any = None
  counts_bc: Any = None

  def __call__(self, view: selectors.View) -> Bool[Array, 'b t']:
    calls_b = jnp.round(view.progress_b * self.length).astype(jnp.int32)
    step_b, left_b = calls_b % self.steps, view.allowed_bt.sum(-1)
    if self.schedule in PLANNED:
      k_b = jnp.take_along_axis(self.counts_bc, calls_b[:, None], axis=1)[:, 0]
    elif self.schedule == 'even':
      k_b = -(-left_b // (self.steps - step_b))
    else:
      times = jnp.linspace(1.0, 1e-3, self.steps + 1)
      part_b = 1 - times[step_b + 1] / times[step_b]
      part_b = jnp.where(step_b == self.steps - 1, 1.0, part_b)
      if self.order == 'origin':
        return view.allowed_bt & (selectors.noise(view) < part_b[:, None])
      k_b = jnp.floor(left_b * part_b)
    score_bt = self._score(view)
    if self.order_temperature:
      # The best of scores with Gumbel noise: draws without replacement.
      gumbel = lambda rng: jax.random.gumbel(
        rng, score_bt.shape[1:], mode='high'
      )
      score_bt = score_bt / self.order_temperature
      score_bt += jax.vmap(gumbel)(view.rngs_b)
    if self.late_v is not None:
      score_bt = jnp.where(self.late_v[view.tokens_bt], -jnp.inf, score_bt)
    rank_bt = selectors.ranks(score_bt, view.allowed_bt)
    return view.allowed_bt & (rank_bt < jnp.maximum(k_b, 1)[:, None])

  def _score(self, view: selectors.View) -> Float[Array, 'b t']:
    if self.order == 'confidence':
      return view.token_probs_bt
    if self.order == 'entropy':
      return -selectors.entropy(view.probs_btv)
    if self.order == 'margin':
      return selectors.margin(view.probs_btv)
    return selectors.noise(view)


def plan(
  kind: str,
  schedule: schedules.Schedule,
  num_tokens: int,
  num_steps: int,
  num_blocks: int,
  rngs_b: Any,
) -> Int[Array, 'b c']:
  """Tokens of each call, block after block.

  With 'rounded' a step from t to s reveals `round(n p)` of the n masked tokens,
  p = (alpha_s - alpha_t) / (1 - alpha_t), halves to even; 'binomial' draws how
  many. The last step of a block reveals all. Steps that reveal none are left
  out: they would repeat the call before. So the entries behind the last call
  are 0.

  Args:
    kind: See `PLANNED`; static.
    schedule: Of the noise; the times of a block are equally far apart.
    num_tokens: Of a block; static.
    num_steps: Of a block; static.
    num_blocks: Static.
    rngs_b: Keys of the rows.
  """
  times = schedules.grid(num_steps)

  def rounded(unused_rng):
    part = schedules.reveal_probability(schedule, times[:-1], times[1:])
    part = part.at[-1].set(1.0)

    def step(left, part):
      count = jnp.round(left * part).astype(jnp.int32)
      return left - count, count

    return jax.lax.scan(step, jnp.int32(num_tokens), part)[1]

  def binomial(rng):
    # Each token is revealed when the share of masked ones falls below its draw.
    share = 1 - schedule.alpha(times)
    share = (share / share[0]).at[-1].set(0.0)
    u = jax.random.uniform(rng, (num_tokens, 1))
    return ((share[1:] <= u) & (u < share[:-1])).sum(0, dtype=jnp.int32)

  def row(rng):
    counts = jax.vmap({'rounded': rounded, 'binomial': binomial}[kind])(
      jax.random.split(rng, num_blocks)
    ).reshape(-1)
    return counts[jnp.argsort(counts == 0, stable=True)]

  return jax.vmap(row)(rngs_b)
