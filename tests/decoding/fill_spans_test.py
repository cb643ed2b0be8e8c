# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Blanks: what the encoder reads, and how what is written is divided."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.decoding import fill_spans
from jaxtok.models import base
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config(map='byt5').make()
TEXTS = [[b'ab', b'c', b''], [b'', b'xyz']]
WRITTEN = [[258, *b'QQ', 257, *b'R', 1], [258, 257, *b'ZZ', 1]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  place: Any

  def truncate(self, length_b):
    del length_b
    return self


class Scribe(nnx.Module):
  """Writes fixed rows whatever it reads, and checks what it reads."""

  def __init__(self):
    rows = np.full((2, 24), 1)
    for row, ids in zip(rows, WRITTEN, strict=True):
      row[: len(ids)] = [i if i < 3 or i > 250 else i + 3 for i in ids]
    self.rows = nnx.Param(jnp.asarray(rows))

  def init_cache(self, batch_size, max_len):
    del batch_size, max_len
    return Cache(jnp.zeros((), jnp.int32))

  def __call__(self, tokens_bt, *, cache, context=None):
    if context is not None:
      assert isinstance(context, base.Source)
    ids_b = self.rows[...][:, cache.place]
    hidden = jax.nn.one_hot(ids_b, 384)[:, None]
    hidden = jnp.broadcast_to(hidden, (2, tokens_bt.shape[1], 384))
    return base.Output(hidden, Cache(cache.place + 1))

  def logits(self, hidden_btd):
    return hidden_btd


def test_what_is_written_is_divided_at_the_sentinels_that_are_due():
  got = fill_spans.fill(Scribe(), TOKENIZER, TEXTS, num_bytes=20)
  # The second text has one blank, so there 257 is no sentinel but a byte.
  assert got == [[b'QQ', b'R'], [b'\xfeZZ']]


def test_the_encoder_reads_parts_sentinels_and_eos():
  marks = TOKENIZER.sentinels()
  got = fill_spans._source(TOKENIZER, TEXTS[0], marks)
  np.testing.assert_array_equal(got, [100, 101, 258, 102, 257, 1])
  got = fill_spans._source(TOKENIZER, TEXTS[1], TOKENIZER.sentinels('extra'))
  np.testing.assert_array_equal(got, [259, 123, 124, 125, 1])


def test_texts_without_blanks_or_with_too_many_are_refused():
  with pytest.raises(ValueError, match=r'texts have \[0\] blanks'):
    fill_spans.fill(Scribe(), TOKENIZER, [[b'a']], num_bytes=3)
  with pytest.raises(ValueError, match=r'texts have \[12\] blanks'):
    fill_spans.fill(Scribe(), TOKENIZER, [[b''] * 13], num_bytes=3)
