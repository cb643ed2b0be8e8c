# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of every kind come out byte for byte, or with a helpful error."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from jaxtok.data import cache, files, stored
from jaxtok.data.files import Files
from jaxtok.data.source import SPLITS, documents, head

TEXT = b''.join(b'line %d of some text\n' % i for i in range(500))


def contents(config, split):
  return list(documents(config.make(split)))


def names(config, split):
  source = config.make(split)
  return [source[i]['name'] for i in range(len(source))]


def whole(config):
  return b''.join(b''.join(contents(config, split)) for split in SPLITS)


@pytest.fixture
def folder(tmp_path):
  """A folder of 300 files in two levels, with some that are not read."""
  root = tmp_path / 'corpus'
  for i in range(300):
    path = root / f'part{i % 3}' / f'{i}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'document %d\n' % i * 5)
  for hidden in ('.git/config', '__pycache__/a.pyc', '.notes', 'part0/empty'):
    path = root / hidden
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'' if hidden.endswith('empty') else b'not to be read')
  return root


def test_a_folder_is_divided_by_file(folder):
  config = Files(path=str(folder))
  found = [names(config, split) for split in SPLITS]
  assert sorted(itertools.chain(*found)) == sorted(
    f'part{i % 3}/{i}.txt' for i in range(300)
  )
  assert [len(part) for part in found] == [270, 20, 10]
  for split in SPLITS:
    for name, data in zip(
      names(config, split), contents(config, split), strict=True
    ):
      assert data == (folder / name).read_bytes()


def test_runs_and_caches_inside_a_folder_are_not_text(folder, monkeypatch):
  config = Files(path=str(folder))
  before = config.make('train').key
  monkeypatch.setenv('JAXTOK_CACHE', str(folder / 'cache'))
  for name in (
    'cache/a',
    'runs/a/config.json',
    'runs/a/meta.json',
    'runs/a/x/y',
  ):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'not text')
  assert config.make('train').key == before


def test_order_and_division_do_not_depend_on_where_the_folder_lies(
  folder, tmp_path
):
  before = [names(Files(path=str(folder)), split) for split in SPLITS]
  os.rename(folder, tmp_path / 'elsewhere')
  config = Files(path=f'{tmp_path}/elsewhere/**/*.txt')
  assert [names(config, split) for split in SPLITS] == before
  assert before[0] != sorted(before[0])  # Mixed, so the first are a sample.


@pytest.mark.parametrize(
  'name, pack',
  [
    ('a.txt', lambda data: data),
    ('a.txt.xz', lzma.compress),
    ('a.txt.gz', gzip.compress),
    ('a.txt.bz2', bz2.compress),
  ],
)
def test_one_file_is_divided_by_position_at_lines(tmp_path, name, pack):
  (tmp_path / name).write_bytes(pack(TEXT))
  config = Files(path=str(tmp_path / name))
  parts = [b''.join(contents(config, split)) for split in SPLITS]
  assert b''.join(parts) == TEXT
  assert all(part.endswith(b'\n') for part in parts)
  shares = [len(part) / len(TEXT) for part in parts]
  assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.02)


def test_members_of_a_zip_are_documents(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_LZMA) as archive:
    for i in range(200):
      archive.writestr(f'novels/{i}.txt', b'novel %d\n' % i * 9)
    archive.writestr('__MACOSX/novels/._1.txt', b'junk')
  config = Files(path=str(tmp_path / 'a.zip'))
  found = {}
  for split in SPLITS:
    found |= dict(
      zip(names(config, split), contents(config, split), strict=True)
    )
  assert found == {
    f'a.zip/novels/{i}.txt': b'novel %d\n' % i * 9 for i in range(200)
  }


def test_long_documents_are_cut_at_lines_and_keep_their_bytes(tmp_path):
  (tmp_path / 'a.txt').write_bytes(TEXT)
  config = Files(path=str(tmp_path / 'a.txt'), max_document_bytes=1000)
  parts = contents(config, 'train')
  assert whole(config) == TEXT
  assert len(parts) > 9
  assert all(len(part) <= 1000 and part.endswith(b'\n') for part in parts)


def test_binary_files_without_lines_are_cut_exactly(tmp_path):
  data = np.random.default_rng(0).integers(11, 256, 70_001, np.uint8)
  (tmp_path / 'a.bin').write_bytes(data.tobytes())
  config = Files(path=str(tmp_path / 'a.bin'), max_document_bytes=7)
  assert whole(config) == data.tobytes()


def test_large_plain_files_are_not_copied(tmp_path):
  lines = [b'%015d\n' % i for i in range(1 << 17)]  # 2 MiB.
  (tmp_path / 'a.txt').write_bytes(b''.join(lines))
  (tmp_path / 'b.txt').write_bytes(b''.join(lines[::-1]))
  config = Files(path=str(tmp_path), max_document_bytes=1 << 16)
  source = config.make('train')
  assert [type(a) for a in source.arrays] == [stored.FileArray] * 2
  assert sorted(whole(config).splitlines(True)) == sorted(2 * lines)
  copy = pickle.loads(pickle.dumps(source))
  assert copy[1] == source[1]
  (tmp_path / 'small.txt').write_bytes(b'small')
  assert len(config.make('train').arrays) == 3


def test_ranges_of_several_arrays_come_in_the_order_asked_for():
  arrays = [np.arange(10, dtype=np.uint8) + 10 * i for i in range(3)]
  ranges = [(2, 0, 9), (0, 1, 10), (1, 2, 8), (0, 0, 5)]
  source = stored.Stored(arrays, ranges, None, 'key')
  got = source.read(
    np.array([3, 0, 1, 0, 2]),
    np.array([1, -1, 0, 3, 2]),
    np.array([2, 3, 0, 1, 3]),
  )
  assert got.tolist() == [1, 2, 0, 20, 21, 23, 14, 15, 16]


def test_more_than_fits_in_memory_goes_to_the_cache_once(
  tmp_path, monkeypatch, cache_dir
):
  monkeypatch.setattr(stored, '_MEMORY_BYTES', 5000)
  (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(TEXT, mtime=0))
  config = Files(path=str(tmp_path / 'a.txt.gz'))
  assert whole(config) == TEXT
  (found,) = (cache_dir / 'bytes').glob('*.bin')
  assert found.read_bytes() == TEXT
  before = found.stat().st_mtime_ns
  files.load.cache_clear()
  assert whole(config) == TEXT
  assert found.stat().st_mtime_ns == before


def test_an_unwritable_cache_is_named(tmp_path, monkeypatch):
  (tmp_path / 'file').write_bytes(b'')
  monkeypatch.setenv('JAXTOK_CACHE', str(tmp_path / 'file'))
  monkeypatch.setattr(stored, '_MEMORY_BYTES', 0)
  (tmp_path / 'a.txt').write_bytes(TEXT)
  with pytest.raises(OSError, match='Set the environment variable JAXTOK_CACH'):
    Files(path=str(tmp_path / 'a.txt')).make('train')


def test_held_out_files_can_be_given(tmp_path):
  for name in ('a', 'b', 'c'):
    (tmp_path / name).write_bytes(name.encode())
  config = Files(
    path=str(tmp_path / 'a'),
    validation=str(tmp_path / 'b'),
    test=str(tmp_path / 'c'),
  )
  assert [contents(config, split) for split in SPLITS] == [
    [b'a'],
    [b'b'],
    [b'c'],
  ]


def test_keys_change_with_the_content(folder):
  config = Files(path=str(folder))
  key = config.make('train').key
  assert config.make('train').key == key
  assert config.make('test').key != key
  (folder / 'part0' / '0.txt').write_bytes(b'changed')
  assert config.make('train').key != key


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
  path = tmp_path / 'a.bin'
  path.write_bytes(bytes(1000))
  array = stored.FileArray(path)
  assert array[0:1000].tobytes() == bytes(1000)
  path.write_bytes(bytes(10))
  with pytest.raises(OSError, match=r'a\.bin has become shorter than 1000'):
    array[0:1000]


@pytest.mark.parametrize('max_bytes', [1, 10, 21, 22, 4000, 10**6])
def test_the_head_of_a_source_is_its_first_bytes(folder, memory, max_bytes):
  source = Files(path=str(folder)).make('train')
  everything = b''.join(documents(source))
  plain = memory(list(documents(source))).make('train')
  assert source.head(max_bytes).key != source.key
  for part in (head(source, max_bytes), head(plain, max_bytes)):
    assert b''.join(documents(part)) == everything[:max_bytes]
    assert len(part) == len(head(source, max_bytes))


def damaged_zip(data):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    archive.writestr('member', data)
  return buffer.getvalue().replace(data[:20], b'x' * 20)


@pytest.mark.parametrize(
  'name, data, message',
  [
    ('a.txt', b'', r'a\.txt is empty'),
    ('a.xz', lzma.compress(TEXT)[:-40], r'a\.xz cannot be unpacked: .*ended'),
    ('a.xz', b'not xz at all', r'a\.xz cannot be unpacked: Input format'),
    (
      'a.gz',
      gzip.compress(TEXT, mtime=0)[:50],
      r'a\.gz cannot be unpacked: Compressed',
    ),
    ('a.gz', b'not gz', r'a\.gz cannot be unpacked: Not a gzipped file'),
    ('a.bz2', b'not bz2 at all', r'a\.bz2 cannot be unpacked: Invalid data'),
    ('a.zip', b'no zip', r'a\.zip cannot be unpacked: File is not a zip file'),
    ('a.zip', damaged_zip(TEXT), r'a\.zip/member cannot be unpacked: Bad CRC'),
    ('a.tar.gz', b'', r'a\.tar\.gz is a \.tar\.gz file, which is not opened'),
    ('a.parquet', b'', r'a\.parquet is a \.parquet file, which is not opened'),
    ('a.txt', b'ab', r'a\.txt has no documents for validation: .* 2 bytes'),
  ],
)
def test_unreadable_files_are_named_with_the_reason(
  tmp_path, name, data, message
):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(ValueError, match=message):
    Files(path=str(tmp_path / name)).make('validation')


@pytest.mark.parametrize(
  'path, error, message',
  [
    ('', ValueError, 'path is empty. Give a file, a folder or a glob'),
    ('nothing.txt', FileNotFoundError, 'nothing.txt does not exist (the curr'),
    ('*.none', FileNotFoundError, 'the glob *.none matches no file'),
    ('gs://bucket/a', ValueError, 'gs://bucket/a is not a local path'),
    ('hidden', ValueError, 'hidden holds no files (hidden ones are not read)'),
    ('zeros', ValueError, 'all 2 files, such as'),
  ],
)
def test_missing_text_is_said_plainly(
  tmp_path, monkeypatch, path, error, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'hidden').mkdir()
  (tmp_path / 'hidden' / '.a').write_bytes(TEXT)
  (tmp_path / 'zeros').mkdir()
  (tmp_path / 'zeros' / 'a').write_bytes(b'')
  (tmp_path / 'zeros' / 'b').write_bytes(b'')
  with pytest.raises(error, match=re.escape(message)):
    Files(path=path).make('train')


def test_only_one_held_out_path_leaves_the_other_split_without(tmp_path):
  (tmp_path / 'a').write_bytes(TEXT)
  config = Files(path=str(tmp_path / 'a'), validation=str(tmp_path / 'a'))
  with pytest.raises(ValueError, match='give test=PATH'):
    config.make('test')


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.delenv('JAXTOK_CACHE')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert cache.default_cache_dir() == tmp_path / 'jaxtok'
