# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that fills gaps, against the library that it calls."""

import dataclasses
import io
import sys
import types

import jax
import pytest

from jaxtok import runs, train
from jaxtok.data import fim, text
from jaxtok.decoding import byte_infill, byte_probs, sampling
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.runs import infill
from jaxtok.tokenizers import hf
from jaxtok.train import sharding


def make_run(root, data, name):
  config = train.Config(
    data=data,
    tokenizer=hf.Train(vocab_size=280, new_special_tokens=fim.NAMES),
    model=transformer.Config(dim=16, num_layers=1, num_heads=2, embed_std=1.0),
    objective=next_token.Config(),
    steps=2,
    mesh=sharding.Config(data=1),
    batch_size=4,
  )
  train.run(config, root / name)
  return root / name


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('gaps')
  (root / 'text').mkdir()
  for name in ('train', 'validation', 'test'):
    (root / 'text' / f'{name}.txt').write_bytes(b'import numpy as np\n' * 40)
  return root


@pytest.fixture(scope='module')
def source(root):
  return text.Files(path=str(root / 'text'))


@pytest.fixture(scope='module')
def workdir(root, source):
  data = fim.Config(
    source=source, seq_len=64, piece_bytes=60, rate=1.0, spm='joined'
  )
  return make_run(root, data, 'joined')


def expected(workdir, prefix, suffix, *, temperature=0.0, num=1, **fields):
  run = runs.load(workdir)
  ids = run.tokenizer.special.extra
  config = byte_infill.Config(
    prefix=ids['<PRE>'], suffix=ids['<SUF>'], middle=ids['<MID>'], **fields
  )
  state = byte_infill.start(
    byte_probs.ByteModel(run.model, run.tokenizer),
    [prefix] * num,
    [suffix] * num,
    num_bytes=6,
    config=config,
  )
  return byte_probs.continue_bytes(
    state,
    num_bytes=6,
    rng=jax.random.key(3),
    sampling=sampling.Config(temperature=temperature),
  )


def test_the_command_prints_what_the_library_fills_in(
  workdir, tmp_path, capfdbinary, monkeypatch
):
  args = [f'--workdir={workdir}', '--num_bytes=6', '--seed=3']
  prefix, suffix = b'imp\xff\nnu', b' as np\n'
  (want,) = expected(workdir, prefix, suffix)
  assert want
  flags = ['--prefix=imp\\xff\\nnu', '--suffix= as np\\n', '--raw']
  assert infill.main([*args, *flags]) == 0
  out, error = capfdbinary.readouterr()
  assert out == prefix + want + suffix
  assert b'[spm order, cut: covers]' in error
  assert infill.main([*args, *flags, '--middle']) == 0
  assert capfdbinary.readouterr().out == want
  path = tmp_path / 'a.py'
  path.write_bytes(prefix + b'<HERE>' + suffix)
  gap = ['--gap=<HERE>', '--raw', '--middle']
  assert infill.main([*args, f'--file={path}', *gap]) == 0
  assert capfdbinary.readouterr().out == want
  stdin = types.SimpleNamespace(buffer=io.BytesIO(path.read_bytes()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  assert infill.main([*args, '--file=-', *gap]) == 0
  assert capfdbinary.readouterr().out == want


def test_samples_orders_and_cuts_can_be_chosen(workdir, capsys):
  args = [f'--workdir={workdir}', '--num_bytes=6', '--seed=3', '--prefix=imp']
  options = ['--middle', '--batch=2', '--temperature=1', '--order=psm']
  assert infill.main([*args, *options]) == 0
  # The encoding of a prefix is what PSM rows were trained on.
  want = expected(
    workdir, b'imp', b'', temperature=1.0, num=2, order='psm', cut='tokens'
  )
  out, error = capsys.readouterr()
  assert '[psm order, cut: tokens]' in error
  shown = [infill.display.printable(middle) for middle in want]
  assert out == (
    f'--- sample 1 of 2\n{shown[0]}\n--- sample 2 of 2\n{shown[1]}\n'
  )
  assert infill.main([*args, '--cut=healed']) == 0
  assert '[spm order, cut: healed]' in capsys.readouterr().err


def test_prompts_follow_what_a_run_was_trained_on(workdir):
  def chosen(order=None, cut=None, **fields):
    run = runs.load(workdir)
    run.config.data = dataclasses.replace(run.config.data, **fields)
    config = infill.prompts(run, order, cut)
    return config.order, config.cut

  assert chosen() == ('spm', 'covers')
  assert chosen(spm='apart') == ('spm', 'tokens')
  assert chosen(spm_rate=0.0) == ('psm', 'tokens')
  assert chosen('psm', 'covers') == ('psm', 'covers')
  with pytest.raises(
    ValueError, match=r'order=psm is none that .* was trained'
  ):
    chosen('psm', spm_rate=1.0)
  with pytest.raises(ValueError, match='was not trained on text with gaps'):
    chosen(rate=0.0)


@pytest.mark.parametrize(
  'args, message',
  [
    (['--prefix=a', '--workdir=nowhere'], 'nowhere is not a run directory'),
    ([], 'there is no text. Give --prefix'),
    (['--suffix=a\\x'], "--suffix='a\\\\x' has a broken escape"),
    (['--prefix=a', '--file=b'], 'choose one'),
    (['--file=missing'], '--file=missing cannot be read: No such file'),
    (['--file=TWICE'], "--gap='<FILL_ME>' occurs 2 times in the"),
    (['--file=TWICE', '--gap='], "--gap='' occurs 0 times in"),
    (['--prefix=a', '--temperature=-1'], 'temperature=-1.0 must be'),
    (['--prefix=a', '--num_bytes=0'], '--num_bytes=0 must be'),
    (['--prefix=a', '--batch=0'], '--batch=0 must be'),
    (['--prefix=a', '--batch=2'], 'samples would be the same'),
    (['--prefix=a', '--batch=2', '--raw'], '--raw writes one text'),
  ],
)
def test_mistakes_get_one_line_and_exit_code_1(
  workdir, tmp_path, capsys, args, message
):
  path = tmp_path / 'twice'
  path.write_text('a<FILL_ME>b<FILL_ME>')
  args = [arg.replace('TWICE', str(path)) for arg in args]
  fixed = [f'--workdir={workdir}', '--num_bytes=6']
  assert infill.main([*fixed, *args]) == 1
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert message in error


def test_a_run_without_gaps_is_refused(root, source, capsys):
  plain = make_run(root, text.Config(source=source, seq_len=32), 'plain')
  assert infill.main([f'--workdir={plain}', '--prefix=a']) == 1
  error = capsys.readouterr().err
  assert 'was not trained on text with gaps' in error
  assert f'jaxtok.runs.generate --workdir={plain}' in error


def test_help_says_how_the_prompt_is_made(capsys):
  with pytest.raises(SystemExit) as ended:
    infill.main(['--help'])
  assert ended.value.code == 0
  assert 'the sum over all covers' in capsys.readouterr().out
