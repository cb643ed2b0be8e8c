# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from experiments.byte_lm.configs import blt, byt5, hnet, mrt5, spacebyte
from experiments.byte_lm.configs import transformer as transformer_config
from jaxtok import config as config_lib
from jaxtok import runs, train
from jaxtok.data import text
from jaxtok.diffusion import mdlm
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.runs import files, generate
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import sharding


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  root = tmp_path_factory.mktemp('trained')
  for name in ('train', 'validation', 'test'):
    (root / 'text').mkdir(exist_ok=True)
    (root / 'text' / f'{name}.txt').write_bytes(b'abcdefgh' * 200)
  config = train.Config(
    data=text.Config(source=text.Files(path=str(root / 'text')), seq_len=16),
    tokenizer=byte_tokenizer.Config(),
    model=transformer.Config(dim=16, num_layers=1, num_heads=2),
    objective=next_token.Config(),
    steps=2,
    mesh=sharding.Config(data=1),
    batch_size=4,
  )
  train.run(config, root / 'run')
  return root / 'run'


def test_a_run_gives_its_model_and_continues_any_bytes(workdir):
  run = runs.load(workdir)
  text = run.generate(b'ab\xff', num_bytes=8, seed=3)
  assert isinstance(text, bytes)
  assert 0 < len(text) <= 8
  assert run.generate(b'ab\xff', num_bytes=8, seed=3) == text
  assert str(text).startswith('ab\\xff')
  assert '<b>ab\\xff</b>' in text._repr_html_()


def test_the_command_prints_what_generate_returns(workdir, capfdbinary):
  run = runs.load(workdir)
  want = run.generate(b'ab\xff', num_bytes=8, seed=3)
  args = [f'--workdir={workdir}', '--num_bytes=8', '--seed=3']
  assert generate.main([*args, '--prompt=ab\\xff', '--raw']) == 0
  assert capfdbinary.readouterr().out == b'ab\xff' + want
  assert generate.main([*args, '--prompt=ab\\xff']) == 0
  assert capfdbinary.readouterr().out.decode() == f'{want}\n'
  prompt = workdir / 'prompt.bin'
  prompt.write_bytes(b'ab\xff')
  assert generate.main([*args, f'--prompt_file={prompt}', '--batch=2']) == 0
  out = capfdbinary.readouterr().out.decode()
  assert out.startswith(f'--- sample 1 of 2\n{want}\n--- sample 2 of 2\n')


@pytest.mark.parametrize(
  'args, message',
  [
    (['--workdir=nowhere'], 'nowhere is not a run directory'),
    (['--prompt=a\\x'], 'broken escape'),
    (['--prompt=a', '--prompt_file=b'], 'both given'),
    (['--prompt_file=missing'], 'missing'),
    (['--temperature=-1'], 'temperature=-1.0 must be'),
    (['--num_bytes=0'], 'num_bytes=0 must be'),
    (['--batch=0'], '--batch=0 must be'),
  ],
)
def test_mistakes_get_one_line_and_exit_code_1(workdir, capsys, args, message):
  assert generate.main([f'--workdir={workdir}', *args]) == 1
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert message in error
  assert 'Traceback' not in error


def test_a_text_longer_than_the_training_rows_is_said(workdir, capsys):
  args = [f'--workdir={workdir}', '--prompt=abcdefgh', '--num_bytes=9']
  assert generate.main(args) == 0
  assert 'rows of 16 tokens; this text may reach 17' in capsys.readouterr().err


def test_other_backslashes_of_prompts_stand_for_themselves():
  assert generate.parse_prompt(r'\d+\q\0\x41') == b'\\d+\\q\0A'


def test_prompts_may_hold_escapes():
  assert generate.parse_prompt('a\\xff\\n\\\\é') == b'a\xff\n\\\xc3\xa9'


def test_a_model_that_fills_in_masks_continues_nothing(
  workdir, monkeypatch, capsys
):
  objective = mdlm.Config(mask_id=257)
  config = dataclasses.replace(runs.load(workdir).config, objective=objective)
  monkeypatch.setattr(type(runs.load(workdir)), 'config', config)
  with pytest.raises(ValueError, match='does not continue a text'):
    runs.load(workdir).generate(b'ab')
  assert generate.main([f'--workdir={workdir}', '--prompt=ab']) == 1
  assert 'experiments.diffusion_lm.sample' in capsys.readouterr().err


@pytest.mark.parametrize('module', [transformer_config, spacebyte, hnet, blt])
def test_models_that_write_from_left_to_right_are_accepted(module, tmp_path):
  files.write_json(
    tmp_path / 'config.json', config_lib.to_dict(module.get_config('tiny'))
  )
  runs.load(tmp_path).check_continues()


@pytest.mark.parametrize('module', [byt5, mrt5])
def test_encoder_decoders_are_sent_to_what_they_can_do(module, tmp_path):
  files.write_json(
    tmp_path / 'config.json', config_lib.to_dict(module.get_config('tiny'))
  )
  with pytest.raises(ValueError, match='holds an encoder-decoder'):
    runs.load(tmp_path).check_continues()
