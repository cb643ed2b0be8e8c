# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of questions and answers: layout, charges, files, order."""

import json

import numpy as np
import pytest

from jaxtok.data import answers, files, jsonl
from jaxtok.data import batch as batch_lib
from jaxtok.tasks import word_problems
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config().make()
EOS = TOKENIZER.special.eos


def write(path, texts):
  rows = [json.dumps({'question': q, 'answer': a}) for q, a in texts]
  path.write_text('\n'.join(rows) + '\n')
  return str(path)


def data(source=None, **fields):
  source = source or word_problems.WordProblems(max_steps=1, largest=9)
  fields = dict(prompt_len=72, answer_len=32, num_held_out=20) | fields
  return answers.Config(source=source, **fields).make(TOKENIZER)


def test_answers_begin_at_one_column_and_end_in_eos():
  rows = data().rows('validation')
  batch = rows.batch(range(22))  # Two more than there are.
  batch_lib.validate(batch)
  for i in range(20):
    question, answer = rows.pair(i)
    targets, segments = batch['targets_bt'][i], batch['segment_ids_bt'][i]
    first = 72 - len(question)
    assert not segments[:first].any()
    assert segments[first:].all()
    assert TOKENIZER.decode(targets[first:72]) == question
    assert TOKENIZER.decode(targets[72 : 72 + len(answer)]) == answer
    assert (targets[72 + len(answer) :] == EOS).all()
    assert not batch['loss_mask_bt'][i, :72].any()
    assert batch['loss_mask_bt'][i, 72:].all()
    assert batch['num_bytes_bt'][i].sum() == len(answer) == rows.num_bytes(i)
  assert not batch['loss_mask_bt'][20:].any()
  assert not batch['segment_ids_bt'][20:].any()


def test_training_on_files_goes_round_in_new_orders(tmp_path):
  texts = [(f'q{i}', f'a{i} #### {i}') for i in range(40)]
  path = write(tmp_path / 'train.jsonl', texts)
  held_out = write(tmp_path / 'test.jsonl', [('q', 'x'), ('r', 'y')])
  text = data(jsonl.Jsonl(path=path), held_out=held_out)
  rows = text._rows('train', 1)
  epochs = [
    [rows.pair(i)[0].decode() for i in range(start, start + 40)]
    for start in (0, 40)
  ]
  assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(q for q, _ in texts)
  assert epochs[0] != epochs[1]
  for split in ('validation', 'test'):
    assert [text.rows(split).pair(i) for i in range(2)] == [
      (b'q', b'x'),
      (b'r', b'y'),
    ]
  iterator = text.train_iterator(batch_size=16, seed=0)
  seen = [next(iterator)['targets_bt'] for _ in range(5)]
  iterator.close()
  assert len({row.tobytes() for x in seen for row in x}) == 40


def test_splits_of_one_file_share_nothing(tmp_path):
  texts = [(f'q{i}', f'a{i}') for i in range(200)]
  text = data(jsonl.Jsonl(path=write(tmp_path / 'a.jsonl', texts)))
  found = []
  for split in ('train', 'validation', 'test'):
    rows = text.rows(split)
    found += [rows.pair(i) for i in range(len(rows))]
  assert sorted(found) == sorted((q.encode(), a.encode()) for q, a in texts)


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path):
  texts = [('q' * (71 + i % 3), 'a') for i in range(300)]
  text = data(jsonl.Jsonl(path=write(tmp_path / 'a.jsonl', texts)))
  rows = text.rows('validation')
  assert rows.num_left_out > 0
  assert f'{rows.num_left_out} are too long' in text.describe('validation')
  assert max(len(rows.pair(i)[0]) for i in range(len(rows))) == 72
  assert text.left_out('validation') == rows.num_left_out
  everything = text.config.texts('validation', 0)
  assert len(rows) + rows.num_left_out == len(everything)
  few = text.rows('validation', 3)  # Three answers of one byte.
  long = [len(everything[i][0]) > 72 for i in range(len(everything))]
  third = np.flatnonzero(np.logical_not(long))[2]
  assert len(few) == 3
  assert text.left_out('validation', 3) == few.num_left_out == third - 2


def test_a_limit_in_bytes_takes_whole_answers():
  text = data()
  rows, few = text.rows('validation'), text.rows('validation', 100)
  sizes = np.cumsum([rows.num_bytes(i) for i in range(20)])
  assert len(few) == int((sizes <= 100).sum())
  assert len(text.rows('validation')) == 20
  assert text.corpus_id('validation') != text.corpus_id('validation', 100)


def test_impossible_data_are_refused(tmp_path):
  with pytest.raises(ValueError, match='answer_len=0 must be >= 1'):
    data(answer_len=0)
  with pytest.raises(ValueError, match=r'source=Files of .* holds no pairs'):
    data(files.Files(path=str(tmp_path))).rows('train')
  path = write(tmp_path / 'a.jsonl', [('q' * 99, 'a')] * 3)
  with pytest.raises(ValueError, match='too short for all 1 pairs of test'):
    data(jsonl.Jsonl(path=path)).rows('test')
  with pytest.raises(ValueError, match='there is room for prompt_len=8'):
    data(prompt_len=8).rows('train').batch([0])
