# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA and Dream against `transformers` with every token seeing every other.

The oracles are Llama and Qwen 2 with a mask of zeros; LLaDA's tensors are
renamed by the table of the published checkpoints. Float32; see `parity_test`
for the tolerance.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import denoisers
from jaxtok.models import interop
from jaxtok.models.interop import llada

VOCAB, T, ATOL = 50, 12, 1e-4
SIZES = dict(
  vocab_size=VOCAB,
  hidden_size=48,
  intermediate_size=80,
  num_hidden_layers=2,
  num_attention_heads=6,
  max_position_embeddings=64,
  tie_word_embeddings=False,
)

# Ours of LLaDA's keys -> Llama's.
TOP = {
  'model.transformer.wte.weight': 'model.embed_tokens.weight',
  'model.transformer.ln_f.weight': 'model.norm.weight',
  'model.transformer.ff_out.weight': 'lm_head.weight',
}
BLOCK = {
  'attn_norm': 'input_layernorm',
  'ff_norm': 'post_attention_layernorm',
  'q_proj': 'self_attn.q_proj',
  'k_proj': 'self_attn.k_proj',
  'v_proj': 'self_attn.v_proj',
  'attn_out': 'self_attn.o_proj',
  'ff_proj': 'mlp.gate_proj',
  'up_proj': 'mlp.up_proj',
  'ff_out': 'mlp.down_proj',
}
LLADA = dict(
  model_type='llada',
  block_type='llama',
  activation_type='silu',
  layer_norm_type='rms',
  rope=True,
  alibi=False,
  include_bias=False,
  include_qkv_bias=False,
  d_model=48,
  n_layers=2,
  n_heads=6,
  n_kv_heads=6,
  mlp_hidden_size=80,
  vocab_size=VOCAB,
  embedding_size=VOCAB,
  rms_norm_eps=1e-5,
  rope_theta=500_000.0,
  max_sequence_length=64,
  weight_tying=False,
  mask_token_id=VOCAB - 1,
)


@pytest.fixture(scope='module')
def torch():
  torch = pytest.importorskip('torch')
  torch.set_num_threads(1)
  return torch


def randomized(torch, model):
  with torch.no_grad():
    for param in model.parameters():
      param += 0.1 * torch.randn_like(param)
  return model.eval()


def bidirectional(torch, model, ids):
  """Their logits with an additive mask of zeros [b, 1, t, t]."""
  mask = torch.zeros(ids.shape[0], 1, ids.shape[1], ids.shape[1])
  with torch.no_grad():
    out = model(input_ids=torch.tensor(ids), attention_mask=mask)
  return out.logits.numpy()


def save(folder, state, raw):
  from safetensors import torch as st

  state = {k: v.detach().clone().contiguous() for k, v in state.items()}
  names = sorted(state)
  files = {}
  for i in range(2):  # Sharded, as the published files are.
    part = {k: state[k] for k in names[i::2]}
    file = f'model-{i + 1:05}-of-00002.safetensors'
    st.save_file(part, folder / file)
    files |= dict.fromkeys(part, file)
  (folder / 'config.json').write_text(json.dumps(raw))
  index = {'metadata': {}, 'weight_map': files}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))


@pytest.mark.torch
def test_llada_logits_match(torch, tmp_path):
  transformers = pytest.importorskip('transformers')
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    **SIZES,
    rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type='default', rope_theta=500_000.0),
  )
  theirs = randomized(torch, transformers.LlamaForCausalLM(config))
  weights = theirs.state_dict()
  state = {ours: weights[name] for ours, name in TOP.items()}
  for i in range(2):
    for ours, name in BLOCK.items():
      state[f'model.transformer.blocks.{i}.{ours}.weight'] = weights[
        f'model.layers.{i}.{name}.weight'
      ]
  save(tmp_path, state, LLADA)
  config, model = interop.load(tmp_path)
  assert not config.is_causal
  ids = np.random.default_rng(0).integers(0, VOCAB, (2, T))
  got = denoisers.OfModel.make(model)(jnp.asarray(ids, jnp.int32))
  np.testing.assert_allclose(got, bidirectional(torch, theirs, ids), atol=ATOL)


@pytest.mark.torch
def test_dream_logits_match_after_the_shift(torch, tmp_path):
  transformers = pytest.importorskip('transformers')
  torch.manual_seed(1)
  config = transformers.Qwen2Config(
    **SIZES, num_key_value_heads=2, rms_norm_eps=1e-6
  )
  theirs = randomized(torch, transformers.Qwen2ForCausalLM(config))
  raw = config.to_dict() | dict(model_type='Dream', mask_token_id=VOCAB - 1)
  save(tmp_path, theirs.state_dict(), json.loads(json.dumps(raw, default=str)))
  config, model = interop.load(tmp_path)
  assert not config.is_causal
  ids = np.random.default_rng(0).integers(0, VOCAB, (2, T))
  denoiser = denoisers.Shifted(denoisers.OfModel.make(model))
  got = jax.jit(lambda d, x: d(x))(denoiser, jnp.asarray(ids, jnp.int32))
  want = bidirectional(torch, theirs, ids)
  np.testing.assert_allclose(got[:, 1:], want[:, :-1], atol=ATOL)
  np.testing.assert_allclose(got[:, 0], want[:, 0], atol=ATOL)


@pytest.mark.parametrize(
  'change, rule',
  [
    (dict(include_bias=True), 'include_bias=True'),
    (dict(block_type='sequential'), "block_type='sequential'"),
    (dict(layer_norm_type='default'), "layer_norm_type='default'"),
  ],
)
def test_settings_that_we_do_not_have_are_refused(change, rule):
  with pytest.raises(interop.Unsupported, match=rule):
    llada.LLADA.read_config(LLADA | change, ())


def test_head_and_projection_down_are_told_apart():
  config = llada.LLADA.read_config(LLADA, ())
  names = {t.params: t.name for t in llada.tensors(config)}
  assert names['head.out.kernel',] == 'model.transformer.ff_out.weight'
  down = names['stack.blocks.1.mlp.down.kernel',]
  assert down == 'model.transformer.blocks.1.ff_out.weight'
  assert set(TOP) < set(names.values())
