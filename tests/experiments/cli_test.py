# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mistakes on the command line get one paragraph and exit code 1 or 2."""

import pathlib
import subprocess
import sys

import pytest

from experiments import cli, config_path, sizes

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = 'experiments/byte_lm/configs/transformer.py'


def call(*args: str):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.byte_lm', *args],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


def test_list_shows_each_config_with_its_first_line():
  text = cli.list_configs(ROOT / 'experiments' / 'byte_lm')
  assert f'{CONFIG}' in text
  assert 'Decoder transformer over bytes' in text
  assert '__init__' not in text


def test_size_that_does_not_exist_lists_those_that_do():
  with pytest.raises(ValueError, match='Use one of: tiny, small'):
    sizes.pick('huge', tiny=1, small=2)


@pytest.mark.parametrize(
  'flags, message',
  [
    ([f'--config={CONFIG}:tyni'], "size 'tyni' does not exist"),
    (['--config=experiments/byte_lm/configs/trans.py'], 'there is no file'),
    (['--config.steps=3'], 'needs --config=FILE'),
  ],
)
def test_a_config_that_cannot_be_made_is_explained(flags, message):
  with pytest.raises(ValueError, match=message):
    config_path.check(['main', *flags])


@pytest.mark.parametrize('given', [['--config=a.py'], ['--config', 'a.py']])
def test_fields_may_stand_before_the_config(given):
  fields = ['--config.steps=3', '--workdir=w']
  got = config_path.config_first(['main', *fields, *given, '--debug'])
  assert got == ['main', *given, *fields, '--debug']
  assert config_path.config_first(['main', *fields]) == ['main', *fields]


@pytest.mark.parametrize(
  'flag, wrong, right',
  [
    ('--config.model.dmi=3', 'dmi', 'dim'),
    ('--config.modle.dim=3', 'modle', 'model'),
    ('--config.evals.vla.split=test', 'vla', 'val'),
  ],
)
def test_a_misspelt_field_gets_the_nearest_right_one(flag, wrong, right):
  argv = ['main', f'--config={CONFIG}:tiny', flag]
  text = config_path.explain_field(argv, KeyError('x'))
  assert f'has no field {wrong!r}. Did you mean {right!r}?' in text


def test_a_field_that_no_flag_can_replace_names_the_choices():
  argv = [
    'main',
    '--config=experiments/unmasking/configs/dice.py:tiny',
    '--config.denoiser=None',
    '--config.task=addition',
  ]
  text = config_path.explain_whole(argv, ValueError('raw'))
  assert text.startswith('--config.task=addition: config.task holds a Dice')
  assert 'Write another into the config file.' in text
  for name in ('addition.Addition', 'free_choice.FreeChoice'):
    assert f'jaxtok.tasks.{name}' in text
  assert 'min_total' in text
  assert config_path.explain_whole(argv[:3], ValueError('raw')) == 'raw'


@pytest.mark.parametrize(
  'content, message',
  [
    ('def get_config(:\n', r'SyntaxError: .*broken\.py, line 1'),
    ('def get_config():\n  return nmae\n', "line 2: NameError: name 'nmae'"),
    ('def get_config():\n  pass\n', 'returned None; it must return a config'),
    (
      'from jaxtok.nn import attention\ndef get_config():\n'
      '  c = attention.Config()\n  c.dmi = 3\n  return c\n',
      "line 4: .*no field 'dmi'. Did you mean 'dim'",
    ),
  ],
)
def test_a_config_file_that_fails_is_named_with_the_line(
  tmp_path, content, message
):
  path = tmp_path / 'broken.py'
  path.write_text(content)
  with pytest.raises(ValueError, match=message):
    config_path.check(['main', f'--config={path}'])


def test_a_config_file_that_is_no_text_is_named(tmp_path):
  path = tmp_path / 'weights.bin'
  path.write_bytes(b'\xff\xfe\x00\xf4')
  with pytest.raises(
    ValueError, match=r'weights\.bin is no text, but a config'
  ):
    config_path.check(['main', f'--config={path}'])


def test_a_config_file_without_get_config_is_named(tmp_path):
  path = tmp_path / 'empty.py'
  path.write_text('')
  with pytest.raises(ValueError, match='does not define get_config'):
    config_path.check(['main', f'--config={path}'])


@pytest.mark.parametrize(
  'flags, code, message',
  [
    ([f'--config={CONFIG}:tiny', '--config.model.dmi=3'], 2, "'dmi'"),
    (['--config.steps=x', f'--config={CONFIG}:tiny'], 2, "'x'"),
    ([f'--config={CONFIG}:tiny', '--config.model.dim=0'], 2, 'dim=0'),
    ([f'--config={CONFIG}:tiny'], 1, '--workdir is missing'),
    ([f'--config={CONFIG}:tiny', '--data=/no/such/file'], 1, '/no/such/file'),
    ([f'--config={CONFIG}:tiny', '--data='], 1, 'is empty'),
    ([f'--config={CONFIG}:tiny', '--profile=a'], 1, '--profile=a must be'),
    ([f'--config={CONFIG}:tiny', '--wrkdir=x'], 2, 'wrkdir'),
    ([f'--config={CONFIG}:tiny', '--config.model=x'], 2, 'cannot replace'),
  ],
)
def test_the_process_prints_one_paragraph(flags, code, message, tmp_path):
  if 'missing' not in message:
    flags = [*flags, f'--workdir={tmp_path / "run"}']
  result = call(*flags)
  assert result.returncode == code, result.stderr
  assert message in result.stderr
  assert 'Traceback' not in result.stderr
  assert not (tmp_path / 'run').exists()


def test_debug_checks_shapes():
  program = (
    'from experiments import cli; print(cli.check_shapes())\n'
    'from jaxtok.nn import linear\n'
    'linear.matmul("a", "b")'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True
  )
  assert 'checked' in done.stdout
  assert 'TypeCheckError' in done.stderr
