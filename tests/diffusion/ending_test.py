# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Samples that end: where, at what cost, and what stands behind the end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import (
  bd3lm,
  block_cache,
  denoisers,
  ending,
  samplers,
  selectors,
)
from jaxtok.evals import generation
from jaxtok.models import transformer

VOCAB, MASK, EOS, BLOCK, LENGTH, B = 8, 7, 6, 4, 24, 16


@pytest.fixture(scope='module')
def model():
  config = transformer.Config(
    vocab_size=VOCAB, dim=16, num_layers=2, num_heads=2, is_causal=False
  )
  return config.make(nnx.Rngs(3))


@pytest.fixture(scope='module')
def sample(model):
  denoiser = denoisers.OfModel.make(model, mask=bd3lm.block_mask(BLOCK))
  tokens = jnp.zeros((B, LENGTH), jnp.int32)
  canvas = samplers.start(tokens, jnp.ones(tokens.shape, bool), MASK)

  @functools.partial(jax.jit, static_argnames='end')
  def run(end):
    return block_cache.decode(
      denoiser,
      canvas,
      selectors.Random(1),
      samplers.row_rngs(jax.random.key(1), B),
      kind='exact',
      prompt_len=0,
      mask_id=MASK,
      block=BLOCK,
      temperature=1.0,
      end=end,
    )

  return run


def test_samples_are_those_without_an_end_up_to_their_end(sample):
  """Blocks do not see later ones, so an end changes nothing before it."""
  whole, ended = sample(None), sample(ending.Ending(EOS))
  assert not ended.is_masked_bt.any()
  lengths = []
  for row, cut, calls in zip(
    *map(np.asarray, (whole.tokens_bt, ended.tokens_bt, ended.num_calls_b)),
    strict=True,
  ):
    ends = np.flatnonzero(row == EOS)
    end = ends[0] if ends.size else LENGTH
    np.testing.assert_array_equal(cut[:end], row[:end])
    assert (cut[end:] == EOS).all()
    # One call per token of the blocks up to that of the end, no more.
    assert calls == min(-(-(end + 1) // BLOCK) * BLOCK, LENGTH)
    lengths.append(end)
  assert len(set(lengths)) > 3
  is_text = np.asarray(ending.is_text(ended.tokens_bt, EOS))
  np.testing.assert_array_equal(is_text.sum(1), lengths)


def test_an_end_in_the_prompt_or_behind_masks_is_none():
  tokens = jnp.array([[EOS, 1, 2, EOS, 3, 4, 5, 1]])
  masked = jnp.arange(8)[None] >= 6
  canvas = samplers.start(tokens, masked, MASK)
  end = ending.Ending(EOS)
  early = end(canvas, 3, 2)  # The end at 3 is not decoded yet.
  np.testing.assert_array_equal(early.tokens_bt, canvas.tokens_bt)
  late = end(canvas, 6, 2)
  np.testing.assert_array_equal(
    late.tokens_bt, [[EOS, 1, 2, EOS, EOS, EOS, EOS, EOS]]
  )
  assert not late.is_masked_bt.any()
  np.testing.assert_array_equal(
    ending.is_text(late.tokens_bt, EOS, 2), [[1, 1, 1, 0, 0, 0, 0, 0]]
  )


def test_repetition_ends_a_row_once_the_window_is_full():
  tokens = jnp.array([[1, 1, 1, 1, 0, 0, 0, 0], [1, 2, 3, 4, 0, 0, 0, 0]])
  canvas = samplers.start(tokens, jnp.arange(8)[None] >= tokens * 0 + 4, MASK)
  end = ending.Ending(EOS, min_entropy=0.5, window=4)
  found = end(canvas, 4, 0)
  np.testing.assert_array_equal(found.is_masked_bt.any(1), [False, True])
  np.testing.assert_array_equal(found.tokens_bt[0], [1] * 4 + [EOS] * 4)
  assert end(canvas, 4, 1).is_masked_bt.any(1).all()  # Only three are written.


def test_entropy_is_that_of_the_frequencies():
  tokens = jnp.array([[1, 1, 2, 3], [5, 5, 5, 5], [1, 2, 3, 4]])
  want = generation.unigram_entropy(tokens, vocab_size=6)
  np.testing.assert_allclose(ending.entropy(tokens), want, atol=1e-6)


def test_measures_of_samples_stop_at_their_end(model):
  tokens = jnp.array([[1, 2, 3, 4], [1, 2, 3, 5], [0, 0, 0, 0]])
  is_text = jnp.arange(4)[None] < jnp.array([[3], [3], [0]])
  for measure in (
    functools.partial(generation.unigram_entropy, vocab_size=VOCAB),
    functools.partial(generation.generative_nats, causal(), bos=0),
  ):
    got = measure(tokens, is_text_bt=is_text)
    np.testing.assert_allclose(got[0], got[1], rtol=1e-6)
    np.testing.assert_allclose(got[:2], measure(tokens[:2, :3]), rtol=1e-5)
    assert got[2] == 0  # Nothing is added to a sum over tokens.


def causal():
  config = transformer.Config(vocab_size=VOCAB, dim=16, num_layers=1)
  return config.make(nnx.Rngs(0))


@pytest.mark.parametrize('window', [LENGTH, LENGTH + 1])
def test_a_window_that_no_row_fills_is_refused(sample, window):
  end = ending.Ending(EOS, min_entropy=0.5, window=window)
  if window <= LENGTH:
    assert not sample(end).is_masked_bt.any()
    return
  with pytest.raises(ValueError, match='window=25 exceeds the length=24'):
    sample(end)
  sample(dataclasses.replace(end, min_entropy=0.0))  # The window is not used.


def test_impossible_endings_are_refused():
  with pytest.raises(ValueError, match='eos=-1'):
    ending.Ending(-1)
  with pytest.raises(ValueError, match='window=0'):
    ending.Ending(EOS, window=0)
