# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLT: the promises of all models, a loop over patches, and generation.

Parity with `transformers` is in `tests/models/interop/blt_test.py`.
"""

import dataclasses
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.byte_lm.configs import blt as config_lib
from jaxtok.models import base, blt, interop, patcher, transformer
from jaxtok.nn import masks, ngram_hash, ragged, segmenters
from tests.conformance import greedy, model_suite
from tests.models.spacebyte_test import Every

SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dim=16,
  byte_dim=8,
  num_layers=1,
  num_decoder_layers=2,
  num_heads=2,
  num_byte_heads=2,
  ngrams=(2, 4),
  hash_rows=32,
  window=0,
)
ENTROPY = patcher.Entropy(
  model=transformer.Config.llama(
    dim=8, num_layers=1, num_heads=2, is_tied=False
  ),
  # It rises at about half of the tokens.
  rule=segmenters.Entropy(rule='monotonic', threshold=0.0, longest=4),
  window=6,
)


@pytest.mark.slow  # The next one holds all but a rule for tokens.
class TestRule(model_suite.CausalSuite):
  case = model_suite.Case(blt.Config(patcher=Every(), **SMALL | dict(dim=24)))


class TestEntropy(model_suite.CausalSuite):
  case = model_suite.Case(blt.Config(patcher=ENTROPY, **SMALL))


def make(seed=0, **fields):
  config = blt.Config(**(SMALL | dict(embed_std=1.0, patcher=Every()) | fields))
  return config.make(nnx.Rngs(seed))


TOKENS = np.random.default_rng(0).integers(0, 24, (2, 12))
LENGTHS = [1, 3, 2, 4]  # Of 12 bytes; the last two are in no patch yet.


def stack(part, x_td, mask=None):
  y_btd, _ = part(
    x_td[None],
    positions_bt=jnp.arange(len(x_td))[None],
    segment_ids_bt=None,
    mask=masks.Causal() if mask is None else mask,
  )
  return y_btd[0]


def look(cross, x_qd, y_sd):
  layout = masks.Layout(len(x_qd), len(y_sd))
  return cross(x_qd[None], y_sd[None], masks.Full(), layout)[0]


def loop_over_patches(model, tokens):
  x_td = model.embed(jnp.asarray(tokens))
  for t in range(len(tokens)):
    for i, n in enumerate((2, 4)):
      window = [0] * n + list(map(int, tokens[: t + 1]))
      prime = ngram_hash.PRIMES[0]
      total = sum(x * prime**j for j, x in enumerate(window[-n:])) % 2**64
      row = (total - (2**64 if total >= 2**63 else 0)) % 32
      x_td = x_td.at[t].add(model.hashes.table[row + 32 * i])
  x_td, begin, patches, ends = stack(model.encoder, x_td), 0, [], []
  for length in LENGTHS:
    bytes_sd = x_td[begin : begin + length]
    query = model.parts(bytes_sd.max(axis=0)[None]).reshape(2, 8)
    patches.append(look(model.encoder_cross, query, bytes_sd).reshape(16))
    begin += length
    ends.append(begin - 1)
  parts = model.down(stack(model.trunk, jnp.stack(patches))).reshape(-1, 2, 8)
  for cross, layer in zip(model.decoder_cross, model.decoder, strict=True):
    rows = []
    for t in range(len(tokens)):
      patch = sum(end <= t for end in ends) - 1
      rows.append(look(cross, x_td[t : t + 1], parts[patch]))
    x_td = stack(layer, jnp.concatenate(rows))
  return x_td


@pytest.mark.parametrize('double', [False, True])
def test_states_equal_a_loop_over_patches(double):
  graph, params = nnx.split(make(double_residual=double))
  ends = np.zeros((1, 12), bool)
  ends[0, np.cumsum(LENGTHS) - 1] = True

  @jax.jit
  def call(params):
    model = nnx.merge(graph, params)
    return model(jnp.asarray(TOKENS[:1]), context=jnp.asarray(ends)).hidden_btd

  @jax.jit
  def loop(params):
    return loop_over_patches(nnx.merge(graph, params), TOKENS[0])

  # States of order 1 after the last norm; sums in another order.
  np.testing.assert_allclose(call(params)[0], loop(params), atol=2e-5)


def test_lengths_become_ends():
  lengths = jnp.asarray([[1, 3, 2, 0], [1, 3, 2, 1], [1, 5, 0, 0]])
  ends = patcher.ends_of_lengths(lengths, 6).astype(int)
  # The lengths of the first row say that a patch begins behind it.
  want = [[1, 0, 0, 1, 0, 1], [1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 1]]
  np.testing.assert_array_equal(ends, want)
  alone = patcher.ends_of_lengths(lengths[2:, :2], 6).astype(int)
  np.testing.assert_array_equal(alone, [[1, 0, 0, 0, 0, 0]])


def test_the_threshold_gives_the_wanted_length():
  rng = np.random.default_rng(0)
  entropy = jnp.asarray(rng.exponential(size=(50, 216)), jnp.float32)
  entropy = entropy.at[:, :16].set(9.0)  # Without context all is unsure.
  rule = segmenters.Entropy(threshold=patcher.threshold(entropy, 4.0))
  ends = np.asarray(rule.ends(entropy))[:, 16:]
  assert abs(ends.mean() - 1 / 4) < 1e-3  # A quantile of 10,000.
  # exp(-threshold) = 1 / 4; five standard errors of the quantile.
  assert abs(np.exp(-rule.threshold) - 1 / 4) < 5 * (3 / 16 / 1e4) ** 0.5
  with pytest.raises(ValueError, match='bytes per patch must be > 1'):
    patcher.threshold(entropy, 1.0)


def test_training_leaves_out_what_has_no_room():
  """12 patches, room for 3: no target from the fourth on is trained."""
  capacity = ragged.Capacity(policy='ratio', ratio=0.25)
  graph, params = nnx.split(make(capacity=capacity))
  tokens = jnp.asarray(TOKENS // 3 * 3)  # Each ends a patch.

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    return model(tokens, rng=jax.random.key(0)), model(tokens)

  trained, full = both(params)
  mask = np.asarray(trained.aux['target_mask_bt'])
  np.testing.assert_array_equal(mask, np.arange(12) < [[3], [3]])
  assert 'target_mask_bt' not in full.aux
  np.testing.assert_allclose(
    trained.hidden_btd[:, :3], full.hidden_btd[:, :3], atol=1e-5
  )
  np.testing.assert_array_equal(
    full.aux['metrics']['units_per_token'].total, [12, 12]
  )


def test_the_entropy_models_parameters_are_not_trained():
  model = make(patcher=ENTROPY)
  paths = [p for p, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
  assert not [p for p in paths if p[0] == 'patcher']
  frozen = nnx.to_flat_state(nnx.state(model, patcher.Frozen))
  assert frozen
  assert all(p[:2] == ('patcher', 'model') for p, _ in frozen)


@pytest.fixture(scope='module')
def language_model():
  return dataclasses.replace(ENTROPY.model, vocab_size=24).make(nnx.Rngs(7))


def test_the_entropy_model_is_read_from_a_checkpoint(tmp_path, language_model):
  interop.save(language_model, tmp_path / 'lm', model_type='llama')
  path = str(tmp_path / 'lm')
  model = make(patcher=dataclasses.replace(ENTROPY, path=path))
  tokens = jnp.asarray(TOKENS)
  mask = masks.Causal() & masks.Window(6)
  entropy = segmenters.entropies(language_model, tokens, mask=mask)
  got, _ = model.patcher(tokens, jnp.ones_like(tokens), None, None)
  np.testing.assert_array_equal(got, ENTROPY.rule.ends(entropy))
  assert 4 < got.sum() < 24
  wider = dataclasses.replace(ENTROPY.model, dim=16)
  other = dataclasses.replace(ENTROPY, path=path, model=wider)
  with pytest.raises(ValueError, match='holds a model of other sizes'):
    make(patcher=other)


def test_a_missing_entropy_model_is_asked_for_with_the_commands(
  tmp_path, language_model
):
  path = tmp_path / 'weights'
  config = dataclasses.replace(ENTROPY, path=str(path))
  with pytest.raises(FileNotFoundError) as caught:
    make(patcher=config)
  message = str(caught.value)
  assert f"model.patcher.path='{path}': {path} is without config" in message
  train, write = (
    line for line in message.splitlines() if line.startswith('  python')
  )
  # The same words as in the docstring of the config, and a file that exists.
  doc = ' '.join(config_lib.__doc__.replace('\\', ' ').split())
  assert ' '.join(train.split()) in doc
  code = write.split('"')[1]
  assert code.replace(str(path), config_lib.WEIGHTS) in doc
  # The second makes what was missing.
  run = types.SimpleNamespace(model=language_model)
  with mock.patch('jaxtok.runs.load', return_value=run):
    exec(code)
  make(patcher=config)


def test_generation_with_nested_caches_equals_arg_max_without():
  """20 prompts of different lengths, greedily, patches by entropy."""
  model = make(patcher=ENTROPY, seed=1)
  model.head.out.kernel[...] *= 20
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, 24, n) for n in rng.integers(1, 14, 20)]
  new = greedy.generate(model, rows, 12)
  assert len(np.unique(new)) > 10


def test_flops_agree_with_xlas_count():
  config = blt.Config(
    vocab_size=256, dim=128, byte_dim=128, num_layers=1, window=0, num_parts=1
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  found = model_suite.xla_flops(config, jnp.zeros((4, 64), jnp.int32))
  # XLA also counts norms, softmax, hashes and the like.
  assert 1 < found / counted < 1.08


@pytest.mark.parametrize('kv', [0, 32])
def test_the_entropy_model_is_a_part_of_the_flops(kv):
  shape = base.Shape(b=2, t=1 if kv else 8, kv=kv)
  rule, entropy = make().flops(shape), make(patcher=ENTROPY).flops(shape)
  own = dataclasses.replace(ENTROPY.model, vocab_size=24).make(nnx.Rngs(0))
  assert entropy.pop('patcher') == sum(own.flops(shape).values())
  assert entropy == rule


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'byte_dim': 9}, 'byte_dim=9 must be a multiple of num_byte_heads=2'),
    ({'num_layers': 0}, 'num_layers=0 must be >= 1'),
    ({'window': -1}, 'window=-1 must be >= 0'),
    ({'hash_rows': 1 << 25}, 'must be at most 16777216'),
    ({'ngrams': (0,)}, r'ngrams=\(0,\) >= 1'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    blt.Config(**(SMALL | fields))


def test_arguments_without_meaning_are_refused():
  tokens = jnp.zeros((1, 3), jnp.int32)
  model = make()
  with pytest.raises(ValueError, match='takes no mask'):
    model(tokens, mask=masks.Causal())
  with pytest.raises(ValueError, match='context or cache, not both'):
    model(tokens, context=tokens == 0, cache=model.init_cache(1, 4))
