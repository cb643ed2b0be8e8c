# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of the transformer that the conformance suite does not reach."""

import functools

import jax
import jax.numpy as jnp
import jaxtok_kernels
import numpy as np
import pytest
from flax import nnx
from jaxtok_kernels import dispatch

from jaxtok import config as config_lib
from jaxtok.models import base, transformer
from jaxtok.nn import block, cross, masks

SMALL = dict(vocab_size=11, dim=16, num_layers=2, num_heads=2)
TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2, 6]])


@functools.cache
def compiled(config):
  """Parameters of seed 0, and the jitted call."""
  graph, params = nnx.split(jax.jit(lambda: config.make(nnx.Rngs(0)))())

  @jax.jit
  def call(params, tokens, options):
    return nnx.merge(graph, params)(tokens, **options).hidden_btd

  return graph, params, call


def run(config, tokens=TOKENS, **options):
  """Final states."""
  _, params, call = compiled(config)
  return call(params, tokens, options)


def test_prefix_lm_sees_the_whole_prefix_and_only_it():
  config = transformer.Config(**SMALL)
  mask = masks.Causal() | masks.Prefix(jnp.array([3]))
  states = lambda i, token: run(config, TOKENS.at[0, i].set(token), mask=mask)
  base_btd = states(7, 6)
  in_prefix = np.asarray(states(2, 0) != base_btd).any(axis=(0, 2))
  assert in_prefix.all()
  behind = np.asarray(states(4, 0) != base_btd).any(axis=(0, 2))
  np.testing.assert_array_equal(behind, np.arange(8) >= 4)


def test_encoder_sees_both_sides_and_causal_mask_can_be_lifted():
  config = transformer.Config(**SMALL)
  encoder = transformer.Config(is_causal=False, **SMALL)
  want = run(encoder)
  np.testing.assert_array_equal(run(config, mask=masks.Full()), want)
  changed = run(encoder, TOKENS.at[0, 7].set(0))
  assert (np.asarray(changed != want).any(axis=2)).all()


@pytest.mark.parametrize('name', ['xla', 'triton', 'tpu'])
def test_models_run_on_the_attention_that_their_config_names(name):
  one = SMALL | dict(num_layers=1)
  config = transformer.Config(implementation=name, **one)
  with jaxtok_kernels.interpret_mode():
    got = run(config)
  found = jaxtok_kernels.last_dispatch()
  assert found.chosen == {'any': name}
  want = run(transformer.Config(implementation='dense', **one))
  # Sums in another order, in float32.
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_an_unknown_attention_is_refused():
  with pytest.raises(ValueError, match="implementation='cuda' is unknown"):
    transformer.Config(implementation='cuda', **SMALL).block_config(False)


def test_remat_changes_neither_loss_nor_gradients():
  config = transformer.Config(**SMALL)
  graph, params, _ = compiled(config)
  remat = transformer.Config(remat=True, **SMALL)
  remat_graph, _ = nnx.split(nnx.eval_shape(lambda: remat.make(nnx.Rngs(0))))
  grads = []
  for g in (graph, remat_graph):
    loss = lambda p, g=g: jnp.square(nnx.merge(g, p)(TOKENS).hidden_btd).sum()
    grads.append(jax.jit(jax.value_and_grad(loss))(params))
  jax.tree.map(
    # Recomputation may be fused differently: a few roundings of sums of 128.
    lambda a, z: np.testing.assert_allclose(a, z, rtol=1e-4, atol=1e-5),
    *grads,
  )
  jaxpr = str(jax.make_jaxpr(jax.grad(loss, argnums=0))(params))
  assert jaxpr.count('remat2') or jaxpr.count('checkpoint')


@pytest.mark.parametrize('is_tied', [True, False])
def test_bfloat16_matmuls_keep_float32_parameters_and_logits(is_tied):
  config = transformer.Config(dtype='bfloat16', is_tied=is_tied, **SMALL)
  graph, params, _ = compiled(config)
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}

  @jax.jit
  def call(params):
    model = nnx.merge(graph, params)
    hidden = model(TOKENS).hidden_btd
    return hidden, model.logits(hidden)

  hidden, logits = call(params)
  assert hidden.dtype == jnp.bfloat16
  assert logits.dtype == jnp.float32
  want = run(transformer.Config(is_tied=is_tied, **SMALL))
  # Normalised states of order 1, 8 bits of mantissa, four branches.
  np.testing.assert_allclose(hidden.astype('float32'), want, atol=0.1)
  model = nnx.merge(graph, params)
  head = model.embed.tokens.table.T if is_tied else model.head.out.kernel
  exact = lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
  want = exact(hidden) @ exact(head[...])
  # Products of 16 bits each are exact in float32; 16 of them are summed.
  np.testing.assert_allclose(logits, want[..., :11], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('is_tied', [True, False])
def test_all_matmuls_of_a_bfloat16_model_are_bfloat16_in_both_passes(is_tied):
  config = transformer.Config(
    dtype='bfloat16', is_tied=is_tied, gated=True, **SMALL
  )
  graph, params, _ = compiled(config)

  def loss(params):
    model = nnx.merge(graph, params)
    logits = model.logits(model(TOKENS).hidden_btd)
    return jnp.square(logits).sum()

  with dispatch.lowering_platforms('tpu'):  # A CPU widens them by itself.
    jaxpr = jax.make_jaxpr(jax.grad(loss))(params)
  dtypes = [
    {x.aval.dtype.name for x in equation.invars}
    for equation in equations(jaxpr.jaxpr)
    if equation.primitive.name == 'dot_general'
  ]
  # Per layer 7 projections, forward and twice backward, and attention.
  assert len(dtypes) > 2 * 7 * 3
  assert all(d == {'bfloat16'} for d in dtypes)


def equations(jaxpr):
  """All equations, also those of inner programs."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(
      equation.params, is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        yield from equations(inner)


def test_dropout_needs_an_rng_and_keeps_the_mean():
  config = transformer.Config(dropout=0.5, **SMALL)
  plain = run(transformer.Config(**SMALL))
  np.testing.assert_array_equal(run(config), plain)
  first = run(config, rng=jax.random.key(0))
  assert (first != run(config, rng=jax.random.key(1))).any()
  ones = block.dropout(jnp.ones(10_000), 0.5, jax.random.key(0))
  # Mean of 10^4 values with standard deviation 1: 5 sigma.
  assert abs(ones.mean() - 1) < 0.05


def test_tables_are_padded_but_logits_are_not():
  config = transformer.Config(**SMALL)
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  assert model.embed.tokens.table.shape == (16, 16)
  logits = lambda model, x: model.logits(x)
  shape = nnx.eval_shape(logits, model, jnp.zeros((1, 2, 16))).shape
  assert shape == (1, 2, 11)


def test_every_parameter_names_its_axes():
  for config in (
    transformer.Config(gated=True, qk_norm=True, is_tied=False, **SMALL),
    transformer.Config.bert(max_len=8, **SMALL),
    transformer.Config.t5(**SMALL),
  ):
    model = nnx.eval_shape(lambda c=config: c.make(nnx.Rngs(0)))
    for path, x in nnx.to_flat_state(nnx.state(model, nnx.Param)):
      axes = x.get_metadata()['axes']
      assert len(axes) == len(x.shape), path
      assert all(isinstance(name, str) for name in axes), path


@pytest.mark.parametrize(
  'config, s',
  [
    (transformer.Config(gated=True, num_kv_heads=2, is_causal=False), 0),
    (transformer.Config.t5(num_encoder_layers=1), 48),
  ],
)
def test_flops_equal_what_xla_counts(config, s):
  """On an unrolled model whose matmuls are nearly all of the work.

  XLA also counts additions and multiplications outside matmuls, a few per
  element: at d=128 less than 4 % on top, and nothing may be missing.
  """
  config.vocab_size, config.num_layers, t = 256, 2, 64
  graph, params = nnx.split(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))))

  def logits(params, tokens, context):
    model = nnx.merge(graph, params)
    output = model(tokens, context=context if s else None)
    return model.logits(output.hidden_btd)

  ids = lambda n: jax.ShapeDtypeStruct((2, n), jnp.int32)
  compiled = jax.jit(logits).lower(params, ids(t), ids(s)).compile()
  parts = nnx.merge(graph, params).flops(base.Shape(b=2, t=t, s=s))
  ratio = compiled.cost_analysis()['flops'] / sum(parts.values())
  assert 1 <= ratio < 1.04


@pytest.mark.parametrize(
  'fields, match',
  [
    (dict(dim=10, num_heads=4), 'dim=10 must be a multiple of num_heads=4'),
    (dict(num_heads=4, num_kv_heads=3), 'multiple of num_kv_heads=3'),
    (dict(num_layers=0), 'num_layers=0 must be >= 1'),
    (dict(dtype='float16'), "Use 'bfloat16' or 'float32'"),
    (dict(dtype='int8'), "dtype='int8' must be one of float32, bfloat16"),
    (dict(position='rotary'), "position='rotary' must be one of rope"),
    (dict(position='learned'), 'needs max_len >= 1'),
    (dict(norm='batch'), "norm='batch' must be one of"),
    (dict(dtype='float8'), "dtype='float8' must be one of"),
    (dict(dim=12, num_heads=4), 'head_dim=3'),
    (dict(dropout=1.0), r'dropout=1.0 must be in \[0, 1\)'),
    (dict(num_encoder_layers=2, is_causal=False), 'set is_causal=True'),
  ],
)
def test_wrong_configs_name_the_field_the_value_and_the_rule(fields, match):
  with pytest.raises(ValueError, match=match):
    transformer.Config(**fields)


def test_models_need_a_vocabulary_a_context_and_room():
  with pytest.raises(ValueError, match='vocab_size=0'):
    transformer.Config().make(nnx.Rngs(0))
  model = nnx.eval_shape(
    lambda: transformer.Config.t5(**SMALL).make(nnx.Rngs(0))
  )
  with pytest.raises(ValueError, match='needs context'):
    model(TOKENS)
  model = nnx.eval_shape(
    lambda: transformer.Config.gpt2(max_len=8, **SMALL).make(nnx.Rngs(0))
  )
  with pytest.raises(ValueError, match='without an encoder'):
    model(TOKENS, context=TOKENS)
  with pytest.raises(ValueError, match='exceeds the 8 learned'):
    model.init_cache(1, 9)
  with pytest.raises(ValueError, match='8 tokens do not fit'):
    model(TOKENS, cache=model.init_cache(1, 7))


def test_configs_survive_json():
  config = transformer.Config.qwen2(vocab_size=11, num_kv_heads=2)
  again = config_lib.from_dict(config_lib.to_dict(config))
  assert again == config
  config_lib.check(config)


def test_context_is_encoded_once_and_then_read_from_the_cache():
  config = transformer.Config.t5(**SMALL)
  graph, params, _ = compiled(config)
  context = jnp.array([[1, 2, 3]])

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    want = model(TOKENS, context=context).hidden_btd
    first = model(TOKENS[:, :5], context=context, cache=model.init_cache(1, 8))
    second = model(TOKENS[:, 5:], cache=first.cache)
    return want, jnp.concatenate([first.hidden_btd, second.hidden_btd], axis=1)

  want, got = both(params)
  np.testing.assert_allclose(got, want, atol=1e-5)


@jax.jit
def _with_context(params, context, rng=None):
  graph, _, _ = compiled(transformer.Config.t5(dropout=0.5, **SMALL))
  model = nnx.merge(graph, params)
  return model(TOKENS, context=context, rng=rng).hidden_btd


def test_dropout_reaches_the_encoder_of_given_tokens():
  config = transformer.Config.t5(dropout=0.5, **SMALL)
  graph, params, _ = compiled(config)
  tokens, rng = jnp.array([[1, 2, 3, 4]]), jax.random.key(0)
  encode = jax.jit(lambda p: nnx.merge(graph, p).encode(tokens))
  without = _with_context(params, encode(params), rng)
  assert (_with_context(params, tokens, rng) != without).any()
  np.testing.assert_allclose(
    _with_context(params, tokens),
    _with_context(params, encode(params)),
    atol=1e-5,
  )


def test_padding_of_the_context_changes_nothing():
  _, params, _ = compiled(transformer.Config.t5(dropout=0.5, **SMALL))
  source = lambda padding: cross.Source(
    jnp.array([[1, 2, 3, 4, *padding]]), jnp.array([[1, 1, 1, 1, 0, 0]])
  )
  got = _with_context(params, source([5, 6]))
  np.testing.assert_array_equal(got, _with_context(params, source([7, 8])))
  want = _with_context(params, jnp.array([[1, 2, 3, 4]]))
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_cached_packed_row_keeps_its_documents_apart():
  config = transformer.Config(**SMALL)
  graph, params, _ = compiled(config)
  segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 2]])
  positions = jnp.array([[0, 1, 2, 0, 1, 2, 3, 4]])

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    options = lambda a, z: dict(
      positions=positions[:, a:z], segment_ids=segments[:, a:z]
    )
    want = model(TOKENS, **options(0, 8)).hidden_btd
    first = model(TOKENS[:, :5], cache=model.init_cache(1, 8), **options(0, 5))
    second = model(TOKENS[:, 5:], cache=first.cache, **options(5, 8))
    return want, jnp.concatenate([first.hidden_btd, second.hidden_btd], axis=1)

  want, got = both(params)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_phases_tell_positions_apart_modulo_their_number():
  config = transformer.Config(**SMALL, position='none', phases=3)
  states = lambda start: run(config, positions=start + jnp.arange(8)[None])
  np.testing.assert_array_equal(states(0), run(config))
  np.testing.assert_array_equal(states(6), states(0))
  assert np.asarray(states(1) != states(0)).any(axis=2).all()


@pytest.mark.parametrize(
  'make, scale',
  [
    (lambda **f: transformer.Config.byt5(**f), 1.0),  # As T5's reference.
    (lambda **f: transformer.Config(**f), 1 / np.sqrt(4)),  # Two branches each.
    (lambda **f: transformer.Config(branch_scale=0.5, **f), 0.5),
  ],
)
def test_branches_begin_as_large_as_configured(make, scale):
  fields = dict(num_layers=2, dim=128, num_heads=2, head_dim=32, mlp_dim=256)
  config = make(vocab_size=8, **fields)
  block = config.block_config(has_cross=False)
  if config.is_encoder_decoder:  # Four layers, which its scale does not know.
    assert config.num_encoder_layers == 2
  assert block.attention.out_std == pytest.approx(scale / 8)  # sqrt(2 * 32).
  assert block.out_std == pytest.approx(scale / 16)  # sqrt(256).
  kernel = config.make(nnx.Rngs(0)).stack.blocks[0].mlp.down.kernel[...]
  # 32,768 numbers: the error of their std is 0.4 % of it.
  assert float(kernel.std()) == pytest.approx(scale / 16, rel=0.02)


def test_a_negative_scale_of_branches_is_refused():
  with pytest.raises(ValueError, match=r'branch_scale=-1\.0'):
    transformer.Config(branch_scale=-1.0)
