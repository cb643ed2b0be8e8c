# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""GenMD4: each token of the vocabulary has a masking schedule of its own.

Shi et al. 2024, arXiv:2406.04329, section 6. Token i is masked at time t with
probability t**w_i, w_i > 0: the larger w_i, the later it is masked, and the
earlier it is written. The rates w are learned. From t_min = t1 to 1,

  -log p(x) <=
    E sum over masked places of [w_x/t (-log p_x - 1) + sum_i w_i/t p_i]
    + sum over places of t1**w_x [logsumexp_i(w_i ln t1) - w_x ln t1],

x the true token and p the denoiser's distribution there. The second line is
what is masked at t1, guessed from the rates alone. With equal rates of 1 this
is MD4 with eps = t1.

The rates decide which masks are drawn, so their gradient has a part by the
score function. Two masks per row at one time, each the other's baseline (RLOO):

  1/2 (L1 + L2) + 1/2 stop(L1 - L2) (log q(z1) - log q(z2)).

Differs from the paper: (a) all is masked at t = 1, instead of all but a share
eps of the tokens, as in `schedules.Polynomial`. (b) The network is not told the
time, which rates make informative: a place still masked early in writing holds
rather a token with a small rate. Instead the logits get w_i ln t, Bayes' rule
for the place's own mask; equal rates add a constant, which changes nothing.

Axes: b rows, t positions, v tokens without the mask.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import (
  ancestral,
  losses,
  samplers,
  schedules,
  selectors,
)
from jaxtok.models import base as models
from jaxtok.objectives import base

_ONE = 0.5413248546129181  # softplus of it is 1.


@configclass
class Model:
  """A denoiser with rates; they are trained with the rest of it."""

  inner: Any = None  # Config of a model without a causal mask.
  num_tokens: int = 0  # v, real tokens: those below the mask.

  def __post_init__(self):
    if self.num_tokens < 1:
      raise ValueError(
        f"num_tokens={self.num_tokens} must be >= 1. Set it to the tokenizer's "
        'vocab_size.'
      )

  @property
  def vocab_size(self) -> int:
    """That of the inner model."""
    return self.inner.vocab_size

  def make(self, rngs: nnx.Rngs) -> 'Rated':
    return Rated(self, rngs=rngs)


class Rated(nnx.Module):
  """The inner model, and `rates()`; a `SequenceModel`."""

  def __init__(self, config: Model, *, rngs: nnx.Rngs):
    self.config = config
    self.inner = config.inner.make(rngs)
    self.rate_logits = nnx.Param(
      jnp.full(config.num_tokens, _ONE), axes=(None,)
    )

  def rates(self) -> Float[Array, 'v']:
    """w, positive; 1 before training."""
    return jax.nn.softplus(self.rate_logits[...])

  def __call__(self, tokens_bt: Int[Array, 'b t'], **options) -> models.Output:
    return self.inner(tokens_bt, **options)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """See `models.transformer`."""
    return self.inner.logits(hidden_btd)

  def init_cache(self, *args, **options) -> Any:
    """See `models.transformer`."""
    return self.inner.init_cache(*args, **options)

  def flops(self, shape: models.Shape) -> dict[str, float]:
    """See `models.transformer`."""
    return self.inner.flops(shape)


@configclass
class Config:
  """Hyper-parameters of the GenMD4 objective; the model must be `Model`."""

  mask_id: int = -1  # Id of the mask token, the number of real tokens.
  t_min: float = 1e-3  # t1.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    losses.check_samples(self.eval_samples)
    if not 0 < self.t_min < 1:
      raise ValueError(f't_min={self.t_min} must be in (0, 1). Try 1e-3.')

  def make(self) -> 'Learned':
    losses.check_mask_id(self.mask_id)
    return Learned(self)


class Draw(NamedTuple):
  """Masks at one time per row."""

  is_masked_bt: Bool[Array, 'b t']
  times_b1: Float[Array, 'b 1']


class Learned:
  """The objective.

  Metrics: those of `losses.Weighted`, and `rate`, the mean over targets of w.
  """

  def __init__(self, config: Config):
    self.config, self.mask_id = config, config.mask_id

  def __call__(
    self, model: Rated, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    time_rng, *mask_rngs, model_rng = jax.random.split(rng, 4)
    w_bt = target_rates(model, batch)
    times_b1 = draw_times(time_rng, w_bt.shape[0], self.config.t_min)
    draws = [draw(batch, w_bt, times_b1, r) for r in mask_rngs]
    (nats1_b, correct1), (nats2_b, correct2) = (
      diffusion_nats(model, batch, d, self.config, model_rng) for d in draws
    )
    log_q1_b, log_q2_b = (log_mask_prob(batch, w_bt, d) for d in draws)
    nats_b = (nats1_b + nats2_b) / 2 + first_nats(
      model, batch, w_bt, self.config
    )
    gap_b = jax.lax.stop_gradient(nats1_b - nats2_b) / 2
    score_b = gap_b * (log_q1_b - log_q2_b)
    # The score term has a gradient but is no part of the bound's value.
    total = nats_b.sum() + (score_b - jax.lax.stop_gradient(score_b)).sum()
    weight = batch['loss_mask_bt'].sum()
    masked = sum(d.is_masked_bt.sum() for d in draws).astype(jnp.float32)
    stop = jax.lax.stop_gradient
    metrics = losses.bound_metrics(stop(nats_b.sum()), batch, None) | {
      'accuracy': base.Mean(correct1 + correct2, masked),
      'mask_rate': base.Mean(masked, 2 * weight),
      'rate': base.Mean(stop((w_bt * batch['loss_mask_bt']).sum()), weight),
    }
    return base.Loss(total, weight, metrics)

  def per_row(
    self, model: Rated, batch: dict[str, Array], rng: Array
  ) -> dict[str, base.Mean]:
    """The bound of each row, the mean over `eval_samples` masks."""
    w_bt = target_rates(model, batch)

    def sample(rng):
      time_rng, mask_rng = jax.random.split(rng)
      times_b1 = draw_times(time_rng, w_bt.shape[0], self.config.t_min)
      found = draw(batch, w_bt, times_b1, mask_rng)
      return diffusion_nats(model, batch, found, self.config, None)[0]

    rngs = jax.random.split(rng, self.config.eval_samples)
    nats_b = jax.lax.map(sample, rngs).mean(0)
    nats_b += first_nats(model, batch, w_bt, self.config)
    return losses.bound_metrics(nats_b, batch, 1)

  def flops(self, model: Any, shape: models.Shape) -> dict[str, float]:
    """Forward FLOPs: two masks per row."""
    return model.flops(models.Shape(b=2 * shape.b, t=shape.t))


def target_rates(model: Rated, batch: dict[str, Array]) -> Float[Array, 'b t']:
  """w of each target; of places without one, that of some token."""
  rates_v = model.rates()
  return rates_v[jnp.minimum(batch['targets_bt'], rates_v.shape[0] - 1)]


def draw_times(rng: Array, num: int, t_min: float) -> Float[Array, 'b 1']:
  """Stratified times in [t_min, 1), each uniform."""
  return (t_min + (1 - t_min) * schedules.times(rng, num))[:, None]


def draw(
  batch: dict[str, Array],
  w_bt: Float[Array, 'b t'],
  times_b1: Float[Array, 'b 1'],
  rng: Array,
) -> Draw:
  """Masks each target with probability t**w."""
  rate_bt = jax.lax.stop_gradient(times_b1**w_bt)
  return Draw(losses.mask_at_rate(batch, rate_bt, rng), times_b1)


def log_mask_prob(
  batch: dict[str, Array], w_bt: Float[Array, 'b t'], found: Draw
) -> Float[Array, 'b']:
  """Log-probability of the masks of each row."""
  log_rate_bt = w_bt * jnp.log(found.times_b1)
  # At t = 1 nothing is left clean; the other branch must be finite there.
  safe_bt = jnp.minimum(log_rate_bt, -1e-7)
  clean_bt = jnp.log(-jnp.expm1(safe_bt))
  each_bt = jnp.where(found.is_masked_bt, log_rate_bt, clean_bt)
  return (each_bt * (batch['loss_mask_bt'] > 0)).sum(1)


def diffusion_nats(
  model: Rated,
  batch: dict[str, Array],
  found: Draw,
  config: Config,
  rng: Array | None,
) -> tuple[Float[Array, 'b'], Float[Array, '']]:
  """The first line of the bound for each row, and how many tokens are right."""
  tokens_bt = losses.masked_tokens(batch, found.is_masked_bt, config.mask_id)
  hidden_btd = losses.run(model, batch, tokens_bt, rng)
  rates_v = model.rates()
  log_p_btv = log_probs(model.logits(hidden_btd), rates_v, found.times_b1)
  targets_bt = jnp.minimum(batch['targets_bt'], rates_v.shape[0] - 1)
  log_p_bt = jnp.take_along_axis(log_p_btv, targets_bt[..., None], axis=-1)
  w_bt = rates_v[targets_bt]
  each_bt = w_bt * (-log_p_bt[..., 0] - 1) + jnp.exp(log_p_btv) @ rates_v
  weight_bt = found.is_masked_bt * batch['loss_mask_bt'] / found.times_b1
  nats_b = (1 - config.t_min) * (each_bt * weight_bt).sum(1)
  is_right_bt = (log_p_btv.argmax(-1) == targets_bt) & found.is_masked_bt
  return nats_b, is_right_bt.sum().astype(jnp.float32)


def log_probs(
  logits_btv: Float[Array, 'b t m'],
  rates_v: Float[Array, 'v'],
  t: Float[Array, '...'],
) -> Float[Array, 'b t v']:
  """Of the tokens of masked places at times t (a number, or [b, 1]), float32.

  Columns of the logits beyond v, such as that of the mask, are left out.
  """
  prior_btv = logits_btv[..., : rates_v.shape[0]].astype(jnp.float32)
  return jax.nn.log_softmax(
    prior_btv + rates_v * jnp.log(t)[..., None], axis=-1
  )


def first_nats(
  model: Rated,
  batch: dict[str, Array],
  w_bt: Float[Array, 'b t'],
  config: Config,
) -> Float[Array, 'b']:
  """The second line of the bound for each row."""
  log_t1 = jnp.log(config.t_min)
  log_rate_bt = w_bt * log_t1
  guess_bt = jax.nn.logsumexp(model.rates() * log_t1) - log_rate_bt
  nats_bt = jnp.exp(log_rate_bt) * guess_bt
  return (nats_bt * batch['loss_mask_bt']).sum(1)


def reveal(
  probs_btv: Float[Array, 'b t v'],
  rates_v: Float[Array, 'v'],
  t: Float[Array, ''],
  s: Float[Array, ''],
) -> tuple[Float[Array, 'b t'], Float[Array, 'b t v']]:
  """What happens to a masked place from time t to s < t.

  Returns:
    The probability that it is revealed, and log-probabilities, not normalised,
    of its token if it is: p_i (1 - (s/t)**w_i).
  """
  joint_btv = probs_btv * -jnp.expm1(rates_v * jnp.log(s / t))
  return joint_btv.sum(-1), jnp.log(joint_btv)


def decode(
  denoiser: samplers.Denoiser,
  rates_v: Float[Array, 'v'],
  canvas: samplers.Canvas,
  times: Float[Array, 'n'],
  rngs_b: Any,
  *,
  filters: sampling_lib.Config | None = None,
) -> samplers.Canvas:
  """Runs the masking process backwards; see `ancestral.decode`.

  Jit it with `filters` static.

  Args:
    denoiser: Logits of whole rows.
    rates_v: `model.rates()`.
    canvas: From `samplers.start`.
    times: From 1 to 0, e.g. `schedules.grid(num_steps)`.
    rngs_b: Keys of the rows, see `samplers.row_rngs`.
    filters: See `ancestral.decode`; of the probabilities at the time of the
      step, which also say how likely a position is revealed.

  Returns:
    The canvas at the end. Rows are charged for steps that began with a masked
    position: what is revealed is known only after the call.
  """

  def body(step, canvas):
    keys = jax.vmap(lambda rng: jax.random.split(jax.random.fold_in(rng, step)))
    place_rngs_b, token_rngs_b = jnp.moveaxis(keys(rngs_b), 1, 0)
    t, s = times[step], times[step + 1]
    log_probs_btv = log_probs(denoiser(canvas.tokens_bt), rates_v, t)
    kept_btv = jax.nn.softmax(ancestral.filtered(log_probs_btv, filters), -1)
    chance_bt, log_joint_btv = reveal(kept_btv, rates_v, t, s)
    width = canvas.tokens_bt.shape[1]
    uniform = jax.vmap(lambda rng: jax.random.uniform(rng, (width,)))
    view = selectors.View(
      probs_btv=jnp.exp(log_probs_btv),
      tokens_bt=samplers.draw(log_joint_btv, token_rngs_b),
      is_masked_bt=canvas.is_masked_bt,
      allowed_bt=canvas.is_masked_bt,
      progress_b=canvas.num_calls_b / width,
      rngs_b=place_rngs_b,
    )
    # The last step has s = 0 and reveals all, whatever the sum rounds to.
    is_hit_bt = (uniform(place_rngs_b) < chance_bt) | (s == 0)
    return samplers.commit(canvas, view, is_hit_bt & view.allowed_bt, step)

  return jax.lax.fori_loop(0, times.shape[0] - 1, body, canvas)
