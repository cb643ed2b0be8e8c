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


class Greedy:
  """Stands in for BPE: bytes, and a few longer tokens, longest first."""

  kind, lossless = 'concat', 'bytes'
  special = types.SimpleNamespace(pad=None, bos=0, eos=None)
  fingerprint = 'greedy'
  table = (
    *(b'', b'xyxyxy', b'abc', b'ab', b'\xff\xfe', b'\x01\x02\x03\x04'),
    *(bytes([b]) for b in range(256)),
  )
  vocab_size = len(table)
  token_byte_lengths = np.array([len(b) for b in table], np.int32)

  def encode(self, data):
    ids, at = [], 0
    while at < len(data):
      ids.append(
        next(
          i for i, t in enumerate(self.table) if i and data.startswith(t, at)
        )
      )
      at += len(self.table[ids[-1]])
    return np.array(ids, np.int32)

  def encode_batch(self, batch):
    rows = [self.encode(data) for data in batch]
    splits = np.cumsum([0] + [len(row) for row in rows])
    return types.SimpleNamespace(
      values=np.concatenate(rows), row_splits=splits.astype(np.int64)
    )

  def encode_with_offsets(self, data):
    ids = self.encode(data)
    ends = np.cumsum(self.token_byte_lengths[ids]).astype(np.int64)
    return ids, np.stack([ends - self.token_byte_lengths[ids], ends], axis=1)


@pytest.fixture
def bpe():
  """A tokenizer of kind 'concat' with tokens of several bytes."""
  return Greedy()
