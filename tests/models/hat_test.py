# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""HAT: the promises of all models, a loop over words, and generation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.decoding import text
from jaxtok.models import base, hat
from jaxtok.nn import masks, ragged
from jaxtok.tokenizers import word_bytes
from tests.conformance import greedy, model_suite

WORD, BOS = 5, 23
SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dim=16,
  char_dim=8,
  head_dim=4,
  num_layers=1,
  num_char_layers=1,
  word_id=WORD,
  document_id=BOS,
  max_word=16,
)


class TestConformance(model_suite.CausalSuite):
  # An id that the suite's random tokens hold twice in a row.
  case = model_suite.Case(hat.Config(**SMALL | dict(word_id=20)))


def make(**fields):
  return hat.Config(**(SMALL | fields)).make(nnx.Rngs(0))


def plain(part, x_td, mask, positions):
  """A level over one sequence, without words, padding or cache."""
  x_btd, _ = part(
    x_td[None],
    positions_bt=jnp.asarray([positions]),
    segment_ids_bt=None,
    mask=mask,
  )
  return x_btd[0]


WORDS = ([1, 2, 3], [7], [8, 9])


def loop_over_words(model):
  """States of all tokens, word by word."""
  vectors, states = [], []
  for i, word in enumerate(WORDS):
    if i == 0:
      start = model.embed(jnp.asarray([BOS]))
    else:
      u_wd = plain(model.backbone, jnp.stack(vectors), masks.Causal(), range(i))
      start = model.down(u_wd[-1:])
    # The decoder sees the prediction and the bytes of the word.
    x_td = jnp.concatenate([start, model.embed(jnp.asarray(word))])
    places = range(len(word) + 1)
    states.append(plain(model.decoder, x_td, masks.Causal(), places))
    # The encoder sees the mark, then the bytes.
    x_td = model.embed(jnp.asarray([WORD, *word]))
    e_td = plain(model.encoder, x_td, masks.Full(), places)
    vectors.append(model.up(e_td[0]))
  return jnp.concatenate(states)


def test_states_equal_a_loop_over_words():
  tokens = [BOS]
  for i, word in enumerate(WORDS):
    tokens += [*([WORD] if i else []), *word]
  graph, params = nnx.split(make())

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    flat = model(jnp.asarray([tokens])).hidden_btd[0]
    return flat, loop_over_words(model)

  # Sums over at most 16 slots in another order.
  np.testing.assert_allclose(*both(params), atol=1e-5)


def stack_in_numpy(weights, x, allow):
  """A transformer over [..., t, d], RoPE from position 0, float64.

  `allow` [..., t, t]: what each position sees.
  """

  def norm(name, x):
    mean = (x * x).mean(-1, keepdims=True)
    return x / np.sqrt(mean + 1e-6) * weights[f'{name}.scale']

  def turn(x):  # [..., n, t, h]
    t, half = x.shape[-2], x.shape[-1] // 2
    angle = np.arange(t)[:, None] * 10_000.0 ** (-np.arange(half) / half)
    a, z = x[..., :half], x[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - z * sin, z * cos + a * sin], -1)

  for i in range(sum(name.endswith('attention.q.kernel') for name in weights)):
    at = f'blocks.{i}.'
    y = norm(at + 'attention_norm', x)
    q, k, v = (
      np.einsum('...td,dnh->...nth', y, weights[f'{at}attention.{p}.kernel'])
      for p in 'qkv'
    )
    score = np.einsum('...nth,...nsh->...nts', turn(q), turn(k))
    score = score / np.sqrt(q.shape[-1])
    score = np.where(allow[..., None, :, :], score, -1e30)
    share = np.exp(score - score.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    mixed = np.einsum('...nts,...nsh->...nth', share, v)
    out = weights[f'{at}attention.out.kernel']
    x = x + np.einsum('...nth,nhd->...td', mixed, out)
    y = norm(at + 'mlp_norm', x)
    gate, up = (y @ weights[f'{at}mlp.{p}.kernel'] for p in ('gate', 'up'))
    x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f'{at}mlp.down.kernel']
  return norm('norm', x)


def word_major(model, words_bnm, lengths_bn):
  """The paper's equations over words in rows of their own, in NumPy.

  Returns the decoder's states [b, n, 1 + m, d]: of what is predicted of a word,
  then of its bytes.
  """
  flat = {
    '.'.join(map(str, path)): np.asarray(x.get_raw_value(), np.float64)
    for path, x in nnx.to_flat_state(nnx.state(model, nnx.Param))
  }
  part = lambda name: {
    key.removeprefix(f'{name}.stack.'): x
    for key, x in flat.items()
    if key.startswith(f'{name}.stack.')
  }
  (b, n, m), table = words_bnm.shape, flat['embed.table']
  x_bnmd = table[words_bnm]
  first = lambda x_bnd: np.concatenate([x_bnd[:, :, None], x_bnmd], axis=2)
  # The mark, or the prediction, and the bytes that there are.
  is_there = np.arange(m + 1) <= lengths_bn[..., None]
  both = np.broadcast_to(is_there[..., None, :], (b, n, m + 1, m + 1))
  marks = np.broadcast_to(table[WORD], (b, n, table.shape[1]))
  e_bnd = stack_in_numpy(part('encoder'), first(marks), both)[:, :, 0]
  e_bnd = e_bnd @ flat['up.kernel']
  causal = lambda t: np.tri(t, dtype=bool)
  u_bnd = stack_in_numpy(part('backbone'), e_bnd, causal(n)[None])
  p_bnd = u_bnd[:, :-1] @ flat['down.kernel']
  start = np.broadcast_to(table[BOS], (b, 1, table.shape[1]))
  p_bnd = np.concatenate([start, p_bnd], axis=1)
  return stack_in_numpy(part('decoder'), first(p_bnd), both & causal(m + 1))


def test_states_equal_words_in_rows_of_their_own_in_numpy():
  """An oracle that shares no code with the model; two rows, two layers."""
  rng = np.random.default_rng(0)
  lengths = np.array([[3, 1, 2, 4], [1, 5, 2, 0]])  # Row 1 has three words.
  words = rng.choice([i for i in range(22) if i != WORD], (2, 4, 5))
  rows, documents = np.zeros((2, 14), np.int32), np.zeros((2, 14), np.int32)
  for b, num in enumerate((4, 3)):
    row = []
    for i in range(num):
      row += [WORD if i else BOS, *words[b, i, : lengths[b, i]]]
    rows[b, : len(row)], documents[b, : len(row)] = row, 1
  model = make(num_layers=2, num_char_layers=2, max_word=5, embed_std=1.0)
  states = nnx.jit(
    lambda model, *args: model(args[0], segment_ids=args[1]).hidden_btd
  )(model, jnp.asarray(rows), jnp.asarray(documents))
  want = word_major(model, words, lengths)
  for b, num in enumerate((4, 3)):
    kept = [want[b, i, : 1 + lengths[b, i]] for i in range(num)]
    kept = np.concatenate(kept)
    # Six layers of float32, states of order 1.
    np.testing.assert_allclose(states[b, : len(kept)], kept, atol=2e-5)


@pytest.mark.slow  # The suite shows the same by gradients, in one word.
def test_a_byte_is_read_by_later_bytes_of_its_word_and_by_later_words():
  model = make()
  tokens = jnp.asarray([BOS, 1, 2, 3, WORD, 7, 8, 9, WORD, 4, 6])

  def hidden(row):
    return model(row[None]).hidden_btd[0]

  changed = jnp.stack([tokens] + [tokens.at[i].set(10) for i in range(1, 11)])
  is_mark = np.asarray(tokens) == WORD
  states = np.asarray(jax.jit(jax.vmap(hidden))(changed))
  for i in range(1, 11):
    if is_mark[i]:
      continue  # Without the mark the words are others.
    is_other = (states[i] != states[0]).any(axis=-1)
    np.testing.assert_array_equal(is_other, np.arange(11) >= i)


@pytest.mark.slow  # Fourteen steps and a call without a cache.
def test_words_without_a_mark_go_on_without_their_beginning():
  """Cached and uncached alike: a word of 9 bytes with room for 3."""
  model = make(max_word=3)
  tokens = jnp.asarray([[BOS, 1, WORD, *range(6, 15), WORD, 1]])
  want = model(tokens).hidden_btd
  cache = model.init_cache(1, tokens.shape[1])
  step = jax.jit(lambda token, cache: _call(model, token, cache))
  got = []
  for t in range(tokens.shape[1]):
    hidden, cache = step(tokens[:, t : t + 1], cache)
    got.append(hidden)
  np.testing.assert_allclose(jnp.concatenate(got, 1), want, atol=1e-5)
  np.testing.assert_array_equal(cache.trunk.length_b, [2])


def _call(model, tokens, cache):
  output = model(tokens, cache=cache)
  return output.hidden_btd, output.cache


def test_training_leaves_out_what_comes_after_words_without_room():
  tokens = jnp.asarray([[1, WORD, 2, WORD, 3, WORD, 4, 6, 7, 8]])
  capacity = ragged.Capacity(policy='ratio', ratio=0.2)
  graph, params = nnx.split(make(capacity=capacity))

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    return model(tokens, rng=jax.random.key(0)), model(tokens)

  trained, full = both(params)
  np.testing.assert_array_equal(
    trained.aux['target_mask_bt'], [[True] * 5 + [False] * 5]
  )
  assert 'target_mask_bt' not in full.aux
  np.testing.assert_allclose(
    trained.hidden_btd[:, :5], full.hidden_btd[:, :5], atol=1e-5
  )
  units = full.aux['metrics']['units_per_token']
  assert (units.total, units.weight) == (3, 10)


@pytest.fixture(scope='module')
def byte_model():
  """With ids of `word_bytes`, and weights that make it change its mind."""
  model = hat.Config(
    vocab_size=260,
    dim=16,
    char_dim=8,
    head_dim=4,
    num_layers=1,
    num_char_layers=1,
    max_word=8,
    embed_std=1.0,
  ).make(nnx.Rngs(1))
  model.head.out.kernel[...] *= 20
  return model


def test_generation_with_nested_caches_equals_arg_max_without(byte_model):
  """50 prompts of different lengths, greedily, words and all."""
  tokenizer = word_bytes.Config(longest=8).make()
  rng = np.random.default_rng(0)
  letters = np.frombuffer(b'abcd efg \n', np.uint8)
  rows = [
    [257, *tokenizer.encode_prompt(bytes(rng.choice(letters, n)))[0]]
    for n in rng.integers(1, 20, 50)
  ]
  new = greedy.generate(byte_model, rows, 12)
  assert len(np.unique(new)) > 20
  assert (new == word_bytes.WORD).any()  # Some words were closed.


@pytest.mark.slow  # Its own programs.
def test_texts_go_on_in_bytes(byte_model):
  tokenizer = word_bytes.Config(longest=8).make()
  texts = text.complete(byte_model, tokenizer, [b'ab c', b''], num_bytes=10)
  assert all(len(t) <= 10 for t in texts)
  assert max(map(len, texts)) == 10


def test_flops_agree_with_xlas_count():
  """With a window as wide as the row, dense attention is what is counted."""
  config = hat.Config(vocab_size=264, dim=128, char_dim=64, head_dim=32)
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  found = model_suite.xla_flops(config, jnp.zeros((4, 64), jnp.int32))
  # XLA also counts norms, softmax and the like.
  assert 1 < found / counted < 1.08


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'head_dim': 3}, 'must be multiples of head_dim=3'),
    ({'num_layers': 0}, 'num_layers=0 must be >= 1'),
    ({'word_id': BOS}, 'word_id and document_id are both 23'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    hat.Config(**(SMALL | fields))


def test_a_vocabulary_without_marks_is_refused():
  with pytest.raises(ValueError, match='vocab_size=259 must be >= 260 to hold'):
    hat.Config(vocab_size=259).make(nnx.Rngs(0))
