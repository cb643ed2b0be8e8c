# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""FASTA files: what becomes a document, and which split it is in."""

import gzip
import os
import pathlib

import numpy as np
import pytest

from jaxtok.data import fasta
from jaxtok.data.source import SPLITS

RNG = np.random.default_rng(0)
GENOME = bytes(RNG.choice(list(b'ACGT'), 4000).tolist())
ARCHIVE = pathlib.Path(os.environ.get('JAXTOK_DATA', '')) / 'dna/genomes.zip'


def write(path, records):
  lines = []
  for name, data in records.items():
    lines.append(b'>' + name.encode())
    lines += [data[i : i + 60] for i in range(0, len(data), 60)]
  path.write_bytes(b'\n'.join(lines) + b'\n')
  return str(path)


def documents(config, split):
  found = config.make(split)
  return [found[i]['data'] for i in range(len(found))]


def test_splits_join_to_the_genome(tmp_path):
  path = write(tmp_path / 'a.fa', {'one': GENOME})
  config = fasta.Fasta(path=path, piece=100, min_bases=1)
  parts = [b''.join(documents(config, split)) for split in SPLITS]
  assert b''.join(parts) == GENOME
  assert [len(part) for part in parts] == [3600, 200, 200]


def test_records_and_unknown_bases_end_a_run(tmp_path):
  data = GENOME[:300].lower() + b'N' * 70 + GENOME[300:500] + b'R' + b'ACGT'
  records = {'one': data, 'two': GENOME[500:600], 'three': GENOME[600:]}
  path = write(tmp_path / 'a.fa', records)
  config = fasta.Fasta(path=path, piece=200, min_bases=5)
  found = documents(config, 'train')[:4]
  want = [(0, 200), (200, 300), (300, 500), (500, 600)]
  assert found == [GENOME[a:b] for a, b in want]


def test_compressed_files_and_folders_are_read(tmp_path):
  plain = pathlib.Path(write(tmp_path / 'a.fa', {'one': GENOME}))
  with gzip.open(tmp_path / 'b.fa.gz', 'wb') as file:
    file.write(plain.read_bytes())
  config = fasta.Fasta(path=str(tmp_path), piece=100)
  assert len(config.make('train')) == 72


def test_what_is_wrong_is_said(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text('hello')
  with pytest.raises(ValueError, match='is no FASTA file'):
    fasta.Fasta(path=str(tmp_path / 'a.txt')).make('train')
  monkeypatch.delenv('NO_SUCH', raising=False)
  with pytest.raises(ValueError, match='variable NO_SUCH, which is not set'):
    fasta.Fasta(path='$NO_SUCH/a.fa').make('train')
  short = write(tmp_path / 'b.fa', {'one': b'ACGT'})
  with pytest.raises(ValueError, match='no documents for train'):
    fasta.Fasta(path=short).make('train')
  with pytest.raises(ValueError, match='min_bases=0 must be in'):
    fasta.Fasta(min_bases=0)


@pytest.mark.skipif(not ARCHIVE.is_file(), reason='needs JAXTOK_DATA')
def test_real_genomes_are_read():
  config = fasta.Fasta(path='$JAXTOK_DATA/dna/genomes.zip', piece=512)
  sizes = [int(config.make(split).sizes.sum()) for split in SPLITS]
  assert sum(sizes) > 8e6
  assert 0.85 < sizes[0] / sum(sizes) < 0.95
