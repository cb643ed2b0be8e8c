# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of answer tokens, for policy gradients.

The probability of an answer under a masked diffusion model is a sum over
orders. Two stand-ins for it, neither of which is a bound:

  `mean_field_log_prob`: one call in which the whole answer is masked, and the
    product of what it gives to each token. It is exact if the tokens of an
    answer are independent given the prompt. Zhao et al. 2025, arXiv:2504.12216.
  `coupled_log_prob`: two calls. A part of the answer is masked in the first,
    the rest in the second, and each token is scored where it is masked, beside
    the tokens that are not. What is trained is then also what sampling asks
    for: predictions from partly revealed answers. Gong et al. 2025,
    arXiv:2506.20639, who add a call in which all is masked.

Axes: b rows, t positions, p positions of the prompt, s positions of the answer,
v vocabulary.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.diffusion import losses, samplers


def hide_prompts(
  rng: Array, num_rows: int, prompt_len: int, rate: float
) -> Bool[Array, 'b p']:
  """Prompt tokens to mask, each with probability `rate`."""
  return jax.random.uniform(rng, (num_rows, prompt_len)) < rate


def split_answers(
  rng: Array, num_rows: int, answer_len: int
) -> Bool[Array, 'b s']:
  """Answer tokens that are masked first, a share uniform in [0, 1) of each."""
  rng, rate_rng = jax.random.split(rng)
  rate_b1 = jax.random.uniform(rate_rng, (num_rows, 1))
  return jax.random.uniform(rng, (num_rows, answer_len)) < rate_b1


def mean_field_log_prob(
  denoiser: samplers.Denoiser,
  tokens_bt: Int[Array, 'b t'],
  is_hidden_bp: Bool[Array, 'b p'],
  mask_id: int,
) -> Float[Array, 'b s']:
  """Log-probability of each answer token when the whole answer is masked.

  Args:
    denoiser: See `samplers.decode`; called once. Column `mask_id` is ignored.
    tokens_bt: Prompts of p tokens and answers.
    is_hidden_bp: Prompt tokens that are masked as well.
    mask_id: The mask token; where it is the answer's token, the result is
      about `losses.IMPOSSIBLE`.

  Returns:
    Of at least float32.
  """
  prompt_len = is_hidden_bp.shape[1]
  num_answer = tokens_bt.shape[1] - prompt_len
  is_masked_bt = jnp.pad(
    is_hidden_bp, ((0, 0), (0, num_answer)), constant_values=True
  )
  return _log_prob(denoiser, tokens_bt, is_masked_bt, prompt_len, mask_id)


def coupled_log_prob(
  denoiser: samplers.Denoiser,
  tokens_bt: Int[Array, 'b t'],
  is_hidden_bp: Bool[Array, 'b p'],
  is_first_bs: Bool[Array, 'b s'],
  mask_id: int,
) -> Float[Array, 'b s']:
  """Log-probability of each answer token in the one of two calls that masks it.

  Args:
    denoiser: See `mean_field_log_prob`; called once, on twice as many rows.
    tokens_bt: Prompts of p tokens and answers.
    is_hidden_bp: Prompt tokens that are masked in both calls.
    is_first_bs: Answer tokens that are masked in the first call; the others
      are in the second. All True: `mean_field_log_prob`.
    mask_id: See `mean_field_log_prob`.

  Returns:
    Of at least float32.
  """
  prompt_len = is_hidden_bp.shape[1]
  is_masked_bt = jnp.concatenate(
    [
      jnp.concatenate([is_hidden_bp, is_first_bs], axis=1),
      jnp.concatenate([is_hidden_bp, ~is_first_bs], axis=1),
    ]
  )
  twice_bt = jnp.concatenate([tokens_bt, tokens_bt])
  log_prob_bs = _log_prob(denoiser, twice_bt, is_masked_bt, prompt_len, mask_id)
  first_bs, second_bs = jnp.split(log_prob_bs, 2)
  return jnp.where(is_first_bs, first_bs, second_bs)


def _log_prob(
  denoiser, tokens_bt, is_masked_bt, prompt_len, mask_id
) -> Float[Array, 'b s']:
  masked_bt = jnp.where(is_masked_bt, mask_id, tokens_bt)
  logits_bsv = denoiser(masked_bt)[:, prompt_len:]
  dtype = jnp.promote_types(logits_bsv.dtype, jnp.float32)
  is_mask_v = jnp.arange(logits_bsv.shape[-1]) == mask_id
  logits_bsv = jnp.where(is_mask_v, losses.IMPOSSIBLE, logits_bsv.astype(dtype))
  log_probs_bsv = jax.nn.log_softmax(logits_bsv, axis=-1)
  answer_bs1 = tokens_bt[:, prompt_len:, None]
  return jnp.take_along_axis(log_probs_bsv, answer_bs1, axis=-1)[..., 0]
