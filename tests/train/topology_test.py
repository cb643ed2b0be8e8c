# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import importlib.util

import pytest

from jaxtok.train import errors, sharding, topology


@pytest.mark.parametrize(
  'name, want',
  [
    ('v5e:16x16', ('v5e', '16x16')),
    ('v6e', ('v6e', '2x2')),
    ('tpu7x:2x2x1', ('tpu7x', '2x2x1')),
    ('h200', ('h200', '')),
  ],
)
def test_names_of_topologies_are_split(name, want):
  assert topology.parse(name) == want


@pytest.mark.parametrize('name', ['v9', 'v5e:', 'v5e:4by4', 'h200:2x2', ''])
def test_unknown_names_are_answered_with_known_ones(name):
  with pytest.raises(errors.ConfigError, match=r'v5e:16x16.*chips: v4, v5e'):
    topology.parse(name)


@pytest.mark.parametrize(
  'name, advice',
  [('v5e', 'pip install libtpu'), ('h200', r"pip install 'jax\[cuda13\]'")],
)
def test_a_missing_compiler_is_named(name, advice, make_config, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.ConfigError, match=advice):
    topology.report(make_config(), name)


HLO = """
  %all-gather.1 = bf16[4,64,1024]{1,2,0:T(8,128)(2,1)} all-gather(%p), channel_id=78
  %all-gather.2 = bf16[4,64,1024]{1,2,0} all-gather(%q), channel_id=78
  %ar = (f32[10]{0}, s32[2,3]{1,0}) all-reduce(%a, %b), channel_id=2, to_apply=%sum
  %ags = (f32[8]{0}, f32[32]{0}) all-gather-start(%c), channel_id=3
  %agd = f32[32]{0} all-gather-done(%ags)
  %rs = f8e4m3fn[16]{0} reduce-scatter(%d), channel_id=4
  %sum = f32[] add(%all-reduce.1, %x)
"""  # noqa: E501


def test_collectives_are_counted_once_with_the_bytes_of_their_results():
  assert topology.collectives(HLO) == {
    'all-gather': {'count': 2, 'bytes': 4 * 64 * 1024 * 2 + 32 * 4},
    'all-reduce': {'count': 1, 'bytes': 10 * 4 + 6 * 4},
    'reduce-scatter': {'count': 1, 'bytes': 16},
  }


def test_operations_without_an_estimate_do_not_make_time_negative():
  found = {
    'flops': 197e12, 'model_flops': 0.0, 'devices': 1, 'bytes_accessed': 0.0,
    'seconds': -60.5,
  }  # fmt: skip
  chip = topology.CHIPS['v5e']
  assert topology._seconds(found, chip, 1) == (1.5, 62)
  assert topology._seconds({**found, 'seconds': 2.0}, chip, 1) == (2.0, 0)
  assert topology._seconds({**found, 'seconds': None}, chip, 1) == (1.0, 0)


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='libtpu is not installed (pip install libtpu)',
)
def test_a_sharded_step_compiles_for_a_tpu_that_is_not_there(make_config):
  config = make_config(
    batch_size=8, mesh=sharding.Config(data=2, model=2), evals={}
  )
  lines = topology.report(config, 'v5e:2x2').splitlines()
  facts = dict(line.split(maxsplit=1) for line in lines if line[0] != ' ')
  assert facts['topology'] == 'v5e:2x2: 4 x TPU v5 lite, mesh data=2 model=2'
  assert 'per device' in facts['memory']
  assert '% of 17.2 GB' in facts['memory']
  assert 'FLOPs per device and step' in facts['compute']
  assert 's per step' in facts['time']
  assert any('all-reduce' in line for line in lines)
