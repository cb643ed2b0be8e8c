# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Corrupted rows: sizes, the text that can be read back, order, and charges."""

import collections
import math

import numpy as np
import pytest

from jaxtok.data import batch as batch_lib
from jaxtok.data import seq2seq, span_corruption
from jaxtok.tokenizers import bytes as byte_tokenizer

EOS, FIRST = 1, 258


class Documents:
  """A few documents, the last of which is empty."""

  key = 'documents'

  def __init__(self, sizes=(300, 41, 700, 3, 0)):
    rng = np.random.default_rng(7)
    draw = lambda n: rng.integers(32, 127, n).astype(np.uint8).tobytes()
    self.data = [draw(n) for n in sizes]

  def __len__(self):
    return len(self.data)

  def __getitem__(self, index):
    return {'data': self.data[index], 'name': str(index)}


class Source:
  """A source config."""

  def __init__(self, documents):
    self.documents = documents

  def make(self, split):
    del split
    return self.documents


def corrupted(tmp_path, documents=None, seq_len=64, **fields):
  config = span_corruption.Config(
    source=Source(documents or Documents()), seq_len=seq_len, **fields
  )
  tokenizer = byte_tokenizer.Config(map='byt5').make()
  return config.make(tokenizer, tmp_path / 'cache')


def merged(row):
  """The text of a row: targets in the place of the sentinels, then bytes."""
  n = int(row['context_segment_ids_bs'].sum())
  m = int(row['loss_mask_bt'].sum())
  source, target = (
    row['context_bs'][:n].tolist(),
    row['targets_bt'][:m].tolist(),
  )
  assert source.pop() == target.pop() == EOS
  spans, text, due = {}, [], FIRST
  for i in target:
    if i == due:
      spans[due], due = [], due - 1
    else:
      spans[due + 1].append(i)
  for i in source:
    text += spans.pop(i) if i in spans else [i]
  assert not spans
  return bytes(i - 3 for i in text)


@pytest.mark.parametrize(
  'source, raw, spans, target',
  [(1024, 1193, 9, 189), (256, 298, 2, 48), (128, 148, 1, 24)],
)
def test_sizes_are_those_of_the_reference(source, raw, spans, target):
  got = span_corruption.fit(source, 0.15, 20.0)
  assert (got.raw, got.spans, got.source, got.target) == (
    raw,
    spans,
    source,
    target,
  )


def test_no_longer_piece_fits():
  for source_len in range(3, 200):
    for density, mean in ((0.15, 3.0), (0.5, 1.0), (0.9, 20.0)):
      got = span_corruption.fit(source_len, density, mean)
      longer = [
        span_corruption.span_lengths(raw, density, mean).source
        for raw in range(got.raw + 1, got.raw + 60)
      ]
      assert got.source <= source_len < min(longer)


def test_rows_of_a_pass_hold_the_text_in_order(tmp_path):
  documents = Documents()
  rows = corrupted(tmp_path, documents, mean_span=4.0).rows('train')
  assert b''.join(merged(rows[i]) for i in range(len(rows))) == b''.join(
    documents.data
  )


def test_only_bytes_in_spans_are_charged_and_documents_have_no_seams(tmp_path):
  rows = corrupted(tmp_path, mean_span=4.0).rows('train')
  batch = rows.batch(range(len(rows) + 2))
  batch_lib.validate(batch)
  lengths = [
    span_corruption.span_lengths(n, 0.15, 4.0)
    for n in [rows._pieces._length] * (len(rows) - 1)
  ]
  is_byte = (batch['targets_bt'] >= 3) & (batch['targets_bt'] <= FIRST - 11)
  is_byte &= batch['loss_mask_bt'] > 0
  np.testing.assert_array_equal(batch['num_bytes_bt'], is_byte)
  np.testing.assert_array_equal(
    batch['num_bytes_bt'].sum(1)[: len(lengths)], [x.noise for x in lengths]
  )
  assert not any(
    value[-2:].any() for key, value in batch.items() if key != 'positions_bt'
  )
  first = batch['tokens_bt'][:-2, 0]
  np.testing.assert_array_equal(first, 0)
  np.testing.assert_array_equal(
    batch['tokens_bt'][:-3, 1:], batch['targets_bt'][:-3, :-1]
  )


def test_compositions_are_uniform():
  """All C(5, 2) = 10 compositions of 6 into 3 parts, 20,000 draws."""
  rng = np.random.default_rng(0)
  counts = collections.Counter(
    tuple(span_corruption.segment(rng, 6, 3).tolist()) for _ in range(20_000)
  )
  assert len(counts) == math.comb(5, 2)
  assert all(sum(key) == 6 and min(key) >= 1 for key in counts)
  chi2 = sum((n - 2000) ** 2 / 2000 for n in counts.values())
  assert chi2 < 27.9  # 9 degrees of freedom: a false alarm in 1,000.


def test_training_rows_change_with_the_epoch_and_with_nothing_else(tmp_path):
  make = lambda seed, start, num, size: [
    row
    for batch in _take(
      corrupted(tmp_path, mean_span=4.0).stream('train', seed), start, num, size
    )
    for row in batch
  ]
  once = make(0, 0, 4, 12)
  again = make(0, 12, 2, 18)
  assert once[12:] == again
  num_rows = corrupted(tmp_path, mean_span=4.0).stream('train', 0).num_rows
  assert sorted(once[:num_rows]) != sorted(once[num_rows : 2 * num_rows])
  assert once != make(1, 0, 4, 12)


def _take(stream, start, num, size):
  for i in range(num):
    rows = np.arange(start + i * size, start + (i + 1) * size)
    batch = stream.batch(rows)
    yield [
      batch['context_bs'][j].tobytes() + batch['targets_bt'][j].tobytes()
      for j in range(size)
    ]


def test_an_epoch_of_training_holds_the_whole_text(tmp_path):
  documents = Documents()
  text = corrupted(tmp_path, documents, mean_span=4.0)
  stream = text.stream('train', 3)
  batch = stream.batch(np.arange(stream.num_rows))
  rows = [{k: v[i] for k, v in batch.items()} for i in range(stream.num_rows)]
  got = collections.Counter(b''.join(map(merged, rows)))
  assert got == collections.Counter(b''.join(documents.data))


def test_text_with_the_byte_of_a_sentinel_is_refused(tmp_path):
  documents = Documents()
  documents.data[0] = b'abc\xff' * 100
  with pytest.raises(ValueError, match="258, which sentinels='bytes'"):
    corrupted(tmp_path, documents).rows('train')[0]
  rows = corrupted(tmp_path, documents, sentinels='extra').rows('train')
  assert (rows[0]['context_bs'] == 259).sum() == 1


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'density': 1.0}, r'density=1.0 must be in \(0, 1\)'),
    ({'mean_span': 0.5}, 'mean_span=0.5 must be >= 1'),
    ({'packing': 'pack'}, "packing='pack' must be 'window'"),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    span_corruption.Config(**fields)


def test_tokenizers_without_enough_sentinels_are_refused(tmp_path):
  config = span_corruption.Config(seq_len=1024, mean_span=8.0)
  with pytest.raises(ValueError, match=r'gives 22 spans, but .* has 11 ids'):
    config.make(byte_tokenizer.Config(map='byt5').make())
  with pytest.raises(ValueError, match="map='blt' has no ids for sentinels"):
    config.make(byte_tokenizer.Config(map='blt').make())
  with pytest.raises(ValueError, match='seq_len=2 has no room'):
    span_corruption.Config(seq_len=2).lengths  # noqa: B018


def test_pairs_that_do_not_fit_are_refused():
  ids = np.arange(4)
  with pytest.raises(ValueError, match='row 0 has 4 ids to read'):
    seq2seq.lay_out([seq2seq.Pair(ids, ids, ids)], source_len=3, target_len=9)
