# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills blanks in a text with a model trained on span corruption.

  fill(model, tokenizer, [[b'The ', b' fox jumps ', b'.']], num_bytes=40)

The encoder reads the parts with a sentinel in each blank; what the decoder
writes behind a sentinel belongs into its blank (`data.span_corruption`).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtok.decoding import autoregressive
from jaxtok.decoding import sampling as sampling_lib
from jaxtok.models import base


def fill(
  model: Any,
  tokenizer: Any,
  texts: Sequence[Sequence[bytes]],
  *,
  num_bytes: int,
  rng: Any = None,
  sampling: sampling_lib.Config | None = None,
  sentinels: str = 'bytes',
) -> list[list[bytes]]:
  """What belongs into the blanks of several texts.

  Args:
    model: An encoder-decoder.
    tokenizer: The byte tokenizer with map 'byt5'.
    texts: Of each the parts around its blanks, at least two, any may be empty:
      one blank fewer than parts.
    num_bytes: Most bytes of all blanks of a text together.
    rng: A `jax.random.key`; needed unless the temperature is 0.
    sampling: How to choose tokens; None means greedily.
    sentinels: As in training.

  Returns:
    Of each text the bytes of its blanks; empty where the model ended before.

  Raises:
    ValueError: If a text has no blanks or too many.
  """
  marks = tokenizer.sentinels(sentinels)
  most = max((len(parts) for parts in texts), default=0) - 1
  if any(len(parts) < 2 for parts in texts) or most > len(marks):
    raise ValueError(
      f'texts have {sorted({len(parts) - 1 for parts in texts})} blanks; each '
      f'needs 1 to {len(marks)} with sentinels={sentinels!r}: give the parts '
      'around them.'
    )
  special = tokenizer.special
  rows = [_source(tokenizer, parts, marks) for parts in texts]
  tokens_bs, length_b = autoregressive.pad_prompts(rows, special.pad)
  valid_bs = np.arange(tokens_bs.shape[1]) < length_b[:, None]
  allowed = {special.eos, *marks[:most].tolist()}
  generation = autoregressive.generate(
    model,
    np.full((len(texts), 1), special.pad, np.int32),
    num_tokens=num_bytes + most,
    rng=rng,
    sampling=sampling,
    stop=[special.eos],
    banned_v=sampling_lib.ban(
      tokenizer.vocab_size,
      [i for i in _no_bytes(tokenizer) if i not in allowed],
    ),
    context=base.Source(
      jnp.asarray(tokens_bs), jnp.asarray(valid_bs, jnp.int32)
    ),
    pad_id=special.pad,
  )
  return [
    _blanks(tokenizer, tokens[:length], marks[: len(parts) - 1])
    for parts, tokens, length in zip(
      texts,
      np.asarray(generation.tokens),
      np.asarray(generation.lengths),
      strict=True,
    )
  ]


def _no_bytes(tokenizer: Any) -> list[int]:
  """Ids that stand for no byte."""
  inside = range(tokenizer.offset, tokenizer.offset + 256)
  return [i for i in range(tokenizer.vocab_size) if i not in inside]


def _source(
  tokenizer: Any, parts: Sequence[bytes], marks: np.ndarray
) -> np.ndarray:
  """Parts with sentinels between them, and EOS."""
  ids = [tokenizer.encode(parts[0])]
  for mark, part in zip(marks, parts[1:], strict=False):
    ids += [[mark], tokenizer.encode(part)]
  return np.concatenate([*ids, [tokenizer.special.eos]]).astype(np.int32)


def _blanks(
  tokenizer: Any, tokens: np.ndarray, marks: np.ndarray
) -> list[bytes]:
  """The bytes behind each sentinel, up to the one that is due next."""
  found, place = [[] for _ in marks], -1
  for token in tokens.tolist():
    if place + 1 < len(marks) and token == marks[place + 1]:
      place += 1
    elif place >= 0 and token != tokenizer.special.eos:
      found[place].append(token)
  return [tokenizer.decode(np.array(ids, np.int32)) for ids in found]
