# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/token_free_models.md are those of the suite's records."""

import json

import pytest

from experiments.byte_lm import record

PAGE = 'Before.\n\n<!-- a.json -->\n<!-- end of a.json -->\n\nBehind.\n'


def make_record(**plan):
  stages = {
    'model': {
      'parameters': 1234567,
      'bpb': 2.5,
      'bpb_se': 0.01,
      'bytes_per_position': 4.0,
      'flops_per_byte': 98765.4,
    },
    'noise': {'case': 3.0, 'typo': 2.75, 'spaces': 2.625},
    'speed': {'bytes_per_second': 1000.0},
  }
  rows = []
  for seed, bpb in enumerate((2.5, 2.7)):
    found = stages | {'model': stages['model'] | {'bpb': bpb}}
    rows.append({'name': 'hat', 'seed': seed, 'found': found, 'seconds': 60.0})
  text = {'source': {'type': 'Files', 'path': '/data/texts/en.zip'}}
  return {
    'plan': {
      'size': 'tiny',
      'budget': 3e10,
      'data': text,
      'second': None,
      'max_bytes': 50_000,
    }
    | plan,
    'made': {
      'device': {'platform': 'cpu', 'kind': 'cpu', 'devices': 1, 'cores': 2}
    },
    'rows': rows,
  }


def test_the_tables_of_the_page_are_those_of_the_records():
  page = record.DOCS / record.PAGE
  records = record.load(record.DOCS)
  assert 'suite' in records
  assert page.read_text() == record.render(page.read_text(), records), (
    'run `python -m experiments.byte_lm.record`'
  )


def test_records_name_no_folder_of_a_machine():
  for name, found in record.load(record.DOCS).items():
    text = json.dumps(found['plan'])
    assert '"path": "$JAXTOK_DATA/' in text, name
    assert '"/' not in text, name


def test_flops_of_the_units_that_are_used_are_shown_if_they_are_known():
  plain, known = make_record(), make_record()
  for row in known['rows']:
    row['found']['model']['flops_per_byte_used'] = 54321.0
  columns = lambda found: [
    cell.strip()
    for cell in record.render(PAGE, {'a': found}).splitlines()[5].split('|')
  ]
  assert 'used' not in columns(plain)
  at = columns(known).index('used')
  assert columns(known)[at - 1] == 'FLOPs/byte'
  lines = record.render(PAGE, {'a': known}).splitlines()
  assert lines[7].split('|')[at].strip() == '54,321 ± 0'
  assert any(line.startswith('- used: FLOPs/byte with') for line in lines)


def test_a_record_becomes_sentence_table_and_picture():
  page = record.render(PAGE, {'a': make_record()})
  lines = page.splitlines()
  assert lines[3:5] == [
    '`--size=tiny --budget=3e+10`, seeds 0, 1, 50,000 bytes of each text, 2 '
    'minutes on 2 CPU cores ([numbers](token_free_models/a.json)):',
    '',
  ]
  cells = [cell.strip() for cell in lines[7].split('|')[1:-1]]
  assert cells == [
    'hat',
    '1,234,567 ± 0',
    '2.600 ± 0.100',  # sqrt(2) * 0.1 / sqrt(2)
    '4.000 ± 0.000',
    '98,765 ± 0',
    '1,000 ± 0',
    *('0.400 ± 0.100', '0.150 ± 0.100', '0.025 ± 0.100'),
    *('-', '-', '-'),
  ]
  assert lines[5].startswith('| model | parameters | bpb | bytes/position | FL')
  assert '![Bits per byte, noise, two languages](pictures/' in page
  assert page.startswith('Before.\n\n<!-- a.json -->\n')
  assert page.endswith('.svg)\n<!-- end of a.json -->\n\nBehind.\n')
  # Rendered again it stays, and other numbers take its place.
  assert record.render(page, {'a': make_record()}) == page
  other = record.render(page, {'a': make_record(max_bytes=0)})
  assert other == page.replace('50,000 bytes of each', 'all held-out')


@pytest.mark.parametrize(
  'page, names, message',
  [
    (PAGE, [], 'has a place for a.json, which is not in docs'),
    (PAGE, ['a', 'b'], "must have a line '<!-- b.json -->'"),
    (PAGE + PAGE, ['a'], 'once each'),
    (PAGE.replace('<!-- end of a.json -->\n', ''), ['a'], 'once each'),
  ],
)
def test_a_record_without_place_and_a_place_without_record_are_named(
  page, names, message
):
  with pytest.raises(ValueError, match=message):
    record.render(page, {name: make_record() for name in names})


@pytest.fixture
def docs(tmp_path, monkeypatch):
  docs = tmp_path / 'docs'
  (docs / 'pictures').mkdir(parents=True)
  (docs / record.PAGE).write_text(PAGE)
  monkeypatch.setattr(record, 'DOCS', docs)
  return docs


def test_the_numbers_of_a_workdir_are_kept(docs, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('JAXTOK_DATA', '/data/')
  (tmp_path / 'suite.json').write_text(json.dumps(make_record()))
  (tmp_path / 'suite.svg').write_text('<svg/>')
  assert record.main([str(tmp_path), '--name=a']) == 0
  kept = json.loads((docs / record.RECORDS / 'a.json').read_text())
  assert kept['rows'] == make_record()['rows']
  assert kept['plan']['data']['source']['path'] == '$JAXTOK_DATA/texts/en.zip'
  assert '2.600 ± 0.100' in (docs / record.PAGE).read_text()
  assert (docs / 'pictures' / 'token_free_a.svg').read_text() == '<svg/>'
  # Without a workdir the page is written from what was kept.
  (docs / record.PAGE).write_text(PAGE)
  assert record.main([]) == 0
  assert '2.600 ± 0.100' in (docs / record.PAGE).read_text()
  for broken in ('[]', '', '\xff{'):
    (tmp_path / 'suite.json').write_text(broken)
    assert record.main([str(tmp_path), '--name=a']) == 1
    assert 'is not the record of a suite' in capsys.readouterr().err
  assert record.main([str(tmp_path / 'none')]) == 1
  assert 'none/suite.json is not there' in capsys.readouterr().err
