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
from jaxtyping import Array, Float, Int


def unigram_entropy(
  tokens_bt: Int[Array, 'b t'], *, vocab_size: int
) -> Float[Array, 'b']:
  """Entropy of the frequencies of tokens in each sample, nats.

  Args:
    tokens_bt: Token ids.
    vocab_size: Static.
  """
  count = lambda x_t: jnp.bincount(x_t, length=vocab_size)
  share_bv = jax.vmap(count)(tokens_bt) / tokens_bt.shape[1]
  return -jax.scipy.special.xlogy(share_bv, share_bv).sum(-1)


def generative_nats(
  model: Any, tokens_bt: Int[Array, 'b t'], *, bos: int
) -> Float[Array, 'b']:
  """Mean negative log-likelihood per token of each sample, nats.

  The exponential of its mean over samples is the generative perplexity.

  Args:
    model: An autoregressive model other than the one that was sampled, with the
      same tokenizer.
    tokens_bt: Samples.
    bos: Token before each of them.
  """
  start_b1 = jnp.full((tokens_bt.shape[0], 1), bos, tokens_bt.dtype)
  inputs_bt = jnp.concatenate([start_b1, tokens_bt[:, :-1]], axis=1)
  logits_btv = model.logits(model(inputs_bt).hidden_btd)
  log_probs_btv = jax.nn.log_softmax(logits_btv.astype(jnp.float32), axis=-1)
  picked_bt1 = jnp.take_along_axis(log_probs_btv, tokens_bt[..., None], axis=-1)
  return -picked_bt1[..., 0].mean(-1)
