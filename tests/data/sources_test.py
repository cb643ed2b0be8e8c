# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON lines, ArrayRecord, TFDS, the standard library, and `--data`."""

import gzip
import itertools
import json
import re
import subprocess
import sys
import sysconfig

import pytest
from array_record.python import array_record_module

from jaxtok.data import jsonl, text
from jaxtok.data.source import SPLITS, documents, from_spec


def contents(config, split):
  return list(documents(config.make(split)))


def lines(count):
  rows = [{'id': i, 'text': f'zeile {i} ü\n'} for i in range(count)]
  return '\r\n\n'.join(json.dumps(row) for row in rows).encode() + b'\n\n'


@pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz'])
def test_json_lines_give_the_text_of_each_line(tmp_path, name):
  data = lines(300)
  packed = gzip.compress(data) if name.endswith('gz') else data
  (tmp_path / name).write_bytes(packed)
  config = from_spec(str(tmp_path / name))
  assert config == text.Jsonl(path=str(tmp_path / name))
  parts = [contents(config, split) for split in SPLITS]
  want = [f'zeile {i} ü\n'.encode() for i in range(300)]
  assert sorted(itertools.chain(*parts)) == sorted(want)
  assert parts[0] == [d for d in want if d in set(parts[0])]  # In order.
  assert config.make('train')[0]['name'] == f'{name}, line 1'


def test_json_lines_longer_than_a_part_are_found(tmp_path, monkeypatch):
  monkeypatch.setattr(jsonl, '_PART_BYTES', 7)
  (tmp_path / 'a.jsonl').write_bytes(lines(20))
  (tmp_path / 'b.jsonl').write_bytes(lines(5)[:-2])
  config = text.Jsonl(path=str(tmp_path), validation=str(tmp_path))
  assert len(contents(config, 'train')) == 25
  assert config.make('validation')[24]['name'].startswith(('a', 'b'))


@pytest.mark.parametrize(
  'line, message',
  [
    (
      '{"content": "a", "id": 1}',
      "there is no field 'text'; the fields are content, id",
    ),
    ('{"text": 3}', "field 'text' is int; it must be a string"),
    ('["text"]', 'an object was expected, got list'),
    ('{"text": "a"', "not JSON (Expecting ',' delimiter"),
    ('5', 'an object was expected, got int'),
  ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, message):
  good = '{"text": "a"}\n'
  (tmp_path / 'a.jsonl').write_text(good + '\n' + line + '\n')
  config = text.Jsonl(path=str(tmp_path / 'a.jsonl'), test='given')
  with pytest.raises(
    ValueError, match=re.escape(f'a.jsonl, line 3: {message}')
  ):
    contents(config, 'train')


def test_a_wrong_field_is_said_when_the_source_is_made(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(lines(9))
  with pytest.raises(ValueError, match='Set field= to the one that holds the'):
    text.Jsonl(path=str(tmp_path / 'a.jsonl'), field='body').make('train')


def test_lone_surrogates_in_json_are_kept():
  assert jsonl.parse(b'{"a": "\\ud800"}', 'a', '') == b'\xed\xa0\x80'


def write_records(path, records):
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()


def test_array_records_give_each_record(tmp_path):
  data = [b'record %d \xff' % i for i in range(200)]
  write_records(tmp_path / 'a.array_record', data[:150])
  write_records(tmp_path / 'b.array_record', data[150:])
  config = text.ArrayRecord(path=f'{tmp_path}/*.array_record')
  parts = [contents(config, split) for split in SPLITS]
  assert sorted(itertools.chain(*parts)) == sorted(data)
  one = from_spec(str(tmp_path / 'a.array_record'))
  assert one.make('train')[0] == {
    'data': data[0],
    'name': 'a.array_record, record 0',
  }


def test_array_records_may_hold_json(tmp_path):
  write_records(tmp_path / 'a', [b'{"body": "x"}'] * 5)
  config = text.ArrayRecord(path=str(tmp_path / 'a'), field='body')
  assert contents(config, 'train') == [b'x'] * 3


def test_a_file_of_another_format_is_no_array_record(tmp_path):
  (tmp_path / 'a').write_bytes(b'hello world' * 100)
  with pytest.raises(ValueError, match='cannot be read as ArrayRecord'):
    text.ArrayRecord(path=str(tmp_path / 'a')).make('train')


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
  """A folder in which 'local_text' is prepared, without TensorFlow."""
  from jaxtok.data import tfds_text

  folder = tmp_path_factory.mktemp('tfds')
  (folder / 'corpus').mkdir()
  for i in range(200):
    (folder / 'corpus' / str(i)).write_bytes(b'text %d\n' % i)
  source = text.Files(path=str(folder / 'corpus'))
  builder = tfds_text.LocalText(source=source, data_dir=str(folder))
  builder.download_and_prepare()
  return folder


def test_tfds_is_read_without_tensorflow(tfds_dir):
  # In a process of its own, which has not seen the builder's class.
  code = (
    'import sys\n'
    'from jaxtok.data import source, text\n'
    f"config = text.Tfds(name='local_text', data_dir={str(tfds_dir)!r})\n"
    'for split in source.SPLITS:\n'
    '  made = config.make(split)\n'
    '  print(sorted(d.decode() for d in source.documents(made)))\n'
    "assert 'tensorflow' not in sys.modules\n"
  )
  out = subprocess.run(
    [sys.executable, '-c', code], check=True, capture_output=True, text=True
  ).stdout
  got = [json.loads(line.replace("'", '"')) for line in out.splitlines()]
  source = text.Files(path=str(tfds_dir / 'corpus'))
  want = [sorted(d.decode() for d in contents(source, s)) for s in SPLITS]
  assert got == want


def test_a_wrong_tfds_feature_is_named(tfds_dir):
  config = text.Tfds(name='local_text', data_dir=str(tfds_dir), field='body')
  with pytest.raises(ValueError, match="has no feature 'body'; it has: text"):
    config.make('train')


def test_an_unprepared_tfds_data_set_says_how_to_prepare_it(tmp_path):
  config = text.Tfds(name='lm1b', data_dir=str(tmp_path))
  with pytest.raises(ValueError, match=r'download_and_prepare\(\)'):
    config.make('train')
  with pytest.raises(ValueError, match="TFDS knows no data set 'lm1c'"):
    text.Tfds(name='lm1c', data_dir=str(tmp_path)).make('train')


def test_tfds_splits_that_are_missing_are_lent():
  from jaxtok.data.tfds import _choose

  for sizes, lent in (
    ({'train': 50, 'test': 11}, 'test'),
    ({'train': 50, 'validation': 11}, 'validation'),
  ):
    (a, first), (b, second) = (_choose(sizes, s) for s in SPLITS[1:])
    assert a == b == lent
    assert [*first, *second] == list(range(11))
    assert len(_choose(sizes, 'train')[1]) == 50
  parts = [_choose({'train': 90}, split) for split in SPLITS]
  assert {name for name, _ in parts} == {'train'}
  assert sorted(itertools.chain(*(p.tolist() for _, p in parts))) == list(
    range(90)
  )


def test_the_standard_library_is_divided_by_file():
  config = text.Stdlib()
  sources = [config.make(split) for split in SPLITS]
  found = [set(source.names) for source in sources]
  names = set.union(*found)
  assert len(names) == sum(len(source) for source in sources)
  assert {'argparse.py', 'json/decoder.py'} < names
  assert 'pydoc_data/topics.py/assert' in names
  assert not [n for n in names if '/test' in n or 'site-packages' in n]
  sizes = [int(source.sizes.sum()) for source in sources]
  assert sum(sizes) > 5e6
  assert all(size > 0.01 * sum(sizes) for size in sizes)
  index = next(i for i in (0, 1, 2) if 'argparse.py' in found[i])
  number = sources[index].names.index('argparse.py')
  with open(f'{sysconfig.get_path("stdlib")}/argparse.py', 'rb') as file:
    assert sources[index][number]['data'] == file.read()


def test_a_small_standard_library_keeps_its_held_out_text():
  small, full = text.Stdlib(max_bytes=200_000), text.Stdlib()
  assert small.make('train').sizes.sum() <= 200_000
  assert contents(small, 'validation') == contents(full, 'validation')
  head = contents(small, 'train')
  assert head == contents(full, 'train')[: len(head)]
  assert small.make('train').key != full.make('train').key


@pytest.mark.parametrize(
  'spec, want',
  [
    ('stdlib', text.Stdlib()),
    ('tfds:lm1b', text.Tfds(name='lm1b')),
    ('some/folder', text.Files(path='some/folder')),
    ('*.txt.xz', text.Files(path='*.txt.xz')),
    ('a/*.JSONL.xz', text.Jsonl(path='a/*.JSONL.xz')),
    ('a.jsonl:body', text.Jsonl(path='a.jsonl', field='body')),
    ('a:b.txt', text.Files(path='a:b.txt')),
    ('b.array_record', text.ArrayRecord(path='b.array_record')),
  ],
)
def test_the_data_flag_names_a_source(spec, want):
  assert from_spec(spec) == want


def test_an_empty_data_flag_is_refused():
  with pytest.raises(ValueError, match='data is empty'):
    from_spec('')


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: text.Stdlib(max_bytes=-1), 'max_bytes must be >= 0, got -1'),
    (lambda: text.Files(max_document_bytes=0), 'max_document_bytes must be >='),
    (lambda: text.Config(seq_len=0), 'seq_len must be >= 1, got 0'),
    (lambda: text.Config(packing='packed'), "packing='packed' does not exist"),
    (lambda: text.Stdlib().make('valid'), "split='valid' does not exist"),
  ],
)
def test_wrong_settings_are_named(make, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    make()
