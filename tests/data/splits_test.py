# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Splits are disjoint, complete, of the right size, and never move."""

import itertools
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.data import splits
from jaxtok.data.source import SPLITS


def test_hashes_do_not_depend_on_the_process():
  code = 'from jaxtok.data import splits; print(splits.name_hash("a/ü.py"))'
  for seed in ('1', '2'):
    out = subprocess.run(
      [sys.executable, '-c', code],
      env={'PYTHONHASHSEED': seed, 'PYTHONPATH': ':'.join(sys.path)},
      check=True,
      capture_output=True,
      text=True,
    ).stdout
    assert int(out) == splits.name_hash('a/ü.py') == 4336687072267899730


def test_many_names_are_divided_90_5_5():
  # Standard deviation of the share: sqrt(.05 * .95 / 20000) = 0.0015.
  names = [f'file {i}' for i in range(20_000)]
  assigned = splits.by_name(names, [100] * len(names))
  for split, share in zip(SPLITS, (0.9, 0.05, 0.05), strict=True):
    assert abs(assigned.count(split) / len(names) - share) < 5 * 0.0022


def test_more_files_do_not_move_the_others():
  names = [f'file {i}' for i in range(400)]
  some = splits.by_name(names[:300], [10] * 300)
  assert some == splits.by_name(names, [10] * 400)[:300]


def test_few_files_give_one_to_validation_and_one_to_test():
  names = [f'novel {i}' for i in range(8)]
  assigned = splits.by_name(names, [100 + i for i in range(8)])
  assert sorted(assigned) == ['test'] + ['train'] * 6 + ['validation']


def test_a_large_file_is_not_held_out_for_its_readme():
  assert splits.by_name(['book', 'README', 'LICENSE'], [10**6, 50, 90]) is None
  assert splits.by_name(['book'], [10**6]) is None


def test_records_are_divided_like_files():
  parts = [splits.by_index(10_000, split) for split in SPLITS]
  assert sorted(np.concatenate(parts)) == list(range(10_000))
  assert abs(len(parts[1]) - 500) < 5 * 22
  assert abs(len(parts[2]) - 500) < 5 * 22


@pytest.mark.parametrize('count', [3, 4, 7])
def test_few_records_give_each_split_something(count):
  parts = [splits.by_index(count, split).tolist() for split in SPLITS]
  assert all(parts)
  assert sorted(itertools.chain(*parts)) == list(range(count))


def test_two_records_cannot_be_divided():
  with pytest.raises(ValueError, match='2 records cannot be divided'):
    splits.by_index(2, 'train')


@settings(deadline=None)
@given(
  data=st.lists(
    st.sampled_from([b'a', b'\n', 'é'.encode(), '😀'.encode(), b'\xff']),
    min_size=1,
    max_size=600,
  )
)
def test_position_splits_are_complete_and_in_order(data):
  data = np.frombuffer(b'x' + b''.join(data) + b'y', np.uint8)
  cuts = [splits.by_position(data, 1, len(data) - 1, s) for s in SPLITS]
  assert cuts[0][0] == 1
  assert cuts[2][1] == len(data) - 1
  assert cuts[0][1] == cuts[1][0]
  assert cuts[1][1] == cuts[2][0]
  assert all(low <= high for low, high in cuts)


def test_cuts_fall_after_lines_else_between_characters():
  lines = np.frombuffer(b'one\ntwo\nthree', np.uint8)
  assert splits.cut_near(lines, 10, 4) == 8
  text = np.frombuffer('aaaa😀😀'.encode(), np.uint8)
  assert [splits.cut_near(text, at, 4) for at in (4, 5, 6, 7, 8)] == [
    *(4, 4, 4, 4, 8),
  ]


def test_a_path_of_its_own_makes_the_rest_train():
  config = types.SimpleNamespace(path='a', validation='b', test='')
  assert splits.choose_path(config, 'train') == ('a', False)
  assert splits.choose_path(config, 'validation') == ('b', False)
  with pytest.raises(ValueError, match='give test=PATH'):
    splits.choose_path(config, 'test')


def test_unknown_splits_are_named():
  with pytest.raises(ValueError, match=r"split='val' does not exist\. Use one"):
    splits.by_index(10, 'val')
