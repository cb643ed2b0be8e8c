# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens of compressed text; `tests/conformance` has the common promises."""

import gzip as gzip_lib
import pickle
import random

import numpy as np
import pytest

from jaxtok.entropy import dictionary, integer_model, model_file, table
from jaxtok.entropy.formats import WindowFormat
from jaxtok.tokenizers import arithmetic, base, gzip, neural

TEXT = b'It was the best of times, it was the worst of times; ' * 4
DOCUMENTS = [TEXT, TEXT[::-1], bytes(range(256))]
INPUTS = [
  b'',
  b'a',
  TEXT[:100],
  bytes(range(120)),
  random.Random(0).randbytes(90),
  'naïve 漢字 😀'.encode(),
  b'\0' * 100,
]


def counted(**kwargs):
  return neural.Train(order=1, **kwargs).make(lambda: DOCUMENTS)


MAKE = {
  'windows of 16': counted,
  'dense ids': lambda: counted(dense_ids=True),
  'delay, dense ids': lambda: counted(close_rule='delay', dense_ids=True),
  'windows of 16, bytes': lambda: counted(token_bits=8),
  'windows of 64, bytes': lambda: counted(window_bits=64, token_bits=8),
  'delay': lambda: counted(window_bits=32, close_rule='delay'),
  'arithmetic': lambda: arithmetic.ArithmeticTokenizer(
    table.fit(DOCUMENTS, order=1)
  ),
  'static, bytes': lambda: arithmetic.Static(token_bits=8).make(
    lambda: DOCUMENTS
  ),
  'gzip': gzip.Config().make,
  'gzip, bytes': gzip.Config(token_bits=8, level=9).make,
}


# Each of these compiles coders of its own.
SLOW = {'delay', 'static, bytes'}
NAMES = [
  pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
  for name in MAKE
]


@pytest.fixture(scope='module')
def tokenizers():
  return {name: make() for name, make in MAKE.items()}


@pytest.mark.parametrize('name', NAMES)
def test_bytes_come_back_and_are_charged_once(name, tokenizers):
  tokenizer = tokenizers[name]
  ragged = tokenizer.encode_batch(INPUTS)
  pairs = tokenizer.encode_batch_with_offsets(INPUTS)
  for data, ids, (again, offsets) in zip(
    INPUTS, ragged.rows(), pairs, strict=True
  ):
    np.testing.assert_array_equal(ids, again)
    assert ids.max() < 1 << tokenizer.token_bits
    lengths = offsets[:, 1] - offsets[:, 0]
    assert lengths.min() >= 0
    assert lengths.sum() == len(data)
    np.testing.assert_array_equal(offsets[:, 1], np.cumsum(lengths))
  marked = [tokenizer.prefix, *ragged.rows(), tokenizer.suffix]
  assert tokenizer.decode(np.concatenate(marked[:2])) == INPUTS[0]
  for data, ids in zip(INPUTS[::3], ragged.rows()[::3], strict=True):
    assert tokenizer.decode(ids) == data


@pytest.mark.parametrize('name', NAMES)
def test_special_ids_separate_documents_and_have_names(name, tokenizers):
  tokenizer = tokenizers[name]
  one, two = (tokenizer.encode(x, add_special=True) for x in (b'one', b'two'))
  ids = np.concatenate([one, [tokenizer.special.pad], two])
  assert tokenizer.decode(ids) == b'onetwo'
  shown = tokenizer.decode(ids, skip_special=False)
  assert shown == b'<bos>one<eos><pad><bos>two<eos>'


@pytest.mark.parametrize('name', NAMES)
def test_any_ids_decode_to_something(name, tokenizers):
  tokenizer = tokenizers[name]
  rng = random.Random(0)
  for length in (1, 7, 20):
    ids = [rng.randrange(tokenizer.vocab_size) for _ in range(length)]
    assert isinstance(tokenizer.decode(ids), bytes)


@pytest.mark.parametrize('name', NAMES)
def test_tokenizers_are_saved_and_pickled(name, tokenizers, tmp_path):
  tokenizer = tokenizers[name]
  tokenizer.save(tmp_path)
  loaded = base.load(tmp_path)
  assert loaded.fingerprint == tokenizer.fingerprint
  np.testing.assert_array_equal(loaded.encode(TEXT), tokenizer.encode(TEXT))
  pickled = pickle.loads(pickle.dumps(tokenizer))
  assert pickled.fingerprint == tokenizer.fingerprint
  assert pickled.decode(pickled.encode(TEXT)) == TEXT


def test_fingerprints_tell_tokenizers_apart(tokenizers):
  assert len({x.fingerprint for x in tokenizers.values()}) == len(MAKE)


def test_tokens_are_the_bits_of_the_windows_big_end_first(tokenizers):
  words = tokenizers['windows of 16'].encode(TEXT)
  halves = tokenizers['windows of 16, bytes'].encode(TEXT).reshape(-1, 2)
  np.testing.assert_array_equal(halves @ [256, 1], words)


def test_dense_ids_number_the_words_in_use(tokenizers):
  dense, raw = tokenizers['dense ids'], tokenizers['windows of 16']
  assert dense.vocab_size < raw.vocab_size
  np.testing.assert_array_equal(
    raw.words.used_words[dense.encode(TEXT)], raw.encode(TEXT)
  )


def test_windows_cover_whole_windows_of_text(tokenizers):
  tokenizer = tokenizers['windows of 64, bytes']
  ids, offsets = tokenizer.encode_with_offsets(TEXT)
  assert len(ids) % 8 == 0
  lengths = (offsets[:, 1] - offsets[:, 0]).reshape(-1, 8)
  assert (lengths[:, 1:] == 0).all()
  assert (lengths[:-1, 0] > 0).all()


def test_gzip_tokens_are_a_gzip_file(tokenizers):
  ids = tokenizers['gzip, bytes'].encode(TEXT)
  assert gzip_lib.decompress(ids.astype(np.uint8).tobytes()) == TEXT


def test_a_half_generated_window_is_left_out(tokenizers):
  tokenizer = tokenizers['windows of 64, bytes']
  ids = tokenizer.encode(TEXT)
  whole = tokenizer.decode(ids[:16])
  assert TEXT.startswith(whole)
  assert tokenizer.decode(ids[:21]) == whole


def test_models_and_dictionaries_are_read_from_files(tmp_path):
  model = table.fit(DOCUMENTS, order=1)
  model_file.save_model(model, tmp_path / 'm1.npz')
  words = dictionary.compile_window_dictionary(model)
  words.save(tmp_path / 'words.npz')
  made = [
    neural.Config(path=str(tmp_path / name)).make()
    for name in ('m1.npz', 'words.npz')
  ]
  assert made[0].fingerprint == made[1].fingerprint
  arithmetic.Config(path=str(tmp_path / 'm1.npz')).make()
  with pytest.raises(ValueError, match='Give the model itself'):
    neural.Config(path=str(tmp_path / 'words.npz'), window_bits=64).make()


def test_a_tokenizer_that_gives_other_ids_than_when_saved_is_refused(
  tokenizers, tmp_path, monkeypatch
):
  tokenizers['windows of 64, bytes'].save(tmp_path)
  right = neural.documents.encode_windows

  def wrong(texts, model, fmt):
    return right([x[::-1] for x in texts], model, fmt)

  monkeypatch.setattr(neural.documents, 'encode_windows', wrong)
  with pytest.raises(ValueError, match='other ids than when it was saved'):
    base.load(tmp_path)


def test_rule_greedy_is_marked_as_lossy():
  tokenizer = neural.NeuralCompressionTokenizer(
    table.fit(DOCUMENTS, order=1), WindowFormat(close_rule='greedy_zero_pad')
  )
  assert (tokenizer.kind, tokenizer.lossless) == ('lossy', 'no')


def test_an_integer_network_can_be_the_model():
  rng = np.random.default_rng(0)
  int8 = lambda *shape: rng.integers(-60, 61, shape).astype(np.int8)
  model = integer_model.IntByteLM(
    embed_vd=int8(258, 8),
    mix_led=int8(2, 16, 8),
    bias_ld=np.zeros((2, 8), np.int32),
    out_ldd=int8(2, 8, 8),
    head_dv=int8(8, 257),
    head_bias_v=np.zeros(257, np.int32),
    shifts_l2=np.full((2, 2), 7, np.int32),
    head_shift=np.int32(5),
  )
  tokenizer = neural.NeuralCompressionTokenizer(model)
  assert tokenizer.level.name == 'TABLE'
  for data in INPUTS:
    assert tokenizer.decode(tokenizer.encode(data)) == data


@pytest.mark.parametrize(
  'make, word',
  [
    (neural.Train().make, 'documents'),
    (arithmetic.Static().make, 'documents'),
    (gzip.Config(token_bits=12).make, 'token_bits=12'),
    (gzip.Config(level=11).make, 'level=11'),
    (lambda: counted(window_bits=24), 'window_bits=24'),
    (lambda: counted(window_bits=32, dense_ids=True), 'dense_ids'),
  ],
)
def test_impossible_settings_are_refused(make, word):
  with pytest.raises(ValueError, match=word):
    make()
