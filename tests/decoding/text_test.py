# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import pytest
from flax import nnx

from jaxtok.decoding import open_prompt, sampling, text
from jaxtok.models import transformer
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import metaspace
from jaxtok.tokenizers import spec as spec_lib
from tests.tokenizers import marked_spaces

TOKENIZER = byte_tokenizer.Config().make()


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
  """Function that makes ids certain, the last one most of all."""
  bias = model.head.bias
  old = bias[...]

  def change(*tokens):
    for i, token in enumerate(tokens):
      bias[...] = bias[...].at[token].set(1e4 * (i + 1))

  yield change
  bias[...] = old


def complete(model, prompt, num_bytes=16):
  (continuation,) = text.complete(
    model, TOKENIZER, [prompt], **options(num_bytes)
  )
  return continuation


def options(num_bytes=16):
  rng, config = jax.random.key(0), sampling.Config(temperature=1.0)
  return {'num_bytes': num_bytes, 'rng': rng, 'sampling': config}


def test_streamed_pieces_join_to_the_whole(model):
  for prompt in (b'', b'a\xff\xc3\x00'):
    pieces = list(text.stream(model, TOKENIZER, prompt, **options()))
    assert len(pieces) == 2  # 8 tokens each.
    assert b''.join(pieces) == complete(model, prompt)


def test_a_text_ends_with_the_document(model, favour):
  favour(TOKENIZER.special.bos)
  assert complete(model, b'a') == b''


def test_padding_is_never_drawn(model, favour):
  # The last is a row that only fills the model's table.
  favour(ord('x'), TOKENIZER.special.pad, TOKENIZER.vocab_size)
  assert complete(model, b'a') == b'x' * 16


def test_a_length_of_nothing_is_refused(model):
  with pytest.raises(ValueError, match='num_bytes=0 must be >= 1'):
    complete(model, b'a', num_bytes=0)


def test_a_space_is_taken_off_the_beginning_of_a_document_only():
  spec = marked_spaces.train('llama', 'ab ab ' * 9, 2)
  tokenizer = metaspace.make(spec_lib.normalise(spec, 'llama'))
  config = transformer.Config(
    vocab_size=tokenizer.vocab_size,
    dim=8,
    num_layers=1,
    num_heads=1,
    is_tied=False,
    head_bias=True,
  )
  model = config.make(nnx.Rngs(0))
  (token,) = tokenizer.encode(b'ab')
  model.head.bias[...] = model.head.bias[...].at[token].set(1e4)
  found = text.complete(model, tokenizer, [b'', b'ab'], num_bytes=8)
  assert found == [b'ab ab ab', b' ab ab a']


def test_prompts_of_compressed_text_may_fill_the_positions_of_a_model():
  from jaxtok.tokenizers import neural

  text_of = [b'one two three four five six seven; ' * 8]
  tokenizer = neural.Train(order=1, token_bits=8).make(lambda: text_of)
  config = transformer.Config(
    vocab_size=tokenizer.vocab_size,
    dim=8,
    num_layers=1,
    num_heads=1,
    position='learned',
    max_len=20,  # The next row size is 24.
  )
  prompt, first = text_of[0], tokenizer.special.bos
  while True:
    row, rest = tokenizer.encode_prompt(prompt)
    if rest and 16 < 1 + len(row) < 20:
      break
    prompt = prompt[:-1]
  [ids], [head] = open_prompt.begin(
    config.make(nnx.Rngs(0)), tokenizer, first, [prompt]
  )
  assert tokenizer.decode(ids) == prompt + head


@pytest.mark.parametrize('token_bits', [8, 16])
def test_prompts_of_compressed_text_are_gone_on_with(token_bits):
  from jaxtok.tokenizers import neural

  text_of = [b'one two three four five six seven; ' * 8]
  tokenizer = neural.Train(
    order=1, token_bits=token_bits, dense_ids=token_bits == 16
  ).make(lambda: text_of)
  config = transformer.Config(
    vocab_size=tokenizer.vocab_size, dim=8, num_layers=1, num_heads=1
  )
  model = config.make(nnx.Rngs(0))
  prompts = [b'', text_of[0][:23], b'one']
  rng = jax.random.key(0)
  settings = sampling.Config(temperature=1.0)
  ids, heads = open_prompt.begin(
    model, tokenizer, tokenizer.special.bos, prompts, rng=rng, sampling=settings
  )
  for prompt, row, head in zip(prompts, ids, heads, strict=True):
    assert row[0] == tokenizer.special.bos
    assert tokenizer.decode(row) == prompt + head
  found = text.complete(
    model, tokenizer, prompts, num_bytes=12, rng=rng, sampling=settings
  )
  for head, continuation in zip(heads, found, strict=True):
    assert continuation[: len(head)] == head[:12]
