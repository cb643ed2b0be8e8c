# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MrT5: soft and hard deletion, the controller, and what it costs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.byte_lm.configs import mrt5 as config_file
from jaxtok import runs, train
from jaxtok.data import text
from jaxtok.decoding import autoregressive
from jaxtok.models import base, mrt5, transformer
from jaxtok.nn import ragged, shorteners
from jaxtok.objectives import next_token
from tests.conformance import model_suite

SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dim=16,
  num_layers=2,
  num_encoder_layers=3,
  num_heads=2,
  head_dim=8,
  mlp_dim=24,
  shorten_at=1,
)
B, T, S = 2, 5, 24
LENGTHS = (S, 17)


class TestConformance(model_suite.CausalSuite):
  # Hard deletion has no gradient to the gate.
  case = model_suite.Case(
    mrt5.Config.byt5(**SMALL, evaluation='soft'), has_context=True
  )


@dataclasses.dataclass(frozen=True)
class Forced:
  """Deletes given positions, whatever the states are."""

  keep: tuple[tuple[bool, ...], ...]
  lowest: float = -1e4
  is_sharp: bool = True  # Else survivors have some gate too.

  def make(self, dim, rngs):
    del dim, rngs
    return ForcedDeletion(self)


class ForcedDeletion(nnx.Module):
  is_soft = True

  def __init__(self, config):
    self.config = config

  def __call__(self, x_bsd, *, tokens_bs, segment_ids_bs, rng):
    del rng
    keep_bs = jnp.asarray(self.config.keep) & (segment_ids_bs != 0)
    # A gate whose logits are 100 and -100.
    logit_bs = jnp.where(keep_bs, 100.0, -100.0)
    gate_bs = self.config.lowest * jax.nn.sigmoid(-logit_bs)
    if not self.config.is_sharp:
      gate_bs = jnp.where(keep_bs, -2.0 * tokens_bs / 24, gate_bs)
    return shorteners.Shortened(x_bsd, keep_bs, gate_bs, jnp.zeros(()), {})

  def flops(self, rows):
    del rows
    return 0.0


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  ids = lambda *shape: jnp.asarray(rng.integers(3, 24, shape), jnp.int32)
  valid = jnp.arange(S) < jnp.asarray(LENGTHS)[:, None]
  return ids(B, T), base.Source(ids(B, S), valid.astype(jnp.int32))


def forced(seed=1, **fields):
  keep = np.random.default_rng(seed).random((B, S)) < 0.5
  keep = tuple(map(tuple, keep.tolist()))
  fields = dict(shortener=Forced(keep)) | fields
  return mrt5.Config.byt5(**SMALL, **fields)


def randomised(config):
  """A model whose parameters are far from where they start."""
  subject = model_suite.Subject(model_suite.Case(config, has_context=True))
  return subject.model


@functools.partial(jax.jit, static_argnames=('graph', 'deletion'))
def _logits(graph, state, tokens, source, deletion):
  model = nnx.merge(graph, state)
  output = model(tokens, context=source, deletion=deletion)
  return model.logits(output.hidden_btd)


def logits(model, deletion):
  return _logits(*nnx.split(model), *inputs(), deletion)


@pytest.mark.parametrize('softmax_one', [True, False])
def test_hard_deletion_equals_soft_where_the_gate_is_sharp(softmax_one):
  """Padded rows, relative biases, another number of survivors in each row."""
  model = randomised(forced(softmax_one=softmax_one))
  soft, hard = logits(model, 'soft'), logits(model, 'hard')
  # exp(-1e4) = 0, so the same sums in another order.
  np.testing.assert_allclose(hard, soft, atol=1e-5)
  assert np.abs(logits(model, 'off') - soft).max() > 0.1


def test_survivors_may_keep_their_gate():
  """With it, hard equals soft also for a gate that is not sharp."""
  shortener = dataclasses.replace(forced().shortener, is_sharp=False)
  model = randomised(forced(shortener=shortener, hard_keeps_bias=True))
  soft = logits(model, 'soft')
  np.testing.assert_allclose(logits(model, 'hard'), soft, atol=1e-5)
  model = randomised(forced(shortener=shortener))
  assert np.abs(logits(model, 'hard') - soft).max() > 1e-3


@pytest.mark.parametrize('policy', ['full', 'ratio', 'bucket'])
def test_the_room_for_survivors_changes_no_evaluation(policy):
  """A quarter of the row is too little for the survivors."""
  capacity = ragged.Capacity(policy=policy, ratio=0.25, multiple=8)
  config = forced(capacity=capacity)
  model = randomised(config)
  np.testing.assert_allclose(
    logits(model, 'hard'), logits(model, 'soft'), atol=1e-5
  )


def test_survivors_without_room_in_training_are_counted():
  capacity = ragged.Capacity(policy='ratio', ratio=0.25)
  model = forced(capacity=capacity).make(nnx.Rngs(0))
  tokens, source = inputs()
  run = nnx.jit(
    lambda model: model(
      tokens, context=source, rng=jax.random.key(0), deletion='hard'
    ).aux['metrics']
  )
  metrics = run(model)
  keep = np.asarray(model.config.shortener.keep) & np.asarray(
    source.segment_ids_bs, bool
  )
  np.testing.assert_array_equal(
    metrics['overflow'].total, np.maximum(keep.sum(1) - 6, 0)
  )
  assert metrics['overflow'].total.max() > 0
  assert metrics['longest_kept'].value[0] == keep.sum(1).max()


@pytest.mark.parametrize('evaluation', ['soft', 'hard'])
def test_generation_equals_argmax_without_a_cache(evaluation):
  capacity = ragged.Capacity(policy='bucket', multiple=8)
  config = mrt5.Config.byt5(**SMALL, evaluation=evaluation, capacity=capacity)
  model = randomised(config)
  _, source = inputs()
  got = autoregressive.generate(
    model, np.zeros((B, 1), np.int32), num_tokens=5, context=source
  )
  run = nnx.jit(lambda m, x: m.logits(m(x, context=source).hidden_btd))
  tokens = np.zeros((B, 6), np.int32)
  for i in range(5):
    tokens[:, i + 1] = run(model, jnp.asarray(tokens))[:, i].argmax(-1)
  np.testing.assert_array_equal(got.tokens, tokens[:, 1:])
  deleted = model(jnp.zeros((B, 1), jnp.int32), context=source).aux['metrics'][
    'deleted'
  ]
  assert 0 < deleted.value.mean() < 1


def test_without_deletion_it_is_the_model_without_a_gate():
  """'off', and a gate that keeps everything, against the control."""
  model = randomised(mrt5.Config.byt5(**SMALL))
  control = mrt5.Config.byt5(**SMALL, shortener=None).make(nnx.Rngs(0))
  own = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  own.pop('shortener')
  nnx.update(control, own)
  want = logits(control, '')
  np.testing.assert_array_equal(logits(model, 'off'), want)
  model.shortener.kernel[...] *= 0
  model.shortener.bias[...] = jnp.full(1, 100.0)
  np.testing.assert_allclose(logits(model, 'hard'), want, atol=1e-5)
  np.testing.assert_allclose(logits(model, 'soft'), want, atol=1e-5)


def test_rows_that_lose_everything_are_reported_and_stay_finite():
  model = randomised(mrt5.Config.byt5(**SMALL))
  model.shortener.kernel[...] *= 0
  model.shortener.bias[...] = jnp.full(1, -100.0)
  assert np.isfinite(logits(model, 'hard')).all()
  tokens, source = inputs()
  metrics = model(tokens, context=source).aux['metrics']
  np.testing.assert_array_equal(metrics['emptied_rows'].total, [1, 1])
  np.testing.assert_array_equal(metrics['deleted'].total, LENGTHS)


def test_hard_steps_in_training_are_drawn():
  """With a share of one, training is what 'hard' gives, else what 'soft'."""
  tokens, source = inputs()
  keep = tuple(map(tuple, np.zeros((B, S), bool).tolist()))
  shortener = Forced(keep, lowest=-1.0)  # Soft deletion changes little.

  def run(share, deletion=''):
    model = forced(hard_share=share, shortener=shortener).make(nnx.Rngs(0))
    call = nnx.jit(
      lambda model: (
        model(
          tokens, context=source, rng=jax.random.key(3), deletion=deletion
        ).hidden_btd
      )
    )
    return call(model)

  hard, soft = run(0.0, 'hard'), run(0.0)
  assert np.abs(hard - soft).max() > 0.01
  np.testing.assert_allclose(run(1.0), hard, atol=1e-6)
  np.testing.assert_allclose(run(0.0, 'soft'), soft, atol=1e-6)


def batch_of(tokens, source):
  ones = jnp.ones((B, T))
  return {
    'tokens_bt': tokens,
    'targets_bt': (tokens + 1) % 24,
    'loss_mask_bt': ones.at[1, 3:].set(0),
    'segment_ids_bt': ones.astype(jnp.int32),
    'positions_bt': jnp.broadcast_to(jnp.arange(T), (B, T)),
    'num_bytes_bt': ones.astype(jnp.int32),
    'context_bs': source.tokens_bs,
    'context_segment_ids_bs': source.segment_ids_bs,
  }


def test_the_loss_has_the_mean_gate_times_the_coefficient():
  model = mrt5.Config.byt5(**SMALL).make(nnx.Rngs(0))
  objective = next_token.Config().make()
  batch = batch_of(*inputs())

  @nnx.jit
  def run(model, proportional):
    model.shortener.rate.proportional[...] = proportional
    loss = objective(model, batch, jax.random.key(0))
    model.advance(loss.metrics)
    return loss, model.shortener.rate.coef()

  without, _ = run(model, jnp.float32(0.0))
  loss, coef = run(model, jnp.float32(0.25))
  gate = float(loss.metrics['gate'].value)
  assert -30 < gate < 0
  assert float(loss.metrics['gate'].weight) == sum(LENGTHS)
  weight = float(loss.weight)
  assert weight == 8
  # The cross-entropy is about 8 log 24 = 25 nats; float32 sums.
  np.testing.assert_allclose(
    loss.sum_nats - without.sum_nats, 0.25 * gate * weight, rtol=1e-4
  )
  # The state after this step serves the next one: P = .9 P + .1 kp err.
  deleted = float(loss.metrics['deleted'].value)
  error = 0.5 - deleted
  # The first call left an integral of ki err.
  want = 0.9 * 0.25 + 0.1 * 0.5 * error + 2e-5 * error
  np.testing.assert_allclose(coef, want, atol=1e-6)


def test_only_training_steps_move_the_controller_and_checkpoints_hold_it(
  tmp_path,
):
  config = config_file.get_config('tiny')
  config.data.source = text.Stdlib(max_bytes=100_000)
  config.data.seq_len, config.mesh.data = 32, 1
  config.steps = config.log_every = config.checkpoint_every = 3
  config.model.shortener.rate.delay = 1
  config.evals['val'].every_steps = 1
  config.evals['val'].max_bytes = 500
  train.run(config, tmp_path / 'run')
  run = runs.load(tmp_path / 'run')
  rate = run.model.shortener.rate
  assert int(rate.steps[...]) == 3
  assert float(rate.integral[...]) != 0
  rows = run.metrics('train')[-1]
  assert rows['gate'] < 0
  assert {'deleted', 'longest_kept', 'penalty'} <= set(rows)
  assert 'deleted' in run.metrics('eval/val')[-1]


def test_flops_follow_the_share_that_is_kept():
  """ByT5-small: shares of the whole from the formula of the sheet's counter.

  Multiply-adds of a layer with inner width a and m matrices in the MLP: `Lq d a
  2 + Lk d a 2 + 2 Lq Lk a + m Lq d f`; without the head.
  """
  config = mrt5.Config.byt5(
    vocab_size=384,
    dim=1472,
    num_encoder_layers=12,
    num_layers=4,
    num_heads=6,
    head_dim=64,
    mlp_dim=3584,
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  d, a, f, s, t = 1472, 384, 3584, 1024, 189

  def macs(lq, lk, mlp=True):
    return (
      lq * d * a * 2 + lk * d * a * 2 + 2 * lq * lk * a + (3 * lq * d * f * mlp)
    )

  def want(kept):
    w = int(np.ceil(kept * s))
    encoder = 3 * macs(s, s) + 9 * macs(w, w) + s * d
    return encoder + 4 * (macs(t, t) + macs(t, w, mlp=False))

  def got(kept):
    parts = model.flops(base.Shape(b=3, t=t, s=s), kept)
    return sum(v for k, v in parts.items() if k != 'head')

  for kept in (1.0, 0.7, 0.5, 0.3):
    assert got(kept) == pytest.approx(2 * 3 * want(kept), rel=1e-12)
  assert got(None) == got(1.0)  # Training computes all positions.
  # What deleting 0.3, 0.5, 0.6, 0.7 and 0.8 leaves, by a separate count.
  left = [got(kept) / got(1.0) for kept in (0.7, 0.5, 0.4, 0.3, 0.2)]
  want_left = [0.780, 0.637, 0.566, 0.496, 0.426]
  np.testing.assert_allclose(left, want_left, atol=1e-3)


def test_a_t5_can_be_adopted():
  fields = {k: v for k, v in SMALL.items() if k != 'shorten_at'}
  model = transformer.Config.byt5(**fields).make(nnx.Rngs(4))
  adopted = mrt5.adopt(model, rngs=nnx.Rngs(0), shorten_at=2, softmax_one=False)
  tokens, source = inputs()
  run = nnx.jit(
    lambda model, **kw: model.logits(
      model(tokens, context=source, **kw).hidden_btd
    )
  )
  np.testing.assert_array_equal(logits(adopted, 'off'), run(model))
  assert adopted.config.shorten_at == 2
  for given in ({'dim': 32}, {'num_layers': 1}, {'num_layers': 3}):
    with pytest.raises(ValueError, match=f'Leave out {next(iter(given))}'):
      mrt5.adopt(model, rngs=nnx.Rngs(0), shorten_at=2, **given)
  encoder = transformer.Config.bert(vocab_size=9, dim=16, max_len=8)
  with pytest.raises(ValueError, match='must be an encoder-decoder'):
    mrt5.adopt(encoder.make(nnx.Rngs(0)), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'shorten_at': 3}, r'shorten_at=3 must be in \[0, num_encoder_layers=3\)'),
    ({'evaluation': 'no'}, "evaluation='no' must be one of soft, hard, off"),
    ({'hard_share': 1.5}, r'hard_share=1.5 must be in \[0, 1\]'),
    ({'score_limit': -1.0}, 'score_limit=-1.0 too'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    mrt5.Config.byt5(**SMALL | fields)


def test_wrong_arguments_are_explained():
  with pytest.raises(ValueError, match='num_encoder_layers=0 must be >= 1'):
    mrt5.Config(vocab_size=9, shorten_at=0).make(nnx.Rngs(0))
  model = mrt5.Config.byt5(**SMALL).make(nnx.Rngs(0))
  tokens, source = inputs()
  with pytest.raises(ValueError, match="deletion='half' must be '' or one of"):
    model(tokens, context=source, deletion='half')
  with pytest.raises(ValueError, match=r'lowest=1\.0 must be < 0'):
    shorteners.Gate(lowest=1.0)
