# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Arrays come back whole, or an error names the file."""

import io

import numpy as np
import pytest

from jaxtok.runs import files

ARRAYS = {'a': np.arange(1000) % 7, 'b/c|d': np.float32([[0.5]])}


def test_arrays_come_back(tmp_path):
  path = tmp_path / 'new' / 'arrays.npz'
  files.write_npz(path, ARRAYS)
  found = files.read_npz(path, 'Write it again.')
  assert set(found) == set(ARRAYS)
  for name, array in ARRAYS.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype
  assert [x.name for x in path.parent.iterdir()] == ['arrays.npz']


def _array() -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, np.ones(3))
  return buffer.getvalue()


def _objects() -> bytes:
  buffer = io.BytesIO()
  np.savez(buffer, a=np.array([{}], dtype=object))
  return buffer.getvalue()


@pytest.mark.parametrize(
  'change',
  [
    lambda data: b'',
    lambda data: data[:20],
    lambda data: data[:-1],
    lambda data: data[:80] + bytes([data[80] ^ 255]) + data[81:],
    lambda data: b'no archive',
    lambda data: _array(),
    lambda data: _objects(),
  ],
)
def test_what_is_not_whole_is_named(tmp_path, change):
  path = tmp_path / 'arrays.npz'
  files.write_npz(path, ARRAYS)
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(
    ValueError, match=r'arrays\.npz is empty or damaged.*Write it again\.'
  ):
    files.read_npz(path, 'Write it again.')


def test_a_file_that_is_not_there_is_no_damaged_one(tmp_path):
  with pytest.raises(FileNotFoundError):
    files.read_npz(tmp_path / 'none.npz', '')
