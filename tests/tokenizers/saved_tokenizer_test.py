# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from jaxtok import tokenizers
from jaxtok.tokenizers import base, hf, saved
from jaxtok.tokenizers import bytes as byte_tokenizer

NAME = 'jaxtok_tokenizer.json'


@pytest.fixture
def folder(tmp_path):
  byte_tokenizer.Config().make().save(tmp_path)
  return tmp_path


def edit(folder, **changes):
  path = folder / NAME
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_file_says_what_it_is(folder):
  data = json.loads((folder / NAME).read_text())
  assert data['class'] == 'jaxtok.tokenizers.bytes:ByteTokenizer'
  assert set(data['libraries']) == {'numpy'}
  assert len(data['fingerprint']) == 64


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nope.*does not exist'):
    tokenizers.load(tmp_path / 'nope')


def test_a_bare_tokenizer_json_gets_advice(tmp_path):
  (tmp_path / 'tokenizer.json').write_text('{}')
  with pytest.raises(FileNotFoundError, match=r'read that with .*hf\.Config'):
    tokenizers.load(tmp_path)


def test_damaged_json_is_named(folder):
  (folder / NAME).write_text('{"format": 1,')
  with pytest.raises(ValueError, match=f'{NAME} is not valid JSON'):
    tokenizers.load(folder)


def test_foreign_json_is_refused(folder):
  (folder / NAME).write_text('[]')
  with pytest.raises(ValueError, match=r'not written by Tokenizer\.save'):
    tokenizers.load(folder)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(format=2), 'has format 2; this version of jaxtok reads format 1'),
    ({'class': 'no.such:Thing'}, "'no.such:Thing', which cannot be imported"),
    ({'class': 'nonsense'}, "'nonsense', which cannot be imported"),
    ({'class': 'json:JSONDecoder'}, 'which is no Tokenizer'),
    (dict(config=dict(map='byt5', strict=True)), 'it was saved as .* edited'),
    (dict(fingerprint='0' * 64), 'saved as 000000000000'),
  ],
)
def test_edited_files_are_refused(folder, changes, message):
  edit(folder, **changes)
  with pytest.raises(ValueError, match=message):
    tokenizers.load(folder)


def test_loading_by_class_checks_the_class(folder):
  assert isinstance(base.Tokenizer.load(folder), byte_tokenizer.ByteTokenizer)

  class Other(byte_tokenizer.ByteTokenizer):
    pass

  with pytest.raises(TypeError, match='holds a ByteTokenizer, not a Other'):
    Other.load(folder)


def test_public_names_are_listed_and_exist():
  for name in dir(tokenizers):
    assert getattr(tokenizers, name) is not None
  with pytest.raises(AttributeError, match="has no attribute 'nope'"):
    tokenizers.nope  # noqa: B018


def test_ids_are_stored_in_two_bytes_where_they_fit():
  assert byte_tokenizer.Config().make().storage_dtype == 'uint16'


def test_a_run_takes_the_tokenizer_of_another(tmp_path):
  text = b'the cat sat on the mat; the rat sat on the cat. ' * 20
  trained = hf.Train(vocab_size=270).make(lambda: [text])
  trained.save(tmp_path)
  config = saved.Config(path=str(tmp_path))
  # Not trained anew, whatever the text.
  made = config.make(lambda: [b'other text'])
  assert made.fingerprint == trained.fingerprint
  np.testing.assert_array_equal(made.encode(text), trained.encode(text))
  with pytest.raises(FileNotFoundError, match='no saved tokenizer'):
    saved.Config(path=str(tmp_path / 'none')).make()
