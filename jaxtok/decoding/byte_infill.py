# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills in the middle, also where the prefix ends inside a token.

Bavarian et al. 2022, arXiv:2207.14255, with the byte-level laws of Phan et al.
2024, arXiv:2410.09303. The model was trained on one of

  PSM   <prefix> prefix <suffix> suffix <middle> middle
  SPM   <prefix> <suffix> suffix <middle> prefix middle

In SPM form, the middle continues the prefix, so nothing is special. In PSM form
each cover of the prefix is a prompt of its own, weighted by the probability of
the whole prompt; the bytes of a cover beyond the prefix are the beginning of
the middle. (The papers do not say how: this is our reading.)
"""

from collections.abc import Sequence

import numpy as np
from flax import nnx

from jaxtok.config import configclass
from jaxtok.decoding import autoregressive, byte_probs, cover_pool
from jaxtok.tokenizers import base

ORDERS = ('spm', 'psm')


@configclass
class Config:
  """How a prompt is made."""

  prefix: int  # Ids of the three special tokens.
  suffix: int
  middle: int
  order: str = 'spm'  # Or 'psm'.
  max_covers: int = 64  # Prompts of order 'psm'.

  def __post_init__(self):
    if self.order not in ORDERS:
      raise ValueError(
        f'order={self.order!r} must be one of {", ".join(ORDERS)}.'
      )
    if self.max_covers < 1:
      raise ValueError(f'max_covers={self.max_covers} must be >= 1.')


def start(
  model: byte_probs.ByteModel,
  prefix: base.Data,
  suffix: base.Data,
  *,
  num_bytes: int,
  config: Config,
) -> byte_probs.CoverState:
  """The state before the middle of one text.

  Go on with `byte_probs.continue_bytes` and the like.

  Args:
    model: The model; its tokenizer must have the three special tokens.
    prefix: What comes before the gap; may end inside a token.
    suffix: What comes after.
    num_bytes: Most bytes of the middle.
    config: How the prompt is made.

  Returns:
    A state of one text. In PSM order, `dropped_b` is the share of the prefix's
    covers that found no room.

  Raises:
    ValueError: If an id of the config is none of the model's, or the order is
      PSM and the tokenizer puts bytes before each text.
  """
  prefix = base.as_bytes(prefix)
  for name in ('prefix', 'suffix', 'middle'):
    if not 0 <= getattr(config, name) < model.num_ids:
      raise ValueError(
        f'{name}={getattr(config, name)} of the config must be in [0, '
        f'{model.num_ids}), the ids of the model. Give the ids of the special '
        'tokens that it was trained with.'
      )
  ids = model.tokenizer.encode(suffix).tolist()
  if config.order == 'spm':
    before = (model.bos, config.prefix, config.suffix, *ids, config.middle)
    return model.start([prefix], num_bytes, before=before)
  head = (model.bos, config.prefix)
  if model.lead:
    raise ValueError(
      f"order='psm' cuts a text in two, and {model.tokenizer!r} would put "
      f"{model.lead!r} before the middle too. Use order='spm'."
    )
  settled = model.settled(prefix)
  first = model.start([prefix], 0, before=head)
  found = first.covers(0)
  kept = found[: config.max_covers]
  rows = [
    (*head, *settled[0], *tokens, config.suffix, *ids, config.middle)
    for tokens, _, _ in kept
  ]
  weights = _weights(model, rows, [w for _, _, w in kept], 1 + len(ids) + 1)
  room = max(map(len, rows)) + num_bytes
  state = byte_probs.CoverState(model, room, 1)
  state.begin(
    [
      (0, row, weight, beyond)
      for row, weight, (_, beyond, _) in zip(rows, weights, kept, strict=True)
    ]
  )
  mass = np.exp(np.array([w for _, _, w in found]))
  state.dropped_b[0] = 1 - mass[: len(kept)].sum() / mass.sum()
  return state


def _weights(
  model: byte_probs.ByteModel,
  rows: Sequence[Sequence[int]],
  covers: Sequence[float],
  num_last: int,
) -> list[float]:
  """Log-weights of covers, times the probability of the last tokens."""
  tokens, lengths = autoregressive.pad_prompts(rows)
  width = autoregressive.padded_width(model.model, tokens.shape[1])
  tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
  graph, params = nnx.split(model.model)
  scores = np.asarray(
    cover_pool.token_logprobs(graph, params, tokens), np.float64
  )
  return [
    float(weight + row[length - num_last : length].sum())
    for weight, row, length in zip(covers, scores, lengths, strict=True)
  ]
