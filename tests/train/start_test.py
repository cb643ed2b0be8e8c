# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that start from weights of another kind of model, or of no run."""

import dataclasses
import shutil
import types
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.byte_lm.configs import byt5, mrt5
from jaxtok import runs, train
from jaxtok.data import text
from jaxtok.models import base, interop, transformer
from jaxtok.tokenizers import hf
from jaxtok.train import errors, restore, setup

SMALL = dict(
  dim=16,
  num_layers=1,
  num_encoder_layers=2,
  num_heads=2,
  head_dim=8,
  mlp_dim=24,
)
# float32 parameters do not notice.
NO_LR = 1e-30


def small(config, **fields):
  config.data.source = text.Stdlib(max_bytes=20_000)
  config.data.seq_len, config.mesh.data, config.batch_size = 32, 1, 2
  config.steps, config.optim.lr = 1, NO_LR
  config.evals = {}
  config.model = dataclasses.replace(config.model, **SMALL | fields)
  return config


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  """A ByT5, as a run and as a folder of safetensors."""
  workdir = tmp_path_factory.mktemp('byt5')
  train.run(small(byt5.get_config('tiny')), workdir / 'run')
  model = runs.load(workdir / 'run').model
  interop.save(model, workdir / 'folder')
  return workdir, model


def parameters(model):
  return {
    '.'.join(map(str, path)): np.asarray(x.get_value())
    for path, x in nnx.to_flat_state(nnx.state(model, nnx.Param))
  }


@pytest.mark.parametrize(
  'kind', [pytest.param('run', marks=pytest.mark.slow), 'folder']
)
def test_mrt5_starts_from_byt5(teacher, kind, tmp_path):
  workdir, byt5_model = teacher
  config = small(mrt5.get_config('tiny'), softmax_one=kind == 'folder')
  train.run(config, tmp_path / 'run', init_from=str(workdir / kind))
  model = runs.load(tmp_path / 'run').model
  old, new = parameters(byt5_model), parameters(model)
  for name, value in old.items():
    np.testing.assert_array_equal(new.pop(name), value, err_msg=name)
  # The gate is as it was drawn.
  assert sorted(new) == [
    'shortener.bias',
    'shortener.kernel',
    'shortener.norm.scale',
  ]
  fresh = parameters(model.config.make(nnx.Rngs(config.seed)))
  for name, value in new.items():
    np.testing.assert_array_equal(value, fresh[name], err_msg=name)
  if kind == 'folder':
    return
  rng = np.random.default_rng(0)
  ids = lambda *shape: jnp.asarray(rng.integers(3, 259, shape), jnp.int32)
  tokens, source = ids(2, 6), base.Source(ids(2, 12))
  call = nnx.jit(
    lambda m, **kw: m.logits(m(tokens, context=source, **kw).hidden_btd),
    static_argnames='deletion',
  )
  np.testing.assert_array_equal(call(model, deletion='off'), call(byt5_model))


@pytest.mark.parametrize(
  'kind, fields, message',
  [
    ('run', dict(num_buckets=16), r'something else here:\n  num_buckets: 32'),
    ('folder', dict(activation='relu'), 'activation: .?gelu.? -> .?relu'),
    ('folder', dict(mlp_dim=32), 'mlp_dim: 24 -> 32'),
  ],
)
def test_a_byt5_that_differs_is_refused(
  teacher, kind, fields, message, tmp_path
):
  workdir, _ = teacher
  config = small(mrt5.get_config('tiny'), **fields)
  with pytest.raises(errors.ConfigError, match=message):
    train.run(config, tmp_path / 'run', init_from=str(workdir / kind))


def test_a_gate_is_not_made_up_for_a_run_of_mrt5_without_one(teacher, tmp_path):
  """The control has the same class of config, so nothing may be missing."""
  workdir, _ = teacher
  control = small(mrt5.get_config('tiny_control'))
  source = str(workdir / 'folder')
  train.run(control, tmp_path / 'control', init_from=source)
  config = small(mrt5.get_config('tiny'))
  with pytest.raises(errors.ConfigError, match=r'shortener\.\w+.*: absent th'):
    train.run(config, tmp_path / 'b', init_from=str(tmp_path / 'control'))


def test_a_folder_is_checked_like_a_run(teacher, tmp_path):
  workdir, _ = teacher
  source = str(workdir / 'folder')
  config = small(byt5.get_config('tiny'), num_buckets=16)
  with pytest.raises(errors.ConfigError, match='num_buckets: 32 -> 16'):
    train.run(config, tmp_path / 'a', init_from=source)
  with pytest.raises(errors.ConfigError, match='Leave out @3'):
    train.run(config, tmp_path / 'b', init_from=f'{source}@3')


def test_the_tokenizer_of_a_folder_is_compared(teacher, tmp_path, capsys):
  workdir, _ = teacher
  config = small(byt5.get_config('tiny'))
  train.run(config, tmp_path / 'a', init_from=str(workdir / 'folder'))
  shown = ' '.join(capsys.readouterr().out.split())
  assert 'folder; it has no vocabulary: tokenizer not checked' in shown
  folder = tmp_path / 'folder'
  shutil.copytree(workdir / 'folder', folder)
  hf.train_bpe([b'to be or not to be'] * 3, 300).save(folder)
  with pytest.raises(
    errors.ConfigError, match='weights have another tokenizer'
  ):
    train.run(config, tmp_path / 'b', init_from=str(folder))


def test_the_same_vocabulary_with_names_of_ones_own_is_accepted(tmp_path):
  for name in ('a', 'b'):
    hf.train_bpe([b'to be or not to be'] * 3, 300).save(tmp_path / name)
  config = hf.Config(path=str(tmp_path / 'a'), new_special_tokens=('<mask>',))
  job = mock.Mock(spec=setup.Job, tokenizer=config.make())
  job.config = types.SimpleNamespace(tokenizer=config)
  assert restore._check_vocabulary(job, 'RUN', str(tmp_path / 'b'))
  hf.train_bpe([b'or not to be, to be'] * 3, 300).save(tmp_path / 'b')
  with pytest.raises(
    errors.ConfigError, match='weights have another tokenizer'
  ):
    restore._check_vocabulary(job, 'RUN', str(tmp_path / 'b'))
  (tmp_path / 'b' / 'tokenizer.json').write_text('{}')
  with pytest.raises(
    errors.ConfigError, match='init_from=RUN: its vocabulary:'
  ):
    restore._check_vocabulary(job, 'RUN', str(tmp_path / 'b'))


def test_settings_that_change_no_function_are_no_differences():
  old = transformer.Config.byt5(**SMALL)
  free = dict(dropout=0.1, remat=True, implementation='dense', vocab_size=384)
  assert not interop.differences(old, dataclasses.replace(old, **free))
  assert 'norm_eps' in interop.differences(
    old, dataclasses.replace(old, norm_eps=1e-5)
  )
