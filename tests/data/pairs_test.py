# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of generated pairs: content, order, charges, splits."""

import numpy as np
import pytest

from jaxtok.data import batch as batch_lib
from jaxtok.data import pairs
from jaxtok.tasks import edits
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config(map='byt5').make()


def data(**fields):
  fields = dict(source_len=20, target_len=20, num_held_out=30) | fields
  config = pairs.Config(source=edits.Edits(length=20), **fields)
  return config.make(TOKENIZER)


def test_rows_hold_what_the_task_draws():
  rows = data().rows('validation')
  batch = rows.batch(range(32))  # Two more than there are.
  batch_lib.validate(batch)
  for i in range(30):
    source = TOKENIZER.decode(batch['context_bs'][i])
    targets = batch['targets_bt'][i][batch['loss_mask_bt'][i] > 0]
    assert targets[-1] == TOKENIZER.special.eos
    answer = TOKENIZER.decode(targets)
    assert answer == edits.Edits(length=20).answer(source)
    assert batch['num_bytes_bt'][i].sum() == len(answer)
    assert len(targets) == len(answer) + 1
  assert not batch['loss_mask_bt'][30:].any()
  assert not batch['context_segment_ids_bs'][30:].any()


def test_splits_and_seeds_share_no_rows_and_iterators_resume():
  text = data()
  start = lambda seed: text.train_iterator(batch_size=4, seed=seed)
  iterator = start(0)
  first = [next(iterator)['context_bs'] for _ in range(3)]
  state = iterator.get_state()
  then = next(iterator)['context_bs']
  iterator.set_state(state)
  np.testing.assert_array_equal(next(iterator)['context_bs'], then)
  iterator.close()
  other = start(1)
  seen = {
    row.tobytes() for x in (*first, next(other)['context_bs']) for row in x
  }
  other.close()
  for split in ('validation', 'test'):
    seen |= {
      row.tobytes() for row in text.rows(split).batch(range(8))['context_bs']
    }
  assert len(seen) == 16 + 16


def test_a_limit_in_bytes_takes_whole_rows():
  text = data()
  rows = text.rows('validation', 100)
  sizes = [
    int(text.rows('validation').pair(i).num_bytes.sum()) for i in range(30)
  ]
  assert len(rows) == int((np.cumsum(sizes) <= 100).sum())
  assert text.corpus_id('validation') != text.corpus_id('validation', 100)
  assert text.num_bytes('validation') == sum(sizes)


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match='target_len=0 must be >= 1'):
    data(target_len=0)
  config = pairs.Config(source=edits.Edits())
  with pytest.raises(ValueError, match='needs a pad and an eos token'):
    config.make(byte_tokenizer.Config(map='blt').make())
