# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import pytest
from flax import nnx

from jaxtok.decoding import sampling, text
from jaxtok.models import transformer
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config().make()
SAMPLING = sampling.Config(temperature=1.0)


@pytest.fixture(scope='module')
def model():
  config = transformer.Config(
    vocab_size=TOKENIZER.vocab_size,
    dim=16,
    num_layers=1,
    num_heads=2,
    is_tied=False,
    head_bias=True,
  )
  return config.make(nnx.Rngs(0))


@pytest.fixture
def favour(model):
  """Function that makes an id certain, unless it is banned."""
  bias = model.head.bias
  old = bias[...]

  def change(token):
    bias[...] = old.at[token].set(1e4)

  yield change
  bias[...] = old


def options(**kwargs):
  return {
    'num_bytes': 20,
    'rng': jax.random.key(0),
    'sampling': SAMPLING,
    **kwargs,
  }


def test_streamed_pieces_join_to_the_whole(model):
  for prompt in (b'', b'a\xff\xc3', bytes(range(256))):
    (whole,) = text.complete(model, TOKENIZER, [prompt], **options())
    pieces = list(text.stream(model, TOKENIZER, prompt, **options()))
    assert b''.join(pieces) == whole
    assert len(pieces) == 3  # 8 tokens each.


def test_a_text_ends_with_the_document(model, favour):
  favour(TOKENIZER.special.bos)
  assert text.complete(model, TOKENIZER, [b'a', b'bc'], **options()) == [
    b'',
    b'',
  ]


def test_padding_is_never_drawn(model, favour):
  favour(TOKENIZER.special.pad)
  texts = text.complete(model, TOKENIZER, [b'a', b'bc'], **options())
  assert [len(t) for t in texts] == [20, 20]
  favour(TOKENIZER.vocab_size)  # A row that only fills the model's table.
  (other,) = text.complete(model, TOKENIZER, [b'a'], **options(num_bytes=5))
  assert len(other) == 5


def test_the_certain_byte_is_repeated_up_to_the_limit(model, favour):
  favour(ord('x'))
  assert text.complete(model, TOKENIZER, [b'a'], **options()) == [b'x' * 20]


def test_a_length_of_nothing_is_refused(model):
  with pytest.raises(ValueError, match='num_bytes=0 must be >= 1'):
    text.complete(model, TOKENIZER, [b'a'], **options(num_bytes=0))
