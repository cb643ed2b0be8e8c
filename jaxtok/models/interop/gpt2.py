# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""GPT-2. Its matrices are stored as [inputs, outputs]."""

from collections.abc import Collection
from typing import Any

from jaxtok.models import transformer
from jaxtok.models.interop import mapping

ACTIVATIONS = {
  'gelu_new': 'gelu',
  'gelu_pytorch_tanh': 'gelu',
  'gelu': 'gelu_exact',
  'relu': 'relu',
  'silu': 'silu',
}


def read_config(
  raw: dict[str, Any], names: Collection[str]
) -> transformer.Config:
  """config.json -> our config."""
  activation = raw.get('activation_function', 'gelu_new')
  mapping.require(raw, 'activation_function', *ACTIVATIONS)
  mapping.require(raw, 'scale_attn_weights', True)
  mapping.require(raw, 'scale_attn_by_inverse_layer_idx', False)
  mapping.require(raw, 'add_cross_attention', False)
  return transformer.Config.gpt2(
    vocab_size=raw['vocab_size'],
    dim=raw['n_embd'],
    num_layers=raw['n_layer'],
    num_heads=raw['n_head'],
    mlp_dim=raw.get('n_inner') or 4 * raw['n_embd'],
    activation=ACTIVATIONS[activation],
    norm_eps=raw.get('layer_norm_epsilon', 1e-5),
    max_len=raw['n_positions'],
    is_tied=raw.get('tie_word_embeddings', True),
  )


def write_config(config: transformer.Config) -> dict[str, Any]:
  """Our config -> config.json."""
  names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
  return {
    'architectures': ['GPT2LMHeadModel'],
    'vocab_size': config.vocab_size,
    'n_embd': config.dim,
    'n_layer': config.num_layers,
    'n_head': config.num_heads,
    'n_inner': config.mlp_width,
    'activation_function': names.get(config.activation, 'gelu_new'),
    'layer_norm_epsilon': config.norm_eps,
    'n_positions': config.max_len,
    'tie_word_embeddings': config.is_tied,
  }


def _layer(theirs: str, ours: str) -> list[mapping.Tensor]:
  qkv = lambda leaf: [f'{ours}.attention.{x}.{leaf}' for x in 'qkv']
  places = [
    ('attn.c_attn', qkv('kernel'), qkv('bias'), 1),
    (
      'attn.c_proj',
      [f'{ours}.attention.out.kernel'],
      [f'{ours}.attention.out.bias'],
      2,
    ),
    ('mlp.c_fc', [f'{ours}.mlp.up.kernel'], [f'{ours}.mlp.up.bias'], 1),
    ('mlp.c_proj', [f'{ours}.mlp.down.kernel'], [f'{ours}.mlp.down.bias'], 1),
  ]
  tensors = []
  for name, kernels, biases, num_in in places:
    tensors += [
      mapping.matrix(f'{theirs}.{name}.weight', *kernels, num_in=num_in),
      mapping.vector(f'{theirs}.{name}.bias', *biases),
    ]
  return [
    *norm(f'{theirs}.ln_1', f'{ours}.attention_norm'),
    *norm(f'{theirs}.ln_2', f'{ours}.mlp_norm'),
    *tensors,
  ]


def norm(theirs: str, ours: str) -> list[mapping.Tensor]:
  """A LayerNorm's scale and bias."""
  return [
    mapping.vector(f'{theirs}.weight', f'{ours}.scale'),
    mapping.vector(f'{theirs}.bias', f'{ours}.bias'),
  ]


def tensors(config: transformer.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  found = [
    mapping.matrix('transformer.wte.weight', 'embed.tokens.table'),
    mapping.matrix('transformer.wpe.weight', 'embed.positions.table'),
  ]
  for i in range(config.num_layers):
    found += _layer(f'transformer.h.{i}', f'stack.blocks.{i}')
  found += norm('transformer.ln_f', 'stack.norm')
  if not config.is_tied:
    found.append(mapping.linear('lm_head.weight', 'head.out.kernel'))
  return found


GPT2 = mapping.Family(
  model_type='gpt2',
  prefix='transformer.',
  read_config=read_config,
  write_config=write_config,
  tensors=tensors,
  # Constant causal masks of old checkpoints; a tied head stored twice.
  ignored=(r'\.attn\.(masked_)?bias$', r'^lm_head\.weight$'),
)
