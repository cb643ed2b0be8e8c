# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Samples at the times when tokens are revealed, and only then.

Zheng et al. 2024, arXiv:2409.02908. With n masked positions at time
t (linear schedule), the next is revealed at t u**(1/n), u uniform, and is each
of them with equal probability. One call per token, and exactly the distribution
of the ancestral sampler with infinitely many steps.

The denoiser is told the times. One that ignores them is served by
`samplers.decode` with `selectors.Random(1)` at temperature 1 as well.

Axes: b rows, t positions, v vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import ancestral, samplers, selectors

TimedDenoiser = Callable[
  [Int[Array, 'b t'], Float[Array, 'b']], Float[Array, 'b t v']
]


def decode(
  denoiser: TimedDenoiser,
  canvas: samplers.Canvas,
  rngs_b: Any,
  *,
  mask_id: int,
  filters: sampling_lib.Config | None = None,
) -> tuple[samplers.Canvas, Float[Array, 'b t']]:
  """Reveals one masked position of each row per step.

  Jit it with `mask_id` and `filters` static.

  Args:
    denoiser: Logits of whole rows at one time per row.
    canvas: From `samplers.start`.
    rngs_b: Keys of the rows, see `samplers.row_rngs`.
    mask_id: Static. Column `mask_id`, if any, is ignored.
    filters: See `ancestral.decode`.

  Returns:
    The canvas at the end, and the time at which each position was revealed (0
    where it was given). A row is called as often as it had masked positions.
  """

  def body(step, state):
    canvas, now_b, times_bt = state
    keys = jax.vmap(
      lambda rng: jax.random.split(jax.random.fold_in(rng, step), 3)
    )(rngs_b)
    time_rngs_b, place_rngs_b, token_rngs_b = jnp.moveaxis(keys, 1, 0)
    masked_bt = canvas.is_masked_bt
    num_b = jnp.maximum(masked_bt.sum(-1), 1)
    # log1p: a uniform number may be 0, one minus it may not.
    uniform_b = jax.vmap(jax.random.uniform)(time_rngs_b)
    now_b = now_b * jnp.exp(jnp.log1p(-uniform_b) / num_b)
    logits_btv = denoiser(canvas.tokens_bt, now_b).astype(jnp.float32)
    is_mask_v = jnp.arange(logits_btv.shape[-1]) == mask_id
    logits_btv = jnp.where(is_mask_v, -jnp.inf, logits_btv)
    view = selectors.View(
      probs_btv=jax.nn.softmax(logits_btv, axis=-1),
      tokens_bt=samplers.draw(
        ancestral.filtered(logits_btv, filters), token_rngs_b
      ),
      is_masked_bt=masked_bt,
      allowed_bt=masked_bt,
      progress_b=canvas.num_calls_b / masked_bt.shape[1],
      rngs_b=place_rngs_b,
    )
    select_bt = selectors.Random(1)(view) & masked_bt
    times_bt = jnp.where(select_bt, now_b[:, None], times_bt)
    canvas = samplers.commit(canvas, view, select_bt, step)
    return canvas, now_b, times_bt

  b = canvas.tokens_bt.shape[0]
  num_steps = canvas.is_masked_bt.sum(-1).max()
  init = (canvas, jnp.ones(b), jnp.zeros(canvas.tokens_bt.shape))
  canvas, _, times_bt = jax.lax.fori_loop(0, num_steps, body, init)
  return canvas, times_bt
