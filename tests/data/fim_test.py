# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Documents with gaps hold the bytes that they had, in their parts' order."""

import numpy as np
import pytest

from jaxtok.data import fim, text
from jaxtok.tokenizers import bytes as byte_tokenizers
from jaxtok.tokenizers import hf

_TEXT = b'abcabc xyxyxy the cdefgh \n' * 9 + 'é日'.encode() * 9
PRE, SUF, MID = 259, 260, 261


@pytest.fixture(scope='module')
def tokenizer():
  config = hf.Train(vocab_size=285, new_special_tokens=fim.NAMES)
  return config.make(lambda: [_TEXT])


@pytest.fixture(scope='module')
def documents():
  rng = np.random.default_rng(0)
  starts, sizes = rng.integers(0, 200, 1000), rng.integers(0, 60, 1000)
  return [_TEXT[a : a + n] for a, n in zip(starts, sizes, strict=True)]


def parts_of(ids):
  """The ids behind each mark, in the order of marks in the row."""
  at = [int(np.flatnonzero(ids == mark)[0]) for mark in (PRE, SUF, MID)]
  assert sorted(at) == at
  assert at[0] == 0
  assert np.isin(ids, (PRE, SUF, MID)).sum() == 3
  return ids[1 : at[1]], ids[at[1] + 1 : at[2]], ids[at[2] + 1 :]


@pytest.mark.parametrize('spm', fim.SPM)
@pytest.mark.parametrize('spm_rate', [0.0, 1.0])
def test_the_parts_are_the_document(tokenizer, documents, spm, spm_rate):
  config = fim.Config(rate=1.0, spm_rate=spm_rate, spm=spm)
  cuts, num_inside = fim.Cuts(config, tokenizer), 0
  for index, data in enumerate(documents[:200]):
    ids, charges = cuts.piece(data, index)
    assert charges.sum() == len(data)
    assert not charges[np.isin(ids, (PRE, SUF, MID))].any()
    rng = np.random.default_rng((fim._CUTS, 0, index, 0))
    rng.random(2)
    prefix, middle, suffix = fim.split(data, rng)
    assert prefix + middle + suffix == data
    encode = lambda part: tokenizer.encode(part).tolist()
    behind = [part.tolist() for part in parts_of(ids)]
    if not spm_rate:
      assert behind == [encode(prefix), encode(suffix), encode(middle)]
    elif spm == 'apart':
      assert behind == [[], encode(suffix), encode(prefix) + encode(middle)]
    else:
      assert behind == [[], encode(suffix), encode(prefix + middle)]
    num_inside += encode(prefix) + encode(middle) != encode(prefix + middle)
  assert num_inside > 50  # Cuts inside tokens.


def test_shares_are_those_that_were_asked_for(tokenizer):
  cuts, num = fim.Cuts(fim.Config(rate=0.7, spm_rate=0.2), tokenizer), 1000
  rows = [cuts.piece(_TEXT, i)[0] for i in range(num)]
  is_cut = np.array([PRE in row for row in rows])
  is_spm = np.array([row[:2].tolist() == [PRE, SUF] for row in rows])
  # Five standard errors: both pass with 99.999 %.
  assert abs(is_cut.mean() - 0.7) < 5 * np.sqrt(0.21 / num)
  # An empty prefix of PSM looks the same: less than 1 of 100.
  assert abs(is_spm[is_cut].mean() - 0.2) < 5 * np.sqrt(0.16 / 700) + 0.01
  for row in np.array(rows, object)[~is_cut]:
    assert row.tolist() == tokenizer.encode(_TEXT).tolist()


def test_cuts_are_two_uniform_places():
  data, num = b'abc', 4000
  found = {}
  for seed in range(num):
    parts = fim.split(data, np.random.default_rng(seed))
    key = len(parts[0]), len(parts[0]) + len(parts[1])
    found[key] = found.get(key, 0) + 1
  for low in range(4):
    for high in range(low, 4):
      want = (1 if low == high else 2) / 16
      error = np.sqrt(want * (1 - want) / num)
      # Five standard errors: all 10 pass with 99.999 %.
      assert abs(found[low, high] / num - want) < 5 * error


def test_a_gap_is_a_function_of_seed_and_number(tokenizer):
  config = lambda seed: fim.Config(rate=1.0, cut_seed=seed)
  rows = lambda seed, numbers: [
    fim.Cuts(config(seed), tokenizer).piece(_TEXT, i)[0].tolist()
    for i in numbers
  ]
  first = rows(0, range(8))
  assert rows(0, reversed(range(8))) == first[::-1]
  assert rows(1, range(8)) != first
  assert len({tuple(row) for row in first}) == 8


def test_pieces_have_gaps_of_their_own_and_all_bytes(
  tokenizer, documents, memory
):
  config = fim.Config(
    source=memory(documents), seq_len=16, rate=1.0, piece_bytes=20
  )
  data = config.make(tokenizer)
  tokens = data.tokens('train')
  assert len(tokens.lengths) == sum(max(-(-len(d) // 20), 1) for d in documents)
  assert data.num_bytes('train') == sum(map(len, documents))
  batches = data.eval_batches('train', batch_size=64)
  total, marks = 0, 0
  for batch in batches:
    total += int(batch['num_bytes_bt'].sum())
    marks += int((batch['targets_bt'] == MID).sum())
  assert total == sum(map(len, documents))
  assert marks == len(tokens.lengths)


def test_held_out_text_has_no_gaps_and_settings_have_their_own_caches(
  tokenizer, memory
):
  source = memory([_TEXT] * 20)
  plain = text.Config(source=source, seq_len=32).make(tokenizer)
  found = {}
  for rate in (0.0, 1.0):
    config = fim.Config(source=source, seq_len=32, rate=rate)
    data = config.make(tokenizer)
    np.testing.assert_array_equal(
      data.rows('validation')[0]['tokens_bt'],
      plain.rows('validation')[0]['tokens_bt'],
    )
    assert data.corpus_id('validation') == plain.corpus_id('validation')
    assert data.corpus_id('train') != plain.corpus_id('train')
    batch = next(data.train_iterator(batch_size=8, seed=0))
    found[rate] = int((batch['tokens_bt'] == PRE).sum())
  assert found[0.0] == 0 < found[1.0]


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(rate=1.5), r'rate=1.5 must be in \[0, 1\]'),
    (dict(spm_rate=-1.0), r'spm_rate=-1.0 must be in \[0, 1\]'),
    (dict(spm='joint'), "spm='joint' must be one of apart, joined"),
    (dict(piece_bytes=-1), 'piece_bytes=-1 must be >= 0'),
    (dict(names=('<PRE>',)), 'must be three special tokens'),
    (dict(seq_len=0), 'seq_len must be >= 1'),
  ],
)
def test_settings_out_of_range_are_errors(fields, message):
  with pytest.raises(ValueError, match=message):
    fim.Config(**fields)


def test_tokenizers_without_marks_or_parts_are_refused(bpe, windowed):
  with pytest.raises(ValueError, match='no special token <PRE>, <SUF>, <MID>'):
    fim.Config().make(byte_tokenizers.Config().make())
  with pytest.raises(ValueError, match=r'hf.Train\(new_special_tokens='):
    fim.Config(names=('<PRE>', '<S>', 'bos')).make(bpe)
  with pytest.raises(ValueError, match="of kind 'context', whose tokens depen"):
    fim.Config().make(windowed)
