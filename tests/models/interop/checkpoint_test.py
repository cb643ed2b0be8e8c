# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were saved; broken ones are explained."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import interop, transformer
from jaxtok.models.interop import safetensors as st
from jaxtok.nn import rope

Config = transformer.Config
SMALL = dict(vocab_size=19, dim=16, num_layers=2, num_heads=2)
CONFIGS = {
  'llama': Config.llama(**SMALL, num_kv_heads=1, rotary=rope.Config(theta=5e5)),
  'qwen2': Config.qwen2(**SMALL, is_tied=False),
  'qwen3': Config.llama(**SMALL, qk_norm=True, head_dim=4),
  'gpt2': Config.gpt2(**SMALL, max_len=24),
  'bert': Config.bert(**SMALL, max_len=24),
  'roberta': Config.roberta(**SMALL, max_len=24),
  't5 1.0': Config.t5(**SMALL),
  't5': Config.byt5(**SMALL, num_encoder_layers=1),
}


def make(config):
  """A model with random parameters, without compiling initialisers."""
  rng = np.random.default_rng(0)
  graph, params = nnx.split(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))))
  draw = lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), jnp.float32)
  return nnx.merge(graph, jax.tree.map(draw, params))


@pytest.fixture
def folder(tmp_path):
  interop.save(make(CONFIGS['gpt2']), tmp_path / 'model')
  return tmp_path / 'model'


def edit(folder, **changes):
  raw = json.loads((folder / 'config.json').read_text())
  raw = {k: v for k, v in (raw | changes).items() if v is not None}
  (folder / 'config.json').write_text(json.dumps(raw))


def rewrite(folder, change):
  arrays = {k: np.array(v) for k, v in st.Reader(folder).items()}
  change(arrays)
  os.remove(folder / st.SINGLE)
  st.write(
    folder,
    {n: st.Pending(a.shape, a.dtype, lambda a=a: a) for n, a in arrays.items()},
  )


@pytest.mark.parametrize('name', CONFIGS)
def test_saved_model_comes_back_exactly(name, tmp_path):
  config = dataclasses.replace(CONFIGS[name], vocab_multiple=8)
  model = make(config)
  interop.save(model, tmp_path / 'm', max_shard_bytes=3000)
  assert interop.read_config(tmp_path / 'm')['model_type'] == name.split()[0]
  got, back = interop.load(tmp_path / 'm')
  assert (got.vocab_size, got.vocab_rows) == (19, 19)
  want = dict(nnx.to_flat_state(nnx.state(model)))
  for path, variable in nnx.to_flat_state(nnx.state(back)):
    full = want.pop(path).get_value()
    assert variable.get_metadata().get('axes') is not None
    cut = tuple(map(slice, variable.get_value().shape))
    np.testing.assert_array_equal(variable.get_value(), full[cut])
  assert not want


def test_logits_of_a_loaded_model_equal_those_of_the_saved_one(tmp_path):
  model = make(CONFIGS['llama'])
  interop.save(model, tmp_path / 'm')
  _, back = interop.load(tmp_path / 'm')
  ids = jnp.arange(6)[None]
  run = nnx.jit(lambda m: m.logits(m(ids).hidden_btd))
  np.testing.assert_array_equal(run(back), run(model))


def test_bfloat16_files_are_half_as_large_and_rounded_once(tmp_path):
  model = make(CONFIGS['gpt2'])
  interop.save(model, tmp_path / 'm', dtype='bfloat16')
  reader = st.Reader(tmp_path / 'm')
  assert {v.dtype for v in reader.values()} == {np.dtype(jnp.bfloat16)}
  _, back = interop.load(tmp_path / 'm')
  want = nnx.state(model).embed.tokens.table.get_value()[:19]
  np.testing.assert_array_equal(
    nnx.state(back).embed.tokens.table.get_value(),
    want.astype(jnp.bfloat16).astype(jnp.float32),
  )


def test_each_parameter_goes_where_the_rules_say(folder):
  devices = jax.devices()[:4]
  mesh = jax.make_mesh((len(devices), 1), ('data', 'model'), devices=devices)
  _, model = interop.load(folder, shardings=interop.by_rules(mesh))
  _, plain = interop.load(folder)
  want = dict(nnx.to_flat_state(nnx.state(plain)))
  for path, variable in nnx.to_flat_state(nnx.state(model)):
    value = variable.get_value()
    assert value.sharding.mesh == mesh
    np.testing.assert_array_equal(value, want[path].get_value())
  if len(devices) > 1:
    kernel = model.stack.blocks[0].mlp.up.kernel.get_value()
    assert kernel.addressable_shards[0].data.shape == (16 // len(devices), 64)


def test_config_without_family_is_refused_with_the_difference(tmp_path):
  with pytest.raises(
    interop.Unsupported, match=r"(?s)'llama' would change.*norm: layer -> rms"
  ):
    interop.save(
      make(dataclasses.replace(CONFIGS['llama'], norm='layer')), tmp_path / 'm'
    )
  assert not os.listdir(tmp_path)


def test_named_family_must_fit(tmp_path):
  model = make(CONFIGS['gpt2'])
  with pytest.raises(interop.Unsupported, match='must be one of llama, '):
    interop.save(model, tmp_path / 'm', model_type='lama')
  with pytest.raises(interop.Unsupported, match=r"'t5' cannot: .*an encoder"):
    interop.save(model, tmp_path / 'm', model_type='t5')


def test_existing_folder_is_not_overwritten(folder):
  with pytest.raises(FileExistsError, match='exists already'):
    interop.save(make(CONFIGS['gpt2']), folder)


def test_unknown_model_type_lists_those_that_can_be_loaded(folder):
  edit(folder, model_type='mamba')
  with pytest.raises(
    interop.Unsupported, match="'mamba'; can be loaded: llama, qwen2"
  ):
    interop.load(folder)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(activation_function='swish'), r"activation_function='swish'; only"),
    (dict(scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse'),
  ],
)
def test_settings_that_we_lack_are_refused(folder, changes, message):
  edit(folder, **changes)
  with pytest.raises(interop.Unsupported, match=message):
    interop.load(folder)


def test_unknown_rope_scaling_is_refused(tmp_path):
  interop.save(make(CONFIGS['llama']), tmp_path / 'm')
  edit(tmp_path / 'm', rope_scaling=dict(rope_type='yarn', factor=4.0))
  with pytest.raises(interop.Unsupported, match="RoPE scaling 'yarn'"):
    interop.load(tmp_path / 'm')


def test_incomplete_config_names_the_setting(folder):
  edit(folder, n_layer=None)
  with pytest.raises(st.FormatError, match=r"config\.json lacks 'n_layer'"):
    interop.load(folder)


def test_absent_and_broken_config_is_explained(folder, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'without config\.json'):
    interop.load(tmp_path)
  with pytest.raises(FileNotFoundError, match='is not a folder'):
    interop.load(folder / st.SINGLE)
  (folder / 'config.json').write_text('{}')
  with pytest.raises(st.FormatError, match='no "model_type"'):
    interop.load(folder)
  (folder / 'config.json').write_text('{')
  with pytest.raises(st.FormatError, match='is not JSON'):
    interop.load(folder)


def test_missing_tensor_is_named_with_its_shape_and_parameter(folder):
  rewrite(folder, lambda arrays: arrays.pop('transformer.h.1.ln_2.bias'))
  with pytest.raises(interop.MissingError) as error:
    interop.load(folder)
  for part in ("'transformer.h.1.ln_2.bias'", 'Nearest: ', '(16,)', 'mlp_norm'):
    assert part in str(error.value)


def test_wrong_shape_says_what_was_expected(folder):
  edit(folder, n_positions=30)
  with pytest.raises(
    st.FormatError,
    match=r'wpe\.weight has shape \(24, 16\).*should be \(30, 16\)',
  ):
    interop.load(folder)


def test_tensors_of_another_architecture_are_refused(folder):
  rewrite(folder, lambda arrays: arrays.update(adapter=np.zeros(3)))
  with pytest.raises(st.FormatError, match=r'holds 1 tensors that.*: adapter'):
    interop.load(folder)


def test_constant_masks_of_old_gpt2_files_are_ignored(folder):
  mask = np.tri(24)[None, None]
  rewrite(
    folder, lambda arrays: arrays.update({'transformer.h.0.attn.bias': mask})
  )
  interop.load(folder)
