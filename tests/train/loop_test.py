# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from jaxtok import runs, train
from jaxtok.config import configclass
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.runs import compare, metrics
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import (
  checkpoint,
  errors,
  optim,
  restore,
  setup,
  sharding,
  tally,
)

SIGNALS = []  # Sent one by one to this process, by `Interrupt`.


@configclass
class Interrupt:
  """An "eval" during which somebody wants the run to stop."""

  every_steps: int = 3
  split: str = ''

  def make(self, context):
    return lambda model, rng: {
      'sent': [os.kill(os.getpid(), s) for s in SIGNALS[:1]][:0] or 0.0
    }


def rows(workdir):
  """Rows without what depends on the machine's mood."""
  return [
    {k: v for k, v in row.items() if k not in tally.TIMING}
    for row in metrics.read(workdir)
    if row['split'] != 'eval/interrupt'
  ]


def assert_same_parameters(a, b):
  left, right = checkpoint.restore_params(a), checkpoint.restore_params(b)
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope='module')
def finished(make_config, tmp_path_factory):
  """A run of eight steps."""
  workdir = tmp_path_factory.mktemp('runs') / 'finished'
  run = train.run(make_config(log_every=3), workdir, profile=(2, 3))
  assert isinstance(run, runs.Run)
  return workdir


def test_a_run_writes_rows_config_tokenizer_and_a_profile(
  finished, make_config
):
  table = metrics.read(finished)
  steps = {
    split: [row['step'] for row in table if row['split'] == split]
    for split in ('train', 'eval/val')
  }
  assert steps == {'train': [3, 6, 8], 'eval/val': [4, 8]}
  last = [row for row in table if row['split'] == 'train'][-1]
  assert 0.9 * 1024 < last['tokens'] <= 1024  # 8 x 8 x 16, some padding.
  assert 0 < last['bytes'] < last['tokens']  # Boundaries of documents: 0.
  flops = runs.load(finished).meta['flops_per_step']
  assert [r['flops'] for r in table] == [r['step'] * flops for r in table]
  ratio = last['nats'] * last['tokens_per_byte'] / np.log(2)
  assert last['bpb'] == pytest.approx(ratio, rel=1e-5)  # float32 sums.
  for row in table:
    assert row['split'] == 'train' or len(row['corpus']) == 16
  run = runs.load(finished)
  assert run.config == make_config(log_every=3)
  assert run.meta['sessions'][-1]['exit'] == 'finished'
  assert run.tokenizer.vocab_size == 259
  assert list((finished / 'profile').rglob('*.xplane.pb'))


def test_the_same_call_again_reuses_what_is_there(
  finished, make_config, capsys
):
  before = (finished / 'metrics.jsonl').read_bytes()
  run = train.run(make_config(log_every=3), finished)
  assert (finished / 'metrics.jsonl').read_bytes() == before
  assert 'all 8 steps are done' in capsys.readouterr().out
  assert run.workdir.name == 'finished'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_as_if_nothing_had_happened(
  finished, make_config, tmp_path, number, capsys
):
  # Stops after step 4: between two rows, with an eval still to be done.
  config = make_config(
    log_every=3, evals=make_config().evals | {'interrupt': Interrupt()}
  )
  workdir = tmp_path / 'run'
  SIGNALS[:] = [number]
  with pytest.raises(errors.Preempted, match='saved step 4 of 8') as e:
    train.run(config, workdir)
  assert e.value.exit_code == 75
  session = runs.load(workdir).meta['sessions'][-1]
  assert session['exit'].startswith('Preempted: SIG')
  SIGNALS.clear()
  train.run(config, workdir)
  assert 'continues after step 4' in capsys.readouterr().out
  key = lambda row: (row['step'], row['split'])
  assert sorted(rows(workdir), key=key) == sorted(rows(finished), key=key)
  assert_same_parameters(workdir, finished)


def test_a_changed_model_is_refused_with_the_difference(finished, make_config):
  config = make_config(
    model=transformer.Config(dim=32, num_layers=1, num_heads=2)
  )
  with pytest.raises(errors.ConfigChangedError, match=r'model\.dim: 16 -> 32'):
    train.run(config, finished)


def test_another_tokenizer_is_always_refused(finished, make_config):
  config = make_config(tokenizer=byte_tokenizer.Config(map='byt5'))
  with pytest.raises(errors.ConfigChangedError, match='ids other meanings'):
    train.run(config, finished, allow_config_change=True)


def test_fewer_steps_than_were_done_are_refused(finished, make_config):
  before = (finished / 'config.json').read_bytes()
  with pytest.raises(errors.ConfigError, match=r'after 5 steps.*step 8'):
    train.run(make_config(log_every=3, steps=5), finished)
  assert (finished / 'config.json').read_bytes() == before


def test_an_evaluation_leaves_the_run_as_it_was(
  finished, make_config, tmp_path
):
  workdir = tmp_path / 'copy'
  shutil.copytree(finished, workdir)
  config = make_config(log_every=3)
  train.run(config, workdir, eval_only=True)
  assert sorted(map(str, rows(workdir))) == sorted(map(str, rows(finished)))
  config.evals = {'val': bpb.Config(max_bytes=200)}
  train.run(config, workdir, eval_only=True)
  assert len(rows(workdir)) == len(rows(finished)) + 1
  for name in ('config.json', 'meta.json'):
    assert (workdir / name).read_bytes() == (finished / name).read_bytes()
  found = compare.compare([workdir, finished])  # On the text common to both.
  assert found.rows()[0][1:] == found.rows()[1][1:]


def test_without_trained_weights_nothing_is_evaluated(make_config, tmp_path):
  with pytest.raises(errors.ConfigError, match='nothing to evaluate'):
    train.run(make_config(), tmp_path / 'run', eval_only=True)
  assert not (tmp_path / 'run').exists()


def test_a_signal_before_the_first_step_stops_at_once(
  make_config, tmp_path, monkeypatch
):
  begin = restore.begin

  def interrupted(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    return begin(*args)

  monkeypatch.setattr(restore, 'begin', interrupted)
  with pytest.raises(errors.Preempted, match='SIGTERM: stopped before'):
    train.run(make_config(), tmp_path / 'run')
  assert not metrics.read(tmp_path / 'run')


def test_a_signal_during_an_eval_leaves_the_others_for_later(
  finished, make_config, tmp_path
):
  evals = {'interrupt': Interrupt(every_steps=4)} | make_config().evals
  config, workdir = make_config(log_every=3, evals=evals), tmp_path / 'run'
  SIGNALS[:] = [signal.SIGTERM]
  with pytest.raises(errors.Preempted, match='saved step 4 of 8'):
    train.run(config, workdir)
  assert [row['step'] for row in rows(workdir)] == [3]
  SIGNALS.clear()
  train.run(config, workdir)
  assert sorted(map(str, rows(workdir))) == sorted(map(str, rows(finished)))


def test_more_steps_may_be_added(make_config, tmp_path, capsys):
  constant = optim.Config(
    lr=1e-2, warmup_steps=2, schedule=optim.Schedule.CONSTANT
  )
  config = lambda steps: make_config(optim=constant, evals={}, steps=steps)
  train.run(config(3), tmp_path / 'a')
  capsys.readouterr()
  train.run(config(5), tmp_path / 'a')
  assert 'changed     steps: 3 -> 5' in capsys.readouterr().out
  train.run(config(5), tmp_path / 'b')
  steps = [row['step'] for row in rows(tmp_path / 'a')]
  assert steps == [2, 3, 4, 5]
  assert_same_parameters(tmp_path / 'a', tmp_path / 'b')


def test_weights_of_another_run_give_its_evals(finished, make_config, tmp_path):
  workdir = tmp_path / 'other'
  train.run(make_config(), workdir, init_from=f'{finished}@8', eval_only=True)
  (got,) = rows(workdir)
  want = [row for row in rows(finished) if row['split'] == 'eval/val'][-1]
  assert {**got, 'step': 8, 'flops': want['flops']} == want


def test_weights_of_another_shape_are_refused(finished, make_config, tmp_path):
  config = make_config(
    model=transformer.Config(dim=16, num_layers=2, num_heads=2)
  )
  with pytest.raises(errors.ConfigError, match=r'does not fit .*blocks\.1\.'):
    train.run(config, tmp_path / 'other', init_from=str(finished))


def test_a_dry_run_writes_nothing(make_config, tmp_path, capsys):
  workdir = tmp_path / 'run'
  assert train.run(make_config(), workdir, dry_run=True) is None
  assert not workdir.exists()
  lines = capsys.readouterr().out.splitlines()
  words = [line.split()[0] for line in lines if not line.startswith(' ')]
  assert words == [
    'workdir', 'config', 'devices', 'parameters', 'compute', 'batch', 'data',
    'memory',
  ]  # fmt: skip
  text = '\n'.join(lines)
  assert 'model: transformer dim=16 num_layers=1 num_heads=2' in text
  assert 'steps=8 batch_size=8' in text
  assert 'peak expected' in text


def test_a_budget_of_flops_sets_the_number_of_steps(finished, make_config):
  flops = runs.load(finished).meta['flops_per_step']
  job = setup.prepare(make_config(train_flops=3.5 * flops, steps=99), None)
  assert job.steps == 3
  # The schedule ends with the run.
  assert float(job.layout.learning_rate(3)) == pytest.approx(1e-3)
  assert (
    setup.prepare(make_config(train_flops=3.5 * flops, steps=2), None).steps
    == 2
  )
  with pytest.raises(ValueError, match='less than one step costs'):
    setup.prepare(make_config(train_flops=0.5 * flops), None)


def test_nan_stops_the_run_with_step_parameter_and_advice(
  make_config, tmp_path
):
  # Large, but finite: the loss of the second step is not.
  config = make_config(
    optim=optim.Config(lr=1e30, warmup_steps=0, clip_norm=0.0),
    evals={},
    log_every=1,
  )
  with pytest.raises(errors.NonFiniteError, match='--debug_nans') as e:
    train.run(config, tmp_path / 'run')
  assert isinstance(e.value, FloatingPointError)
  assert (e.value.step, e.value.parameter) == (2, 'embed.tokens.table')
  assert [row['step'] for row in rows(tmp_path / 'run')] == [1]
  crash = tmp_path / 'run' / 'crash'
  with np.load(crash / 'batch_00000002.npz') as batch:
    assert batch['tokens_bt'].shape == (8, 16)
  assert json.loads((crash / 'config.json').read_text())['optim']['lr'] == 1e30
  assert (
    runs.load(tmp_path / 'run')
    .meta['sessions'][-1]['exit']
    .startswith('NonFiniteError: Step 2')
  )


def test_an_update_that_breaks_the_parameters_is_not_saved(
  make_config, tmp_path
):
  large = optim.Config(lr=3e38, weight_decay=1e3, warmup_steps=0, clip_norm=0.0)
  config = make_config(optim=large, evals={}, checkpoint_every=1)
  with pytest.raises(errors.NonFiniteError, match='the update of') as e:
    train.run(config, tmp_path / 'run')
  assert e.value.step == 1
  assert not list((tmp_path / 'run' / checkpoint.FOLDER).iterdir())


@pytest.mark.slow  # Without jit each operation is compiled by itself.
def test_debug_runs_the_model_without_jit(make_config, tmp_path, monkeypatch):
  seen = []
  original = transformer.Transformer.__call__

  def spy(self, tokens_bt, **kwargs):
    seen.append(type(tokens_bt).__name__)
    return original(self, tokens_bt, **kwargs)

  monkeypatch.setattr(transformer.Transformer, '__call__', spy)
  config = make_config(evals={}, steps=1)
  train.run(config, tmp_path / 'run', debug=True)
  assert rows(tmp_path / 'run')[-1]['step'] == 1
  assert seen


def test_settings_that_do_not_fit_the_model_are_refused(make_config, tmp_path):
  small = transformer.Config(dim=16, num_layers=1, num_heads=2, vocab_size=99)
  with pytest.raises(errors.ConfigError, match='vocab_size=99 is less than'):
    train.run(make_config(model=small), tmp_path / 'run')
  with pytest.raises(errors.ConfigError, match=r'RUN@STEP, e\.g\.'):
    train.run(make_config(), tmp_path / 'run', init_from='runs/a@last')
  with pytest.raises(errors.ConfigError, match='profile='):
    train.run(make_config(), tmp_path / 'run', profile=(3, 2))
  odd = make_config(batch_size=9, mesh=sharding.Config(data=2))
  with pytest.raises(ValueError, match='Use 10 or set'):
    train.run(odd, tmp_path / 'run')
  assert not metrics.read(tmp_path / 'run')
