# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bytes in, bytes out: continues prompts with any tokenizer.

A prompt is a document's beginning, any bytes. A continuation ends where the
model ends the document (BOS or EOS), or after `num_bytes`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.decoding import autoregressive, open_prompt
from jaxtok.decoding import sampling as sampling_lib


def complete(
  model: Any,
  tokenizer: Any,
  prompts: Sequence[bytes],
  *,
  num_bytes: int,
  rng: Any = None,
  sampling: sampling_lib.Config | None = None,
) -> list[bytes]:
  """Continues several prompts at once.

  Args:
    model: See `models.base`.
    tokenizer: With a BOS or EOS token.
    prompts: Any bytes; may be empty.
    num_bytes: Most bytes of each continuation.
    rng: A `jax.random.key`; needed unless the temperature is 0.
    sampling: How to choose tokens; None means greedily.

  Returns:
    The continuations, without the prompts.
  """
  *_, texts = _grow(model, tokenizer, prompts, num_bytes, rng, sampling, 64)
  return texts


def stream(
  model: Any,
  tokenizer: Any,
  prompt: bytes,
  *,
  num_bytes: int,
  rng: Any = None,
  sampling: sampling_lib.Config | None = None,
) -> Iterator[bytes]:
  """Yields the bytes of `complete` for one prompt while they are made."""
  seen = 0
  for (text,) in _grow(
    model, tokenizer, [prompt], num_bytes, rng, sampling, chunk=8
  ):
    yield text[seen:]
    seen = len(text)


def _grow(
  model, tokenizer, prompts, num_bytes, rng, sampling, chunk
) -> Iterator[list[bytes]]:
  """Yields the continuations so far, each time longer by `chunk` tokens."""
  if num_bytes < 1:
    raise ValueError(f'num_bytes={num_bytes} must be >= 1.')
  special = tokenizer.special
  begin = special.eos if special.bos is None else special.bos
  stop = {i for i in (special.bos, special.eos) if i is not None}
  if begin is None:
    raise ValueError(
      f'{tokenizer!r} has neither a BOS nor an EOS token, so no document can '
      'begin or end.'
    )
  num_logits = _num_logits(model)
  ids, heads = open_prompt.begin(
    model, tokenizer, begin, prompts, rng=rng, sampling=sampling
  )
  prompt_bt, lengths_b = autoregressive.pad_prompts(ids)
  pieces = autoregressive.stream(
    model,
    prompt_bt,
    lengths_b,
    num_tokens=num_bytes * tokenizer.max_tokens_per_byte,
    chunk=min(chunk, num_bytes),
    rng=rng,
    sampling=sampling,
    stop=sorted(stop),
    banned_v=sampling_lib.ban(
      num_logits,
      [i for i in special.ids() - stop if i >= 0],
      num_real=tokenizer.vocab_size,
    ),
  )
  rows = [np.zeros(0, np.int32) for _ in prompts]
  for piece in pieces:
    new = zip(np.asarray(piece.tokens), np.asarray(piece.lengths), strict=True)
    rows = [
      np.append(row, tokens[:length])
      for row, (tokens, length) in zip(rows, new, strict=True)
    ]
    texts = [
      head + tokenizer.decode_next(prompt[1:], row)
      for head, prompt, row in zip(heads, ids, rows, strict=True)
    ]
    yield [text[:num_bytes] for text in texts]
    is_open = [not row.size or row[-1] not in stop for row in rows]
    if not any(
      o and len(text) < num_bytes
      for o, text in zip(is_open, texts, strict=True)
    ):
      return


def _num_logits(model: Any) -> int:
  """Width of the model's logits."""
  graph, params = nnx.split(model)

  def logits(params):
    model = nnx.merge(graph, params)
    return model.logits(model(jnp.zeros((1, 1), jnp.int32)).hidden_btd)

  return jax.eval_shape(logits, params).shape[-1]
