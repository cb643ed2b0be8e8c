# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant models: the promises of all models, and invariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.claims import lexinvariant as claim
from experiments.claims import semi_lexinvariant as semi_claim
from jaxtok.models import base, level, lexinvariant
from jaxtok.nn import masks, random_table, segmenters
from jaxtok.objectives import next_token
from jaxtok.tasks import lookup
from tests.conformance import greedy, model_suite

V, D = model_suite.VOCAB, 16
TRUNK = level.Config(
  dim=D,
  num_layers=1,
  num_heads=2,
  gated=False,
  activation='gelu',
  position='t5',
)


class TestConformance(model_suite.CausalSuite):
  """With a table, whose rows tell which tokens a position reads."""

  case = model_suite.Case(
    lexinvariant.Config(vocab_size=V, fresh=0.5, trunk=TRUNK)
  )


def make(**fields) -> lexinvariant.Lexinvariant:
  config = dict(vocab_size=V, trunk=TRUNK) | fields
  return lexinvariant.Config(**config).make(nnx.Rngs(0))


@pytest.fixture(scope='module')
def model():
  return make()


@pytest.fixture(scope='module')
def tokens():
  return jnp.asarray(np.random.default_rng(0).integers(0, V, (3, 10)))


@nnx.jit
def read(model, tokens, tables):
  """Logits under given tables, one per row or for all."""
  document = jnp.zeros_like(tokens)
  output = model.read(tokens, tables, document_bt=document)
  return model.logits(output.hidden_btd, tables)


@nnx.jit
def call(model, tokens, segments, rng):
  """Logits of a call with an rng, and what else it says."""
  positions = segmenters.place_in_unit(segmenters.first(tokens, segments))
  output = model(tokens, positions=positions, segment_ids=segments, rng=rng)
  return model.logits(output.hidden_btd, **output.aux['logits']), output.aux


def test_it_has_no_parameter_that_knows_symbols(model):
  for path, param in nnx.to_flat_state(nnx.state(model, nnx.Param)):
    assert V not in param.get_raw_value().shape, path


def test_renamed_text_under_a_renamed_table_gives_the_same_law(model, tokens):
  names = np.random.default_rng(1).permutation(V)
  tables = random_table.draw(jax.random.key(0), 3, 1, V, D)
  renamed = jnp.zeros_like(tables).at[:, :, names].set(tables)
  a = read(model, tokens, tables)
  b = read(model, jnp.asarray(names)[tokens], renamed)
  # The same products, summed over d in the same order.
  np.testing.assert_allclose(b[..., names], a, atol=1e-5)
  assert np.abs(b - a).max() > 1e-2


def test_logits_are_products_with_the_vectors_of_the_input(model, tokens):
  """Position by position in float64, from the states of the trunk."""
  tables = random_table.draw(jax.random.key(2), 3, 1, V, D)
  table = np.asarray(tables, np.float64)[:, 0]
  x = np.take_along_axis(table, np.asarray(tokens)[..., None], 1)
  trunk = lambda model, x: model.trunk(
    x,
    positions_bt=jnp.arange(10)[None],
    segment_ids_bt=None,
    mask=masks.Causal(),
  )[0]
  h = nnx.jit(trunk)(model, jnp.asarray(x, jnp.float32))
  q = np.asarray(h, np.float64) @ np.asarray(model.readout.kernel[...])
  want = 0.125 / np.sqrt(D) * np.einsum('btd,bvd->btv', q, table)
  # Float32 sums of 16 products of order 1.
  np.testing.assert_allclose(read(model, tokens, tables), want, atol=1e-5)


def test_tables_differ_by_row_document_and_step():
  draw = lambda step: random_table.draw(
    jax.random.fold_in(jax.random.key(0), step), 3, 2, V, D
  )
  tables = np.concatenate([draw(0), draw(1)]).reshape(12, V, D)
  flat = tables.reshape(12 * V, D)
  distance = ((flat[:, None] - flat[None]) ** 2).sum(-1)
  assert (distance[~np.eye(len(flat), dtype=bool)] > 1e-3).all()
  # 4,608 draws: mean within 4/sqrt(n), variance within 4 sqrt(2/n).
  assert abs(flat.mean()) < 0.06
  assert abs(flat.var() - 1) < 0.09
  few = random_table.draw(jax.random.key(0), 2, 2, V, D)
  many = random_table.draw(jax.random.key(0), 3, 2, V, D)
  np.testing.assert_array_equal(few, many[:2])


def test_a_call_with_an_rng_uses_a_table_for_each_document(model):
  """The same text in two documents of a row and in two rows."""
  text = [1, 2, 1, 3]
  tokens = jnp.asarray([text * 2] * 2)
  segments = jnp.asarray([[1] * 4 + [2] * 4] * 2)
  first, aux = call(model, tokens, segments, jax.random.key(0))
  second, _ = call(model, tokens, segments, jax.random.key(1))
  parts = np.concatenate([*first, *second]).reshape(8, 4, V)
  for i in range(8):
    for j in range(i):
      assert np.abs(parts[i] - parts[j]).max() > 1e-3
  # Each document is what it is alone, under its table.
  tables = aux['logits']['tables_bkvd']
  for row in range(2):
    for document in range(2):
      table = tables[row, document][None, None]
      alone = read(model, jnp.asarray([text]), table)[0]
      got = first[row, 4 * document : 4 * document + 4]
      np.testing.assert_allclose(got, alone, atol=1e-5)


def test_documents_without_a_table_are_left_out_of_training(model):
  tokens = jnp.asarray([[1, 2, 3, 4, 5, 6, 7, 8]])
  segments = jnp.asarray([[1, 1, 2, 2, 3, 3, 4, 0]])
  _, aux = call(model, tokens, segments, jax.random.key(0))
  np.testing.assert_array_equal(
    aux['target_mask_bt'], [[True] * 4 + [False] * 3 + [True]]
  )
  lost = aux['metrics']['lost_targets']
  assert (float(lost.total[0]), float(lost.weight[0])) == (3, 7)
  batch = {
    'tokens_bt': tokens,
    'targets_bt': tokens,
    'segment_ids_bt': segments,
    'positions_bt': jnp.zeros_like(tokens),
    'loss_mask_bt': jnp.ones((1, 8)).at[0, 7].set(0),
    'num_bytes_bt': jnp.ones_like(tokens),
  }
  objective = next_token.Config().make()
  loss = nnx.jit(lambda model, rng: objective(model, batch, rng))
  assert loss(model, jax.random.key(0)).weight == 4


def test_the_objective_scores_by_the_tables_of_the_call(model, tokens):
  """Loss and gradients against the plain formula, with the same key."""
  batch = {
    'tokens_bt': tokens,
    'targets_bt': (tokens + 1) % V,
    'segment_ids_bt': jnp.ones_like(tokens).at[:, 6:].set(2),
    'positions_bt': jnp.broadcast_to(jnp.arange(10), tokens.shape),
    'loss_mask_bt': jnp.ones(tokens.shape),
    'num_bytes_bt': jnp.ones_like(tokens),
  }
  objective = next_token.Config(num_chunks=3).make()
  model = make(fresh=0.5)
  graph, params = nnx.split(model)
  rng = jax.random.key(3)

  def ours(params):
    return objective(nnx.merge(graph, params), batch, rng).sum_nats

  def plain(params):
    model = nnx.merge(graph, params)
    output = model(
      tokens,
      positions=batch['positions_bt'],
      segment_ids=batch['segment_ids_bt'],
      rng=rng,
    )
    logits = model.logits(output.hidden_btd, **output.aux['logits'])
    law = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(law, batch['targets_bt'][..., None], 2).sum()

  got, want = (jax.jit(jax.value_and_grad(f))(params) for f in (ours, plain))
  # Sums of 30 terms of order 3 in another order.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, want
  )


def test_a_share_of_the_learned_table_is_replaced_whole_symbols_at_a_time():
  learned = 3.0 * jax.random.normal(jax.random.key(0), (500, 4))
  tables = random_table.draw(jax.random.key(1), 2, 2, 500, 4)
  mixed = np.asarray(random_table.mix(jax.random.key(2), tables, learned, 0.2))
  is_old = mixed == np.asarray(learned)
  assert (is_old.all(-1) | ~is_old.any(-1)).all()
  share = 1 - is_old.all(-1).mean()
  assert abs(share - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 2000)
  new = mixed[~is_old.all(-1)]
  rms = float(jnp.sqrt((learned**2).mean()))
  assert abs(np.sqrt((new**2).mean()) / rms - 1) < 0.1  # About 1,600 draws.
  # All of it or nothing.
  np.testing.assert_allclose(
    random_table.mix(jax.random.key(2), tables, learned, 1.0), rms * tables
  )
  none = random_table.mix(jax.random.key(2), tables, learned, 0.0)
  assert (none == learned).all()


def test_generation_with_a_cache_equals_arg_max_without():
  model = make()
  model.scale[...] *= 40
  new = greedy.generate(model, [[1, 2, 1, 2, 1], [5, 6, 7, 5, 6, 7]], 8)
  assert len(np.unique(new)) > 1


def test_the_table_of_evaluation_is_chosen_by_its_seed(tokens):
  tables = [make(eval_seed=seed).table() for seed in (0, 0, 1)]
  np.testing.assert_array_equal(tables[0], tables[1])
  assert np.abs(tables[0] - tables[2]).max() > 1
  whole = nnx.jit(lambda model, x: model.logits(model(x).hidden_btd))
  np.testing.assert_allclose(
    whole(make(eval_seed=1), tokens),
    read(make(), tokens, tables[2][None, None]),
    atol=1e-5,
  )


def test_the_first_predictions_are_near_uniform(model, tokens):
  """Without W and c "the same again" would cost several nats."""
  segments = jnp.ones_like(tokens)
  law = jax.nn.log_softmax(call(model, tokens, segments, jax.random.key(0))[0])
  assert abs(float(-law.mean()) - np.log(V)) < 0.1


def test_flops_agree_with_xlas_count():
  config = lexinvariant.Config(
    vocab_size=256,
    max_documents=1,
    trunk=level.Config(dim=128, gated=False, activation='relu'),
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  abstract = nnx.split(model)

  def logits(params, tables):
    model = nnx.merge(abstract[0], params)
    return read(model, jnp.zeros((4, 64), jnp.int32), tables)

  tables = jax.ShapeDtypeStruct((4, 1, 256, 128), jnp.float32)
  lowered = jax.jit(logits).lower(abstract[1], tables)
  # XLA also counts norms, softmax and the like.
  assert 1 < lowered.cost_analysis()['flops'] / counted < 1.08


@pytest.mark.parametrize(
  'trunk, scale',
  [
    (lexinvariant.Config().trunk, 1.0),
    (level.Config(gated=False), 1 / np.sqrt(4)),  # Two branches each.
  ],
)
def test_branches_begin_as_large_as_configured(trunk, scale):
  block = make(trunk=trunk).trunk.stack.blocks[0]
  # 65,536 and 16,384 numbers: the error of their std is 0.6 % of it at most.
  std = float(block.mlp.down.kernel[...].std())
  assert std == pytest.approx(scale / np.sqrt(4 * trunk.dim), rel=0.02)
  std = float(block.attention.out.kernel[...].std())
  assert std == pytest.approx(scale / np.sqrt(trunk.dim), rel=0.02)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'fresh': 1.5}, r'fresh=1.5 must be in \[0, 1\]'),
    ({'max_documents': 0}, 'max_documents=0 must be >= 1'),
    ({'vocab_size': 0}, 'vocab_size=0 must be >= 1'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    make(**fields)


def test_counting_predicts_by_what_followed_so_far():
  # After 0: nothing seen, then 1 once; after 1: nothing seen, then 0 once.
  rows = np.array([[0, 1, 0, 1, 0]])
  found = claim.counting(rows, prior=0.5, slope=2.0)
  seen = -np.log(1.5 / 2)
  np.testing.assert_allclose(
    found['counts'], [[np.log(2), np.log(2), seen, seen]], rtol=1e-12
  )
  seen = -np.log(np.exp(2) / (np.exp(2) + 1))
  np.testing.assert_allclose(
    found['shares'], [[np.log(2), np.log(2), seen, seen]], rtol=1e-12
  )


def test_rows_of_the_claim_are_those_of_the_task():
  task = semi_claim.part('unseen')
  tokens, weights = jax.device_get(
    semi_claim.rows(task, jax.random.key(0), num=64)
  )
  assert tokens.shape == (64, task.prompt_len + task.answer_len)
  assert task.is_correct(tokens).all()
  symbols = tokens[tokens < task.num_symbols]
  assert (symbols.min(), symbols.max()) == (task.low, task.stop - 1)
  is_swapped = tokens[:, 0] == tokens[:, 4]
  # 64 fair coins are within four standard deviations of 32.
  assert abs(is_swapped.sum() - 32) <= 16
  # a b -> b a ; has its last two symbols, and no mark, as targets.
  assert weights[0].tolist() == ([0, 0, 0, 1, 1, 0] * 5)[:-1]


def test_new_symbols_of_the_claim_get_vectors_of_their_own_in_each_row():
  table = np.asarray(3 * jax.random.normal(jax.random.key(1), (6, 500)))
  is_new = np.array([False, True, False, True, True, False])
  got = np.asarray(semi_claim.fresh(jax.random.key(0), table, is_new, 2))[:, 0]
  for row in got:
    np.testing.assert_array_equal(row[~is_new], table[~is_new])
  vectors = np.concatenate([table[is_new], *got[:, is_new]])
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  # Of 500 numbers each: cosines are about 0.04.
  assert abs(vectors @ vectors.T - np.eye(9)).max() < 0.25
  np.testing.assert_allclose(got[:, is_new].std(axis=-1), 3, rtol=0.2)


def test_rows_of_look_up_are_those_of_the_task_with_one_query():
  task = lookup.Lookup(num_symbols=64, high=32)
  tokens, weights = map(
    np.asarray, claim.lookup_rows(task, jax.random.key(0), num=256)
  )
  assert tokens.shape == (256, task.prompt_len + 1)
  assert task.is_correct(tokens).all()
  pairs = tokens[:, :-3].reshape(256, 8, 3)
  symbols = np.sort(pairs[..., :2].reshape(256, 16))
  assert (np.diff(symbols) > 0).all()  # No key stands for two values.
  assert symbols.max() < 32
  # Each pair alike: 4 standard errors of 256 draws are 0.083.
  asked = (pairs[..., 0] == tokens[:, -3:-2]).mean(0)
  np.testing.assert_allclose(asked, 1 / 8, atol=0.09)
  np.testing.assert_array_equal(weights.sum(1), 1)
  assert (weights[:, -1] == 1).all()
