# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SEDD with absorbing noise: score entropy instead of cross-entropy.

Lou et al. 2023, arXiv:2310.16834. The network
estimates ratios s_v = p(masked token is v) / p(it is masked), unnormalised.
With r = 1 / (e^sigma - 1), the ratio of a certain token, and log s_v = logit_v
- ln n + ln r for n real tokens, a masked place costs

  dsigma [ sum_v s_v - r ln s_x + r (ln r - 1) ]
    = w(t) [ e^z - 1 - z + cross-entropy ],   z = logsumexp(logits) - ln n,

where w = dsigma / (e^sigma - 1) is the weight of `schedules`: MDLM's loss and a
penalty, zero if the scores are normalised. Hence samplers that take softmax of
the logits serve this model too, and `ScoreHead` makes a model of scores of one
of probabilities.

`decode` is the paper's own sampler (section 4.2, "analytic"): it takes e^z as
well, that is what the scores say of how much is revealed. The published code's
step from t to t - dt, with the masked entry 1 and d = sigma(t) - sigma(t - dt),
has token v with probability (e^d - 1) s_v, and the mask with the rest. With
alpha = 1 - t this is dt/t e^z softmax(logits)_v: the ancestral step if z = 0.

Times are MDLM's: log-linear noise, weight 1/t. The denoiser is not told the
time, unless `is_timed` (the paper's is).

Axes: b rows, t positions, v vocabulary with the mask, n times.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.config import configclass
from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import (
  ancestral,
  first_hitting,
  losses,
  mdlm,
  samplers,
  selectors,
)
from jaxtok.models import base as models
from jaxtok.objectives import cross_entropy


@configclass
class Config(mdlm.Config):
  """Hyper-parameters of the score entropy objective; those of MDLM."""

  def __post_init__(self):
    super().__post_init__()
    if self.num_steps:
      raise ValueError(
        f'num_steps={self.num_steps}: score entropy is of continuous time. '
        'Leave it 0.'
      )

  def make(self) -> losses.Weighted:
    losses.check_mask_id(self.mask_id)
    return losses.Weighted(
      lambda batch, rng: mdlm.corrupt(batch, rng, self.t_min, self.is_timed),
      mask_id=self.mask_id,
      eval_samples=self.eval_samples,
      score=score_entropy,
    )


def score_entropy(
  model: Any,
  batch: dict[str, Array],
  corruption: losses.Corruption,
  mask_id: int,
  rng: Array | None,
) -> cross_entropy.Scores:
  """Score entropy of the masked targets, in place of `losses.scores`."""
  tokens_bt = losses.masked_tokens(batch, corruption.is_masked_bt, mask_id)
  hidden_btd = losses.run(model, batch, tokens_bt, rng, corruption.times_b)
  logits_btv, z_bt = _real(model.logits(hidden_btd), mask_id)
  targets_bt1 = batch['targets_bt'][..., None]
  target_bt = jnp.take_along_axis(logits_btv, targets_bt1, axis=-1)[..., 0]
  nats_bt = jnp.expm1(z_bt) - (target_bt - jnp.log(logits_btv.shape[-1] - 1))
  correct_bt = (logits_btv.argmax(-1) == batch['targets_bt']).astype(
    jnp.float32
  )
  total = (nats_bt * corruption.weights_bt).sum()
  return cross_entropy.Scores(total, nats_bt, correct_bt)


def _real(logits_btv, mask_id):
  """Float32 logits without the mask, and z of the module's docstring."""
  logits_btv = logits_btv.astype(jnp.float32)
  num_real = logits_btv.shape[-1] - 1
  if not 0 <= mask_id <= num_real:
    raise ValueError(
      f'mask_id={mask_id} must be one of the {num_real + 1} columns of the '
      'logits: scores are counted by the others.'
    )
  is_mask_v = jnp.arange(num_real + 1) == mask_id
  logits_btv = jnp.where(is_mask_v, losses.IMPOSSIBLE, logits_btv)
  return logits_btv, jax.nn.logsumexp(logits_btv, -1) - jnp.log(num_real)


def log_scores(
  logits_btv: Float[Array, 'b t v'], alpha: Float[Array, '...'], mask_id: int
) -> Float[Array, 'b t v']:
  """ln s of masked places where tokens are clean with probability alpha.

  The ratio of the mask to itself is 1. Ratios of likely tokens grow without
  bound as alpha goes to 1, their logarithms hardly.
  """
  logits_btv, _ = _real(logits_btv, mask_id)
  num_real = logits_btv.shape[-1] - 1
  log_r = jnp.log(alpha) - jnp.log1p(-alpha)
  is_mask_v = jnp.arange(num_real + 1) == mask_id
  log_s_btv = logits_btv - jnp.log(num_real) + log_r
  return jnp.where(is_mask_v, 0.0, log_s_btv)


class ScoreHead(nnx.Module):
  """A model of probabilities as one of scores; a `SequenceModel`.

  Its logits are those of the model, shifted at each place so that s_v = p_v /
  (e^sigma - 1). Its score entropy is the model's MDLM loss. The way back needs
  nothing, as probabilities are the softmax of any model's logits.
  """

  def __init__(self, inner: Any, mask_id: int):
    self.inner, self.mask_id = inner, mask_id

  def __call__(self, tokens_bt: Int[Array, 'b t'], **options) -> models.Output:
    return self.inner(tokens_bt, **options)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Logits of which z is 0; see the module's docstring."""
    logits_btv, z_bt = _real(self.inner.logits(hidden_btd), self.mask_id)
    return logits_btv - z_bt[..., None]


def decode(
  denoiser: first_hitting.TimedDenoiser,
  canvas: samplers.Canvas,
  times: Float[Array, 'n'],
  rngs_b: Any,
  *,
  mask_id: int,
  filters: sampling_lib.Config | None = None,
) -> samplers.Canvas:
  """The analytic sampler; see `ancestral.decode`.

  Jit it with `mask_id` and `filters` static.

  Args:
    denoiser: Logits of whole rows at one time per row, the mask a column. One
      that is not told the time: `lambda tokens_bt, times_b: ...`.
    canvas: From `samplers.start`.
    times: From 1 to 0, e.g. `schedules.grid(num_steps)`. The last step reveals
      what is left, in proportion to the scores.
    rngs_b: Keys of the rows, see `samplers.row_rngs`.
    mask_id: Static.
    filters: See `ancestral.decode`; they leave alone how much is revealed.

  Returns:
    The canvas at the end. Rows are charged for steps that began with a masked
    position: what is revealed is known only after the call.
  """

  def body(index, canvas):
    return step(
      denoiser,
      canvas,
      times[index],
      times[index + 1],
      index,
      rngs_b=rngs_b,
      mask_id=mask_id,
      filters=filters,
      is_last=index == times.shape[0] - 2,
    )

  return jax.lax.fori_loop(0, times.shape[0] - 1, body, canvas)


def step(
  denoiser: first_hitting.TimedDenoiser,
  canvas: samplers.Canvas,
  t: Float[Array, ''],
  s: Float[Array, ''],
  index: Int[Array, ''] | int,
  *,
  rngs_b: Any,
  mask_id: int,
  filters: sampling_lib.Config | None = None,
  is_last: Any = False,
) -> samplers.Canvas:
  """One step of `decode` from time t to s; `index` chooses the random numbers.

  Scores that would reveal with more than certainty reveal.
  """
  keys = jax.vmap(lambda rng: jax.random.split(jax.random.fold_in(rng, index)))
  place_rngs_b, token_rngs_b = jnp.moveaxis(keys(rngs_b), 1, 0)
  b, width = canvas.tokens_bt.shape
  logits_btv = denoiser(canvas.tokens_bt, jnp.full(b, t))
  logits_btv, z_bt = _real(logits_btv, mask_id)
  chance_bt = jnp.where(is_last, 1.0, (t - s) / t * jnp.exp(z_bt))
  view = selectors.View(
    probs_btv=jax.nn.softmax(logits_btv, axis=-1),
    tokens_bt=samplers.draw(
      ancestral.filtered(logits_btv, filters), token_rngs_b
    ),
    is_masked_bt=canvas.is_masked_bt,
    allowed_bt=canvas.is_masked_bt,
    progress_b=canvas.num_calls_b / width,
    rngs_b=place_rngs_b,
  )
  uniform = jax.vmap(lambda rng: jax.random.uniform(rng, (width,)))
  is_hit_bt = uniform(place_rngs_b) < chance_bt
  select_bt = is_hit_bt & view.allowed_bt
  return samplers.commit(canvas, view, select_bt, jnp.asarray(index))
