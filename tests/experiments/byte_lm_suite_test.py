# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The suite of token-free models: every stage, resume, and its table."""

import dataclasses
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import cli, finished
from experiments.byte_lm import entropy_patches, models, outcome, suite
from experiments.byte_lm import plan as plan_lib
from experiments.byte_lm.configs import mrt5, spacebyte, transformer
from jaxtok import runs
from jaxtok.data import noise, text
from jaxtok.models import base as model_base
from jaxtok.models import word_pooled
from jaxtok.nn import segmenters
from jaxtok.train import errors

_ENGLISH = b'The boats of the village went out before it was light. ' * 120
_GERMAN = b'Die Boote des Dorfes fuhren hinaus, ehe es hell war. ' * 120


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Collectives of eight devices on two cores may wait for ever."""

  def alone(get_config):
    def get(size):
      config = get_config(size)
      config.mesh.data = 1
      return config

    return get

  entropy = types.SimpleNamespace(
    PATCHER_SHARE=entropy_patches.PATCHER_SHARE,
    get_config=alone(entropy_patches.get_config),
    patcher_config=alone(entropy_patches.patcher_config),
    add_patcher=entropy_patches.add_patcher,
  )
  found = {
    'bytes': types.SimpleNamespace(get_config=alone(transformer.get_config)),
    'blt_entropy': entropy,
    'mrt5_convolution': types.SimpleNamespace(
      get_config=alone(models.find_spans()['mrt5_convolution'].get_config)
    ),
  }
  monkeypatch.setattr(suite, 'MODELS', found)


@pytest.fixture
def plan(tmp_path):
  paths = []
  for name, data in (('en.txt', _ENGLISH), ('de.txt', _GERMAN)):
    paths.append(tmp_path / name)
    paths[-1].write_bytes(data)
  first, second = (text.Files(path=str(path)) for path in paths)
  # A step of the tiny byte model costs 9e8 FLOPs.
  return plan_lib.Plan(
    size='tiny', budget=4e9, first=first, second=second, max_bytes=300
  )


def test_positions_are_those_of_the_innermost_trunk():
  row = {'tokens_per_byte': 1.0}
  fake = lambda model=None, **more: types.SimpleNamespace(
    metrics=lambda name: [row | more], model=model
  )
  measure = suite.measures.bytes_per_position
  assert measure(fake()) == 1
  assert measure(fake(units_per_token=0.25)) == 4
  stages = dict(units_per_token=0.25, units_per_token_2=0.125)
  assert measure(fake(**stages)) == 8
  assert (
    word_pooled.WordPooled.positions_per_unit.fget(
      types.SimpleNamespace(config=word_pooled.Config(num_vectors=4))
    )
    == 4
  )
  four = types.SimpleNamespace(positions_per_unit=4)
  assert measure(fake(four, units_per_token=0.25)) == 1


def test_a_model_is_measured_once(plan, tmp_path, monkeypatch, capsys):
  rows = suite.measure_all(tmp_path / 'runs', plan, ['bytes'], [0])
  result = outcome.Outcome(rows, plan.facts)
  paths = result.save(tmp_path / 'out')
  assert [path.name for path in paths] == [
    *('suite.md', 'suite.json', 'suite.svg', 'suite.png')
  ]
  record = json.loads(paths[1].read_text())
  assert record['plan'] == plan.facts
  (row,) = record['rows']
  written = row['found']
  adapted, facts = written['adapted'], written['model']
  trained = rows[0].run.metrics('train')[-1]
  # The backward pass costs two forward passes.
  assert facts['flops_per_byte'] == trained['flops'] / 3 / trained['bytes']
  # All positions are units.
  assert facts['flops_per_byte_used'] == facts['flops_per_byte']
  assert row['seconds'] > trained['seconds']
  assert facts['bytes_per_position'] == pytest.approx(1, rel=0.1)
  assert trained['flops'] <= plan.budget
  assert result.scores.value('bytes', 'noise', 'case')[0] == pytest.approx(
    written['noise']['case'] - facts['bpb']
  )
  assert 'bytes' in str(result)
  # The numbers are those of the right model on the right text.
  run = rows[0].run
  after = runs.load(run.workdir / 'adapted')
  judge = suite.measures.Judge(run, plan.max_bytes)
  assert judge(run.model, plan.first) == pytest.approx(facts['bpb'])
  for kind in suite.NOISE:
    noisy = noise.Noisy(source=plan.first, kind=kind, rate=0.1)
    assert judge(run.model, noisy) == written['noise'][kind]
  assert judge(run.model, plan.second) == adapted['second_before']
  assert judge(after.model, plan.second) == adapted['second_after']
  assert judge(after.model, plan.first) == adapted['first_after']
  assert len({*adapted.values(), facts['bpb']}) == 4
  monkeypatch.setattr(finished.train, 'run', _never)
  monkeypatch.setattr(suite.measures, 'bytes_per_second', _never)
  again = suite.measure_all(tmp_path / 'runs', plan, ['bytes'], [0])
  assert again[0].found == rows[0].found
  assert 'is finished' in capsys.readouterr().out
  _check_refusals(tmp_path, plan)


def _check_refusals(tmp_path, plan):
  """Of whatever the numbers in tmp_path / 'runs' are not of."""
  swapped = dict(first=plan.second, second=plan.first)
  other = tmp_path / 'other.txt'
  other.write_bytes(_GERMAN[::-1])
  for changes, message in (
    (swapped, r'--data, source\.path: .*en\.txt -> .*de\.txt'),
    (
      dict(second=text.Files(path=str(other))),
      r'--second, contents of train: ',
    ),
    (dict(max_bytes=400), r'--max_bytes: 300 -> 400\nUndo the change, use an'),
    (dict(budget=5e9), r'--budget: 4000000000\.0 -> 5000000000\.0'),
    (dict(size='small'), '--size: tiny -> small'),
  ):
    changed = dataclasses.replace(plan, **changes)
    with pytest.raises(errors.ConfigChangedError, match=message):
      suite.measure_all(tmp_path / 'runs', changed, ['bytes'], [0])
  gone = dataclasses.replace(plan, second=text.Files(path='none.txt'))
  with pytest.raises(ValueError, match=r'--second: none\.txt does not exist'):
    suite.measure_all(tmp_path / 'runs', gone, ['bytes'], [0])
  # Without a second language the numbers of the one before are left out.
  first = dataclasses.replace(plan, second=None)
  (row,) = suite.measure_all(tmp_path / 'runs', first, ['bytes'], [0])
  assert set(row.found) == {'model', 'noise', 'speed'}
  with open(plan.first.path, 'ab') as file:
    file.write(b'One more sentence. ')
  edited = dataclasses.replace(plan)
  with pytest.raises(errors.ConfigChangedError, match='--data, contents of'):
    suite.measure_all(tmp_path / 'runs', edited, ['bytes'], [0])


def test_encoder_decoders_are_measured_by_what_they_keep(plan, tmp_path):
  # Bits per byte are of spans; a step of the tiny model costs 1.4e9 FLOPs.
  plan = dataclasses.replace(plan, second=None)
  rows = suite.measure_all(tmp_path / 'runs', plan, ['mrt5_convolution'], [0])
  found = rows[0].found
  assert set(found) == {'model', 'noise'}
  facts = found['model']
  # One of four positions, and the last group of each row is not full.
  assert facts['kept'] == pytest.approx(0.25, abs=0.01)
  assert facts['flops_per_byte_used'] <= facts['flops_per_byte']
  run = rows[0].run
  trained = run.metrics('train')[-1]
  assert facts['flops_per_byte'] == trained['flops'] / 3 / trained['bytes']
  shape = run.config.data.lengths
  used = run.model.flops(
    model_base.Shape(b=run.config.batch_size, t=shape.target, s=shape.source),
    kept=facts['kept'],
  )
  assert facts['flops_per_byte_used'] == pytest.approx(
    trained['step'] * sum(used.values()) / trained['bytes']
  )
  result = outcome.Outcome(rows, plan.facts)
  table = result.scores.markdown()
  assert '| kept |' in table
  assert 'bytes/s' not in table
  assert 'spans' in table


def test_deletion_begins_after_a_third_of_any_run():
  for budget in (3e10, 1e12):
    config = suite.within(mrt5.get_config('tiny'), budget)
    delay = config.model.shortener.rate.delay
    assert delay == pytest.approx(config.steps / 3, abs=1 + config.steps / 100)
  assert suite.within(mrt5.get_config('tiny_control'), 3e10).steps > 0


def test_models_of_both_sorts_are_not_compared(plan, tmp_path):
  with pytest.raises(
    ValueError, match='mrt5_convolution,bytes has encoder-dec'
  ):
    suite.measure_all(tmp_path, plan, ['mrt5_convolution', 'bytes'], [0])
  assert suite._names(['spans']) == list(models.find_spans())
  assert suite._names(['bytes']) == ['bytes']


def test_the_suite_has_the_decoders_and_nothing_twice():
  found = list(models.find())
  assert found[:4] == ['bytes', 'bpe', 'blt', 'blt_entropy']
  assert found[4:] == sorted(found[4:])
  others = {'hat', 'hat2', 'hnet', 'lexinvariant', 'spacebyte', 'word_pooled'}
  assert others <= set(found)
  left_out = {'byt5', 'mrt5', 'mrt5_edits'}  # Encoder-decoders.
  left_out |= {'byte_infill'}  # Text with gaps.
  alike = {'transformer', 'byte_probs'}  # Models of bytes and bpe.
  assert not (left_out | alike) & set(found)


def test_the_suite_finds_a_config_that_is_new(tmp_path, monkeypatch):
  source = pathlib.Path(spacebyte.__file__).read_text()
  (tmp_path / 'new_model.py').write_text(source.replace('128, 2', '64, 2'))
  monkeypatch.setattr(models.configs, '__path__', [str(tmp_path)])
  found = models.find.__wrapped__()  # Without the cache.
  assert list(found) == ['bytes', 'bpe', 'blt_entropy', 'new_model']
  assert found['new_model'].get_config('tiny').model.dim == 64


@pytest.mark.parametrize('name', models.find() | models.find_spans())
def test_models_of_the_suite_have_its_default_size(name):
  found = models.find() | models.find_spans()
  assert found[name].get_config('quickstart').train_flops > 0


@pytest.mark.slow
def test_a_patcher_is_trained_with_a_part_of_the_budget(
  plan, tmp_path, monkeypatch
):
  # A step costs 2e9 FLOPs, one of its language model 0.9e9.
  plan = dataclasses.replace(plan, second=None, budget=8e9)
  run, numbers = suite._train(tmp_path / 'run', plan, 'blt_entropy', 0)
  its = runs.load(tmp_path / 'run' / 'patcher')
  spent = [r.metrics('train')[-1]['flops'] for r in (its, run)]
  assert numbers['patcher']['flops'] == spent[0] <= plan.budget / 4
  assert plan.budget / 2 < spent[1] <= plan.budget * 3 / 4
  # The BLT holds that model, and cuts where it is as unsure as asked for.
  leaves = lambda model: jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))
  for a, b in zip(
    leaves(run.model.patcher.model), leaves(its.model), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  limit = run.config.model.patcher.rule.threshold
  assert limit == numbers['patcher']['threshold']
  rows = run.config.data.make(run.tokenizer).rows('train')
  tokens = jnp.asarray(rows.batch(np.arange(len(rows) - 1))['tokens_bt'])
  high = np.asarray(segmenters.entropies(its.model, tokens))[:, 16:] > limit
  # It was found on 64 rows, in which some of these 46 stand twice.
  assert 1 / high.mean() == pytest.approx(entropy_patches.LENGTH, rel=0.05)
  noise_bpb = dict.fromkeys(suite.NOISE, 9.0)
  found = numbers | {'model': suite._facts(run), 'noise': noise_bpb}
  result = outcome.Outcome(
    [outcome.Row('blt_entropy', 0, found, 1.0, run)], plan.facts
  )
  assert 'FLOPs have trained the language model' in result.scores.markdown()
  (line,) = result.picture().figure.axes[0].lines
  assert line.get_xdata()[-1] == pytest.approx(sum(spent))
  monkeypatch.setattr(finished.train, 'run', _never)
  monkeypatch.setattr(entropy_patches, 'threshold', _never)
  again, same = suite._train(tmp_path / 'run', plan, 'blt_entropy', 0)
  assert (again.workdir, same) == (run.workdir, numbers)


def test_a_budget_must_pay_for_a_step_of_the_patcher(plan, tmp_path):
  plan = dataclasses.replace(plan, second=None, budget=2e9)
  with pytest.raises(ValueError, match=r'blt_entropy: .* than one step costs'):
    suite.measure_all(tmp_path / 'poor', plan, ['blt_entropy'], [0])
  assert not (tmp_path / 'poor').exists()


def test_a_second_language_can_come_later(plan, tmp_path):
  path = tmp_path / 'suite.json'
  first = dataclasses.replace(plan, second=None)
  stored = first.open(path)
  path.write_text(json.dumps(stored | {'speed': {'x': 1}}))
  assert plan.open(path) == {'plan': plan.facts, 'speed': {'x': 1}}
  path.write_text(json.dumps(plan.open(path)))
  assert first.open(path)['plan'] == plan.facts  # It is not forgotten.
  path.write_text('{"speed": {"x": 1}}')
  with pytest.raises(errors.ConfigChangedError, match='does not say which'):
    plan.open(path)


def _never(*args, **kwargs):
  raise AssertionError('was done already')


def test_unknown_models_and_missing_texts_are_named(
  plan, tmp_path, monkeypatch
):
  with pytest.raises(ValueError, match=r"model 'byts' does not exist.*bytes"):
    suite.measure_all(tmp_path, plan, ['byts'], [0])
  poor = dataclasses.replace(plan, budget=1e9)
  with pytest.raises(ValueError, match=r'pays for 1 steps of bytes; .* for 4'):
    suite.measure_all(tmp_path / 'poor', poor, ['bytes'], [0])
  assert not (tmp_path / 'poor').exists()
  monkeypatch.setenv('JAXTOK_DATA', str(tmp_path / 'none'))
  with pytest.raises(ValueError, match=r'--data is not given.*Give --data'):
    suite._default('data', 'english_text/novels_en.zip')


def test_seeds_are_whole_numbers():
  assert cli.whole_numbers('seeds', ['0', '12']) == [0, 12]
  for words in (['a'], ['0', '-1'], []):
    with pytest.raises(ValueError, match=r'--seeds=.* must be whole numbers'):
      cli.whole_numbers('seeds', words)


def test_a_model_far_from_the_others_does_not_hide_them(monkeypatch):
  ends = {'bytes': 2.8, 'bpe': 2.4, 'far': 7.4}
  points = lambda self, name: (np.array([1.0, 4.0]), np.array([4, ends[name]]))
  monkeypatch.setattr(outcome.Outcome, '_curve', points)
  monkeypatch.setattr(outcome.compare, 'compare', lambda *args, **kwargs: None)
  stages = {'model': {'bpb': 3.0}, 'noise': dict.fromkeys(suite.NOISE, 3.5)}
  rows = [outcome.Row(name, 0, stages, 1.0, None) for name in ends]
  axes = outcome.Outcome(rows, {}).picture().figure.axes[0]
  low, high = axes.get_ylim()
  assert 2.3 < low < 2.4 < 4 < high < 4.1
  labels = [line.get_label() for line in axes.lines]
  assert labels == ['bytes', 'bpe', 'far (ends at 7.4)']


def test_each_panel_shows_the_numbers_of_its_axis(monkeypatch):
  points = lambda self, name: (np.array([1.0, 4.0]), np.array([4, 3]))
  monkeypatch.setattr(outcome.Outcome, '_curve', points)
  monkeypatch.setattr(outcome.compare, 'compare', lambda *args, **kwargs: None)
  languages = ('second_before', 'second_after', 'first_after')
  stages = {
    'model': {'bpb': 3.0},
    'noise': dict.fromkeys(suite.NOISE, 3.5),
    'adapted': dict.fromkeys(languages, 4.0),
  }
  rows = [outcome.Row('bytes', 0, stages, 1.0, None)]
  _, noise_axis, axis = outcome.Outcome(rows, {}).picture().figure.axes
  labels = lambda axis: [bars.get_label() for bars in axis.containers]
  assert labels(noise_axis) == ['+ case', '+ typos', '+ spaces']
  assert labels(axis) == ['1st before', '2nd before', '2nd after', '1st after']
