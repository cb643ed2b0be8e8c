# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How good samples are: generative perplexity, never without entropy.

Repetitive samples have a low perplexity under any model and a low entropy, so
the one number says nothing without the other, and both are compared with those
of held-out text. Axes: b samples, t tokens, v vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def unigram_entropy(
  tokens_bt: Int[Array, 'b t'],
  *,
  vocab_size: int,
  is_text_bt: Bool[Array, 'b t'] | None = None,
) -> Float[Array, 'b']:
  """Entropy of the frequencies of tokens in each sample, nats.

  Args:
    tokens_bt: Token ids.
    vocab_size: Static.
    is_text_bt: False behind the end of shorter samples; None means nowhere. A
      sample without text has entropy 0.
  """
  if is_text_bt is None:
    is_text_bt = jnp.ones(tokens_bt.shape, bool)
  count = lambda x_t, is_text_t: jnp.bincount(
    x_t, weights=is_text_t, length=vocab_size
  )
  count_bv = jax.vmap(count)(tokens_bt, is_text_bt.astype(jnp.float32))
  share_bv = count_bv / jnp.maximum(is_text_bt.sum(-1, keepdims=True), 1)
  return -jax.scipy.special.xlogy(share_bv, share_bv).sum(-1)


def generative_nats(
  model: Any,
  tokens_bt: Int[Array, 'b t'],
  *,
  bos: int,
  is_text_bt: Bool[Array, 'b t'] | None = None,
) -> Float[Array, 'b']:
  """Negative log-likelihood of each sample, nats over all its tokens.

  The generative perplexity of samples is the exponential of the sum over them
  by the number of their tokens, so that long and short ones weigh what they
  have, and a sample without text has no part in it.

  Args:
    model: An autoregressive model other than the one that was sampled, with the
      same tokenizer.
    tokens_bt: Samples.
    bos: Token before each of them.
    is_text_bt: See `unigram_entropy`.
  """
  start_b1 = jnp.full((tokens_bt.shape[0], 1), bos, tokens_bt.dtype)
  inputs_bt = jnp.concatenate([start_b1, tokens_bt[:, :-1]], axis=1)
  logits_btv = model.logits(model(inputs_bt).hidden_btd)
  log_probs_btv = jax.nn.log_softmax(logits_btv.astype(jnp.float32), axis=-1)
  picked_bt1 = jnp.take_along_axis(log_probs_btv, tokens_bt[..., None], axis=-1)
  if is_text_bt is None:
    is_text_bt = jnp.ones(tokens_bt.shape, bool)
  return -jnp.where(is_text_bt, picked_bt1[..., 0], 0.0).sum(-1)
