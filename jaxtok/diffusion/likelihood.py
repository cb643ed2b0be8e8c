# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How likely an answer is to LLaDA or Dream: bounds from below, in nats.

A denoiser that ignores time writes the n tokens of an answer in any order. By
Jensen's inequality the log-likelihood is at least

  E_order sum_i log p(x_order(i) | x_order(1..i-1), prompt)
    = E_{k ~ 1..n} n/k E_{|M| = k} sum_{l in M} log p(x_l | x without M, prompt)

(Ou et al. 2024, arXiv:2406.03736; LLaDA, arXiv:2502.09992, equation 6, with 128
samples). Both sides are estimated here without bias. The prompt is never masked
and never counted. With guidance (Nie et al. 2024, arXiv:2410.18514) p is what
`pretrained.generate` draws tokens from: the bound is that of the guided model.

Axes: b rows, t positions of the answer, v vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.diffusion import fitting, losses, pretrained, samplers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bound:
  """Estimates of a lower bound on log-likelihoods.

  Attributes:
    lower_bound_b: Nats, at most 0; 0 for an empty answer.
    standard_error_b: Of `lower_bound_b`, as if the samples were independent;
      nan for one sample.
    num_tokens_b: Tokens of the answer, to normalise by.
  """

  lower_bound_b: Float[Array, 'b']
  standard_error_b: Float[Array, 'b']
  num_tokens_b: Int[Array, 'b']


def log_likelihood(
  model: Any,
  prompt_bt: Int[Array, 'b p'],
  answer_bt: Int[Array, 'b t'],
  *,
  mask_id: int,
  rng: Array,
  num_samples: int = 128,
  guidance: float = 0.0,
  shift: bool = False,
  is_prompt_bt: Bool[Array, 'b p'] | None = None,
  is_answer_bt: Bool[Array, 'b t'] | None = None,
) -> Bound:
  """Masks exactly k tokens of the answer, `num_samples` times.

  The k of a row are spread evenly over 1..n (`counts`), so the true error is
  mostly smaller than the standard error, which knows nothing of that.

  Args:
    model: A bidirectional `SequenceModel`, e.g. from `interop.load`; of a run,
      ask `fitting.check_plain` before.
    prompt_bt: Tokens before the answer; Dream needs at least one.
    answer_bt: The tokens that are scored.
    mask_id: The mask token; static.
    rng: Rows draw from it independently.
    num_samples: Calls of the model, two each with guidance; static.
    guidance: See `pretrained.Config`; static.
    shift: Likewise; static.
    is_prompt_bt: False at padding before shorter prompts, never behind.
    is_answer_bt: False at padding behind shorter answers.

  Returns:
    The bound of each row.

  Raises:
    ValueError: If there are no samples, or no prompt though logits are shifted,
      or padding behind a prompt, or `mask_id` is none of the model's tokens,
      or the model is no plain denoiser.
  """
  score, is_answer_bt = _scorer(
    model,
    prompt_bt,
    answer_bt,
    mask_id,
    guidance,
    shift,
    is_prompt_bt,
    is_answer_bt,
  )
  _check_positive('num_samples', num_samples)
  n_b = is_answer_bt.sum(-1)
  count_rngs_b, mask_rngs_b = _split(rng, len(n_b))
  k_sb = jax.vmap(counts, (0, 0, None), 1)(n_b, count_rngs_b, num_samples)

  def sample(inputs):
    index, k_b = inputs
    rngs_b = jax.vmap(jax.random.fold_in, (0, None))(mask_rngs_b, index)
    is_masked_bt = jax.vmap(_mask_exactly)(is_answer_bt, k_b, rngs_b)
    log_probs_bt = score(is_masked_bt)
    total_b = jnp.where(is_masked_bt, log_probs_bt, 0.0).sum(-1)
    return total_b * n_b / jnp.maximum(k_b, 1)

  return _bound(jax.lax.map(sample, (jnp.arange(num_samples), k_sb)), n_b)


def log_likelihood_by_orders(
  model: Any,
  prompt_bt: Int[Array, 'b p'],
  answer_bt: Int[Array, 'b t'],
  *,
  mask_id: int,
  rng: Array,
  num_orders: int = 1,
  guidance: float = 0.0,
  shift: bool = False,
  is_prompt_bt: Bool[Array, 'b p'] | None = None,
  is_answer_bt: Bool[Array, 'b t'] | None = None,
) -> Bound:
  """Reveals the answer token by token in random orders.

  A sample is exact for its order and costs as many calls as `answer_bt` has
  positions, twice as many with guidance.

  Args:
    model: See `log_likelihood`, likewise below.
    prompt_bt: Tokens before the answer.
    answer_bt: The tokens that are scored.
    mask_id: The mask token; static.
    rng: Rows draw from it independently.
    num_orders: Static.
    guidance: Static.
    shift: Static.
    is_prompt_bt: False at padding before shorter prompts, never behind.
    is_answer_bt: False at padding behind shorter answers.

  Returns:
    The bound of each row.

  Raises:
    ValueError: If there are no orders, or no prompt though logits are shifted,
      or padding behind a prompt, or `mask_id` is none of the model's tokens,
      or the model is no plain denoiser.
  """
  score, is_answer_bt = _scorer(
    model,
    prompt_bt,
    answer_bt,
    mask_id,
    guidance,
    shift,
    is_prompt_bt,
    is_answer_bt,
  )
  _check_positive('num_orders', num_orders)
  num_rows, length = is_answer_bt.shape
  rngs_b, _ = _split(rng, num_rows)

  def sample(index):
    order_rngs_b = jax.vmap(jax.random.fold_in, (0, None))(rngs_b, index)
    rank_bt = jax.vmap(_random_ranks)(is_answer_bt, order_rngs_b)

    def step(total_b, i):
      log_probs_bt = score(is_answer_bt & (rank_bt >= i))
      is_next_bt = is_answer_bt & (rank_bt == i)
      return total_b + jnp.where(is_next_bt, log_probs_bt, 0.0).sum(-1), None

    start_b = jnp.zeros(num_rows, jnp.float32)
    return jax.lax.scan(step, start_b, jnp.arange(length))[0]

  samples_sb = jax.lax.map(sample, jnp.arange(num_orders))
  return _bound(samples_sb, is_answer_bt.sum(-1))


def counts(
  num_tokens: Int[Array, ''], rng: Array, num_samples: int
) -> Int[Array, 's']:
  """How many tokens each sample masks: uniform on 1..n each, evenly spread.

  The first is drawn; with a multiple of n samples each number comes equally
  often. 0 if there are no tokens.
  """
  first = jax.random.randint(rng, (), 0, jnp.maximum(num_tokens, 1))
  steps_s = jnp.arange(num_samples) * num_tokens / num_samples
  count_s = first + jnp.round(steps_s).astype(jnp.int32)
  return jnp.where(num_tokens > 0, count_s % jnp.maximum(num_tokens, 1) + 1, 0)


def _scorer(
  model,
  prompt_bt,
  answer_bt,
  mask_id,
  guidance,
  shift,
  is_prompt_bt,
  is_answer_bt,
) -> tuple[Callable, Array]:
  """Log-probabilities of the answer's tokens where some are masked."""
  fitting.check_model(model)
  is_padded = is_prompt_bt is not None or is_answer_bt is not None
  if is_prompt_bt is None:
    is_prompt_bt = jnp.ones(prompt_bt.shape, bool)
  if is_answer_bt is None:
    is_answer_bt = jnp.ones(answer_bt.shape, bool)
  config = pretrained.Config(
    length=answer_bt.shape[1], guidance=guidance, shift=shift
  )
  prompt_len = prompt_bt.shape[1]
  pretrained.check_prompt(config, prompt_len, is_prompt_bt)
  is_real_bt = jnp.concatenate([is_prompt_bt, is_answer_bt], axis=1)
  denoiser = pretrained.Denoiser(
    model,
    config,
    prompt_len,
    mask_id,
    late_v=None,
    segment_ids_bt=is_real_bt.astype(jnp.int32) if is_padded else None,
  )

  def score(is_masked_bt):
    tokens_bt = jnp.where(is_masked_bt, mask_id, answer_bt)
    logits_btv = denoiser(jnp.concatenate([prompt_bt, tokens_bt], axis=1))
    pretrained.check_ids(logits_btv.shape[-1], mask_id=mask_id)
    log_probs_btv = jax.nn.log_softmax(
      logits_btv[:, prompt_len:].astype(jnp.float32), axis=-1
    )
    return jnp.take_along_axis(log_probs_btv, answer_bt[..., None], axis=-1)[
      ..., 0
    ]

  return score, is_answer_bt


def _split(rng, num_rows):
  """Two keys of each row, which do not depend on the number of rows."""
  rngs_b = samplers.row_rngs(rng, num_rows)
  return jax.vmap(jax.random.split, out_axes=1)(rngs_b)


def _mask_exactly(is_target_t, num_masked, rng):
  return losses.mask_exactly(is_target_t[None], num_masked[None], rng)[0]


def _random_ranks(is_target_t, rng):
  """Rank of each target in a random order; other positions come last."""
  noise_t = jax.random.uniform(rng, is_target_t.shape)
  noise_t = jnp.where(is_target_t, noise_t, jnp.inf)
  return jnp.argsort(jnp.argsort(noise_t))


def _bound(samples_sb, n_b) -> Bound:
  num = samples_sb.shape[0]
  error_b = jnp.full(n_b.shape, jnp.nan)
  if num > 1:
    error_b = samples_sb.std(0, ddof=1) / num**0.5
  return Bound(samples_sb.mean(0), error_b, n_b)


def _check_positive(name, value):
  if value < 1:
    raise ValueError(f'{name}={value} must be >= 1.')
