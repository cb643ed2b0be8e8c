# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""H-Net: the promises of all models, a loop over chunks, and generation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.byte_lm.configs import hnet as hnet_config
from experiments.byte_lm.configs import transformer
from jaxtok.models import base, hnet, hnet_stage
from jaxtok.nn import masks, ragged
from jaxtok.train import optim
from tests.conformance import greedy, model_suite

SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dims=(8, 16),
  head_dim=4,
  num_layers=(1, 1),
  lengths=(3.0,),
)
DEEP = SMALL | dict(dims=(8, 8, 16), num_layers=(1, 1, 1), lengths=(3.0, 2.0))


@pytest.mark.slow  # Two stages hold one.
class TestOneStage(model_suite.CausalSuite):
  case = model_suite.Case(hnet.Config(**SMALL))


@pytest.mark.slow  # The mixer itself: tests/nn/mamba2_test.py.
class TestMamba(model_suite.CausalSuite):
  case = model_suite.Case(hnet.Config(mixer='mamba2', state_dim=4, **SMALL))


class TestTwoStages(model_suite.CausalSuite):
  case = model_suite.Case(hnet.Config(**DEEP))


def make(seed=0, **fields):
  """Embeddings and residuals of order 1, so that chunks differ."""
  config = hnet.Config(**(SMALL | dict(embed_std=1.0) | fields))
  model = config.make(nnx.Rngs(seed))
  rng, stage = np.random.default_rng(seed), model.stage
  while isinstance(stage, hnet_stage.Stage):
    shape = stage.residual.kernel.shape
    stage.residual.kernel[...] = jnp.asarray(
      0.5 * rng.normal(size=shape), jnp.float32
    )
    stage = stage.inner
  return model


TOKENS = np.random.default_rng(0).integers(0, 24, (2, 12))


def stack(part, x_td):
  y_btd, _ = part(
    x_td[None],
    positions_bt=jnp.arange(len(x_td))[None],
    segment_ids_bt=None,
    mask=masks.Causal(),
  )
  return y_btd[0]


def stage_by_loops(stage, x_td):
  """Section 2.2, equation by equation, for one row without padding."""
  x_td = stack(stage.before, x_td)
  x = np.asarray(x_td, np.float64)
  q, k = x @ np.asarray(stage.gate.q[...]), x @ np.asarray(stage.gate.k[...])
  prob = [1.0]
  for t in range(1, len(x)):
    norm = np.linalg.norm(q[t - 1]) * np.linalg.norm(k[t])
    prob.append((1 - q[t - 1] @ k[t] / norm) / 2)
  starts = [t for t, p in enumerate(prob) if p > 0.5]
  inside = x_td[jnp.asarray(starts)]
  if stage.pad is not None:
    pad = jnp.broadcast_to(stage.pad[...], (len(starts), stage.pad.shape[0]))
    inside = jnp.concatenate([inside, pad], 1)
  if isinstance(stage.inner, hnet_stage.Stage):
    y, _ = stage_by_loops(stage.inner, inside)
  else:
    y = stack(stage.inner.level, inside)
  y = np.asarray(y, np.float64)[:, : x.shape[1]]
  z, out = 0.0, []
  for t in range(len(x)):
    if t in starts:
      p = 1.0 if t == 0 else np.clip(prob[t], 1e-4, 1 - 1e-4)
      z = p * y[starts.index(t)] + (1 - p) * z
    out.append(z + x[t] @ np.asarray(stage.residual.kernel[...]))
  return stack(stage.after, jnp.asarray(np.stack(out), jnp.float32)), starts


def test_states_equal_loops_over_positions_and_chunks():
  model = make(**DEEP)
  got = model(jnp.asarray(TOKENS[:1])).hidden_btd[0]
  x_td = model.embed(jnp.asarray(TOKENS[0]))
  want, starts = stage_by_loops(model.stage, x_td)
  assert 2 < len(starts) < 10  # Some chunks are longer than 1.
  found = np.flatnonzero(model.boundaries(jnp.asarray(TOKENS[:1])).start_bt)
  np.testing.assert_array_equal(found, starts)
  # float32 in few blocks with norms, states of order 1.
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_factor_is_one_and_passes_the_gradient():
  c = jnp.asarray([0.5, 0.7, 1.0])
  value, grad = jax.value_and_grad(lambda c: (2 * hnet_stage.ste(c)).sum())(c)
  assert value == 6
  np.testing.assert_array_equal(grad, [2, 2, 2])


def test_the_gate_begins_as_the_identity_and_the_residual_as_nothing():
  model = hnet.Config(**SMALL).make(nnx.Rngs(0))
  np.testing.assert_array_equal(model.stage.gate.q[...], np.eye(8))
  np.testing.assert_array_equal(model.stage.gate.k[...], np.eye(8))
  assert not np.asarray(model.stage.residual.kernel[...]).any()


@pytest.fixture(scope='module')
def tight():
  """Two stages with room for half of the positions of each, and for all."""
  capacity = ragged.Capacity(policy='ratio', ratio=0.5)
  model = make(**DEEP, capacity=capacity)
  graph, params = nnx.split(model)

  @jax.jit
  def both(params, tokens):
    model = nnx.merge(graph, params)
    return model(tokens, rng=jax.random.key(0)), model(tokens)

  return model, both(params, jnp.asarray(TOKENS))


def test_training_leaves_out_what_has_no_room_in_any_stage(tight):
  model, (trained, full) = tight
  for row in range(2):
    x_td = stack(model.stage.before, model.embed(jnp.asarray(TOKENS[row])))
    start = np.asarray(model.stage.gate(x_td[None]).start_bt)[0]
    inside = x_td[np.flatnonzero(start)]
    inner = model.stage.inner
    inner_start = inner.gate(stack(inner.before, inside)[None]).start_bt[0]
    unit = np.cumsum(start) - 1
    inner_unit = (np.cumsum(inner_start) - 1)[unit]
    kept = (unit < 6) & (inner_unit < 3)  # 12 / 2 and 6 / 2.
    np.testing.assert_array_equal(trained.aux['target_mask_bt'][row], kept)
    lost = trained.aux['metrics']['lost_targets']
    assert (lost.total[row], lost.weight[row]) == (12 - kept.sum(), 12)
    # States of order 1; sums over other numbers of slots.
    np.testing.assert_allclose(
      trained.hidden_btd[row][kept], full.hidden_btd[row][kept], atol=1e-5
    )
  assert not np.asarray(trained.aux['target_mask_bt']).all()
  assert 'target_mask_bt' not in full.aux
  assert not np.asarray(full.aux['metrics']['lost_targets'].total).any()


def test_metrics_and_penalty_are_those_of_all_stages(tight):
  model, (trained, full) = tight
  metrics = full.aux['metrics']
  start = model.boundaries(jnp.asarray(TOKENS))
  first = model.stage.rate.loss(
    start.start_bt, start.prob_bt, jnp.ones((2, 12), bool), by_row=True
  )
  np.testing.assert_array_equal(
    metrics['units_per_token'].total, start.start_bt.sum(1)
  )
  second = metrics['units_per_token_2'].total
  assert second.sum() < metrics['units_per_token'].total.sum()
  assert (second >= 1).all()
  rest = full.aux['penalty_bt'][:, 0] / 0.03 - first
  # (N - 1) F G + (1 - F)(1 - G) is between 0 and N - 1; N = 2 inside.
  assert ((rest > 0) & (rest < 2)).all()
  # In training it is one number, of the batch.
  one, other = trained.aux['penalty_bt'][:, 0]
  assert one == other
  assert full.aux['penalty_bt'][0] != full.aux['penalty_bt'][1]


def test_the_penalty_moves_the_gate_towards_the_length():
  """Longer chunks are wanted: the gradient lowers the probabilities."""
  graph, params = nnx.split(make(lengths=(50.0,)))

  @jax.jit
  def step(params):
    def penalty(params):
      output = nnx.merge(graph, params)(jnp.asarray(TOKENS))
      return output.aux['penalty_bt'].sum()

    trained, rest = nnx.split_state(params, nnx.Param, ...)
    of = lambda x: penalty(nnx.merge_state(x, rest))
    value, grad = jax.value_and_grad(of)(trained)
    moved = jax.tree.map(lambda x, g: x - 0.1 * g, trained, grad)
    return value, of(moved)

  before, after = step(params)
  assert after < before


@pytest.mark.parametrize('size', ['tiny', 'two_stage', 'quickstart'])
def test_outer_stages_of_short_runs_learn_faster_and_cost_less(size):
  config = hnet_config.get_config(size)
  scales = list(config.optim.lr_scales.values())
  assert 1.5 <= scales[0] <= 2
  assert scales == sorted(scales, reverse=True)
  assert np.prod(scales) == pytest.approx(1)
  config.model.vocab_size = 258
  like = 'tiny' if size == 'two_stage' else size
  flat = transformer.get_config(like).model
  flat.vocab_size = 258
  build = lambda c: nnx.eval_shape(lambda: c.make(nnx.Rngs(0)))
  shape = base.Shape(b=1, t=256)
  outer = build(config.model).flops(shape)['stage_0']
  whole = build(flat).flops(shape)
  assert outer < 0.8 * (sum(whole.values()) - whole['head'])


def test_generation_with_nested_caches_equals_arg_max_without():
  """20 prompts of different lengths, greedily, two stages."""
  model = make(**DEEP, seed=1)
  model.head.out.kernel[...] *= 20
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, 24, n) for n in rng.integers(1, 14, 20)]
  new = greedy.generate(model, rows, 12)
  assert len(np.unique(new)) > 10


def test_flops_follow_the_room_of_each_stage():
  shape = base.Shape(b=2, t=64)
  half = ragged.Capacity(policy='ratio', ratio=0.5)
  model = make(**DEEP, capacity=half, window=16)
  parts = model.flops(shape)
  d, f = 8, model.stage.before.config.mlp_width
  stage = lambda n, keys: 2 * n * (4 * d * d + 3 * d * f + 2 * keys * d)
  assert parts['stage_0'] == 2 * stage(2 * 64, 16)  # Encoder and decoder.
  assert parts['stage_1'] == 2 * stage(2 * 32, 16)
  d, f = 16, model.stage.inner.inner.level.config.mlp_width
  assert parts['main'] == stage(2 * 16, 16)
  assert parts['gate_0'] == 2 * 3 * 2 * 64 * 64


def test_flops_agree_with_xlas_count():
  config = hnet.Config(
    vocab_size=256, dims=(128, 128), head_dim=32, num_layers=(1, 2)
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  found = model_suite.xla_flops(config, jnp.zeros((4, 64), jnp.int32))
  # XLA also counts norms, softmax, the average and the like.
  assert 1 < found / counted < 1.08


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_layers': (1, 1, 1)}, 'must have one entry more than lengths'),
    ({'dims': (16, 8)}, 'must not fall'),
    ({'dims': (8, 18)}, 'must be multiples of head_dim=4'),
    ({'num_layers': (1, 0)}, r'num_layers=\(1, 0\) must be >= 1'),
    ({'window': -1}, 'window=-1 must be >= 0'),
    ({'mixer': 'gru'}, "mixer='gru' must be one of attention, mamba2"),
    ({'lengths': (1.0,)}, 'positions per unit must be > 1'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    hnet.Config(**(SMALL | fields))


def test_arguments_without_meaning_are_refused():
  with pytest.raises(ValueError, match='takes no context'):
    make()(jnp.zeros((1, 3), jnp.int32), context=jnp.zeros((1, 3), jnp.int32))


def test_learning_rates_fall_from_stage_to_stage():
  """Positions and widths of the model with two stages called L."""
  config = hnet_config.get_config('paper_two_stage')
  got = config.optim.lr_scales
  assert list(got) == ['', 'stage.inner', 'stage.inner.inner']
  want = [(4.6 * 1.5) ** 0.5, (4.6 / 3 * 1.5) ** 0.5, (4.6 / 9) ** 0.5]
  np.testing.assert_allclose(list(got.values()), want)
  # All parameters of the model have one, the main network's the least.
  model = nnx.eval_shape(lambda: hnet.Config(**DEEP).make(nnx.Rngs(0)))
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  scales = optim.lr_scale_tree(params, got)
  inner = scales['stage']['inner']
  assert set(jax.tree.leaves(inner['inner'])) == {want[2]}
  assert set(jax.tree.leaves(inner['before'])) == {want[1]}
  for part in (scales['embed'], scales['head'], scales['stage']['after']):
    assert set(jax.tree.leaves(part)) == {want[0]}
