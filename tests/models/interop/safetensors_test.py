# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Safetensors files: against the library, sharded, placed, and broken."""

import json
import os
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxtok.models.interop import safetensors as st


def tensors(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'a.weight': rng.normal(size=(5, 3)).astype(np.float32),
    'a.bias': rng.normal(size=3).astype(np.float16),
    'b.weight': rng.normal(size=(4, 7)).astype(ml_dtypes.bfloat16),
    'b.ids': rng.integers(-9, 9, size=6),
    'flag': np.asarray(True),
    'empty': np.zeros((0, 4), np.float32),
  }


def pending(arrays):
  return {
    name: st.Pending(a.shape, a.dtype, lambda a=a: a)
    for name, a in arrays.items()
  }


def assert_same(got, want):
  assert sorted(got) == sorted(want)
  for name, array in want.items():
    assert got[name].dtype == array.dtype, name
    np.testing.assert_array_equal(got[name], array)


def test_library_reads_what_we_write(tmp_path):
  st.write(tmp_path, pending(tensors()))
  assert os.listdir(tmp_path) == [st.SINGLE]
  assert_same(safetensors.numpy.load_file(tmp_path / st.SINGLE), tensors())
  with safetensors.safe_open(tmp_path / st.SINGLE, 'np') as f:
    assert f.metadata() == {'format': 'pt'}


@pytest.mark.parametrize('is_folder', [True, False])
def test_we_read_what_the_library_writes(tmp_path, is_folder):
  file = tmp_path / st.SINGLE
  safetensors.numpy.save_file(tensors(), file, metadata={'by': 'library'})
  assert_same(st.Reader(tmp_path if is_folder else file), tensors())


def test_shards_hold_at_most_the_limit_and_read_back(tmp_path):
  rng = np.random.default_rng(1)
  arrays = {f'w{i}': rng.normal(size=(i + 1, 8)) for i in range(6)}
  limit = 3 * 8 * 8
  st.write(tmp_path, pending(arrays), max_shard_bytes=limit)
  places = json.loads((tmp_path / st.INDEX).read_text())['weight_map']
  assert len(set(places.values())) > 2
  for file in set(places.values()):
    held = [n for n, place in places.items() if place == file]
    sizes = [arrays[n].nbytes for n in held]
    assert sum(sizes) <= limit or len(held) == 1
    assert_same(
      safetensors.numpy.load_file(tmp_path / file),
      {n: arrays[n] for n in held},
    )
  assert_same(st.Reader(tmp_path), arrays)


def test_reading_copies_nothing_and_arrays_are_read_only(tmp_path):
  st.write(tmp_path, pending(tensors()))
  view = st.Reader(tmp_path)['a.weight']
  assert not view.flags.owndata
  with pytest.raises(ValueError, match='read-only'):
    view[0, 0] = 1.0


def test_writing_fetches_one_tensor_after_another(tmp_path):
  live, most = 0, 0

  class Counted(np.ndarray):
    def __del__(self):
      nonlocal live
      live -= self.base is None

  def get():
    nonlocal live, most
    live += 1
    most = max(most, live)
    return np.ndarray.__new__(Counted, (16,), np.float32)

  st.write(
    tmp_path, {str(i): st.Pending((16,), np.float32, get) for i in range(8)}
  )
  assert most <= 2  # The new one and the last one, not yet collected.


@pytest.mark.parametrize('dtype', [None, jnp.bfloat16, np.float32])
def test_placed_arrays_equal_the_file_and_are_converted(tmp_path, dtype):
  st.write(tmp_path, pending(tensors()))
  view = st.Reader(tmp_path)['b.weight'].T
  got = st.place(view, dtype)
  assert got.dtype == (dtype or jnp.bfloat16)
  np.testing.assert_array_equal(
    np.asarray(got, np.float32), np.asarray(view, np.float32)
  )


def test_placing_with_a_sharding_reads_each_part_once(tmp_path):
  arrays = {'w': np.arange(32, dtype=np.float32).reshape(8, 4)}
  st.write(tmp_path, pending(arrays))
  mesh = jax.make_mesh((1,), ('data',))
  sharding = jax.NamedSharding(mesh, jax.P('data'))
  got = st.place(st.Reader(tmp_path)['w'], None, sharding)
  assert got.sharding == sharding
  np.testing.assert_array_equal(got, arrays['w'])


def test_missing_tensor_is_named_with_its_nearest(tmp_path):
  st.write(tmp_path, pending(tensors()))
  with pytest.raises(
    st.MissingError, match=r"no tensor 'a\.wight'.*Nearest: a\.wei"
  ):
    st.Reader(tmp_path)['a.wight']


@pytest.mark.parametrize('keep', [0, 5, 30, -1])
def test_truncated_file_is_named(tmp_path, keep):
  st.write(tmp_path, pending(tensors()))
  file = tmp_path / st.SINGLE
  file.write_bytes(file.read_bytes()[:keep])
  with pytest.raises(st.FormatError, match=r'model\.safetensors.*truncated'):
    st.Reader(tmp_path)


def broken(header, data=b''):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + data


GOOD = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


@pytest.mark.parametrize(
  'content, message',
  [
    (broken(b'{"a": '), 'damaged header'),
    (broken(b'\xff\xfe'), 'damaged header'),
    (broken(b'[1]'), 'damaged header: it is no JSON object'),
    (broken({'a': GOOD | {'dtype': 'X9'}}, bytes(8)), "a has dtype 'X9'"),
    (broken({'a': GOOD | {'shape': [3]}}, bytes(8)), 'entry of a is damaged'),
    (broken({'a': {'dtype': 'F32'}}, bytes(8)), 'entry of a is damaged'),
    (broken({'a': GOOD}, bytes(9)), 'followed by other bytes'),
    (b'<html>not found</html>', 'truncated or not a safetensors file'),
  ],
)
def test_damaged_file_is_refused_with_the_reason(tmp_path, content, message):
  (tmp_path / st.SINGLE).write_bytes(content)
  with pytest.raises(st.FormatError, match=message):
    st.Reader(tmp_path)


def test_absent_checkpoint_is_explained(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    st.Reader(tmp_path / 'nowhere')
  (tmp_path / 'pytorch_model.bin').touch()
  with pytest.raises(FileNotFoundError, match=r'pytorch_model\.bin\. Pickled'):
    st.Reader(tmp_path)


def test_missing_shard_and_wrong_index_are_named(tmp_path):
  arrays = {f'w{i}': np.zeros(8) for i in range(3)}
  st.write(tmp_path, pending(arrays), max_shard_bytes=64)
  index = tmp_path / st.INDEX
  places = json.loads(index.read_text())
  places['weight_map']['ghost'] = places['weight_map']['w0']
  index.write_text(json.dumps(places))
  with pytest.raises(st.FormatError, match='lacks ghost'):
    st.Reader(tmp_path)
  os.remove(tmp_path / 'model-00002-of-00003.safetensors')
  with pytest.raises(st.FormatError, match=r'1 of 3 shards.*model-00002'):
    st.Reader(tmp_path)
  places['weight_map']['ghost'] = '../other.safetensors'
  index.write_text(json.dumps(places))
  with pytest.raises(st.FormatError, match='ghost outside its folder'):
    st.Reader(tmp_path)
  index.write_text('{}')
  with pytest.raises(st.FormatError, match='is not an index'):
    st.Reader(tmp_path)


def test_new_folder_appears_whole_or_not_at_all(tmp_path):
  target = tmp_path / 'deep' / 'model'
  with pytest.raises(RuntimeError), st.new_folder(target) as folder:  # noqa: PT012
    st.write(folder, pending(tensors()))
    raise RuntimeError
  assert os.listdir(tmp_path / 'deep') == []
  with st.new_folder(target) as folder:
    st.write(folder, pending(tensors()))
    assert not target.exists()
  assert_same(st.Reader(target), tensors())
  with pytest.raises(FileExistsError, match='exists already'):
    st.new_folder(target).__enter__()
