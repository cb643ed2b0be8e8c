# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Several corpora as one."""

import numpy as np
import pytest

from jaxtok.data import joined, text
from jaxtok.data.source import SPLITS, documents


@pytest.fixture
def sources(tmp_path):
  found = []
  for name in ('one', 'two'):
    (tmp_path / name).mkdir()
    for i in range(40):
      line = f'{name} {i} ' * (i + 5)
      (tmp_path / name / f'{i}.txt').write_text(line)
    found.append(text.Files(path=str(tmp_path / name)))
  return tuple(found)


@pytest.mark.parametrize('split', SPLITS)
def test_a_split_holds_that_split_of_all_sources(sources, split):
  both = joined.Joined(sources=sources).make(split)
  parts = [x.make(split) for x in sources]
  want = [data for part in parts for data in documents(part)]
  assert list(documents(both)) == want
  assert both.names == parts[0].names + parts[1].names
  last = len(want) - 1
  got = both.read(np.array([last, 0]), np.array([2, -1]), np.array([5, 4]))
  assert got.tobytes() == want[last][2:7] + b'\0' + want[0][:3]


def test_keys_tell_other_texts_apart(sources):
  keys = {
    joined.Joined(sources=x).make('train').key
    for x in (sources, sources[:1], sources[::-1])
  }
  assert len(keys) == 3


def test_impossible_joins_are_refused(sources):
  with pytest.raises(ValueError, match='sources is empty'):
    joined.Joined()

  class Other:
    def make(self, split):
      return [{'data': b'x', 'name': 'x'}]

  with pytest.raises(TypeError, match='Other cannot be joined'):
    joined.Joined(sources=(*sources, Other())).make('train')
