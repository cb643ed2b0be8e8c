# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learn Your Tokens: the promises of all models, a loop, and generation."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, word_pooled
from jaxtok.nn import masks, ragged
from jaxtok.tokenizers import word_bytes
from tests.conformance import greedy, model_suite

WORD, BOS = 5, 23
SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dim=8,
  num_heads=2,
  num_layers=1,
  num_char_layers=1,
  num_vectors=3,
  word_id=WORD,
  document_id=BOS,
  max_word=16,
)


class TestConformance(model_suite.CausalSuite):
  # An id that the suite's random tokens hold twice in a row.
  case = model_suite.Case(word_pooled.Config(**SMALL | dict(word_id=20)))


def make(**fields):
  return word_pooled.Config(**(SMALL | fields)).make(nnx.Rngs(0))


def plain(part, x_td, mask):
  """A level over one sequence, without words, padding or cache."""
  x_btd, _ = part(
    x_td[None],
    positions_bt=jnp.arange(len(x_td))[None],
    segment_ids_bt=None,
    mask=mask,
  )
  return x_btd[0]


WORDS = ([1, 2, 3], [7], [8, 9])


def loop_over_words(model):
  """States of all tokens by the equations of the paper, word by word."""
  p = model.config.num_vectors
  vectors, states = [], []
  for i, word in enumerate(WORDS):
    spelled = model.embed(jnp.asarray(word))
    if i == 0:
      # One vector, at the place of the last prefix.
      x_td = jnp.concatenate([model.embed(jnp.asarray([BOS])), spelled])
      states.append(plain(model.decoder, x_td, masks.Causal()))
    else:
      u_wd = plain(model.backbone, jnp.concatenate(vectors), masks.Causal())
      x_td = jnp.concatenate([u_wd[-p:], spelled])
      # The last prefix predicts the first byte.
      states.append(plain(model.decoder, x_td, masks.Causal())[p - 1 :])
    x_td = jnp.concatenate([model.prefix(jnp.arange(p)), spelled])
    vectors.append(plain(model.encoder, x_td, masks.Full())[:p])
  return jnp.concatenate(states)


@pytest.mark.parametrize('num_vectors', [1, 3])
def test_states_equal_a_loop_over_words(num_vectors):
  tokens = [BOS]
  for i, word in enumerate(WORDS):
    tokens += [*([WORD] if i else []), *word]

  @nnx.jit
  def both(model):
    flat = model(jnp.asarray([tokens])).hidden_btd[0]
    return flat, loop_over_words(model)

  # Sums over at most 20 slots in another order.
  model = make(num_vectors=num_vectors, embed_std=1.0)
  np.testing.assert_allclose(*both(model), atol=1e-5)


def test_training_leaves_out_what_comes_after_words_without_room():
  tokens = jnp.asarray([[1, WORD, 2, WORD, 3, WORD, 4, 6, 7, 8]])
  capacity = ragged.Capacity(policy='ratio', ratio=0.2)

  @nnx.jit
  def both(model, rng):
    return model(tokens, rng=rng), model(tokens)

  trained, full = both(make(capacity=capacity), base_rng())
  np.testing.assert_array_equal(
    trained.aux['target_mask_bt'], [[True] * 5 + [False] * 5]
  )
  assert 'target_mask_bt' not in full.aux
  np.testing.assert_allclose(
    trained.hidden_btd[:, :5], full.hidden_btd[:, :5], atol=1e-5
  )
  units = full.aux['metrics']['units_per_token']
  assert (units.total, units.weight) == (3, 10)


def base_rng():
  return nnx.Rngs(0).params()


def test_generation_with_nested_caches_equals_arg_max_without():
  """Prompts of different lengths, greedily, words and all."""
  model = word_pooled.Config(
    vocab_size=260,
    dim=16,
    num_heads=2,
    num_layers=1,
    num_char_layers=1,
    num_vectors=2,
    max_word=8,
    embed_std=1.0,
  ).make(nnx.Rngs(1))
  kernel = model.head.out.kernel[...] * 20
  # Marks are the best token wherever they are not the worst ones.
  model.head.out.kernel[...] = kernel.at[:, word_bytes.WORD].multiply(4)
  tokenizer = word_bytes.Config(longest=8).make()
  rng = np.random.default_rng(0)
  letters = np.frombuffer(b'abcd efg \n', np.uint8)
  rows = [
    [257, *tokenizer.encode_prompt(bytes(rng.choice(letters, n)))[0]]
    for n in rng.integers(1, 20, 50)
  ]
  new = greedy.generate(model, rows, 12)
  assert len(np.unique(new)) > 20
  assert (new == word_bytes.WORD).any()  # Some words were closed.


def test_flops_agree_with_xlas_count():
  """With a window as wide as the row, dense attention is what is counted."""
  config = word_pooled.Config(
    vocab_size=264, dim=128, num_heads=4, num_layers=2, max_word=128
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  found = model_suite.xla_flops(config, jnp.zeros((4, 64), jnp.int32))
  # XLA also counts norms, softmax, tanh and the like.
  assert 1 < found / counted < 1.1


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_heads': 3}, 'dim=8 must be a multiple of num_heads=3'),
    ({'num_vectors': 0}, 'num_vectors=0 must be >= 1'),
    ({'word_id': BOS}, 'word_id and document_id are both 23'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    make(**fields)


def test_a_vocabulary_without_marks_is_refused():
  with pytest.raises(ValueError, match='vocab_size=259 must be >= 260 to hold'):
    word_pooled.Config(vocab_size=259).make(nnx.Rngs(0))
