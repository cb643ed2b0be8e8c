# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

from jaxtok.tokenizers import hf, speed

PROGRAM = """
import sys
import jaxtok.tokenizers
heavy = {'torch', 'transformers', 'jax', 'tokenizers', 'tiktoken', 'numba'}
print(sorted(heavy & set(sys.modules)))
from jaxtok.tokenizers import hf
print(hf.train_bpe([' '.join(map(str, range(3000)))], 400).fingerprint)
print(sorted({'torch', 'transformers', 'jax', 'numba'} & set(sys.modules)))
"""


def test_another_process_with_one_thread_trains_the_same_vocabulary():
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    env=os.environ | {'RAYON_NUM_THREADS': '1', 'PYTHONHASHSEED': '7'},
    capture_output=True,
    text=True,
    check=True,
  )
  ours = hf.train_bpe([' '.join(map(str, range(3000)))], 400)
  assert done.stdout.split('\n')[:3] == ['[]', ours.fingerprint, '[]']


def test_the_speed_table_has_a_row_per_tokenizer(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('TOKENIZERS_PARALLELISM', 'false')
  path = tmp_path / 'text.txt'
  path.write_text('the value of the table ' * 200)
  assert speed.main([str(path), '--vocab_size=280', '--repeats=1']) == 0
  out = capsys.readouterr().out
  assert '1 documents, 0.0 MB' in out
  for row in (
    'bytes: encode_batch',
    'BPE: decode_batch',
    'BPE: tokenizers.encode_batch',
  ):
    assert f'\n{row} ' in out
  assert 'x tokenizers' in out


def test_the_speed_table_explains_wrong_input(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('TOKENIZERS_PARALLELISM', 'false')
  assert speed.main([str(tmp_path / 'nope.txt')]) == 1
  assert "nope.txt' is no file" in capsys.readouterr().err
  empty = tmp_path / 'empty.txt'
  empty.touch()
  assert speed.main([str(empty)]) == 1
  assert 'hold no bytes' in capsys.readouterr().err


def test_the_speed_table_reads_the_standard_library_by_default():
  documents = speed.standard_library(30_000)
  assert sum(map(len, documents)) == 30_000
