# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A finished run stands for no other run than the one that is asked for."""

import json
import shutil

import pytest

from experiments import finished
from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import errors, sharding


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Texts, and `run`, a finished run on the first of them."""
  folder = tmp_path_factory.mktemp('finished')
  for name, line in (('en', b'The boat went out. '), ('de', b'Es war hell. ')):
    (folder / f'{name}.txt').write_bytes(line * 60)
  finished.train_once(make_config(folder), folder / 'run')
  return folder


@pytest.fixture
def copied(folder, tmp_path, monkeypatch):
  """The same files where a test may change them; nothing may be trained."""
  shutil.copytree(folder, tmp_path / 'copy')
  path = tmp_path / 'copy' / 'run' / 'config.json'
  path.write_text(path.read_text().replace(str(folder), str(tmp_path / 'copy')))
  monkeypatch.setattr(train, 'run', _never)
  return tmp_path / 'copy'


def _never(*args, **kwargs):
  raise AssertionError('was trained')


def make_config(folder, name='en'):
  return train.Config(
    data=text.Config(source=text.Files(path=f'{folder / name}.txt'), seq_len=8),
    tokenizer=byte_tokenizer.Config(),
    model=transformer.Config(dim=16, num_layers=1, num_heads=2),
    objective=next_token.Config(num_chunks=1),
    mesh=sharding.Config(data=1),
    evals={'val': bpb.Config(every_steps=2, max_bytes=40)},
    steps=2,
    batch_size=4,
    log_every=2,
    checkpoint_every=2,
  )


def test_the_same_run_is_loaded(copied, capsys):
  run = finished.train_once(make_config(copied), copied / 'run')
  assert run.metrics('eval/val')[-1]['step'] == 2
  assert capsys.readouterr().out == f'{copied / "run"} is finished.\n'


def test_fields_that_may_change_are_shown(copied, capsys):
  config = make_config(copied)
  config.log_every = 1
  finished.train_once(config, copied / 'run')
  out = capsys.readouterr().out
  assert 'is finished. Its settings -> those asked for:\n' in out
  assert out.endswith('  log_every: 2 -> 1\n')


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda c: setattr(c.model, 'dim', 32), r'model\.dim: 16 -> 32'),
    (lambda c: setattr(c.data, 'seq_len', 9), r'data\.seq_len: 8 -> 9'),
    (lambda c: setattr(c, 'seed', 1), 'seed: 0 -> 1'),
  ],
)
def test_another_config_is_refused_with_the_difference(copied, change, message):
  config = make_config(copied)
  change(config)
  with pytest.raises(errors.ConfigChangedError, match=message):
    finished.train_once(config, copied / 'run')


def test_another_text_is_refused(copied):
  message = r'data\.source\.path: .*en\.txt -> .*de\.txt\n.*contents of data'
  with pytest.raises(errors.ConfigChangedError, match=message):
    finished.train_once(make_config(copied, 'de'), copied / 'run')
  with pytest.raises(FileNotFoundError, match=r'none\.txt does not exist'):
    finished.train_once(make_config(copied, 'none'), copied / 'run')


# One file is divided by position: validation is what lies from 90 to 95 %.
@pytest.mark.parametrize('at, split', [(0.1, 'train'), (0.92, 'validation')])
def test_other_contents_of_the_same_file_are_refused(copied, at, split):
  path = copied / 'en.txt'
  data = bytearray(path.read_bytes())
  data[int(at * len(data))] = ord('x')
  path.write_bytes(data)
  message = rf'contents of data, {split}: \w{{16}} -> \w{{16}}\nUndo the change'
  with pytest.raises(errors.ConfigChangedError, match=message):
    finished.train_once(make_config(copied), copied / 'run')


def test_an_unfinished_run_of_another_text_is_refused_too(copied):
  path = copied / 'run' / 'meta.json'
  meta = json.loads(path.read_text())
  meta['sessions'][-1]['exit'] = 'killed'
  path.write_text(json.dumps(meta))
  with pytest.raises(errors.ConfigChangedError, match='delete'):
    finished.train_once(make_config(copied, 'de'), copied / 'run')
  with pytest.raises(AssertionError, match='was trained'):
    finished.train_once(make_config(copied), copied / 'run')


def test_a_run_that_does_not_know_its_text_is_refused(copied):
  path = copied / 'run' / 'meta.json'
  meta = json.loads(path.read_text())
  del meta['begun']
  path.write_text(json.dumps(meta))
  with pytest.raises(errors.ConfigChangedError, match='what its text was'):
    finished.train_once(make_config(copied), copied / 'run')


def test_weights_of_another_run_are_refused(folder, tmp_path):
  first, config = folder / 'run', make_config(folder, 'de')
  finished.train_once(config, tmp_path / 'next', init_from=first)
  finished.train_once(config, tmp_path / 'next', init_from=first)
  other = make_config(folder)
  other.seed = 1
  finished.train_once(other, tmp_path / 'other')
  for source in (tmp_path / 'other', None):
    with pytest.raises(errors.ConfigChangedError, match='weights that it'):
      finished.train_once(config, tmp_path / 'next', init_from=source)


def test_a_text_that_is_missing_leaves_no_workdir(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    finished.train_once(make_config(tmp_path), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
