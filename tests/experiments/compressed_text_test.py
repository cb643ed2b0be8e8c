# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The suite of compressed text: settings, costs, resume, and its table."""

import types

import numpy as np
import pytest
from flax import nnx

from experiments.compressed_text import (
  export,
  m2,
  methods,
  outcome,
  round_trip,
  suite,
)
from jaxtok.data import text
from jaxtok.entropy import integer_model
from jaxtok.models import int_byte_lm


def test_settings_keep_their_types_and_are_checked():
  assert m2.parse('tiny') == ('tiny', {})
  size, its = m2.parse('small,b=64,rule=delay', b=16, rule='cell', v=8)
  assert (size, its) == ('small', {'b': 64, 'rule': 'delay', 'v': 8})
  with pytest.raises(ValueError, match=r"'w=2' does not exist.*: b, v"):
    m2.parse('tiny,w=2', b=16, v=8)
  with pytest.raises(ValueError, match="'b=x' must be a whole number"):
    m2.parse('tiny,b=x', b=16)


@pytest.mark.parametrize('method', methods.METHODS)
def test_methods_of_a_size_differ_in_nothing_but_tokens(method):
  for size in ('tiny', '25m'):
    want = methods.get_config('bytes', size)
    got = methods.get_config(method, size)
    same = ('dim', 'num_layers', 'num_heads', 'activation', 'position')
    for name in same:
      assert getattr(got.model, name) == getattr(want.model, name)
    assert (got.steps, got.batch_size) == (want.steps, want.batch_size)
    halves = 2 if method.endswith('half') else 1
    assert got.data.seq_len * halves == want.data.seq_len
  window_bits = getattr(got.tokenizer, 'window_bits', 16)
  token_bits = getattr(got.tokenizer, 'token_bits', window_bits)
  assert got.objective.places == window_bits // token_bits


def test_the_paper_s_models_have_the_paper_s_weights():
  for size, want in (('25m', 25e6), ('113m', 113e6), ('403m', 403e6)):
    model = methods.get_config('bytes', size).model
    # Attention has 4 matrices, the MLP 2 of four times the width.
    weights = model.num_layers * model.dim**2 * (4 + 2 * 4)
    assert abs(weights / want - 1) < 0.30


def test_costs_are_those_of_the_paper():
  # 25m on windows of 16 bits: 2 x 25 M / 5.31 + 6 M = 15.42 M per byte.
  got = methods.paper_flops_per_byte(25e6, 5.31, 6e6)
  assert got == pytest.approx(15.42e6, rel=1e-3)
  assert methods.paper_flops_per_byte(25e6, 1, 0) == 50e6


def test_m1_costs_two_per_weight_and_nothing_without_a_network():
  net = integer_model.IntByteLM(
    embed_vd=np.zeros((258, 4)),
    mix_led=np.zeros((3, 8, 4)),
    bias_ld=np.zeros((3, 4)),
    out_ldd=np.zeros((3, 4, 4)),
    head_dv=np.zeros((4, 257)),
    head_bias_v=np.zeros(257),
    shifts_l2=np.zeros((3, 2)),
    head_shift=np.zeros(()),
  )
  cost = methods.m1_flops_per_byte(types.SimpleNamespace(model=net))
  assert cost == 2 * (3 * 8 * 4 + 3 * 4 * 4 + 4 * 257)
  assert methods.m1_flops_per_byte(types.SimpleNamespace(model=None)) == 0
  assert methods.m1_flops_per_byte(types.SimpleNamespace()) == 0


def test_runs_of_other_lengths_have_as_many_evals():
  config = methods.get_config('bytes', 'tiny')
  m2.set_steps(config, 120)
  assert (config.steps, config.evals['val'].every_steps) == (120, 30)
  assert config.optim.warmup_steps == 6


def test_round_trips_of_mixed_data_go_on_where_they_stopped(
  tmp_path, monkeypatch, capsys
):
  data = tmp_path / 'data'
  data.mkdir()
  (data / 'a.txt').write_bytes(b'some text. ' * 1000)
  monkeypatch.setenv('JAXTOK_DATA', str(data))
  monkeypatch.setitem(round_trip._BATCH_BYTES, True, 20_000)
  monkeypatch.setitem(round_trip._TEXT_BYTES, True, 5_000)
  monkeypatch.setattr(round_trip, 'wrong_words', lambda tokenizer: 0)
  args = ['--num_bytes=60000', '--close_rule=delay', f'--workdir={tmp_path}/a']
  check, calls = round_trip._check, []

  def stop(*args):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return check(*args)

  monkeypatch.setattr(round_trip, '_check', stop)
  with pytest.raises(KeyboardInterrupt):
    round_trip.main(args)
  assert round_trip.main(args) == 0
  first = capsys.readouterr().out
  assert 'bytes                     60000' in first
  assert 'errors                    0' in first
  assert round_trip.main([*args[:2], f'--workdir={tmp_path}/b']) == 0
  digest = [x for x in first.splitlines() if x.startswith('ids SHA-256')]
  assert digest[0] in capsys.readouterr().out
  with pytest.raises(SystemExit, match='another task'):
    round_trip.main(['--num_bytes=50000', *args[1:]])
  with pytest.raises(SystemExit, match='num_bytes=0'):
    round_trip.main(['--num_bytes=0', *args[1:]])
  monkeypatch.setenv('JAXTOK_DATA', str(tmp_path / 'none'))
  with pytest.raises(SystemExit, match='JAXTOK_DATA='):
    round_trip.main([*args[:2], f'--workdir={tmp_path}/c'])


def test_integers_are_compared_with_models_on_and_off_their_grid(monkeypatch):
  monkeypatch.setattr(export, '_PIECE', 32)
  monkeypatch.setattr(export, '_ROWS', 2)
  make = lambda **its: int_byte_lm.Config(dim=8, num_layers=2, **its).make(
    nnx.Rngs(0)
  )
  twin, unrounded = make(), make(is_quantized=False)
  text = np.random.default_rng(0).bytes(64)
  twins = {'on the grid': twin, 'unrounded': unrounded, 'missing': None}
  found = export.compare(twins, twin.export(), text)
  integers, grid = (
    found[x] for x in ('bits per byte, integers', '... on the grid')
  )
  # Apart from frequencies being whole, of which 257 of 65,536 are minimums.
  assert integers == pytest.approx(grid, abs=0.02)
  assert found['... unrounded'] != grid
  percent = float(found['integers / on the grid'].split()[0])
  assert percent == pytest.approx(100 * (integers / grid - 1), abs=1e-3)
  assert not any('missing' in name for name in found)


@pytest.fixture
def short(monkeypatch, tmp_path):
  """Flags of a suite of runs that take seconds."""
  monkeypatch.setenv('JAXTOK_CACHE', str(tmp_path / 'cache'))

  def make(name):
    config = methods.get_config(name, 'tiny')
    config.data.source = text.Stdlib(max_bytes=60_000)
    config.model.dim, config.batch_size, config.mesh.data = 16, 2, 1
    config.evals['val'].max_bytes = 2_000
    if hasattr(config.tokenizer, 'order'):
      config.tokenizer.order = 1
    m2.set_steps(config, 4)
    return config

  monkeypatch.setattr(suite, 'make_config', make)
  return tmp_path / 'runs'


@pytest.mark.slow
def test_a_suite_ends_with_a_table_and_is_not_trained_twice(short, monkeypatch):
  names = ['bytes', 'equalinfo_b16_v256']
  found = suite.train_all(short, names, [0], ['tokens', 'flops'])
  # Models of 256 values cost the same per token: the runs serve twice.
  assert sorted(path.name for path in short.iterdir()) == ['tokens']
  result = outcome.Outcome(found)
  rows = {row[0]: row for row in result.rows()}
  run = found['tokens']['bytes'][0]
  bpb = run.metrics('eval/val')[-1]['bpb']
  assert rows['bytes'][5] == rows['bytes'][6] == f'{bpb:.3f}'
  assert rows['bytes'][1:3] == ['1.00', '8.000']
  weights = sum(
    x
    for x in [2 * 16 * 16 * (4 + 2 * 4)]  # Two layers; norms come on top.
  )
  assert float(rows['bytes'][-1]) == pytest.approx(2 * weights, rel=0.03)
  for path in result.save(short):
    assert path.stat().st_size > 500

  def fail(*args, **kwargs):
    raise AssertionError('trained again')

  monkeypatch.setattr(suite.train, 'run', fail)
  again = suite.train_all(short, names, [0], ['tokens', 'flops'])
  assert again['tokens']['bytes'][0].workdir == run.workdir


def test_unknown_methods_and_matches_are_refused(tmp_path):
  with pytest.raises(ValueError, match="method 'gzpi' does not exist"):
    methods.get_config('gzpi', 'tiny')
  with pytest.raises(ValueError, match='must be tokens, flops or both'):
    suite.train_all(tmp_path, [], [], ['bytes'])
