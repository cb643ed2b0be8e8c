# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUE's files, and rows of labelled sequences."""

import os
import pathlib
import zipfile

import numpy as np
import pytest

from jaxtok.data import gue, labelled
from jaxtok.tokenizers import dna

ARCHIVE = pathlib.Path(os.environ.get('JAXTOK_DATA', '')) / 'dna/gue.zip'
CSV = 'sequence,label\nACGT,0\nggta,2\nAC,1\n'


@pytest.fixture
def folder(tmp_path):
  for name in ('a/b', 'aa/b'):
    path = tmp_path / name
    path.mkdir(parents=True)
    (path / 'train.csv').write_text(CSV)
  (tmp_path / 'a/b/dev.csv').write_text('x,y\n1,2\n')
  return tmp_path


@pytest.mark.parametrize('is_zip', [False, True])
def test_sequences_and_labels_are_read(folder, is_zip):
  path = folder
  if is_zip:
    path = folder / 'gue.zip'
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('a/b/train.csv', CSV)
  found = gue.Gue(path=str(path), task='a/b', num_classes=3).read('train')
  assert found.sequences == [b'ACGT', b'GGTA', b'AC']
  assert found.labels_n.tolist() == [0, 2, 1]


def test_what_is_wrong_is_said(folder):
  path = str(folder)
  with pytest.raises(ValueError, match=r"label '2'; labels must be 0\.\.1"):
    gue.Gue(path=path, task='a/b').read('train')
  with pytest.raises(FileNotFoundError, match=r'0 files for test.*aa/b/train'):
    gue.Gue(path=path, task='a/b').read('test')
  with pytest.raises(ValueError, match='header sequence,label'):
    gue.Gue(path=path, task='a/b').read('validation')


def test_rows_keep_the_special_tokens_when_they_are_cut():
  data = labelled.Labelled([b'ACGT', b'AC'], np.array([1, 0]))
  rows = labelled.tokenize(data, dna.Config().make(), 5)
  first = dna.first_base()
  assert rows.tokens_nt.tolist() == [
    [1, first, first + 1, first + 2, 2],
    [1, first, first + 1, 2, 0],
  ]
  assert rows.lengths_n.tolist() == [5, 4]
  assert rows.num_cut == 1
  [batch] = rows.in_order(3)
  assert batch['labels_b'].tolist() == [1, 0, -1]
  assert batch['segment_ids_bt'].sum(1).tolist() == [5, 4, 0]


def test_an_epoch_shows_each_row_once():
  data = labelled.Labelled([b'A'] * 10, np.arange(10))
  rows = labelled.tokenize(data, dna.Config().make())
  batches = rows.shuffled(5, seed=0)
  epochs = [
    np.concatenate([next(batches)['labels_b'] for _ in range(2)])
    for _ in range(2)
  ]
  for labels in epochs:
    assert sorted(labels) == list(range(10))
  assert not np.array_equal(*epochs)


@pytest.mark.skipif(not ARCHIVE.is_file(), reason='needs JAXTOK_DATA')
def test_the_real_data_set_has_its_known_size():
  found = gue.Gue(task='prom/prom_core_tata').read('train')
  assert len(found) == 4904
  assert {len(x) for x in found.sequences} == {70}
