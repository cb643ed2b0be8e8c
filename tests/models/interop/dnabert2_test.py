# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A random checkpoint of DNABERT-2 gives the logits of a torch model.

The torch model is written out here, in the names of the published checkpoint,
because `transformers` has no such class. Both are float32; sums of up to 48
terms of order 1 in another order differ by about 1e-6.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.models import dnabert2, interop

pytestmark = pytest.mark.torch

VOCAB, DIM, HEADS, HIDDEN, LAYERS, T = 30, 24, 6, 48, 2, 20
RAW = {
  'model_type': 'bert',
  'architectures': ['BertForMaskedLM'],
  'alibi_starting_size': 512,
  'attention_probs_dropout_prob': 0.0,
  'hidden_act': 'gelu',
  'hidden_dropout_prob': 0.1,
  'hidden_size': DIM,
  'intermediate_size': HIDDEN,
  'layer_norm_eps': 1e-12,
  'num_attention_heads': HEADS,
  'num_hidden_layers': LAYERS,
  'type_vocab_size': 2,
  'vocab_size': VOCAB,
}


def make_weights(torch):
  """Random tensors by their names in the checkpoint."""
  torch.manual_seed(0)
  shapes = {
    'bert.embeddings.word_embeddings.weight': (VOCAB, DIM),
    'bert.embeddings.token_type_embeddings.weight': (2, DIM),
    'bert.embeddings.LayerNorm': (DIM,),
    'cls.predictions.transform.dense': (DIM, DIM),
    'cls.predictions.transform.LayerNorm': (DIM,),
    'cls.predictions.decoder': (VOCAB, DIM),
    'bert.pooler.dense': (DIM, DIM),
  }
  for i in range(LAYERS):
    layer = f'bert.encoder.layer.{i}'
    shapes |= {
      f'{layer}.attention.self.Wqkv': (3 * DIM, DIM),
      f'{layer}.attention.output.dense': (DIM, DIM),
      f'{layer}.attention.output.LayerNorm': (DIM,),
      f'{layer}.mlp.gated_layers.weight': (2 * HIDDEN, DIM),
      f'{layer}.mlp.wo': (DIM, HIDDEN),
      f'{layer}.mlp.layernorm': (DIM,),
    }
  weights = {}
  for name, shape in shapes.items():
    if name.endswith('.weight'):
      weights[name] = 0.3 * torch.randn(shape)
    else:
      weights[f'{name}.weight'] = 0.3 * torch.randn(shape) + (len(shape) == 1)
      weights[f'{name}.bias'] = 0.3 * torch.randn(shape[0])
  tied = weights['bert.embeddings.word_embeddings.weight']
  weights['cls.predictions.decoder.weight'] = tied.clone()
  return weights


def forward(torch, w, ids, keep):
  """Logits, from the description of the layers."""
  f = torch.nn.functional
  linear = lambda x, name: f.linear(x, w[f'{name}.weight'], w[f'{name}.bias'])
  norm = lambda x, name: f.layer_norm(
    x, (DIM,), w[f'{name}.weight'], w[f'{name}.bias'], 1e-12
  )
  embeddings = 'bert.embeddings'
  x = w[f'{embeddings}.word_embeddings.weight'][ids]
  x = x + w[f'{embeddings}.token_type_embeddings.weight'][0]
  x = norm(x, f'{embeddings}.LayerNorm')
  four = [2.0 ** -(8 / 4 * i) for i in range(1, 5)]
  eight = [2.0**-i for i in range(1, 9)]
  slopes = torch.tensor(four + eight[::2][:2])
  place = torch.arange(T)
  distance = (place[:, None] - place).abs()
  bias = -slopes[None, :, None, None] * distance
  bias = bias + torch.where(keep, 0.0, -1e4)[:, None, None, :]
  for i in range(LAYERS):
    layer = f'bert.encoder.layer.{i}'
    qkv = linear(x, f'{layer}.attention.self.Wqkv')
    split = qkv.reshape(*ids.shape, 3, HEADS, DIM // HEADS)
    q, k, v = (split[:, :, j].transpose(1, 2) for j in range(3))
    score = q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5 + bias
    y = (score.softmax(-1) @ v).transpose(1, 2).reshape(*ids.shape, DIM)
    y = linear(y, f'{layer}.attention.output.dense')
    x = norm(x + y, f'{layer}.attention.output.LayerNorm')
    gated = x @ w[f'{layer}.mlp.gated_layers.weight'].T
    y = f.gelu(gated[..., :HIDDEN]) * gated[..., HIDDEN:]
    x = norm(x + linear(y, f'{layer}.mlp.wo'), f'{layer}.mlp.layernorm')
  head = 'cls.predictions'
  x = norm(
    f.gelu(linear(x, f'{head}.transform.dense')), f'{head}.transform.LayerNorm'
  )
  return linear(x, f'{head}.decoder')


@pytest.fixture(scope='module')
def torch():
  torch = pytest.importorskip('torch')
  torch.set_num_threads(1)
  return torch


@pytest.fixture(scope='module')
def checkpoint(torch, tmp_path_factory):
  from safetensors import torch as safetensors

  folder, weights = tmp_path_factory.mktemp('dnabert2'), make_weights(torch)
  safetensors.save_file(weights, folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(RAW))
  return weights, folder


def test_logits_equal_those_of_torch(torch, checkpoint):
  weights, folder = checkpoint
  config, ours = interop.load(folder)
  assert isinstance(config, dnabert2.Config)
  ids = np.random.default_rng(0).integers(0, VOCAB, (2, T))
  keep = np.arange(T) < np.array([[T], [13]])
  want = forward(torch, weights, torch.tensor(ids), torch.tensor(keep)).numpy()
  hidden = ours(
    jnp.asarray(ids, jnp.int32), segment_ids=jnp.asarray(keep, jnp.int32)
  ).hidden_btd
  got = np.asarray(ours.logits(hidden))
  np.testing.assert_allclose(got[keep], want[keep], atol=2e-5)


def test_settings_that_we_do_not_have_are_refused(checkpoint, tmp_path):
  raw = RAW | {'attention_probs_dropout_prob': 0.1}
  weights = (checkpoint[1] / 'model.safetensors').read_bytes()
  (tmp_path / 'model.safetensors').write_bytes(weights)
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  with pytest.raises(interop.Unsupported, match='attention_probs_dropout_prob'):
    interop.load(tmp_path)
