# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills in the middle, also where the prefix ends inside a token.

Bavarian et al. 2022, arXiv:2207.14255, with the byte-level laws of Phan et al.
2024, arXiv:2410.09303. The model was trained (see `data.fim`) on one of

  PSM   <prefix> prefix <suffix> suffix <middle> middle
  SPM   <prefix> <suffix> suffix <middle> prefix middle

In SPM form, the middle continues the prefix, so nothing is special. In PSM form
each cover of the prefix is a prompt of its own, weighted by the probability of
the whole prompt; the bytes of a cover beyond the prefix are the beginning of
the middle. (The papers do not say how: this is our reading.)

Which law is exact depends on the training. Where prefix and middle were encoded
as one text, it is the sum over covers (`cut='covers'`). Where each part was
encoded by itself, the encoding of the cut prefix is what the model has seen,
and the middle begins at a token of its own: `cut='tokens'`.
"""

from collections.abc import Sequence

import numpy as np
from flax import nnx

from jaxtok.config import configclass
from jaxtok.decoding import autoregressive, byte_probs, cover_pool, covers
from jaxtok.tokenizers import base

ORDERS = ('spm', 'psm')
CUTS = ('covers', 'healed', 'tokens')

_ROWS = 16  # Most prompts that are scored in one call of the model.


@configclass
class Config:
  """How a prompt is made.

  Cuts: 'covers' sums over all covers of the prefix, 'healed' takes the last
  token of the prefix back and makes the middle begin with its bytes (token
  healing), 'tokens' leaves the encoding of the prefix as it is.
  """

  prefix: int  # Ids of the three special tokens.
  suffix: int
  middle: int
  order: str = 'spm'  # Or 'psm'.
  cut: str = 'covers'  # Or 'healed', 'tokens'.
  max_covers: int = 64  # Prompts of a text, in order 'psm' with 'covers'.

  def __post_init__(self):
    for name, known in (('order', ORDERS), ('cut', CUTS)):
      if getattr(self, name) not in known:
        raise ValueError(
          f'{name}={getattr(self, name)!r} must be one of {", ".join(known)}.'
        )
    if self.max_covers < 1:
      raise ValueError(f'max_covers={self.max_covers} must be >= 1.')


def start(
  model: byte_probs.ByteModel,
  prefixes: base.Data | Sequence[base.Data],
  suffixes: base.Data | Sequence[base.Data],
  *,
  num_bytes: int,
  config: Config,
) -> byte_probs.CoverState:
  """The state before the middles of texts.

  Go on with `byte_probs.continue_bytes` and the like. All texts share one cache
  of the model and one call per byte; the laws are those of one text at a time.

  Args:
    model: The model; its tokenizer must have the three special tokens.
    prefixes: What comes before each gap; may end inside a token. One text is
      the same as a list of it.
    suffixes: What comes after each, as many.
    num_bytes: Most bytes of a middle.
    config: How the prompts are made.

  Returns:
    A state of all texts, in order. In PSM order with covers, `dropped_b` is the
    share of a prefix's covers that found no room.

  Raises:
    TypeError: If a prefix or suffix is no text.
    ValueError: If there are not as many suffixes as prefixes, an id of the
      config is none of the model's, or parts have to be joined (`order='psm'`,
      or another cut than covers) and the tokenizer puts bytes before each text.
  """
  prefixes, suffixes = _texts(prefixes, suffixes)
  _check_ids(model, config)
  ends = [tuple(model.tokenizer.encode(s).tolist()) for s in suffixes]
  is_spm = config.order == 'spm'
  if is_spm and config.cut == 'covers':
    before = [_prompt(model, config, (), ids) for ids in ends]
    return model.start(prefixes, num_bytes, before=before)
  if model.lead:
    raise ValueError(
      f'order={config.order!r} with cut={config.cut!r} joins parts of a text, '
      f'and {model.tokenizer!r} would put {model.lead!r} before each. Use '
      "order='spm' with cut='covers'."
    )
  if config.cut == 'covers':
    return _start_covers(model, prefixes, ends, num_bytes, config)
  heads = [model.tokenizer.encode(p).tolist() for p in prefixes]
  pieces = [b''] * len(heads)
  if config.cut == 'healed':
    pieces = [
      model.tokenizer.token_bytes(head.pop()) if head else b'' for head in heads
    ]
  before = [
    _prompt(model, config, head, ids)
    for head, ids in zip(heads, ends, strict=True)
  ]
  return model.start(pieces, num_bytes, before=before)


def _texts(
  prefixes: base.Data | Sequence[base.Data],
  suffixes: base.Data | Sequence[base.Data],
) -> tuple[list[bytes], list[bytes]]:
  is_one = isinstance(prefixes, base.Data)
  if is_one != isinstance(suffixes, base.Data):
    raise TypeError(
      f'prefixes of type {type(prefixes).__name__} and suffixes of type '
      f'{type(suffixes).__name__} do not go together. Give two texts, or two '
      'lists of texts.'
    )
  if is_one:
    prefixes, suffixes = [prefixes], [suffixes]
  prefixes = covers.as_texts(prefixes, 'prefixes')
  suffixes = covers.as_texts(suffixes, 'suffixes')
  if len(prefixes) != len(suffixes) or not prefixes:
    raise ValueError(
      f'{len(prefixes)} prefixes and {len(suffixes)} suffixes: give one of '
      'each for every text, at least one.'
    )
  return prefixes, suffixes


def _check_ids(model: byte_probs.ByteModel, config: Config) -> None:
  for name in ('prefix', 'suffix', 'middle'):
    if not 0 <= getattr(config, name) < model.num_ids:
      raise ValueError(
        f'{name}={getattr(config, name)} of the config must be in [0, '
        f'{model.num_ids}), the ids of the model. Give the ids of the special '
        'tokens that it was trained with.'
      )


def _prompt(
  model: byte_probs.ByteModel,
  config: Config,
  head: Sequence[int],
  ids: Sequence[int],
) -> tuple[int, ...]:
  """The tokens before a middle, of those of its prefix and its suffix."""
  if config.order == 'spm':
    parts = (config.prefix, config.suffix, *ids, config.middle, *head)
  else:
    parts = (config.prefix, *head, config.suffix, *ids, config.middle)
  return (model.bos, *parts)


def _start_covers(
  model: byte_probs.ByteModel,
  prefixes: Sequence[bytes],
  ends: Sequence[tuple[int, ...]],
  num_bytes: int,
  config: Config,
) -> byte_probs.CoverState:
  """The state whose prompts have each cover of the prefix before <suffix>."""
  head = (model.bos, config.prefix)
  first = model.start(prefixes, 0, before=head)
  families, num_last, dropped = [], [], []
  for text, (prefix, ids) in enumerate(zip(prefixes, ends, strict=True)):
    settled, _ = model.settled(prefix)
    found = first.covers(text)
    for tokens, beyond, weight in found[: config.max_covers]:
      row = _prompt(model, config, (*settled, *tokens), ids)
      families.append((text, row, weight, beyond))
      num_last.append(1 + len(ids) + 1)
    weights = np.array([w for _, _, w in found])
    mass = np.exp(weights - weights.max())
    dropped.append(1 - mass[: config.max_covers].sum() / mass.sum())
  rows = [row for _, row, _, _ in families]
  last = _last_logprobs(model, rows, num_last)
  state = byte_probs.CoverState(
    model, max(map(len, rows)) + num_bytes, len(prefixes)
  )
  state.begin(
    [
      (text, row, weight + more, beyond)
      for (text, row, weight, beyond), more in zip(families, last, strict=True)
    ]
  )
  state.dropped_b[:] = dropped
  return state


def _last_logprobs(
  model: byte_probs.ByteModel,
  rows: Sequence[Sequence[int]],
  num_last: Sequence[int],
) -> list[float]:
  """Log-probability of the last tokens of each row, nats."""
  tokens, lengths = autoregressive.pad_prompts(rows)
  width = autoregressive.padded_width(model.model, tokens.shape[1])
  # Of few prompts a power of two, so that few programs are compiled.
  size = min(_ROWS, 1 << (len(rows) - 1).bit_length())
  spare = -len(rows) % size
  tokens = np.pad(tokens, ((0, spare), (0, width - tokens.shape[1])))
  graph, params = nnx.split(model.model)
  scores = np.concatenate(
    [
      np.asarray(cover_pool.token_logprobs(graph, params, part), np.float64)
      for part in np.split(tokens, len(tokens) // size)
    ]
  )
  return [
    float(row[length - num : length].sum())
    for row, length, num in zip(scores, lengths, num_last, strict=False)
  ]
