# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""HAT of 2026: the promises of all models, a loop over words, generation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.byte_lm.configs import hat as hat_file
from experiments.byte_lm.configs import hat2 as config_file
from jaxtok.models import base, hat2
from jaxtok.nn import masks, ragged, segmenters
from jaxtok.tokenizers import words
from tests.conformance import greedy, model_suite

SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dim=16,
  char_dim=8,
  head_dim=4,
  num_kv_heads=2,
  num_layers=1,
  num_encoder_layers=1,
  num_decoder_layers=2,
  # Ids 9 to 13 are white space, of the suite's tokens too.
  segmenter=segmenters.Whitespace(),
)
SPACE = 10


class TestConformance(model_suite.CausalSuite):
  case = model_suite.Case(hat2.Config(**SMALL))


@pytest.mark.slow  # The other way to look, and a window.
class TestFirst(model_suite.CausalSuite):
  # Two layers of encoder and decoder with a window of 2 reach 4 places back,
  # words reach further.
  case = model_suite.Case(hat2.Config(**SMALL, looks='first', max_word=3))


def make(seed=0, **fields):
  """Embeddings of order 1, and a head that has favourites."""
  fields = SMALL | dict(embed_std=1.0) | fields
  model = hat2.Config(**fields).make(nnx.Rngs(seed))
  model.head.out.kernel[...] *= 20
  return model


WORDS = ([1, 2, SPACE], [SPACE], [7, 8, 4, SPACE], [5, 6])
ROW = [token for word in WORDS for token in word]


def plain(part, x_td, window):
  """A level over one sequence, without cache."""
  x_btd, _ = part(
    x_td[None],
    positions_bt=jnp.arange(len(x_td))[None],
    segment_ids_bt=None,
    mask=masks.Causal() & masks.Window(window),
  )
  return x_btd[0]


def vector(pool, x_td):
  """Attention of one query to the bytes of one word."""
  y_td = pool.norm(x_td)
  query_nh, h = pool.query[...], pool.query.shape[1]
  score_nt = jnp.einsum('nh,tnh->nt', query_nh, pool.k(y_td)) / np.sqrt(h)
  mixed = jnp.einsum('nt,tnh->nh', jax.nn.softmax(score_nt), pool.v(y_td))
  return pool.out(mixed[None])[0]


def loop_over_words(model):
  """States of all bytes: what each sees is written down word by word."""
  c = model.config
  x_td = plain(model.encoder, model.embed(jnp.asarray(ROW)), c.window)
  vectors, looks, stop = [], [], 0
  for word in WORDS:
    u = model.first[...]
    if vectors:
      u = plain(model.backbone, jnp.stack(vectors), 100)[-1]
    looks.append(jnp.tile(model.down(u), (len(word), 1)))
    vectors.append(vector(model.pool, x_td[stop : stop + len(word)]))
    stop += len(word)
  looks = jnp.split(jnp.concatenate(looks), len(model.decoder), axis=-1)
  for part, look_td in zip(model.decoder, looks, strict=True):
    x_td = plain(part, x_td + look_td, c.window)
  return x_td


@pytest.mark.parametrize('looks', hat2.LOOKS)
def test_states_equal_a_loop_over_words(looks):
  graph, params = nnx.split(make(looks=looks, window=4))

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    row = jnp.asarray([ROW])
    return model(row).hidden_btd[0], loop_over_words(model)

  # States of order 1; sums over at most 10 places in another order.
  np.testing.assert_allclose(*both(params), atol=2e-5)


def test_words_are_seen_from_the_byte_on_that_ends_them():
  """The first byte of a word gets the vector of the word before it."""
  row = jnp.asarray([[1, SPACE, 2, 3, SPACE, SPACE, 4, *range(14, 23)]])
  model = make(max_word=5)
  words = model._words(row, jnp.ones_like(row), None, None)
  np.testing.assert_array_equal(
    words.seen_bt[0], [-1, -1, 0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]
  )
  documents = jnp.asarray([[1, 1, 1, 1, 1, 2, 2, *[2] * 5, *[0] * 4]])
  words = model._words(row, documents, None, None)
  np.testing.assert_array_equal(
    words.seen_bt[0, :12], [-1, -1, 0, 0, 0, -1, 1, 1, 1, 1, 1, 2]
  )
  assert words.is_end_bt[0].sum() == 3


def test_vectors_of_words_begin_as_large_as_bytes():
  model = hat2.Config(vocab_size=200, dim=128, char_dim=64, head_dim=32).make(
    nnx.Rngs(0)
  )
  rms = lambda x: float(jnp.sqrt(jnp.mean(x**2)))
  state_wd = jax.random.normal(jax.random.key(1), (50, 128))
  states = model.backbone.stack.norm(state_wd)  # What the backbone ends with.
  byte = rms(model.embed.table[...])
  # 6,400 and 128 numbers: within 10 % of 0.02.
  assert rms(model.down(states)) / byte == pytest.approx(1, rel=0.1)
  assert rms(model.down(model.first[...])) / byte == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize('size', ['tiny', 'quickstart'])
def test_short_runs_see_and_have_room_for_what_hat_does(size):
  its, model = (
    hat_file.get_config(size).model,
    config_file.get_config(size).model,
  )
  assert model.capacity == its.capacity
  # A byte of HAT sees its word and the mark; the encoder those on both sides.
  assert its.max_word < model.window <= 2 * its.max_word + 1


def random_rows(num, longest):
  rng = np.random.default_rng(0)
  rows = rng.integers(0, 24, (num, longest))
  rows = np.where(rng.random(rows.shape) < 0.3, SPACE, rows)
  lengths = rng.integers(1, longest, num)
  return [row[:n] for row, n in zip(rows, lengths, strict=True)]


def test_generation_with_nested_caches_equals_arg_max_without():
  """50 prompts of different lengths; words end at white space."""
  new = greedy.generate(make(), random_rows(50, 16), 10)
  assert len(np.unique(new)) > 5
  assert np.isin(new, range(9, 14)).any()  # Some words were completed.


def test_long_words_are_cut_between_characters_with_a_cache_too():
  """A word of 84 bytes, with characters of 1 to 4, in parts of at most 10."""
  text = 'あ' * 8 + 'é' * 6 + 'ab' + '😀' * 9 + 'いx' * 2
  row = jnp.asarray([list(text.encode())])
  model = make(vocab_size=256, max_word=10, segmenter=segmenters.Words())
  seen = nnx.jit(lambda m, x: m._words(x, jnp.ones_like(x), None, None).seen_bt)
  cuts = np.flatnonzero(np.diff(seen(model, row)[0], prepend=-1))
  ends = words.chunk_words(text.encode(), np.array([row.size]), 10)
  np.testing.assert_array_equal(cuts, ends[:-1])
  want = nnx.jit(lambda m, x: m(x).hidden_btd)(model, row)

  @nnx.jit
  def step(model, x, cache):
    output = model(x, cache=cache)
    return output.hidden_btd, output.cache

  cache, got = model.init_cache(1, row.size), []
  for i in range(row.size):
    hidden, cache = step(model, row[:, i : i + 1], cache)
    got.append(hidden)
  np.testing.assert_allclose(jnp.concatenate(got, axis=1), want, atol=1e-4)


def test_training_leaves_out_what_comes_after_words_without_room():
  tokens = jnp.asarray([[1, SPACE, 2, SPACE, 3, SPACE, 4, 6, 7, 8]])
  capacity = ragged.Capacity(policy='ratio', ratio=0.2)
  graph, params = nnx.split(make(capacity=capacity))

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    return model(tokens, rng=jax.random.key(0)), model(tokens)

  trained, full = both(params)
  np.testing.assert_array_equal(
    trained.aux['target_mask_bt'], [[True] * 6 + [False] * 4]
  )
  assert 'target_mask_bt' not in full.aux
  np.testing.assert_allclose(
    trained.hidden_btd[:, :6], full.hidden_btd[:, :6], atol=1e-5
  )
  units = full.aux['metrics']['units_per_token']
  assert (units.total, units.weight) == (3, 10)


def test_flops_agree_with_xlas_count():
  config = hat2.Config(vocab_size=264, dim=128, char_dim=64, head_dim=32)
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  found = model_suite.xla_flops(config, jnp.zeros((4, 64), jnp.int32))
  # XLA also counts norms, softmax and the like.
  assert 1 < found / counted < 1.1


def test_the_paper_size_has_the_published_parameters():
  """7.19 B: encoder 119 M, backbone 6.98 B, decoder 94 M."""
  config = dataclasses.replace(
    config_file.get_config('paper').model, vocab_size=256
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  num = lambda *parts: sum(
    x.size for p in parts for x in jax.tree.leaves(nnx.state(p, nnx.Param))
  )
  assert num(model.backbone) == pytest.approx(6.98e9, rel=0.002)
  encoder = num(model.embed, model.encoder, model.pool)
  assert encoder == pytest.approx(119e6, rel=0.06)
  decoder = num(model.decoder, model.down, model.head)
  assert decoder == pytest.approx(94e6, rel=0.05)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'head_dim': 3}, 'must be multiples of head_dim=3'),
    ({'head_dim': 0}, 'head_dim=0 must be >= 1'),
    ({'vocab_multiple': 0}, 'vocab_multiple=0 must be >= 1'),
    ({'dropout': 2.0}, r'dropout=2.0 must be in \[0, 1\)'),
    ({'num_kv_heads': 3}, r'num_kv_heads=3 .* dim=16 / head_dim=4 '),
    ({'num_kv_heads': -1}, 'num_kv_heads=-1 must divide the 4 heads'),
    ({'max_word': 0}, 'max_word=0 must be >= 1'),
    ({'looks': 'last'}, "looks='last' must be one of each, first"),
    ({'window': -1}, 'window=-1 must be >= 0'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    hat2.Config(**(SMALL | fields))
