# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import importlib.util

import jax
import pytest
from jaxtok_kernels import dispatch

from jaxtok.train import chips, errors, sharding, step, topology


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
  assert chips.parse(name) == want


@pytest.mark.parametrize('name', ['v9', 'v5e:', 'v5e:4by4', 'h200:2x2', ''])
def test_unknown_names_are_answered_with_known_ones(name):
  with pytest.raises(errors.ConfigError, match=r'v5e:16x16.*chips: v4, v5e'):
    chips.parse(name)


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
    'all-gather': {
      'count': 2,
      'bytes': 4 * 64 * 1024 * 2 + 32 * 4,
      'largest': 4 * 64 * 1024 * 2,
    },
    'all-reduce': {'count': 1, 'bytes': 10 * 4 + 6 * 4, 'largest': 10 * 4},
    'reduce-scatter': {'count': 1, 'bytes': 16, 'largest': 16},
  }


def test_a_program_that_jaxlib_cannot_read_is_read_from_the_dump(tmp_path):
  class Newer:
    def as_text(self):
      raise jax.errors.JaxRuntimeError('INTERNAL: RET_CHECK failure')

  found = topology._collectives_of(Newer(), tmp_path)
  assert 'cannot read the program: INTERNAL: RET_CHECK' in found
  assert topology._collective_lines(found) == found
  assert topology._collective_lines({}) == 'none'
  name = 'module_0000.jit_step.cl_1.after_optimizations.txt'
  (tmp_path / name).write_text(HLO)
  found = topology._collectives_of(Newer(), tmp_path)
  assert found == topology.collectives(HLO)


def test_operations_without_an_estimate_do_not_make_time_negative():
  found = {
    'flops': 197e12, 'model_flops': 0.0, 'devices': 1, 'bytes_accessed': 0.0,
    'seconds': -60.5,
  }  # fmt: skip
  chip = chips.CHIPS['v5e']
  assert topology._seconds(found, chip, 1) == (1.5, 62)
  assert topology._seconds({**found, 'seconds': 2.0}, chip, 1) == (2.0, 0)
  assert topology._seconds({**found, 'seconds': None}, chip, 1) == (1.0, 0)


class Traced(Exception):
  """Ends `compile_here` before it compiles for a chip that is not here."""


@pytest.mark.parametrize('chip, kind', [('v5e', 'tpu'), ('h200', 'cuda')])
def test_a_topology_gets_the_program_of_its_own_platform(
  chip, kind, make_config, monkeypatch
):
  """One device, for which this process would choose a CPU's attention."""

  def trace(layout, train_step, batch, options):
    with jax.set_mesh(layout.mesh):
      jax.jit(train_step).trace(layout.shapes, batch)
    raise Traced

  monkeypatch.setattr(chips, 'devices', lambda *_: jax.devices()[:1])
  monkeypatch.setattr(step, 'compile_step', trace)
  dispatch.record(None)
  with pytest.raises(Traced):
    topology.compile_here(topology._request(make_config(), chip, ''))
  assert set(dispatch.last_dispatch().chosen) == {kind}
  assert dispatch.platforms() == ('cpu',)


needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='libtpu is not installed (pip install libtpu)',
)


@needs_libtpu
def test_a_sharded_step_compiles_for_a_tpu_that_is_not_there(make_config):
  config = make_config(
    batch_size=64, mesh=sharding.Config(data=2, model=2), evals={}
  )
  config.data = dataclasses.replace(config.data, seq_len=64)
  found = chips.elsewhere(
    'jaxtok.train.topology', topology._request(config, 'v5e', '2x2')
  )
  lines = topology._format('v5e:2x2', 'v5e', found).splitlines()
  facts = dict(line.split(maxsplit=1) for line in lines if line[0] != ' ')
  assert facts['topology'] == 'v5e:2x2: 4 x TPU v5 lite, mesh data=2 model=2'
  assert 'per device' in facts['memory']
  assert '% of 17.2 GB' in facts['memory']
  assert 'FLOPs per device and step' in facts['compute']
  assert 's per step' in facts['time']
  assert any('all-reduce' in line for line in lines)
  # Nothing gathers a batch: the largest array that is exchanged is a device's
  # share of the states (half of the rows, float32), far above any parameter.
  share = 64 // 2 * 64 * config.model.dim * 4
  largest = {k: v['largest'] for k, v in found['collectives'].items()}
  assert max(largest.values()) <= share, largest
