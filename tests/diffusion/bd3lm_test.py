# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Block diffusion: one call against many, its limits, its schedules."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import bd3lm, losses
from jaxtok.models import base, transformer
from jaxtok.nn import block_masks, masks
from jaxtok.train import flops

V, T, MASK = 5, 8, 5
# Float32 sums of 16 and fewer terms through two layers, in another order.
ATOL = 2e-5


@pytest.fixture(scope='module')
def model():
  config = transformer.Config(
    vocab_size=V + 1, dim=16, num_layers=2, num_heads=2, is_causal=False
  )
  model = config.make(nnx.Rngs(0))
  table = model.embed.tokens.table
  table[...] = 20 * table[...]  # Logits of about 1.
  return model


def batch(rows=3, segments=(1,) * T):
  rng = np.random.default_rng(0)
  segments = np.tile(np.asarray(segments, np.int32), (rows, 1))
  tokens = rng.integers(0, V, (rows, T)).astype(np.int32)
  order = np.arange(T)
  first = np.argmax(segments[0][:, None] == segments[0], axis=1)
  return {
    'tokens_bt': jnp.asarray(tokens),
    'targets_bt': jnp.asarray(tokens),
    'loss_mask_bt': jnp.asarray(segments > 0, jnp.float32),
    'segment_ids_bt': jnp.asarray(segments),
    'positions_bt': jnp.tile(jnp.asarray(order - first), (rows, 1)),
    'num_bytes_bt': jnp.asarray(segments > 0, jnp.int32),
  }


@nnx.jit
def log_probs(model, tokens, mask):
  logits = model.logits(model(tokens, mask=mask).hidden_btd)
  return jax.nn.log_softmax(logits[..., :V], axis=-1)


@functools.partial(nnx.jit, static_argnames='block')
def scored(model, rows, corruption, block):
  return bd3lm.scores(model, rows, corruption, MASK, None, block=block)


def masked_half(rows, seed=0):
  """About half of the targets, weight 1."""
  noise = np.random.default_rng(seed).random(rows['targets_bt'].shape)
  hit = jnp.asarray(noise < 0.5) & (rows['loss_mask_bt'] > 0)
  return losses.Corruption(hit, hit.astype(jnp.float32))


@pytest.mark.parametrize('block', [1, 3, 4, T])
def test_one_call_is_each_block_after_clean_ones(model, block):
  rows = batch()
  corruption = masked_half(rows)
  got = np.asarray(scored(model, rows, corruption, block).nats_bt)
  clean = np.asarray(rows['targets_bt'])
  for start in range(0, T, block):
    end = min(start + block, T)
    tokens = np.where(corruption.is_masked_bt, MASK, clean)
    tokens[:, :start] = clean[:, :start]
    tokens = np.pad(tokens[:, :end], ((0, 0), (0, T - end)))
    mask = block_masks.BlockCausal(block)
    want = -np.asarray(log_probs(model, jnp.asarray(tokens), mask))
    want = np.take_along_axis(want, clean[..., None], axis=-1)[..., 0]
    hit = np.asarray(corruption.is_masked_bt)[:, start:end]
    np.testing.assert_allclose(
      got[:, start:end][hit], want[:, start:end][hit], atol=ATOL
    )


def objective_of(block, **fields):
  return bd3lm.Config(mask_id=MASK, block=block, **fields).make()


def test_blocks_of_one_token_are_autoregressive(model):
  """Every draw of masks gives the chain rule's value."""
  rows = batch()
  nats = objective_of(1).per_row(model, rows, jax.random.key(3))['nats_bound']
  clean, want = np.asarray(rows['targets_bt']), np.zeros(3)
  for i in range(T):
    tokens = clean.copy()
    tokens[:, i] = MASK
    out = np.asarray(log_probs(model, jnp.asarray(tokens), masks.Causal()))
    want -= out[np.arange(3), i, clean[:, i]]
  np.testing.assert_allclose(nats.total, want, atol=T * ATOL)


def test_one_block_is_mdlm(model):
  rows = batch()
  corruption = masked_half(rows)
  got = scored(model, rows, corruption, T)
  want = losses.scores(model, rows, corruption, MASK, None)
  np.testing.assert_allclose(got.nats_bt, want.nats_bt, atol=ATOL)


def exact_bound(model, clean, block):
  """Mean over the orders inside blocks, nats of one row, double precision."""
  total = 0.0
  for start in range(0, T, block):
    places = range(start, start + block)
    orders = list(itertools.permutations(places))
    for order in orders:
      left = list(order)
      for place in order:
        tokens = clean.copy()
        tokens[left] = MASK
        tokens = jnp.asarray(tokens)[None]
        out = log_probs(model, tokens, block_masks.BlockCausal(block))
        total -= float(out[0, place, clean[place]]) / len(orders)
        left.remove(place)
  return total


def test_both_estimates_are_unbiased(model):
  """A false alarm at 4 standard errors, rows taken as independent: 6e-5."""
  block, num = 2, 4000
  rows = batch(1)
  want = exact_bound(model, np.asarray(rows['targets_bt'][0]), block)
  many = {k: jnp.tile(x, (num, 1)) for k, x in rows.items()}
  config = bd3lm.Config(mask_id=MASK, block=block, t_min=0.01)
  for corrupt in (
    lambda rng: bd3lm.corrupt_exactly(many, rng, block),
    lambda rng: bd3lm.corrupt(many, rng, config),
  ):
    corruption = jax.jit(corrupt)(jax.random.key(0))
    nats = scored(model, many, corruption, block).nats_bt
    nats = np.asarray((nats * corruption.weights_bt).sum(1), np.float64)
    error = nats.std() / np.sqrt(num)
    assert error < 0.03 * want
    # Below t_min both tokens count as masked at t_min: 1 % of the integral.
    assert abs(nats.mean() - want) < 4 * error + 0.01 * want


def test_exactly_k_of_each_block_are_masked_with_weight_n_over_k():
  rows = batch(200, segments=(1, 1, 1, 1, 1, 2, 2, 0))
  corrupt = jax.jit(bd3lm.corrupt_exactly, static_argnums=2)
  found = corrupt(rows, jax.random.key(0), 4)
  masked, weight = map(np.asarray, found[:2])
  for block in ([0, 1, 2, 3], [4], [5, 6]):
    k = masked[:, block].sum(1)
    assert set(k) == set(range(1, len(block) + 1))
    want = np.where(masked[:, block], len(block) / k[:, None], 0)
    np.testing.assert_allclose(weight[:, block], want, rtol=1e-6)
  assert not masked[:, 7].any()


def test_documents_of_a_row_do_not_meet(model):
  packed = batch(2, segments=(1, 1, 1, 2, 2, 2, 2, 0))
  corruption = masked_half(packed)
  got = np.asarray(scored(model, packed, corruption, 2).nats_bt)
  cut = lambda x, a, z: jnp.pad(x[:, a:z], ((0, 0), (0, T - (z - a))))
  for a, z in ((0, 3), (3, 7)):
    alone = {k: cut(x, a, z) for k, x in packed.items()}
    part = losses.Corruption(*(cut(x, a, z) for x in corruption[:2]))
    want = np.asarray(scored(model, alone, part, 2).nats_bt)[:, : z - a]
    hit = np.asarray(corruption.is_masked_bt)[:, a:z]
    np.testing.assert_allclose(got[:, a:z][hit], want[hit], atol=ATOL)


@pytest.mark.parametrize('segments', [(1,) * T, (1, 1, 1, 2, 2, 2, 2, 0)])
def test_the_mask_is_the_papers(segments):
  block, n = 3, len(segments)
  seen = bd3lm.two_copies(jnp.asarray([segments]), block).dense(
    masks.Layout(2 * n, 2 * n)
  )
  order = [i - segments.index(s) for i, s in enumerate(segments)]
  want = np.zeros((2 * n, 2 * n), bool)
  for q, k in itertools.product(range(2 * n), repeat=2):
    i, j = q % n, k % n
    if segments[i] != segments[j] or not segments[i]:
      continue
    same_half = (q < n) == (k < n)
    bq, bk = order[i] // block, order[j] // block
    want[q, k] = (
      (same_half and bq == bk)
      or (q < n <= k and bq > bk)
      or (q >= n and k >= n and bq >= bk)
    )
  np.testing.assert_array_equal(seen[0], want)


def test_times_lie_in_the_clipped_range_and_are_stratified():
  rows = batch(64)
  config = bd3lm.Config(mask_id=MASK, block=2, low=0.3, high=0.8)
  corrupt = jax.jit(bd3lm.corrupt, static_argnums=2)
  weight = np.asarray(corrupt(rows, jax.random.key(1), config).weights_bt)
  times = 1 / weight[weight > 0]
  assert times.min() >= 0.3 * (1 - 1e-6)
  assert times.max() <= 0.8 * (1 + 1e-6)
  # All tokens of a block share its time, and all blocks have other times.
  hit = weight.reshape(64, T // 2, 2)
  both = (hit > 0).all(-1)
  np.testing.assert_array_equal(hit[both][:, 0], hit[both][:, 1])
  assert len(np.unique(hit[both])) == both.sum()
  late = bd3lm.Config(mask_id=MASK, block=2, low=0.55, high=1.0)
  weight = np.asarray(corrupt(rows, jax.random.key(1), late).weights_bt)
  assert set(np.unique(weight)) == {0.0, 1.0}


def test_a_clipped_loss_is_not_reported_as_a_bound(model):
  metrics = lambda fn: jax.eval_shape(
    lambda rows: fn(model, rows, jax.random.key(0)), batch()
  )
  bounds = lambda names: {name for name in names if 'bound' in name}
  both = {'bpb_bound', 'nats_bound'}
  assert bounds(metrics(objective_of(4)).metrics) == both
  clipped = objective_of(4, low=0.3, high=0.8)
  assert not bounds(metrics(clipped).metrics)
  assert bounds(metrics(clipped.per_row)) == both


def test_a_narrow_range_has_less_variance(model):
  """1/t varies from 1 to 1000 on the whole range, from 1.1 to 2.2 on half."""
  config = bd3lm.Config(mask_id=MASK, block=1)
  ranges = [(0.0, 1.0), (0.45, 0.95)]
  found = nnx.jit(
    lambda model, rows: bd3lm.variance(
      model, rows, jax.random.key(0), config, ranges
    )
  )
  wide, narrow = found(model, batch(256))
  assert narrow < 0.5 * wide


def test_gradients_are_finite_and_padding_adds_nothing(model):
  graph, params = nnx.split(model)
  rows = batch(2, segments=(1, 1, 1, 2, 2, 2, 2, 0))

  def loss(params, rows):
    model = nnx.merge(graph, params)
    return objective_of(4)(model, rows, jax.random.key(0)).sum_nats

  grad = jax.jit(jax.grad(loss))
  norms = [float(jnp.abs(x).max()) for x in jax.tree.leaves(grad(params, rows))]
  assert np.isfinite(norms).all()
  assert max(norms) > 0
  empty = {k: jnp.zeros_like(x) for k, x in rows.items()}
  for leaf in jax.tree.leaves(grad(params, empty)):
    np.testing.assert_array_equal(leaf, 0)


def test_a_step_counts_two_copies_and_one_head(model):
  shape = base.Shape(b=2, t=T)
  once, twice = model.flops(shape), model.flops(base.Shape(b=2, t=2 * T))
  want = sum(twice.values()) - once['head']
  got = flops.per_step(model, shape, objective=objective_of(4))
  assert got == 3 * want


def test_a_search_is_counted_once_per_range(model):
  shape = base.Shape(b=2, t=T)
  objective = objective_of(4, search_every=10)
  step = flops.per_step(model, shape, objective=objective_of(4))
  got = flops.per_step(model, shape, objective=objective)
  assert got == pytest.approx(step * (1 + 35 / 10 / 3))
  more = flops.per_step(model, shape, objective=objective, remat=True)
  plain = flops.per_step(model, shape, objective=objective_of(4), remat=True)
  assert more - plain == pytest.approx(got - step)  # It has no backward pass.


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(block=0), 'size=0'),
    (dict(low=0.5, high=0.5), 'low=0.5 and high=0.5'),
    (dict(t_min=0.0), 't_min=0.0'),
    (dict(mask_id=-1), 'mask_id=-1'),
  ],
)
def test_bad_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    bd3lm.Config(**dict(mask_id=MASK) | fields).make()


def test_the_grid_has_all_widths_and_stays_in_the_unit_interval():
  ranges = bd3lm.Config(mask_id=MASK).ranges()
  assert len(ranges) == len(set(ranges)) == 11 + 9 + 7 + 5 + 3
  assert min(low for low, _ in ranges) == 0
  assert max(high for _, high in ranges) == 1
  widths = {round(high - low, 6) for low, high in ranges}
  assert widths == {0.5, 0.6, 0.7, 0.8, 0.9}


def searched(model, **fields):
  """The model with room for a range, and an objective that chooses one."""
  model.time_range = bd3lm.TimeRange()
  fields = dict(search_widths=(0.5, 0.9), search_delta=0.1) | fields
  config = bd3lm.Config(mask_id=MASK, block=2, search_every=2, **fields)
  return config, config.make()


def test_the_range_is_chosen_anew_at_its_time(model):
  model = nnx.clone(model)
  config, objective = searched(model, low=0.2, high=0.9)
  rows = batch(16)

  @nnx.jit
  def step(model, rng):
    metrics = objective(model, rows, rng).metrics
    objective.advance(model, metrics)
    return metrics

  used = []
  for i in range(5):
    metrics = step(model, jax.random.key(i))
    assert not [name for name in metrics if 'bound' in name]
    used.append((float(metrics['low'].value), float(metrics['high'].value)))
  assert int(model.time_range.steps[...]) == 5
  as_f32 = lambda pair: tuple(map(float, np.float32(pair)))
  assert used[0] == used[1] == as_f32((0.2, 0.9))
  for i in (2, 4):
    found = bd3lm.variance(
      model, rows, jax.random.key(i - 1), config, config.ranges()
    )
    want = config.ranges()[int(np.argmin(found))]
    np.testing.assert_allclose(used[i], want, rtol=1e-6)
  assert used[3] == used[2]


def test_microbatches_choose_one_range_together(model):
  model = nnx.clone(model)
  config, objective = searched(model, search_widths=(0.1,))
  model.time_range.steps[...] = jnp.int32(1)
  rows = batch(16)
  parts = [jax.tree.map(lambda x, i=i: x[i::2], rows) for i in range(2)]
  found = [
    bd3lm.row_losses(model, part, jax.random.key(i), config, config.ranges())
    for i, part in enumerate(parts)
  ]
  best = [int(x.var(1).argmin()) for x in found]
  whole = int(jnp.concatenate(found, axis=1).var(1).argmin())
  assert len({*best, whole}) > 1  # A part would have chosen another one.

  @nnx.jit
  def step(model):
    first, second = (
      objective(model, part, jax.random.key(i)).metrics
      for i, part in enumerate(parts)
    )
    add = lambda a, b: a + b
    objective.advance(model, jax.tree.map(add, first, second))

  step(model)
  state = model.time_range
  chosen = float(state.low[...]), float(state.high[...])
  np.testing.assert_allclose(chosen, config.ranges()[whole], rtol=1e-6)


def test_the_chosen_range_is_what_is_trained_on(model):
  model = nnx.clone(model)
  _, objective = searched(model)
  model.time_range.steps[...] = jnp.int32(3)  # Not due; what is stored is used.
  model.time_range.low[...], model.time_range.high[...] = 0.3, 0.8
  rows, rng = batch(8), jax.random.key(5)
  loss = nnx.jit(lambda model: objective(model, rows, rng).sum_nats)(model)
  fixed = bd3lm.Config(mask_id=MASK, block=2, low=0.3, high=0.8).make()
  want = nnx.jit(lambda model: fixed(model, rows, rng).sum_nats)(model)
  np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_a_model_without_room_for_a_range_is_refused(model):
  config = bd3lm.Config(mask_id=MASK, search_every=2)
  with pytest.raises(ValueError, match=r'model=bd3lm\.Model'):
    config.make()(nnx.clone(model), batch(), jax.random.key(0))
  for fields in (
    dict(search_every=-1),
    dict(search_widths=()),
    dict(search_widths=(1.5,)),
    dict(search_delta=0.0),
  ):
    with pytest.raises(ValueError, match=next(iter(fields))):
      bd3lm.Config(**fields)
