# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Programs of LLaDA and Dream for chips that are not here, at small sizes."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.diffusion_lm import compile as compile_lib
from experiments.diffusion_lm import programs
from jaxtok.diffusion import pretrained
from jaxtok.models.interop import llada
from jaxtok.train import chips, sharding

SMALL = dict(model='llada_tiny', prompt=8, length=8, block=4, dtype='float32')


def compile_here(monkeypatch, **fields):
  """What the other process would do, for four CPU devices."""
  monkeypatch.setattr(chips, 'devices', lambda *_: jax.devices()[:4])
  monkeypatch.setattr(chips, 'platform', lambda chip: 'cpu')
  config = programs.Config(**SMALL | fields)
  request = {
    'config': dataclasses.asdict(config), 'chip': 'v5e', 'layout': '2x2'
  }  # fmt: skip
  return programs.compile_here(json.loads(json.dumps(request)))


@pytest.mark.parametrize(
  ('make', 'parameters'),
  [(llada.llada_8b, 8_015_581_184), (llada.dream_7b, 7_615_616_512)],
)
def test_published_sizes_have_the_published_number_of_parameters(
  make, parameters
):
  model = nnx.eval_shape(lambda: make().make(nnx.Rngs(0)))
  shapes = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(x.size for x in shapes) == parameters


@pytest.mark.parametrize(
  'fields',
  [
    dict(),
    dict(cache='dual', data=2, rows=2),
    dict(program='likelihood'),
    dict(model='dream_tiny', cache='dual', dtype='bfloat16'),
  ],
)
def test_the_parameters_of_a_compiled_program_are_split(monkeypatch, fields):
  found = compile_here(monkeypatch, **fields)
  width = np.dtype('float32').itemsize // (1 + ('dtype' in fields))
  whole, part = found['parameters'] * width, found['parameter_bytes']
  # All but the norms' vectors and biases lie on one device each.
  assert whole / 4 < part < 1.1 * whole / 4
  # Beside them there is one input, the prompts or the texts.
  assert part < found['arguments'] < part + 1024
  assert found['temporary'] > 0
  assert found['mesh'] == {
    'data': (n := fields.get('data', 1)),
    'model': 4 // n,
  }
  assert not found['unsharded']


def test_axes_that_do_not_divide_are_named(monkeypatch):
  monkeypatch.setitem(
    programs.MODELS,
    'llada_tiny',
    lambda: programs.Model(
      llada.llada_8b(**programs._TINY | dict(num_heads=2, num_layers=1)), 63, ()
    ),
  )
  found = compile_here(monkeypatch, program='likelihood')
  assert any('heads=2 over 4 devices' in x for x in found['unsharded'])


def test_a_sharded_program_says_what_the_library_says(monkeypatch):
  """Numbers in place of the shapes, against `generate` on one device."""
  config = programs.Config(**SMALL, cache='dual')
  mesh = sharding.Config(data=1, model=4).make(jax.devices()[:4])
  plan = programs.plan(config, mesh)
  named = programs.MODELS[config.model]()
  model = named.config.make(nnx.Rngs(0))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  prompt = np.arange(8, dtype=np.int32)[None]
  want = nnx.jit(
    lambda model, x: pretrained.generate(
      model,
      x,
      config.decoding(),
      mask_id=named.mask_id,
      rng=jax.random.key(0),
    )
  )(model, prompt)
  put = lambda tree, like: jax.tree.map(
    lambda x, s: jax.device_put(x, s.sharding), tree, like
  )
  with jax.set_mesh(mesh):
    tokens, calls = jax.jit(plan.run)(
      put(params, plan.params), put({'prompt_bt': prompt}, plan.inputs)
    )
  np.testing.assert_array_equal(tokens, want.tokens_bt)
  np.testing.assert_array_equal(calls, [8])


def test_likelihood_of_dream_reads_the_states_before():
  config = llada.dream_7b(**programs._TINY, num_kv_heads=4)
  model = config.make(nnx.Rngs(0))
  tokens = jnp.arange(6)[None]
  hidden = np.asarray(model(tokens).hidden_btd)
  moved = np.asarray(pretrained.Aligned(model)(tokens).hidden_btd)
  np.testing.assert_array_equal(moved[:, 1:], hidden[:, :-1])
  np.testing.assert_array_equal(moved[:, 0], hidden[:, 0])


FOUND = {
  'devices': 8, 'device': 'TPU v5 lite', 'mesh': {'data': 1, 'model': 8},
  'parameters': 8_000_000_000, 'parameter_bytes': 2_000_000_000,
  'unsharded': [], 'jax': '0', 'seconds': 61.0, 'arguments': 2_000_001_000,
  'outputs': 4000, 'temporary': 500_000_000, 'code': 90_000_000,
}  # fmt: skip


def row(**fields):
  asked = dataclasses.asdict(programs.Config(cache='dual'))
  found = {**FOUND, **fields}
  judged = compile_lib.judged('v5e:2x4', found)
  return {'topology': 'v5e:2x4', **asked, **judged}


def test_a_program_fits_if_the_sum_does():
  assert row()['fits']
  assert row()['total'] == 2_590_005_000
  assert not row(temporary=16 * 10**9)['fits']
  text = compile_lib.text(row())
  assert 'fits        yes' in text
  assert '2.59 GB per device (15.1 % of 17.2 GB)' in text
  refused = row(too_large='RESOURCE_EXHAUSTED: 20G of 15.75G')
  for part in chips.MEMORY:
    refused.pop(part)
  assert not refused['fits']
  assert 'RESOURCE_EXHAUSTED: 20G' in compile_lib.text(refused)
  assert 'too large' in compile_lib.table([refused])


def test_a_second_measurement_replaces_the_first(tmp_path):
  path = tmp_path / 'new' / 'memory.json'
  compile_lib.store(path, row())
  compile_lib.store(path, row() | {'cache': 'none'})
  compile_lib.store(path, row(code=1))
  rows = json.loads(path.read_text())
  assert [(x['cache'], x['code']) for x in rows] == [
    ('dual', 1),
    ('none', 90_000_000),
  ]


def test_the_page_shows_what_was_measured():
  docs = pathlib.Path(__file__).parents[2] / 'docs'
  rows = json.loads((docs / 'diffusion' / 'memory.json').read_text())
  assert compile_lib.table(rows) in (docs / 'diffusion.md').read_text()


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(model='llada_9b'), "model='llada_9b' must be one of llada_8b"),
    (dict(program='likelihood', cache='dual'), 'cache=.dual. is for program'),
    (dict(block=7), 'must be a multiple of block=7'),
    (dict(rows=0), 'rows=0 must be >= 1'),
  ],
)
def test_impossible_programs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    programs.Config(**fields)


def test_the_command_names_the_compiler_that_is_missing(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit, match='pip install libtpu'):
    compile_lib.main(['--topology=v5e:2x4', '--model=llada_tiny'])


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='libtpu is not installed (pip install libtpu)',
)
def test_the_command_compiles_for_a_tpu_that_is_not_there(tmp_path, capsys):
  path = tmp_path / 'memory.json'
  asked = [f'--{k}={v}' for k, v in (SMALL | {'dtype': 'bfloat16'}).items()]
  compile_lib.main(['--topology=v5e:2x4', f'--json={path}', *asked])
  assert (
    'v5e:2x4: 8 x TPU v5 lite, mesh data=1 model=8' in capsys.readouterr().out
  )
  [found] = json.loads(path.read_text())
  assert found['fits']
