# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word accuracy of models whose mistakes are known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.evals import base, word_accuracy
from jaxtok.models import base as model_base
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import word_bytes

TEXT = b'ab\tcd \refg\n'  # The next byte is known by the two before it.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
  """The tokens so far."""

  tokens_bs: Any
  length_b: Any

  @property
  def overflow_b(self):
    return self.length_b > self.tokens_bs.shape[1]

  def truncate(self, length_b):
    return History(self.tokens_bs, jnp.minimum(self.length_b, length_b))

  def append(self, tokens_bt):
    slots = self.length_b[:, None] + jnp.arange(tokens_bt.shape[1])
    rows = jnp.arange(len(tokens_bt))[:, None]
    return History(
      self.tokens_bs.at[rows, slots].set(tokens_bt),
      self.length_b + tokens_bt.shape[1],
    )


class Cycle(nnx.Module):
  """Goes on with what comes behind the two newest tokens in a cycle."""

  def __init__(self, ids, wrong: dict[tuple[int, int], int]):
    table = np.zeros((260, 260, 260), np.float32)
    for a, b, c in zip(ids, np.roll(ids, -1), np.roll(ids, -2), strict=True):
      table[a, b, wrong.get((a, b), c)] = 1
    self.table = nnx.Param(jnp.asarray(table))

  def __call__(self, tokens_bt, *, cache=None, **kwargs):
    first_b1 = tokens_bt[:, :1] * 0
    if cache is not None:
      last_b1 = jnp.maximum(cache.length_b - 1, 0)[:, None]
      first_b1 = jnp.take_along_axis(cache.tokens_bs, last_b1, 1)
      cache = cache.append(tokens_bt)
    before_bt = jnp.concatenate([first_b1, tokens_bt[:, :-1]], 1)
    return model_base.Output(self.table[before_bt, tokens_bt], cache)

  def logits(self, hidden_btd):
    return hidden_btd

  def init_cache(self, batch_size, max_len):
    shape = (batch_size, max_len)
    return History(jnp.zeros(shape, jnp.int32), jnp.zeros(shape[0], jnp.int32))


def context(tokenizer, ids):
  tokens = np.tile(np.asarray(ids, np.int32), (2, 4))
  row = {
    'tokens_bt': tokens,
    'targets_bt': np.roll(tokens, -1, axis=1),
    'loss_mask_bt': np.ones(tokens.shape, np.float32),
    'segment_ids_bt': np.ones(tokens.shape, np.int32),
    'positions_bt': np.tile(np.arange(tokens.shape[1]), (2, 1)),
    'num_bytes_bt': np.ones(tokens.shape, np.int32),
  }
  return base.Context(
    tokenizer=tokenizer,
    batches=lambda split, max_bytes: iter([row]),
    corpus_id=lambda split, max_bytes: 'text',
    objective=None,
    workdir=None,
  )


TOKENIZERS = {
  'bytes': byte_tokenizer.Config().make(),
  'word_bytes': word_bytes.Config().make(),
}


@pytest.mark.parametrize('name', TOKENIZERS)
def test_words_are_the_same_for_all_tokenizers(name):
  tokenizer = TOKENIZERS[name]
  ids = tokenizer.encode(TEXT * 3)
  eval_ = word_accuracy.Config().make(context(tokenizer, ids))
  words = [tokenizer.decode(ids[a:b]) for a, b in eval_.words(ids)]
  # Not the first, which may have begun earlier; nor the space alone.
  assert words == [b'cd ', b'efg\n', *[b'ab\t', b'cd ', b'efg\n'] * 2]


@pytest.mark.parametrize('name', TOKENIZERS)
def test_a_word_counts_only_if_all_of_it_is_right(name):
  tokenizer = TOKENIZERS[name]
  ids = tokenizer.encode(TEXT)
  make = word_accuracy.Config(num_continued=2).make(context(tokenizer, ids))
  right = make(Cycle(ids, {}), None)
  assert right['word_accuracy_teacher_forced'] == 1
  assert right['word_accuracy_free_running'] == 1
  # Four rows of text have four words of each kind, but one at the edge.
  assert right['words'] in (2 * 10, 2 * 11)
  e, f = ids[list(ids).index(ord('e'))], ord('f')
  wrong = make(Cycle(ids, {(e, f): ord('x')}), None)
  share = wrong['word_accuracy_teacher_forced']
  assert (
    share == 1 - (2 * 4 if right['words'] == 22 else 2 * 3) / right['words']
  )
  # Behind an x the model has no idea and stays wrong.
  assert wrong['word_accuracy_free_running'] < share


@pytest.mark.parametrize('name', TOKENIZERS)
def test_the_chance_of_a_word_is_the_product_of_its_tokens(name):
  tokenizer = TOKENIZERS[name]
  ids = tokenizer.encode(TEXT)
  make = word_accuracy.Config(num_continued=0).make(context(tokenizer, ids))
  c, d = ids[list(ids).index(ord('c'))], ord('d')
  model = Cycle(ids, {(c, d): ord('x')})
  # The table holds one 1 and else 0: of 260 symbols one weighs e.
  best, other = np.e / (259 + np.e), 1 / (259 + np.e)
  words = make.teacher_forced(model)
  size = {t: len(tokenizer.encode(t)) for t in (b'ab\t', b'cd ', b'efg\n')}
  for word in words[3:-3]:
    is_right = word.text != b'cd '
    want = best ** (size[word.text] - 1) * (best if is_right else other)
    assert word.is_right == is_right
    # Sums of five float32 log-probabilities below 6.
    np.testing.assert_allclose(word.chance, want, rtol=1e-5)
  mean = np.mean([word.chance for word in words])
  assert make(model, None)['word_accuracy_sampled'] == pytest.approx(mean)


def test_tokens_without_bytes_of_their_own_are_refused():
  tokenizer = dataclasses.make_dataclass('Neural', [('kind', str)])('lossy')
  with pytest.raises(ValueError, match='not of kind concat'):
    word_accuracy.Config().make(
      dataclasses.replace(CONTEXT, tokenizer=tokenizer)
    )


CONTEXT = context(TOKENIZERS['bytes'], TOKENIZERS['bytes'].encode(TEXT))
