# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BERT, with its masked-token head if the checkpoint has one.

The pooler and the next-sentence head are not read.
"""

from collections.abc import Collection
from typing import Any

from jaxtok.models import transformer
from jaxtok.models.interop import gpt2, mapping

# Their tables of vectors -> ours.
TABLES = {
  'word': 'embed.tokens',
  'position': 'embed.positions',
  'token_type': 'embed.types',
}


def read_config(
  raw: dict[str, Any], names: Collection[str]
) -> transformer.Config:
  """config.json -> our config."""
  activation = raw.get('hidden_act', 'gelu')
  has_head = 'cls.predictions.bias' in names
  mapping.require(raw, 'hidden_act', *gpt2.ACTIVATIONS)
  mapping.require(raw, 'position_embedding_type', 'absolute', None)
  mapping.require(raw, 'is_decoder', False)
  mapping.require(raw, 'add_cross_attention', False)
  return transformer.Config.bert(
    vocab_size=raw['vocab_size'],
    dim=raw['hidden_size'],
    num_layers=raw['num_hidden_layers'],
    num_heads=raw['num_attention_heads'],
    mlp_dim=raw['intermediate_size'],
    activation=gpt2.ACTIVATIONS[activation],
    norm_eps=raw.get('layer_norm_eps', 1e-12),
    max_len=raw['max_position_embeddings'],
    token_types=raw.get('type_vocab_size', 2),
    is_tied=raw.get('tie_word_embeddings', True),
    head_bias=has_head,
    head_transform=has_head,
  )


def write_config(config: transformer.Config) -> dict[str, Any]:
  """Our config -> config.json."""
  names = {ours: theirs for theirs, ours in reversed(gpt2.ACTIVATIONS.items())}
  has_head = config.head_transform
  return {
    'architectures': ['BertForMaskedLM' if has_head else 'BertModel'],
    'vocab_size': config.vocab_size,
    'hidden_size': config.dim,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'intermediate_size': config.mlp_width,
    'hidden_act': names.get(config.activation, 'gelu'),
    'layer_norm_eps': config.norm_eps,
    'max_position_embeddings': config.max_len,
    'type_vocab_size': config.token_types,
    'tie_word_embeddings': config.is_tied,
  }


def layer(theirs: str, ours: str) -> list[mapping.Tensor]:
  """One block."""
  places = {
    'attention.self.query': ('attention.q', 1),
    'attention.self.key': ('attention.k', 1),
    'attention.self.value': ('attention.v', 1),
    'attention.output.dense': ('attention.out', 2),
    'intermediate.dense': ('mlp.up', 1),
    'output.dense': ('mlp.down', 1),
  }
  tensors = [
    *gpt2.norm(
      f'{theirs}.attention.output.LayerNorm', f'{ours}.attention_norm'
    ),
    *gpt2.norm(f'{theirs}.output.LayerNorm', f'{ours}.mlp_norm'),
  ]
  for name, (place, num_in) in places.items():
    kernel, bias = f'{ours}.{place}.kernel', f'{ours}.{place}.bias'
    tensors += [
      mapping.linear(f'{theirs}.{name}.weight', kernel, num_in=num_in),
      mapping.vector(f'{theirs}.{name}.bias', bias),
    ]
  return tensors


def tensors(config: transformer.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  found = [
    mapping.matrix(f'bert.embeddings.{name}_embeddings.weight', f'{ours}.table')
    for name, ours in TABLES.items()
  ]
  found += gpt2.norm('bert.embeddings.LayerNorm', 'embed.norm')
  for i in range(config.num_layers):
    found += layer(f'bert.encoder.layer.{i}', f'stack.blocks.{i}')
  return found + (_head(config) if config.head_transform else [])


def _head(config: transformer.Config) -> list[mapping.Tensor]:
  head, dense = 'cls.predictions', 'cls.predictions.transform.dense'
  found = [
    mapping.linear(f'{dense}.weight', 'head.dense.kernel'),
    mapping.vector(f'{dense}.bias', 'head.dense.bias'),
    *gpt2.norm(f'{head}.transform.LayerNorm', 'head.norm'),
    mapping.vector(f'{head}.bias', 'head.bias'),
  ]
  if not config.is_tied:
    found.append(mapping.linear(f'{head}.decoder.weight', 'head.out.kernel'))
  return found


BERT = mapping.Family(
  model_type='bert',
  prefix='bert.',
  read_config=read_config,
  write_config=write_config,
  tensors=tensors,
  ignored=(
    r'^cls\.seq_relationship\.',
    r'^cls\.predictions\.decoder\.',  # Tied, stored again.
    r'pooler\.',
    r'embeddings\.position_ids$',
  ),
)
