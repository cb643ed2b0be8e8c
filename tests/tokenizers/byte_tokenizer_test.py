# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import os

import numpy as np
import pytest

from jaxtok.tokenizers import base
from jaxtok.tokenizers import bytes as byte_tokenizer


@pytest.mark.parametrize(
  'name, ids, pad, bos, eos, vocab_size',
  [
    ('default', [104, 105, 255], 256, 257, 258, 259),
    ('byt5', [107, 108, 258], 0, None, 1, 384),
    ('blt', [108, 109, 259], -1, 1, 2, 260),
    ('evabyte', [168, 169, 319], 0, 1, 2, 320),
  ],
)
def test_maps_give_the_published_ids(name, ids, pad, bos, eos, vocab_size):
  tokenizer = byte_tokenizer.Config(map=name).make()
  np.testing.assert_array_equal(tokenizer.encode(b'hi\xff'), ids)
  special = tokenizer.special
  assert (special.pad, special.bos, special.eos) == (pad, bos, eos)
  assert tokenizer.vocab_size == vocab_size


@pytest.mark.parametrize(
  'name, bos, eos', [('hnet', 254, 255), ('hat', None, 192)]
)
def test_maps_that_reuse_bytes_keep_text(name, bos, eos):
  tokenizer = byte_tokenizer.Config(map=name).make()
  np.testing.assert_array_equal(tokenizer.encode('é'), [0xC3, 0xA9])
  assert (tokenizer.special.bos, tokenizer.special.eos) == (bos, eos)
  assert tokenizer.lossless == 'text'


@pytest.mark.parametrize(
  'name, taken', [('hnet', b'\xfe\xff'), ('hat', b'\xff\xc0\xf8')]
)
def test_maps_that_reuse_bytes_refuse_them(name, taken):
  tokenizer = byte_tokenizer.Config(map=name).make()
  for value in taken:
    with pytest.raises(ValueError, match=f'0x{value:02X} at position 1: map'):
      tokenizer.encode(bytes([65, value]))
  others = bytes(set(range(256)) - set(taken))
  assert tokenizer.decode(tokenizer.encode(others)) == others


def test_without_strict_reused_bytes_pass_and_the_map_is_lossy():
  tokenizer = byte_tokenizer.Config(map='hnet', strict=False).make()
  assert tokenizer.kind == 'lossy'
  ids, offsets = tokenizer.encode_with_offsets(b'a\xffb')
  np.testing.assert_array_equal(ids, [97, 255, 98])
  np.testing.assert_array_equal(offsets, [[0, 1], [1, 2], [2, 3]])
  assert tokenizer.decode(ids) == b'ab'


def test_special_ids_decode_to_nothing_or_to_their_names():
  tokenizer = byte_tokenizer.Config().make()
  ids = tokenizer.encode(b'a', add_special=True)
  assert tokenizer.decode(ids) == b'a'
  assert tokenizer.decode(ids, skip_special=False) == b'<bos>a<eos>'


def test_padding_outside_the_vocabulary_is_dropped():
  tokenizer = byte_tokenizer.Config(map='blt').make()
  batch = tokenizer.encode_batch([b'abc', b'd'])
  dense = batch.to_dense(pad=tokenizer.special.pad)
  assert [tokenizer.decode(row) for row in dense] == [b'abc', b'd']
  assert tokenizer.token_bytes(-1) == b''


def test_ids_without_a_byte_decode_to_nothing():
  tokenizer = byte_tokenizer.Config(map='byt5').make()
  assert tokenizer.decode([300, 68, 383]) == b'A'
  assert tokenizer.token_byte_lengths[[0, 1, 2, 3, 258, 259]].tolist() == [
    *[0, 0, 0, 1, 1, 0]
  ]


def test_a_misspelt_map_is_named():
  with pytest.raises(ValueError, match=r"map='byte5' is no byte map.*byt5"):
    byte_tokenizer.Config(map='byte5')


@pytest.mark.parametrize('name', ['blt', 'hnet'])
def test_maps_that_tokenizers_cannot_express_say_why(name):
  with pytest.raises(base.NotExpressible, match=f"map '{name}' .*tokenizers"):
    byte_tokenizer.Config(map=name).make().to_hf()


@pytest.mark.parametrize(
  'wrong, message',
  [
    (3, 'encodes bytes or str, got int'),
    ([b'a'], 'got list.*`encode_batch` for several'),
    (np.zeros(3, np.uint8), 'got ndarray.*tobytes'),
    (None, 'got NoneType'),
  ],
)
def test_other_inputs_are_type_errors(wrong, message):
  with pytest.raises(TypeError, match=message):
    base.as_bytes(wrong)


def test_a_lone_surrogate_is_explained():
  with pytest.raises(ValueError, match=r'lone surrogate .* at character 1'):
    byte_tokenizer.Config().make().encode('a\udcff')


def test_ids_must_be_one_row_of_integers():
  tokenizer = byte_tokenizer.Config().make()
  with pytest.raises(TypeError, match='must be integers, got float64'):
    tokenizer.decode([1.0])
  with pytest.raises(ValueError, match=r'shape \(1, 2\).*one row'):
    tokenizer.decode(np.zeros((1, 2), np.int32))
  with pytest.raises(ValueError, match=r'id 300 is outside .*\[0, 259\)'):
    tokenizer.token_bytes(300)


def test_a_large_input_survives():
  data = os.urandom(1 << 20)
  tokenizer = byte_tokenizer.Config(map='evabyte').make()
  assert tokenizer.decode(tokenizer.encode(data)) == data


@pytest.mark.torch
def test_byt5_map_equals_transformers():
  transformers = pytest.importorskip('transformers')
  theirs = transformers.ByT5Tokenizer()
  ours = byte_tokenizer.Config(map='byt5').make()
  for text in ['hello', 'Größe 日本 👩', ' \n\t']:
    np.testing.assert_array_equal(
      ours.encode(text, add_special=True), theirs(text)['input_ids']
    )
  assert theirs.pad_token_id == ours.special.pad
  assert theirs.unk_token_id == ours.special.unk
