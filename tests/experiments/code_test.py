# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification of programs, end to end at the tiny size."""

import os
import pathlib

import numpy as np
import pytest

from experiments.code import __main__ as cli
from experiments.code import tasks
from experiments.code.configs import code_merge
from jaxtok.tokenizers import bytes as byte_tokenizer

HAS_DATA = (
  pathlib.Path(os.environ.get('JAXTOK_DATA', '/none')) / 'code/codexglue.zip'
).exists()


def test_rows_begin_with_a_token_of_their_own_and_end_with_padding():
  tokenizer = byte_tokenizer.Config().make()
  rows = tasks.rows(tokenizer, [b'ab+c', b'x' * 9], np.array([0, 1]), 7)
  np.testing.assert_array_equal(rows.tokens_bt[0], [259, *b'ab+c', 0, 0])
  np.testing.assert_array_equal(
    rows.units_bt, [[0, 1, 1, 2, 3, -1, -1], [0, 1, 1, 1, 1, 1, 1]]
  )
  assert rows.units_per_token == 4 / 10


@pytest.mark.parametrize(
  'kind',
  [
    'modules',
    pytest.param(
      'defects',
      marks=pytest.mark.skipif(not HAS_DATA, reason='JAXTOK_DATA is not set'),
    ),
  ],
)
def test_programs_are_divided_without_overlap(kind):
  config = tasks.Config(kind=kind, num_examples=300)
  programs, labels, num = config.load(0)
  assert 0.7 < num / len(programs) < 0.9
  assert set(labels) <= set(range(config.num_classes))
  assert len(set(labels[num:])) > 1
  if kind == 'defects':
    assert labels[num:].mean() == 0.5  # Pairs stay together.
  again = config.load(0)
  assert again[0] == programs
  assert config.load(1)[0] != programs


def test_the_data_folder_must_be_named(monkeypatch):
  monkeypatch.delenv('JAXTOK_DATA', raising=False)
  with pytest.raises(ValueError, match='JAXTOK_DATA names, which is not set'):
    tasks.Config(kind='defects').load(0)


def test_the_table_has_a_row_for_each_way_to_merge(tmp_path):
  config = code_merge.get_config('tiny')
  config.steps = 2
  cli.run(config, str(tmp_path / 'run'))
  header, _, *rows = (tmp_path / 'run/table.md').read_text().splitlines()
  assert [row.split(' | ')[0] for row in rows] == [
    '| none',
    '| average',
    '| learned',
  ]
  assert header.endswith('flops_saved |')
  flops = header.split(' | ').index('flops')
  cost = [float(row.split(' | ')[flops]) for row in rows]
  assert cost[1] < cost[0]
