# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sources in memory, and caches that do not touch the user's own."""

import hashlib
import types

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
  """The cache folder of a test."""
  folder = tmp_path / 'cache'
  monkeypatch.setenv('JAXTOK_CACHE', str(folder))
  return folder


class Memory:
  """Documents in a list, as a source that is neither stored nor sized."""

  def __init__(self, documents):
    self._documents = list(documents)
    self.key = hashlib.sha256(repr(self._documents).encode()).hexdigest()

  def __len__(self):
    return len(self._documents)

  def __getitem__(self, index):
    return {'data': self._documents[index], 'name': f'document {index}'}


class MemoryConfig:
  """A source config with the same documents in each split."""

  def __init__(self, documents):
    self.documents = documents

  def make(self, split):
    del split
    return Memory(self.documents)


class Windowed:
  """A tokenizer of kind 'context': three ids share each five bytes."""

  kind, lossless, vocab_size = 'context', 'bytes', 70_000
  special = types.SimpleNamespace(pad=None, bos=None, eos=69_999)
  fingerprint = 'windowed'
  tokens_per_window = 3

  def encode_with_offsets(self, data):
    ids, offsets = [], []
    for low in range(0, len(data), 5):
      part = data[low : low + 5]
      ids += [sum(part), 60_000 + len(part), part[0]]
      offsets += [(low, low + len(part))] * 3
    return np.array(ids, np.int32), np.array(offsets, np.int64).reshape(-1, 2)


@pytest.fixture
def memory():
  """Builds a source config from a list of documents."""
  return MemoryConfig


@pytest.fixture
def windowed():
  """A tokenizer whose ids share bytes."""
  return Windowed()


@pytest.fixture(scope='session')
def bpe():
  """Byte-level BPE with a few merges, trained here."""
  from jaxtok.tokenizers import hf

  text = [b'abcabc xyxyxy the cdefgh \n' * 9, bytes(range(256)) * 3]
  tokenizer = hf.train_bpe(text, 300)
  assert tokenizer.token_byte_lengths.max() > 1
  return tokenizer
