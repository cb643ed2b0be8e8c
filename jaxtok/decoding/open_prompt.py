# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Prompts whose last bytes have no token yet.

With compressed text, what stands for the end of a prompt depends on how it goes
on. The tokenizer leaves these bytes out, and the model chooses the next tokens
among those whose text agrees with them; what they say beyond the prompt is the
beginning of the continuation. With other tokenizers nothing is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.decoding import autoregressive
from jaxtok.decoding import sampling as sampling_lib


def begin(
  model: Any,
  tokenizer: Any,
  first: int,
  prompts: Sequence[bytes],
  *,
  rng: Any = None,
  sampling: sampling_lib.Config | None = None,
) -> tuple[list[np.ndarray], list[bytes]]:
  """The ids of prompts, and the bytes that these say beyond them.

  Args:
    model: See `models.base`.
    tokenizer: See `tokenizers.base`.
    first: The id before each prompt.
    prompts: Any bytes.
    rng: A `jax.random.key`; needed unless the temperature is 0.
    sampling: Its temperature is used; None means greedily.
  """
  temperature = 0.0 if sampling is None else sampling.temperature
  logits = _make_logits(model)
  ids, heads = [], []
  for number, prompt in enumerate(prompts):
    row, rest = tokenizer.encode_prompt(prompt)
    row, head = np.append(first, row).astype(np.int32), b''
    draw = _make_draw(rng, number, temperature)
    if rest:
      row, head = _complete(logits, tokenizer, row, rest, draw)
    ids.append(row)
    heads.append(head)
  return ids, heads


def _complete(
  logits: Callable, tokenizer: Any, row: np.ndarray, rest: bytes, draw: Callable
) -> tuple[np.ndarray, bytes]:
  """Adds tokens until `rest` is said.

  Raises:
    ValueError: If no word of the tokenizer agrees with the rest.
  """
  window: list[int] = []
  while True:
    allowed_v = tokenizer.allowed(rest, window)
    if not allowed_v.any():
      raise ValueError(
        f'no token begins with, or is the beginning of, {rest!r}, the end of '
        'the prompt. Make the prompt a byte longer or shorter.'
      )
    scores_v = logits(row)[: len(allowed_v)]
    window.append(draw(np.where(allowed_v, scores_v, -np.inf), len(row)))
    row = np.append(row, window[-1]).astype(np.int32)
    if len(window) == tokenizer.tokens_per_window:
      text = tokenizer.window_text(window)
      if len(text) >= len(rest):
        return row, text[len(rest) :]
      rest, window = rest[len(text) :], []


def _make_logits(model: Any) -> Callable[[np.ndarray], np.ndarray]:
  """Logits behind the last id of a row; compiled by size."""
  graph, params = nnx.split(model)

  @jax.jit
  def call(params, tokens_bt, last):
    its = nnx.merge(graph, params)
    hidden_btd = its(tokens_bt).hidden_btd
    return its.logits(hidden_btd[:, last][:, None])[0, 0]

  def logits(row: np.ndarray) -> np.ndarray:
    width = autoregressive.padded_width(model, len(row))
    padded = np.zeros((1, width), np.int32)
    padded[0, : len(row)] = row
    return np.asarray(call(params, padded, len(row) - 1), np.float32)

  return logits


def _make_draw(rng: Any, number: int, temperature: float) -> Callable:
  """A function of logits and place that chooses an id."""

  def draw(scores_v: np.ndarray, place: int) -> int:
    if not temperature:
      return int(np.argmax(scores_v))
    key = jax.random.fold_in(jax.random.fold_in(rng, number), place)
    return int(jax.random.categorical(key, jnp.asarray(scores_v / temperature)))

  return draw
