# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA and Dream checkpoints give the logits of a Llama and a Qwen 2 in
`transformers` without causal mask.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.claims import diffusion_parity
from jaxtok.diffusion import pretrained
from jaxtok.models import interop, transformer

pytestmark = pytest.mark.torch

VOCAB, T, ATOL = 50, 12, 1e-4  # As in parity_test.
SIZES = dict(
  vocab_size=VOCAB,
  hidden_size=48,
  intermediate_size=80,
  num_hidden_layers=2,
  num_attention_heads=6,
  num_key_value_heads=6,
  max_position_embeddings=64,
  rms_norm_eps=1e-5,
)


@pytest.fixture(scope='module')
def torch():
  torch = pytest.importorskip('torch')
  torch.set_num_threads(1)
  return torch


def make(torch, kind, folder):
  """A random model of `transformers`, and its checkpoint in the new form."""
  transformers = pytest.importorskip('transformers')
  torch.manual_seed(0)
  theta = {'Llama': 500_000.0, 'Qwen2': 1e6}[kind]
  heads = {'Llama': 6, 'Qwen2': 2}[kind]
  rope = dict(rope_type='default', rope_theta=theta)
  sizes = SIZES | dict(num_key_value_heads=heads, rope_parameters=rope)
  config = getattr(transformers, f'{kind}Config')(**sizes)
  theirs = getattr(transformers, f'{kind}ForCausalLM')(config).eval()
  with torch.no_grad():
    for param in theirs.parameters():
      param += 0.1 * torch.randn_like(param)
  name = {'Llama': 'llada', 'Qwen2': 'dream'}[kind]
  diffusion_parity.write_checkpoint(
    folder, name, sizes, theta, theirs.state_dict()
  )
  return theirs


@pytest.mark.parametrize('kind', ['Llama', 'Qwen2'])
def test_logits_match_without_a_causal_mask(torch, kind, tmp_path):
  theirs = make(torch, kind, tmp_path)
  config, ours = interop.load(tmp_path)
  assert not config.is_causal
  ids = np.random.default_rng(0).integers(2, VOCAB, (2, T))
  with torch.no_grad():
    # Additive, all zeros: everything is seen by everyone.
    mask = torch.zeros(2, 1, T, T)
    want = theirs(torch.tensor(ids), attention_mask=mask).logits.numpy()
    causal = theirs(torch.tensor(ids)).logits.numpy()
  run = nnx.jit(lambda model, x: model.logits(model(x).hidden_btd))
  got = run(ours, jnp.asarray(ids, jnp.int32))
  np.testing.assert_allclose(got, want, atol=ATOL)
  assert np.abs(got - causal).max() > 100 * ATOL
  if kind == 'Qwen2':  # The first keeps its own, the others move by one.
    moved = pretrained.shifted(got)
    np.testing.assert_allclose(moved[:, 1:], want[:, :-1], atol=ATOL)
    np.testing.assert_allclose(moved[:, 0], want[:, 0], atol=ATOL)


@pytest.mark.parametrize(
  ('make_config', 'model_type'),
  [
    (transformer.Config.llama, 'llada'),
    (transformer.Config.qwen2, 'Dream'),
  ],
)
def test_saved_checkpoints_come_back(make_config, model_type, tmp_path):
  config = make_config(
    vocab_size=VOCAB, dim=16, num_layers=2, num_heads=4, is_causal=False
  )
  model = config.make(nnx.Rngs(0))
  interop.save(model, tmp_path / 'saved')
  raw = interop.read_config(tmp_path / 'saved')
  assert raw['model_type'] == model_type
  _, back = interop.load(tmp_path / 'saved')
  want, got = (
    dict(nnx.to_flat_state(nnx.state(x, nnx.Param))) for x in (model, back)
  )
  for path, value in want.items():
    np.testing.assert_array_equal(got[path].get_value(), value.get_value())


def test_an_unknown_kind_of_block_is_refused(torch, tmp_path):
  make(torch, 'Llama', tmp_path)
  raw = json.loads((tmp_path / 'config.json').read_text())
  raw |= dict(block_type='sequential')
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  with pytest.raises(interop.Unsupported, match='block_type'):
    interop.load(tmp_path)
