# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""In no model is what finds no room lost silently.

For any tokens and documents, each target of a training step is either the same
as with room for all, or it is left out of the loss and counted.
"""

import functools

import hypothesis
import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtok.models import (
  blt,
  hat,
  hat2,
  hnet,
  level,
  lexinvariant,
  spacebyte,
  word_pooled,
)
from jaxtok.nn import pooling_shorteners, ragged, segmenters, shorteners

B, T, VOCAB = 2, 12, 16
WORD = 15  # Marks the end of a word.
_TIGHT = dict(
  vocab_size=VOCAB,
  embed_std=1.0,
  capacity=ragged.Capacity(policy='ratio', ratio=0.25),
)
_WORDS = dict(
  dim=8, num_layers=1, num_char_layers=1, word_id=WORD, document_id=14,
  max_word=16,
)  # fmt: skip
# Ids 9 to 13 are white space.
_SPACES = segmenters.Whitespace()
CONFIGS = {
  'blt': blt.Config(
    **_TIGHT,
    **dict(dim=8, byte_dim=8, num_layers=1, num_decoder_layers=1),
    **dict(num_heads=2, num_byte_heads=2, ngrams=(2,), hash_rows=8, window=0),
    patcher=_SPACES,
  ),
  'hat': hat.Config(**_TIGHT, **_WORDS, char_dim=8, head_dim=4),
  'hat2': hat2.Config(
    **_TIGHT,
    **dict(dim=8, char_dim=8, head_dim=4, num_layers=1),
    **dict(num_encoder_layers=1, num_decoder_layers=1),
    segmenter=_SPACES,
  ),
  'hnet': hnet.Config(
    **_TIGHT, dims=(8, 8), head_dim=4, num_layers=(1, 1), lengths=(3.0,)
  ),
  'spacebyte': spacebyte.Config(
    **_TIGHT,
    **dict(dim=8, head_dim=4, num_layers=1, num_local_layers=2),
    segmenter=_SPACES,
  ),
  'word_pooled': word_pooled.Config(
    **_TIGHT, **_WORDS, num_heads=2, num_vectors=2
  ),
}


def documents(lengths, total=T):
  """Segment ids of one row; what is left at its end is padding."""
  ids = np.repeat(np.arange(1, len(lengths) + 1), lengths)[:total]
  return np.pad(ids, (0, total - len(ids)))


rows = st.lists(
  st.lists(st.integers(1, T), min_size=1, max_size=5).map(documents),
  min_size=B,
  max_size=B,
).map(lambda x: np.stack(x).astype(np.int32))


@functools.cache
def compiled(name):
  """A call that trains and one that does not, of the same parameters."""
  graph, params = nnx.split(CONFIGS[name].make(nnx.Rngs(0)))

  @jax.jit
  def both(tokens, segment_ids):
    model = nnx.merge(graph, params)
    call = functools.partial(model, tokens, segment_ids=segment_ids)
    trained, full = call(rng=jax.random.key(0)), call()
    return trained.hidden_btd, trained.aux, full.hidden_btd

  return both


@pytest.mark.parametrize('name', CONFIGS)
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
  tokens=hnp.arrays(np.int32, (B, T), elements=st.integers(0, VOCAB - 1)),
  segment_ids=rows,
)
def test_targets_are_as_with_room_for_all_or_left_out(
  name, tokens, segment_ids
):
  got, aux, want = compiled(name)(tokens, segment_ids)
  mask = np.asarray(aux['target_mask_bt'])
  valid = segment_ids != 0
  # States of order 1; sums over other numbers of slots.
  np.testing.assert_allclose(got[mask & valid], want[mask & valid], atol=1e-4)
  lost = aux['metrics']['lost_targets']
  np.testing.assert_array_equal(lost.total, (valid & ~mask).sum(axis=1))
  np.testing.assert_array_equal(lost.weight, valid.sum(axis=1))


@pytest.mark.parametrize('name', CONFIGS)
def test_rows_of_short_units_do_overflow(name):
  """Otherwise the test above would show nothing."""
  tokens = np.tile(np.int32([9, WORD]), (B, T // 2))
  _, aux, _ = compiled(name)(tokens, np.ones((B, T), np.int32))
  if name == 'hnet':  # Where its chunks end follows from its weights.
    tokens = np.random.default_rng(0).integers(0, VOCAB, (B, T))
    _, aux, _ = compiled(name)(tokens, np.ones((B, T), np.int32))
  assert not np.asarray(aux['target_mask_bt']).all()


@functools.cache
def lexinvariant_call():
  trunk = level.Config(
    dim=8, num_heads=2, gated=False, position='t5', branch_scale=1.0
  )
  config = lexinvariant.Config(vocab_size=VOCAB, max_documents=2, trunk=trunk)
  graph, params = nnx.split(config.make(nnx.Rngs(0)))

  @jax.jit
  def call(tokens, segment_ids):
    model = nnx.merge(graph, params)
    output = model(tokens, segment_ids=segment_ids, rng=jax.random.key(0))
    return output.aux

  return call


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(segment_ids=rows)
def test_documents_without_a_table_are_left_out(segment_ids):
  tokens = np.zeros((B, T), np.int32)
  aux = lexinvariant_call()(tokens, segment_ids)
  np.testing.assert_array_equal(
    np.asarray(aux['target_mask_bt'])[segment_ids > 0],
    (segment_ids <= 2)[segment_ids > 0],
  )
  lost = aux['metrics']['lost_targets']
  np.testing.assert_array_equal(lost.total, (segment_ids > 2).sum(axis=1))


SHORTENERS = {
  'gate': shorteners.Gate(),
  'random': shorteners.Random(mean=0.5),
  'fixed': shorteners.Fixed(share=0.5),
  'boundaries': pooling_shorteners.Boundaries(),
  'convolution': pooling_shorteners.Convolution(rate=4),
}


@functools.cache
def shortener_call(name):
  graph, params = nnx.split(SHORTENERS[name].make(4, nnx.Rngs(0)))

  @jax.jit
  def call(x, tokens, segment_ids):
    return nnx.merge(graph, params)(
      x, tokens_bs=tokens, segment_ids_bs=segment_ids, rng=None
    )

  return call


@pytest.mark.parametrize('name', SHORTENERS)
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
  x=hnp.arrays(np.float32, (B, T, 4), elements=st.integers(-2, 2)),
  segment_ids=rows,
)
def test_shorteners_count_what_they_delete(name, x, segment_ids):
  tokens = np.zeros((B, T), np.int32)
  got = shortener_call(name)(x, tokens, segment_ids)
  keep = np.asarray(got.keep_bs)
  valid = segment_ids != 0
  assert not (keep & ~valid).any()
  deleted = got.metrics['deleted']
  np.testing.assert_array_equal(deleted.total, (valid & ~keep).sum(axis=1))
  np.testing.assert_array_equal(deleted.weight, valid.sum(axis=1))
  if name in ('boundaries', 'convolution'):
    # Every document goes on, and no group reaches into the next.
    for row, ids in zip(keep, segment_ids, strict=True):
      assert set(ids[row]) == set(ids[ids > 0])
  if name == 'convolution':
    for row, ids in zip(keep, segment_ids, strict=True):
      for k in set(ids[ids > 0]):
        assert row[ids == k].sum() == -(-(ids == k).sum() // 4)
