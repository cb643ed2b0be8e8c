# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""DNABERT-2 checkpoints, and others of MosaicBERT's layers.

Their config.json says `model_type: bert`; what tells them apart is
`alibi_starting_size`. Queries, keys and values are one matrix, and so are gate
and up. The pooler of classifiers is not read. Checkpoints are read, not
written.
"""

from collections.abc import Collection
from typing import Any

from jaxtok.models import dnabert2
from jaxtok.models.interop import gpt2, mapping


def is_one(raw: dict[str, Any]) -> bool:
  """Whether a config.json is of this family."""
  return raw.get('model_type') == 'bert' and 'alibi_starting_size' in raw


def read_config(raw: dict[str, Any], names: Collection[str]) -> dnabert2.Config:
  """config.json -> our config."""
  mapping.require(raw, 'hidden_act', 'gelu')
  mapping.require(raw, 'attention_probs_dropout_prob', 0, 0.0)
  mapping.require(raw, 'tie_word_embeddings', True)
  mapping.require(raw, 'is_decoder', False)
  if not any(name.startswith('cls.predictions.') for name in names):
    raise mapping.Unsupported(
      'the checkpoint has no head that predicts tokens (cls.predictions.*). '
      'Load one of the pre-trained model, not of a classifier.'
    )
  return dnabert2.Config(
    vocab_size=raw['vocab_size'],
    vocab_multiple=1,
    dim=raw['hidden_size'],
    num_layers=raw['num_hidden_layers'],
    num_heads=raw['num_attention_heads'],
    mlp_dim=raw['intermediate_size'],
    norm_eps=raw.get('layer_norm_eps', 1e-12),
    token_types=raw.get('type_vocab_size', 2),
    dropout=raw.get('hidden_dropout_prob', 0.1),
  )


def write_config(config: dnabert2.Config) -> dict[str, Any]:
  """Refused."""
  del config
  raise mapping.Unsupported('checkpoints of DNABERT-2 are read, not written.')


def _layer(theirs: str, ours: str) -> list[mapping.Tensor]:
  linear, vector = mapping.linear, mapping.vector
  qkv = lambda leaf: [f'{ours}.attention.{x}.{leaf}' for x in 'qkv']
  attention, mlp = f'{theirs}.attention', f'{theirs}.mlp'
  out = f'{ours}.attention.out'
  return [
    linear(f'{attention}.self.Wqkv.weight', *qkv('kernel')),
    vector(f'{attention}.self.Wqkv.bias', *qkv('bias')),
    linear(f'{attention}.output.dense.weight', f'{out}.kernel', num_in=2),
    vector(f'{attention}.output.dense.bias', f'{out}.bias'),
    *gpt2.norm(f'{attention}.output.LayerNorm', f'{ours}.attention_norm'),
    linear(
      f'{mlp}.gated_layers.weight', f'{ours}.gate.kernel', f'{ours}.up.kernel'
    ),
    linear(f'{mlp}.wo.weight', f'{ours}.down.kernel'),
    vector(f'{mlp}.wo.bias', f'{ours}.down.bias'),
    *gpt2.norm(f'{mlp}.layernorm', f'{ours}.mlp_norm'),
  ]


def tensors(config: dnabert2.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  matrix, head = mapping.matrix, 'cls.predictions'
  found = [
    matrix('bert.embeddings.word_embeddings.weight', 'embed.tokens.table'),
    matrix('bert.embeddings.token_type_embeddings.weight', 'embed.types.table'),
    *gpt2.norm('bert.embeddings.LayerNorm', 'embed.norm'),
  ]
  for i in range(config.num_layers):
    found += _layer(f'bert.encoder.layer.{i}', f'layers.{i}')
  return [
    *found,
    mapping.linear(f'{head}.transform.dense.weight', 'head.dense.kernel'),
    mapping.vector(f'{head}.transform.dense.bias', 'head.dense.bias'),
    *gpt2.norm(f'{head}.transform.LayerNorm', 'head.norm'),
    mapping.vector(f'{head}.decoder.bias', 'head.bias'),
  ]


DNABERT2 = mapping.Family(
  model_type='dnabert2',
  prefix='',
  read_config=read_config,
  write_config=write_config,
  tensors=tensors,
  ignored=(
    r'^cls\.seq_relationship\.',
    r'^cls\.predictions\.decoder\.weight$',  # Tied, stored again.
    r'pooler\.',
  ),
)
