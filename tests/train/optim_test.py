# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import math

import jax
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import transformer
from jaxtok.train import optim, sharding


@pytest.mark.parametrize(
  'schedule, want',
  [
    (optim.Schedule.CONSTANT, lambda d: 1.0),
    (optim.Schedule.LINEAR, lambda d: 1 - 0.9 * d),
    (
      optim.Schedule.COSINE,
      lambda d: 0.1 + 0.9 * (1 + math.cos(math.pi * d)) / 2,
    ),
    (optim.Schedule.WSD, lambda d: 1.0 if d < 0.8 else 0.1 + 4.5 * (1 - d)),
  ],
)
def test_learning_rate_rises_linearly_and_falls_as_the_schedule_says(
  schedule, want
):
  config = optim.Config(
    lr=0.5, schedule=schedule, warmup_steps=10, final_ratio=0.1
  )
  lr = config.learning_rate(110)
  rise = [lr(step) for step in range(10)]
  np.testing.assert_allclose(rise, 0.05 * np.arange(1, 11), rtol=1e-6)
  # float32 arithmetic: a handful of roundings of 6e-8 each.
  fall = [lr(10 + step) for step in range(101)]
  np.testing.assert_allclose(
    fall, [0.5 * want(step / 100) for step in range(101)], rtol=2e-6
  )
  assert lr(10_000) == pytest.approx(0.5 * want(1.0))


def test_a_run_shorter_than_its_warmup_ends_in_the_warmup():
  lr = optim.Config(lr=1.0, warmup_steps=100).learning_rate(10)
  np.testing.assert_allclose([lr(0), lr(9)], [0.01, 0.1], rtol=1e-6)


def test_updates_equal_adamw_in_float64():
  config = optim.Config(
    lr=0.1, warmup_steps=0, schedule=optim.Schedule.CONSTANT, clip_norm=1.0
  )
  rng = np.random.default_rng(0)
  params = {'w': rng.normal(size=(3, 2)), 'b': rng.normal(size=2)}
  optimizer = config.make(10, {'w': True, 'b': False})
  got = jax.tree.map(lambda x: x.astype(np.float32), params)
  state = optimizer.init(got)
  m = {k: np.zeros_like(v) for k, v in params.items()}
  v = {k: np.zeros_like(p) for k, p in params.items()}
  for t in range(1, 4):
    grads = {k: rng.normal(size=p.shape) * 3 for k, p in params.items()}
    updates, state = optimizer.update(
      jax.tree.map(np.float32, grads), state, got
    )
    got = jax.tree.map(np.add, got, updates)
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    assert norm > 1
    for k in params:
      g = grads[k] / norm
      m[k] = 0.9 * m[k] + 0.1 * g
      v[k] = 0.95 * v[k] + 0.05 * g**2
      step = (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.95**t)) + 1e-8)
      decay = 0.1 * params[k] if k == 'w' else 0.0
      params[k] = params[k] - 0.1 * (step + decay)
  # Three steps of 0.1 in float32: errors of a few 1e-7 of the step.
  for k in params:
    np.testing.assert_allclose(got[k], params[k], atol=1e-6)


@pytest.mark.parametrize('embeddings', [False, True])
def test_only_matrices_decay(embeddings):
  config = transformer.Config(
    vocab_size=8, dim=8, num_layers=1, num_heads=2, attention_bias='all',
    mlp_bias=True, norm='layer', position='t5',
  )  # fmt: skip
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  params = nnx.state(model, nnx.Param)
  mask = optim.decay_mask(
    nnx.to_pure_dict(params),
    sharding.parameter_axes(params),
    embeddings=embeddings,
  )
  flat = {
    jax.tree_util.keystr(path, simple=True, separator='.'): flag
    for path, flag in jax.tree.leaves_with_path(mask)
  }
  kinds = {
    'kernel': True,
    'bias': False,
    'scale': False,
    'stack.bias.table': False,
    'table': embeddings,
  }
  for name, decays in flat.items():
    kind = next(k for k in kinds if name.endswith(k))
    assert decays == kinds[kind], name


@pytest.mark.parametrize(
  'field, value, rule',
  [
    ('lr', 0.0, '> 0'),
    ('b2', 1.0, r'in \[0, 1\)'),
    ('final_ratio', -0.1, r'in \[0, 1\]'),
    ('clip_norm', -1.0, '0 turns clipping off'),
  ],
)
def test_bad_values_name_the_field_and_the_rule(field, value, rule):
  with pytest.raises(ValueError, match=f'optim.{field} must be .*{rule}'):
    optim.Config(**{field: value})


def test_learning_rates_by_prefix_scale_updates_and_decay():
  config = optim.Config(
    lr=0.1,
    warmup_steps=0,
    schedule=optim.Schedule.CONSTANT,
    lr_scales={'': 3.0, 'stage.inner': 0.5, 'stage.inner.gate': 2.0},
  )
  rng = np.random.default_rng(0)
  draw = lambda: np.float32(rng.normal(size=(2, 2)))
  params = {
    'embed': draw(),
    'stage': {
      'inner': {'gate': draw(), 'mlp': [draw(), draw()]},
      'inner_norm': draw(),
    },
  }
  scales = optim.lr_scale_tree(params, config.lr_scales)
  want = {
    'embed': 3.0,
    'stage': {'inner': {'gate': 2.0, 'mlp': [0.5, 0.5]}, 'inner_norm': 3.0},
  }
  assert scales == want
  assert optim.lr_scale_tree(params, {}) is None
  grads = jax.tree.map(lambda x: 0.01 * x + 0.02, params)

  def updates(scales):
    optimizer = config.make(10, None, scales)
    return optimizer.update(grads, optimizer.init(params), params)[0]

  plain = jax.tree.map(lambda x, scale: x * scale, updates(None), want)
  jax.tree.map(np.testing.assert_array_equal, updates(scales), plain)


@pytest.mark.parametrize(
  'scales, message',
  [
    ({'decoder': 2.0}, "has 'decoder', with which no parameter .*: embed"),
    ({'embe': 2.0}, "has 'embe'"),
  ],
)
def test_prefixes_without_parameters_are_refused(scales, message):
  params = {'embed': np.ones(2, np.float32)}
  with pytest.raises(ValueError, match=message):
    optim.lr_scale_tree(params, scales)
  with pytest.raises(ValueError, match=r"lr_scales\['a'\] must be >= 0"):
    optim.Config(lr_scales={'a': -1.0})
