# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is usually done where a prompt ends inside a token.

  naive    The law of the next token behind the prompt's encoding, by first
           bytes. Biased: the encoding of a cut word is rarely the beginning of
           the whole word's.
  healed   Token healing: the last token is taken back, and the next ones must
           begin with its bytes. Exact only where the cut lies in the last
           token.

Both come out of one call of the model. `byte_probs` has the exact law.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxtok.decoding import autoregressive, byte_probs
from jaxtok.decoding.covers import END, NUM_SYMBOLS


def laws(
  model: byte_probs.ByteModel, prompts: Sequence[bytes]
) -> tuple[Float[np.ndarray, 'b 257'], Float[np.ndarray, 'b 257']]:
  """The naive and the healed law of the next byte.

  Args:
    model: The model.
    prompts: Any bytes.

  Returns:
    Two arrays of probabilities, float64; 256 is the end of the text. Without a
    last token, both are the same.

  Raises:
    ValueError: If a prompt exceeds the positions of the model.
  """
  led = [model.lead + p for p in prompts]
  rows = [[model.bos, *model.inner.encode(text).tolist()] for text in led]
  tokens, lengths = autoregressive.pad_prompts(rows)
  width = autoregressive.padded_width(model.model, tokens.shape[1])
  tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
  graph, params = nnx.split(model.model)
  before, after = np.asarray(_last_two(graph, params, tokens, lengths))
  naive = np.stack([_by_first_byte(model, row) for row in after])
  healed = [
    _heal(model, row, before_v, law) if len(row) > 1 else law
    for row, before_v, law in zip(rows, before, naive, strict=True)
  ]
  return naive, np.stack(healed)


@functools.partial(jax.jit, static_argnames='graph')
def _last_two(graph, params, tokens_bt, length_b):
  """Logits before and behind the last token, [2, b, v]."""
  model = nnx.merge(graph, params)
  place_b2 = jnp.stack([jnp.maximum(length_b - 2, 0), length_b - 1], axis=1)
  hidden_btd = model(tokens_bt).hidden_btd
  last_b2d = jnp.take_along_axis(hidden_btd, place_b2[..., None], axis=1)
  return model.logits(last_b2d).swapaxes(0, 1)


def _by_first_byte(
  model: byte_probs.ByteModel, logits_v: np.ndarray
) -> np.ndarray:
  logp_n, end = model.split_logits(logits_v)
  byte = model.vocabulary.next_bytes(0, len(logp_n), 0)
  law = np.bincount(byte, np.exp(logp_n), minlength=NUM_SYMBOLS)
  law[END] = np.exp(end)
  return law / law.sum()


def _heal(
  model: byte_probs.ByteModel,
  row: Sequence[int],
  logits_v: np.ndarray,
  naive: np.ndarray,
) -> np.ndarray:
  """The law if the last token of a row is chosen again."""
  text = model.inner.token_bytes(row[-1])
  low, high = model.vocabulary.find(text)
  logp_n, _ = model.split_logits(logits_v)
  logp_n = logp_n[low:high] - logp_n[low:high].max()
  prob = np.exp(logp_n)
  same = model.vocabulary.complete(low, high, len(text)) - low
  byte = model.vocabulary.next_bytes(low + same, high, len(text))
  law = np.bincount(byte, prob[same:], minlength=NUM_SYMBOLS)
  law = law + prob[:same].sum() * naive
  return law / law.sum()
