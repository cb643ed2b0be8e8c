# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys

import pytest

from jaxtok import runs
from jaxtok.config import configclass
from jaxtok.runs import display, files, run


@configclass
class Part:
  size: int = 3

  def make(self):
    return self.size


@configclass
class Config:
  data: Part
  model: Part
  tokenizer: Part
  steps: int = 10
  seed: int = 0


def config(**kwargs):
  parts = {'data': Part(), 'model': Part(), 'tokenizer': Part(size=9)}
  return Config(**{**parts, **kwargs})


def test_a_run_is_loaded_as_it_was_started(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'orig_argv', ['/bin/python3', '-m', 'a b'])
  cfg = config(model=Part(size=5))
  started = runs.start(tmp_path / 'a', cfg)
  started.note(parameters=123)
  started.finish('finished')
  loaded = runs.load(tmp_path / 'a')
  assert loaded.config == cfg
  assert loaded.name == 'a'
  assert loaded.tokenizer == 9  # From the config: no saved one.
  assert loaded.meta['parameters'] == 123
  (session,) = loaded.meta['sessions']
  assert session['exit'] == 'finished'
  assert session['started'] <= session['stopped']
  assert session['versions']['jax']
  assert session['device']['platform'] == 'cpu'
  assert session['command'].endswith(" -m 'a b'")


def test_meta_records_the_commit_and_uncommitted_changes(tmp_path, monkeypatch):
  who = ('-c', 'user.name=a', '-c', 'user.email=a@b')
  (tmp_path / 'file.txt').write_text('old\n')
  (tmp_path / 'other.txt').write_text('untracked\n')
  for command in ('init -q', 'add file.txt', 'commit -q -m first'):
    command = ['git', '-C', str(tmp_path), *who, *command.split()]
    subprocess.run(command, check=True)
  (tmp_path / 'file.txt').write_text('new\n')
  monkeypatch.setattr(run.meta, '__file__', str(tmp_path / 'meta.py'))
  found = run.meta.git()
  assert len(found['commit']) == 40
  assert '-old\n+new\n' in found['diff']
  assert found['untracked'] == ['other.txt']


def test_a_second_session_is_added_and_a_kill_is_noted(tmp_path):
  runs.start(tmp_path, config())  # Ends without `finish`, as after kill -9.
  again = runs.start(tmp_path, config(steps=20))
  first, second = again.meta['sessions']
  assert first['exit'].startswith('killed')
  assert second['exit'] is None
  assert runs.load(tmp_path).config.steps == 20


@pytest.mark.parametrize('field', ['data', 'model', 'tokenizer'])
def test_a_changed_field_that_must_not_change_is_shown(tmp_path, field):
  runs.start(tmp_path, config())
  changed = config(**{field: Part(size=77)})
  with pytest.raises(ValueError, match=rf'{field}\.size: \d -> 77') as error:
    runs.start(tmp_path, changed)
  assert '--allow_config_change' in str(error.value)
  assert runs.load(tmp_path).config == config()  # Nothing was written.
  runs.start(tmp_path, changed, allow_config_change=True)
  assert runs.load(tmp_path).config == changed


def test_a_workdir_that_cannot_be_written_is_refused_at_once(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r'workdir=.*cannot be written'):
    runs.start(tmp_path / 'file' / 'a', config())


def test_a_missing_run_is_answered_with_those_beside_it(tmp_path):
  runs.start(tmp_path / 'bytes', config())
  runs.start(tmp_path / 'bpe', config())
  with pytest.raises(FileNotFoundError, match='bpe, bytes'):
    runs.load(tmp_path / 'byte')


def test_the_config_of_something_else_is_not_a_runs(tmp_path):
  (tmp_path / 'config.json').write_text('{"sizes": [1, 2]}')
  with pytest.raises(ValueError, match='not written by a run of jaxtok'):
    _ = runs.load(tmp_path).config


def test_writes_leave_the_old_file_when_they_fail(tmp_path, monkeypatch):
  path = tmp_path / 'x.json'
  files.write_json(path, {'a': 1})

  def fail(*args):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    files.write_json(path, {'a': 2})
  assert json.loads(path.read_text()) == {'a': 1}
  assert os.listdir(tmp_path) == ['x.json']


def test_samples_are_found_by_step(tmp_path):
  r = runs.start(tmp_path, config())
  with pytest.raises(FileNotFoundError, match='none'):
    r.samples()
  for step in (100, 20):
    name = f'step_{step:08d}.txt'
    files.write_atomic(tmp_path / 'samples' / name, f'<text {step}>')
  assert r.samples() == '<text 100>'
  assert r.samples(20) == '<text 20>'
  assert '&lt;text 20&gt;' in r.samples(20)._repr_html_()
  with pytest.raises(FileNotFoundError, match='20, 100'):
    r.samples(30)


def test_any_bytes_are_shown_without_control_characters():
  data = bytes(range(256)) + 'é\u202e'.encode()
  text = display.printable(data)
  assert '\\x1b' in text
  assert '\\xff' in text
  assert text.endswith('é\\u202e')
  assert all(ch in '\t\n' or ch.isprintable() for ch in text)


def test_streamed_text_never_splits_a_character():
  stream = display.StreamPrinter()
  data = 'aé€😀'.encode() + b'\xe2\x82'
  pieces = [stream.push(bytes([b])) for b in data]
  pieces.append(stream.push(b'', final=True))
  assert [p for p in pieces if p] == ['a', 'é', '€', '😀', '\\xe2\\x82']
