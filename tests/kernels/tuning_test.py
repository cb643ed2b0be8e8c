# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tile sizes: lookup, candidates, what is shipped."""

import json

import jax.numpy as jnp
import pytest
from jaxtok_kernels import aot, tune, tuning
from jaxtok_kernels.hardware import CHIPS

ROW = dict(
  kernel='k',
  implementation='tpu',
  dtype='bfloat16',
  sizes={'t': 1024, 'h': 128},
  config={'tile': 256},
  how='measured',
)


@pytest.fixture
def tuned(tmp_path, monkeypatch):
  """A chip with two measured rows and a better one that was only ranked."""
  rows = [
    ROW,
    ROW | {'sizes': {'t': 8192, 'h': 128}, 'config': {'tile': 512}},
    ROW | {'config': {'tile': 1}, 'how': 'static'},
  ]
  monkeypatch.setattr(tuning, 'FOLDER', tmp_path)
  (tmp_path / 'v5e.json').write_text(json.dumps({'rows': rows}))
  tuning.load.cache_clear()
  with tuning.for_chip('v5e'):
    yield
  tuning.load.cache_clear()


def ask(t, h=128, dtype=jnp.bfloat16, implementation='tpu'):
  default = {'tile': 64, 'warps': 4}
  return tuning.config('k', implementation, dtype, dict(t=t, h=h), default)


@pytest.mark.usefixtures('tuned')
def test_the_nearest_measured_sizes_win():
  assert ask(1024) == {'tile': 256, 'warps': 4}
  assert ask(2000)['tile'] == 256
  assert ask(4000)['tile'] == 512


@pytest.mark.usefixtures('tuned')
def test_what_is_far_or_of_another_kind_keeps_the_kernels_choice():
  assert ask(1024, h=4)['tile'] == 64  # Five octaves away.
  assert ask(1024, dtype=jnp.float32)['tile'] == 64
  assert ask(1024, implementation='triton')['tile'] == 64
  with tuning.for_chip('v4'):
    assert ask(1024)['tile'] == 64


@pytest.mark.usefixtures('tuned')
def test_an_override_wins_and_ends():
  with tuning.override('k', {'warps': 8}):
    assert ask(1024) == {'tile': 256, 'warps': 8}
  assert ask(1024)['warps'] == 4


@pytest.mark.usefixtures('tuned')
def test_new_rows_replace_those_of_the_same_sizes():
  new = ROW | {'config': {'tile': 128}, 'ms': 1.0}
  tune.save('v5e', [new | {'ms': 0.5, 'config': {'tile': 32}}, new])
  assert ask(1024)['tile'] == 128  # Of two cases the slower one counts.
  assert ask(8192)['tile'] == 512


@pytest.mark.slow
def test_every_kernel_that_can_be_tuned_asks_in_some_case():
  for implementation in ('tpu', 'triton'):
    found = {
      space.kernel
      for space, *_ in tune.work_list([], implementation)
      if tune.candidates(space, implementation)
    }
    wanted = {x.kernel for x in tune.SPACES if getattr(x, implementation)}
    assert found == wanted


def test_candidates_beyond_the_fast_memory_are_left_out():
  space = next(x for x in tune.SPACES if x.kernel == 'selected_decode')
  sizes = dict(k=16, h=128, rows=160, unit=1)
  few = tune.fitting(space, 'tpu', sizes, 'v4')
  many = tune.fitting(space, 'tpu', sizes, 'v5e')
  assert len(few) < len(many) == len(tune.candidates(space, 'tpu'))


def test_shipped_rows_are_measured_on_known_chips():
  for path in tuning.FOLDER.glob('*.json'):
    assert path.stem in CHIPS
    for row in json.loads(path.read_text())['rows']:
      assert row['how'] == 'measured'
      assert row['kernel'] in {x.kernel for x in tune.SPACES}


def test_without_a_device_nothing_is_measured(capsys):
  assert tune.main([]) == 1
  assert '--static' in capsys.readouterr().out
  assert tune.main(['--kernels=nothing']) == 2


@pytest.mark.slow
@pytest.mark.skipif(
  aot.skipped('v5e') is not None, reason=str(aot.skipped('v5e'))
)
def test_static_ranking_counts_bundles_of_every_candidate(tmp_path):
  out = tmp_path / 'static.json'
  args = ['--static', '--chips=v5e', '--kernels=soft_vote', f'--out={out}']
  assert tune.main(args) == 0
  rows = json.loads(out.read_text())['rows']
  assert len(rows) == 4
  assert all(row['bundles'] > 0 for row in rows)
  ranks = [row['per_token'] for row in rows]
  assert ranks == sorted(ranks)
