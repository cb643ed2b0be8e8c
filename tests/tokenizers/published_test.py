# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Published vocabularies, where JAXTOK_DATA names a folder that has them."""

import os
import pathlib
import pydoc_data.topics
import zipfile

import numpy as np
import pytest
import tiktoken

from jaxtok.tokenizers import bytelevel, files, hf

ARCHIVE = pathlib.Path(os.environ.get('JAXTOK_DATA', '')) / 'tokenizers'
ARCHIVE /= 'tokenizers.zip'

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not ARCHIVE.is_file(), reason='needs JAXTOK_DATA with tokenizers.zip'
  ),
]
PROSE = ''.join(pydoc_data.topics.topics.values())
TEXT = (
  PROSE + "\r\n\t DON'T 12345 we'll x\u0085y ſK Größe 日本語 हिन्दी 👩½  \n" * 99
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('published')
  with zipfile.ZipFile(ARCHIVE) as archive:
    archive.extractall(path)
  return path


def test_gpt2_gives_its_ids_on_the_fast_path(folder):
  tokenizer = hf.Config(path=str(folder / 'gpt2')).make()
  assert tokenizer.fast
  assert tokenizer.encode('hello world').tolist() == [31373, 995]
  assert tokenizer.special.bos == tokenizer.special.eos == 50256
  found = tokenizer.to_hf().encode(TEXT, add_special_tokens=False).ids
  np.testing.assert_array_equal(tokenizer.encode(TEXT), found)


@pytest.mark.parametrize('name', ['cl100k_base', 'o200k_base'])
def test_openai_vocabularies_equal_tiktoken_and_tokenizers(folder, name):
  path = folder / 'openai' / f'{name}.tiktoken'
  ours = hf.Config(path=str(path)).make()
  pattern, special = files.PUBLISHED[name]
  theirs = tiktoken.Encoding(
    name,
    pat_str=bytelevel.PATTERNS[pattern],
    mergeable_ranks=files.read_ranks(path),
    special_tokens=special,
  )
  assert ours.vocab_size == theirs.n_vocab
  wanted = theirs.encode_ordinary(TEXT)
  np.testing.assert_array_equal(ours.encode(TEXT), wanted)
  found = ours.to_hf().encode(TEXT, add_special_tokens=False).ids
  np.testing.assert_array_equal(wanted, found)


def test_added_words_take_the_slow_path_and_keep_all_bytes(folder):
  tokenizer = hf.Config(path=str(folder / 'kl3m-001-32k')).make()
  assert 'added tokens that are not special' in tokenizer.slow_reason
  data = TEXT[-5000:].encode() + bytes(range(256))
  assert tokenizer.decode(tokenizer.encode(data)) == data
  found = tokenizer.to_hf().encode(TEXT, add_special_tokens=False).ids
  np.testing.assert_array_equal(tokenizer.encode(TEXT), found)


def test_a_vocabulary_that_lost_two_bytes_is_refused(folder):
  path = str(folder / 'kl3m-004-char-4k-cased')
  with pytest.raises(ValueError, match=r'NFKC.*no token \(0x18, 0xFF\)'):
    hf.Config(path=path).make()
  tokenizer = hf.Config(path=path, allow_lossy=True).make()
  restored = tokenizer.decode(tokenizer.encode('ﬁne ²'))
  assert restored == b'fine 2'
