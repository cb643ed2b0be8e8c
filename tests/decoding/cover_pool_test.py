# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Laws from a cache that grows, against calls without a cache.

Each byte is a token, so the law behind a text is one row of one call.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxtok.decoding import byte_probs, cover_pool
from jaxtok.decoding.byte_probs import END
from jaxtok.models import hnet, spacebyte, transformer
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config().make()
BOS, EOS = TOKENIZER.special.bos, TOKENIZER.special.eos
SIZE = dict(vocab_size=TOKENIZER.vocab_size)
TEXT = b'the cat sat on a mat, and then on another mat of it.'

# Caches of keys and values, of two levels, and of what a recurrence reads.
MODELS = {
  'transformer': transformer.Config(
    dim=8, num_layers=2, num_heads=2, embed_std=1.0, **SIZE
  ),
  'spacebyte': spacebyte.Config(
    dim=16, local_dim=8, head_dim=8, num_layers=1, num_local_layers=2, **SIZE
  ),
  'hnet': hnet.Config(
    dims=(8, 16),
    head_dim=4,
    num_layers=(1, 1),
    lengths=(3.0,),
    mixer='mamba2',
    state_dim=4,
    embed_std=1.0,
    **SIZE,
  ),
}


@jax.jit
def _probs(parts, tokens_bt):
  lm = nnx.merge(*parts)
  return jax.nn.softmax(lm.logits(lm(tokens_bt).hidden_btd))


def laws(lm, text):
  """The law behind each beginning of a text, in one call without a cache."""
  ids = np.array([[BOS, *text]])
  probs = np.asarray(_probs(nnx.split(lm), ids)[0], np.float64)
  ends = probs[:, [BOS, EOS]].sum(axis=1, keepdims=True)
  found = np.concatenate([probs[:, :END], ends], axis=1)
  return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('name', MODELS)
def test_laws_are_right_however_many_bytes_were_promised(name):
  lm = MODELS[name].make(nnx.Rngs(0))
  want = laws(lm, TEXT)
  model = byte_probs.ByteModel(lm, TOKENIZER)
  state = model.start([TEXT[:3], TEXT[:1]], num_bytes=4)
  for place in range(3, len(TEXT)):
    got = np.exp(state.logprobs())
    # Probabilities of float32 logits: those of one call, and of many.
    np.testing.assert_allclose(got, want[[place, place - 2]], atol=1e-5)
    state.append([TEXT[place], TEXT[place - 2]])
  got = np.exp(state.logprobs()[0])
  np.testing.assert_allclose(got, want[len(TEXT)], atol=1e-5)


def test_only_the_positions_of_a_model_end_a_text():
  config = transformer.Config(
    dim=8,
    num_layers=1,
    num_heads=1,
    embed_std=1.0,
    position='learned',
    max_len=40,
    **SIZE,
  )
  lm = config.make(nnx.Rngs(0))
  want = laws(lm, TEXT[:39])
  state = byte_probs.ByteModel(lm, TOKENIZER).start([TEXT[:3]], num_bytes=4)
  for place in range(3, 39):
    state.append([TEXT[place]])
    got = np.exp(state.logprobs()[0])
    np.testing.assert_allclose(got, want[place + 1], atol=1e-5)
  with pytest.raises(ValueError, match='41 tokens exceed the 40 positions'):
    state.append([TEXT[39]])
  # What was read halfway is not taken for a text.
  for ask in (
    state.logprobs,
    lambda: state.log_prob_b,
    lambda: state.covers(0),
  ):
    with pytest.raises(ValueError, match='an earlier append to this state has'):
      ask()
  with pytest.raises(ValueError, match='44 tokens exceed the 40 positions'):
    byte_probs.ByteModel(lm, TOKENIZER).start([TEXT[:3]], num_bytes=40)


def test_a_growing_pool_compiles_for_few_sizes():
  lm = MODELS['transformer'].make(nnx.Rngs(0))
  pool = cover_pool.CoverPool(lm, 2)
  rows, _ = pool.start([[BOS]])
  sizes = []
  for byte in TEXT * 2:
    (row,), _ = pool.extend(rows, [byte])
    pool.give_back(rows[0])
    rows = [row]
    sizes.append(pool.max_len)
  assert list(dict.fromkeys(sizes)) == [16, 32, 64, 128]
