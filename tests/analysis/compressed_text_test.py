# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that draws the analyses."""

import json

import pytest

from jaxtok.analysis import compressed_text
from jaxtok.tokenizers import gzip

TEXT = b'A quick brown fox jumps over the lazy dog, again and again. ' * 500


@pytest.fixture
def text(tmp_path):
  for split in ('train', 'validation', 'test'):
    (tmp_path / f'{split}.txt').write_bytes(TEXT + split.encode())
  return tmp_path / '*.txt'


def test_examples_have_one_length_and_follow_one_another():
  documents = [b'abcde', b'fg', b'hijk']
  found = compressed_text.examples(documents, 4)
  assert found == [b'abcd', b'efgh']
  assert compressed_text.examples([b'ab'], 4) == [b'ab']


def test_bits_are_compared_with_as_many_coin_tosses():
  tokenizers = {'gzip': gzip.GzipTokenizer(token_bits=8)}
  overlapping, tokens = compressed_text.bits(
    tokenizers, [TEXT] * 9, num_parts=3
  )
  assert list(overlapping) == list(tokens) == ['gzip', 'coin tosses']
  assert tokens['gzip'].sizes.tolist() == [1, 2, 4, 8, 16]
  assert overlapping['gzip'].corrected.shape == (16, 3)
  # The same text nine times: its bits repeat.
  assert overlapping['gzip'].corrected[7].mean() > 0.05


def test_the_command_writes_pictures_and_numbers(text, tmp_path, monkeypatch):
  few = {'GZip': gzip.GzipTokenizer(token_bits=8)}
  monkeypatch.setattr(
    compressed_text, 'make_tokenizers', lambda model, documents: few
  )
  out = tmp_path / 'out'
  args = [f'--out={out}', f'--data={text}', '--only=trivial,stability']
  assert compressed_text.main(args) == 0
  numbers = json.loads((out / 'trivial.json').read_text())
  assert numbers['bytes']['uniform_bpb'] == pytest.approx(8)
  assert numbers['GZip']['bytes_per_token'] > 10
  for name in ('trivial', 'stability'):
    for kind in ('png', 'svg', 'json'):
      assert (out / f'{name}.{kind}').stat().st_size > 0


def test_mistakes_are_explained(text, tmp_path, capsys):
  args = [f'--out={tmp_path}', f'--data={text}']
  assert compressed_text.main([*args, '--only=trivail']) == 1
  assert '--only=trivail must be some of trivial' in capsys.readouterr().err
  assert compressed_text.main([*args, '--only=places']) == 1
  assert 'name their folders with --runs' in capsys.readouterr().err
