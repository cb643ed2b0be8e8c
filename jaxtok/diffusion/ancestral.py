# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Samples by running the masking process backwards, as one compiled loop.

Sahoo et al. 2024, arXiv:2406.07524. From time t to s < t each
masked position is revealed with probability (alpha_s - alpha_t) / (1 - alpha_t)
and drawn from the denoiser; positions of one step are drawn independently, an
error that vanishes with many steps.

Whether a position is revealed and which token it gets are drawn one after the
other. Drawing both at once by Gumbel noise, as the published code does, puts
all tokens into the tail of one distribution, which 32-bit noise cuts off: the
samples come out too cold (Zheng et al. 2024, arXiv:2409.02908). It
also tells before the call whether a row needs one: a row that reveals nothing
in a step is not charged for it, and a step in which no row does is not run.

Axes: b rows, t positions, v vocabulary, n steps.
"""

import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import samplers


@runtime_checkable
class Remask(Protocol):
  """Probability that a revealed position is masked again in a step."""

  def __call__(
    self,
    canvas: samplers.Canvas,
    is_free_bt: Bool[Array, 'b t'],
    alpha_t: Float[Array, ''],
    alpha_s: Float[Array, ''],
  ) -> Float[Array, 'b t']: ...


def never(canvas, is_free_bt, alpha_t, alpha_s):
  """Revealed positions stay."""
  del is_free_bt, alpha_t, alpha_s
  return jnp.zeros(canvas.tokens_bt.shape, jnp.float32)


def decode(
  denoiser: samplers.Denoiser,
  canvas: samplers.Canvas,
  alphas: Float[Array, 'n'],
  rngs_b: Any,
  *,
  mask_id: int,
  remask: Remask = never,
  filters: sampling_lib.Config | None = None,
) -> samplers.Canvas:
  """Reveals all masked positions in `len(alphas) - 1` steps.

  Jit it with `mask_id` and `filters` static. The denoiser is not told the time.

  Args:
    denoiser: Logits of whole rows. Column `mask_id`, if any, is ignored.
    canvas: From `samplers.start`. What it does not mask is never changed.
    alphas: Probability of clean tokens at each time, ascending, e.g.
      `schedule.alpha(schedules.grid(num_steps))`. The last step reveals what is
      left, whatever the last alpha.
    rngs_b: Keys of the rows, see `samplers.row_rngs`.
    mask_id: Static.
    remask: See `remdm`.
    filters: Temperature, top-k, top-p and min-p of the tokens; None draws from
      the denoiser as it is. `psi_bt` is the denoiser's own probability in any
      case. Static.

  Returns:
    The canvas at the end; `num_calls_b` counts steps that revealed something.

  Raises:
    ValueError: If there are fewer than two alphas.
  """
  num_steps = alphas.shape[0] - 1
  if num_steps < 1:
    raise ValueError(f'alphas has {num_steps + 1} times; it needs 2 or more.')
  go = functools.partial(
    step,
    denoiser,
    rngs_b=rngs_b,
    is_free_bt=canvas.is_masked_bt,
    mask_id=mask_id,
    remask=remask,
    filters=filters,
  )

  def body(index, canvas):
    is_last = index == num_steps - 1
    return go(canvas, alphas[index], alphas[index + 1], index, is_last=is_last)

  return jax.lax.fori_loop(0, num_steps, body, canvas)


def step(
  denoiser: samplers.Denoiser,
  canvas: samplers.Canvas,
  alpha_t: Float[Array, ''],
  alpha_s: Float[Array, ''],
  index: Int[Array, ''] | int,
  *,
  rngs_b: Any,
  is_free_bt: Bool[Array, 'b t'],
  mask_id: int,
  remask: Remask = never,
  filters: sampling_lib.Config | None = None,
  is_last: Bool[Array, ''] | bool = False,
) -> samplers.Canvas:
  """One step of `decode`, whose arguments see.

  Args:
    denoiser: Likewise.
    canvas: At time t.
    alpha_t: Probability of clean tokens at time t, below 1.
    alpha_s: Likewise at the next time.
    index: Of the step; it chooses the random numbers.
    rngs_b: Likewise.
    is_free_bt: Positions that were masked at the start.
    mask_id: Likewise.
    remask: Likewise.
    filters: Likewise.
    is_last: Whether all that is masked is revealed, and nothing masked.
  """
  keys = jax.vmap(lambda rng: jax.random.split(jax.random.fold_in(rng, index)))
  place_rngs_b, token_rngs_b = jnp.moveaxis(keys(rngs_b), 1, 0)
  sigma_bt = remask(canvas, is_free_bt, alpha_t, alpha_s)
  sigma_bt = jnp.where(is_last, 0.0, sigma_bt)
  left = jnp.maximum(1 - alpha_t, jnp.finfo(jnp.float32).tiny)
  reveal_bt = (alpha_s - (1 - sigma_bt) * alpha_t) / left
  reveal_bt = jnp.where(is_last, 1.0, reveal_bt)
  is_masked_bt = canvas.is_masked_bt
  chance_bt = jnp.where(is_masked_bt, reveal_bt, sigma_bt)
  width = canvas.tokens_bt.shape[1]
  draw = jax.vmap(lambda rng: jax.random.uniform(rng, (width,)))
  is_hit_bt = draw(place_rngs_b) < chance_bt
  select_bt = is_hit_bt & is_masked_bt
  drop_bt = is_hit_bt & ~is_masked_bt & is_free_bt
  reveal = lambda c: _reveal(
    denoiser, c, select_bt, token_rngs_b, index, mask_id, filters
  )
  canvas = jax.lax.cond(select_bt.any(), reveal, lambda c: c, canvas)
  return samplers.mask_again(canvas, drop_bt, mask_id)


def filtered(
  logits_btv: Float[Array, 'b t v'], filters: sampling_lib.Config | None
) -> Float[Array, 'b t v']:
  """What tokens are drawn from; greedy tokens too, as one logit is left."""
  if filters is None:
    return logits_btv
  return sampling_lib.filter_logits(logits_btv, filters)


def _reveal(denoiser, canvas, select_bt, rngs_b, step, mask_id, filters):
  """Calls the denoiser, writes the selected tokens, charges their rows."""
  logits_btv = denoiser(canvas.tokens_bt).astype(jnp.float32)
  is_mask_v = jnp.arange(logits_btv.shape[-1]) == mask_id
  logits_btv = jnp.where(is_mask_v, -jnp.inf, logits_btv)
  drawn_bt = samplers.draw(filtered(logits_btv, filters), rngs_b)
  psi_bt = jnp.take_along_axis(
    jax.nn.softmax(logits_btv, axis=-1), drawn_bt[..., None], axis=-1
  )[..., 0]
  put = lambda new, old: jnp.where(select_bt, new, old)
  return samplers.Canvas(
    tokens_bt=put(drawn_bt.astype(canvas.tokens_bt.dtype), canvas.tokens_bt),
    is_masked_bt=canvas.is_masked_bt & ~select_bt,
    num_calls_b=canvas.num_calls_b + select_bt.any(-1),
    reveal_step_bt=put(step, canvas.reveal_step_bt),
    psi_bt=put(psi_bt, canvas.psi_bt),
  )
