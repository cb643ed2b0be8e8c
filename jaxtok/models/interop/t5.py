# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5 (v1.0, v1.1) and ByT5, which is T5 v1.1 on bytes.

Whether logits are scaled by 1/sqrt(d) (v1.0, whose head is the token table)
and whether there is a head of its own are separate facts in files: recent
versions of transformers write `tie_word_embeddings: true` for all of them and
keep the scaling in `scale_decoder_outputs`. The head is there if its tensor is.
"""

import functools
from collections.abc import Collection
from typing import Any

from jaxtok.models import transformer
from jaxtok.models.interop import mapping

# feed_forward_proj -> (activation, gated).
_MLPS = {
  'relu': ('relu', False),
  'gated-relu': ('relu', True),
  'gated-gelu': ('gelu', True),
  'gated-silu': ('silu', True),
}


def read_config(
  raw: dict[str, Any], names: Collection[str]
) -> transformer.Config:
  """config.json -> our config."""
  if raw['num_layers'] < 1:
    raise mapping.Unsupported(
      f'config.json has num_layers={raw["num_layers"]}; a T5 has an encoder.'
    )
  kind = raw.get('feed_forward_proj', 'relu')
  mapping.require(raw, 'feed_forward_proj', *_MLPS)
  activation, gated = _MLPS[kind]
  is_scaled = raw.get(
    'scale_decoder_outputs', raw.get('tie_word_embeddings', True)
  )
  return transformer.Config.t5(
    vocab_size=raw['vocab_size'],
    dim=raw['d_model'],
    num_layers=raw.get('num_decoder_layers') or raw['num_layers'],
    num_encoder_layers=raw['num_layers'],
    num_heads=raw['num_heads'],
    head_dim=raw['d_kv'],
    mlp_dim=raw['d_ff'],
    activation=activation,
    gated=gated,
    norm_eps=raw.get('layer_norm_epsilon', 1e-6),
    num_buckets=raw.get('relative_attention_num_buckets', 32),
    max_distance=raw.get('relative_attention_max_distance', 128),
    is_tied='lm_head.weight' not in names,
    **{} if is_scaled else {'head_scale': 1.0},
  )


def write_config(config: transformer.Config) -> dict[str, Any]:
  """Our config -> config.json."""
  kinds = {ours: theirs for theirs, ours in _MLPS.items()}
  is_scaled = config.head_scale != 1
  return {
    'architectures': ['T5ForConditionalGeneration'],
    'vocab_size': config.vocab_size,
    'd_model': config.dim,
    'd_kv': config.head_width,
    'd_ff': config.mlp_width,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_layers,
    'num_heads': config.num_heads,
    'relative_attention_num_buckets': config.num_buckets,
    'relative_attention_max_distance': config.max_distance,
    'layer_norm_epsilon': config.norm_eps,
    'feed_forward_proj': kinds.get((config.activation, config.gated), 'relu'),
    'tie_word_embeddings': is_scaled,
    'scale_decoder_outputs': is_scaled,
    'is_encoder_decoder': True,
    'decoder_start_token_id': 0,
    'pad_token_id': 0,
    'eos_token_id': 1,
  }


def attention(theirs: str, ours: str) -> list[mapping.Tensor]:
  """Queries, keys, values and output of one attention."""
  return [
    *[
      mapping.linear(f'{theirs}.{x}.weight', f'{ours}.{x}.kernel')
      for x in 'qkv'
    ],
    mapping.linear(f'{theirs}.o.weight', f'{ours}.out.kernel', num_in=2),
  ]


def layer(
  theirs: str, ours: str, *, gated: bool, has_cross: bool
) -> list[mapping.Tensor]:
  """One block of a stack."""
  parts = [('SelfAttention', 'attention')]
  parts += [('EncDecAttention', 'cross')] * has_cross
  tensors = []
  for i, (name, place) in enumerate(parts):
    tensors += attention(f'{theirs}.layer.{i}.{name}', f'{ours}.{place}')
    scale = f'{ours}.{place}_norm.scale'
    tensors.append(
      mapping.vector(f'{theirs}.layer.{i}.layer_norm.weight', scale)
    )
  last = f'{theirs}.layer.{len(parts)}'
  dense = f'{last}.DenseReluDense'
  ups = {'wi_0': 'gate', 'wi_1': 'up'} if gated else {'wi': 'up'}
  for name, place in (ups | {'wo': 'down'}).items():
    tensors.append(
      mapping.linear(f'{dense}.{name}.weight', f'{ours}.mlp.{place}.kernel')
    )
  scale = f'{ours}.mlp_norm.scale'
  return [*tensors, mapping.vector(f'{last}.layer_norm.weight', scale)]


def stack(
  theirs: str, ours: str, num_layers: int, *, gated: bool, has_cross: bool
) -> list[mapping.Tensor]:
  """An encoder or a decoder."""
  first = f'{theirs}.block.0.layer.0.SelfAttention'
  bias = f'{first}.relative_attention_bias.weight'
  found = [mapping.matrix(bias, f'{ours}.bias.table')]
  for i in range(num_layers):
    block, blocks = f'{theirs}.block.{i}', f'{ours}.blocks.{i}'
    found += layer(block, blocks, gated=gated, has_cross=has_cross)
  final = f'{theirs}.final_layer_norm.weight'
  return [*found, mapping.vector(final, f'{ours}.norm.scale')]


def tensors(config: transformer.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  c = config
  encoder = functools.partial(stack, 'encoder', 'encoder', has_cross=False)
  decoder = functools.partial(stack, 'decoder', 'stack', has_cross=True)
  found = [
    mapping.matrix('shared.weight', 'embed.tokens.table'),
    *encoder(c.num_encoder_layers, gated=c.gated),
    *decoder(c.num_layers, gated=c.gated),
  ]
  if not c.is_tied:
    found.append(mapping.linear('lm_head.weight', 'head.out.kernel'))
  return found


T5 = mapping.Family(
  model_type='t5',
  prefix='',
  read_config=read_config,
  write_config=write_config,
  tensors=tensors,
  # The shared table, stored again; a table that cross-attention never used.
  ignored=(
    r'coder\.embed_tokens\.weight$',
    r'EncDecAttention\.relative_attention_bias\.weight$',
  ),
)
