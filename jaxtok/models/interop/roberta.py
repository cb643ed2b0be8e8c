# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""RoBERTa and the models of programs that are one.

CodeBERT, GraphCodeBERT and UniXcoder (its encoder) are RoBERTa with other
weights and vocabularies. Its layers are BERT's; its positions count from
`pad_token_id + 1`, so that padding has a row of its own, and row 0 is what
GraphCodeBERT gives to nodes of data flow: position -2 of ours.

A checkpoint with a masked-token head, or without a head, gives a
`transformer.Config`, one of a classifier (`RobertaForSequenceClassification`) a
`code_merge.Config` that merges nothing; `code_merge.adopt` makes either one
merge. The pooler is not read: classifiers of this family have a layer of their
own in its place.
"""

from collections.abc import Collection
from typing import Any

from jaxtok.models import code_merge, transformer
from jaxtok.models.interop import bert, gpt2, mapping

_CLASSIFIER = 'classifier.out_proj.weight'


def read_config(raw: dict[str, Any], names: Collection[str]) -> Any:
  """config.json -> our config."""
  activation = raw.get('hidden_act', 'gelu')
  has_head = 'lm_head.bias' in names
  first = raw.get('pad_token_id', 1) + 1
  mapping.require(raw, 'hidden_act', *gpt2.ACTIVATIONS)
  mapping.require(raw, 'position_embedding_type', 'absolute', None)
  mapping.require(raw, 'is_decoder', False)
  mapping.require(raw, 'add_cross_attention', False)
  if not 1 <= first < raw['max_position_embeddings']:
    raise mapping.Unsupported(
      f'config.json has pad_token_id={first - 1} and max_position_embeddings='
      f'{raw["max_position_embeddings"]}; the former must be >= 0 and leave '
      'positions for tokens.'
    )
  encoder = transformer.Config.roberta(
    vocab_size=raw['vocab_size'],
    dim=raw['hidden_size'],
    num_layers=raw['num_hidden_layers'],
    num_heads=raw['num_attention_heads'],
    mlp_dim=raw['intermediate_size'],
    activation=gpt2.ACTIVATIONS[activation],
    norm_eps=raw.get('layer_norm_eps', 1e-12),
    max_len=raw['max_position_embeddings'] - first,
    first_position=first,
    token_types=raw.get('type_vocab_size', 2),
    is_tied=not has_head or raw.get('tie_word_embeddings', True),
    head_bias=has_head,
    head_transform=has_head,
  )
  if _CLASSIFIER not in names:
    return encoder
  return code_merge.Config(
    encoder=encoder,
    num_classes=len(raw.get('id2label') or (0, 1)),
    how=code_merge.How.NONE,
  )


def write_config(config: transformer.Config) -> dict[str, Any]:
  """Our config -> config.json."""
  has_head = config.head_transform
  return bert.write_config(config) | {
    'architectures': ['RobertaForMaskedLM' if has_head else 'RobertaModel'],
    'max_position_embeddings': config.max_len + config.first_position,
    'pad_token_id': config.first_position - 1,
    'bos_token_id': 0,
    'eos_token_id': 2,
  }


def tensors(config: Any) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  if isinstance(config, transformer.Config):
    return _encoder(config, '')
  return [
    *_encoder(config.encoder, 'encoder.'),
    *_dense('classifier.dense', 'dense'),
    *_dense('classifier.out_proj', 'out'),
  ]


def _encoder(config: transformer.Config, ours: str) -> list[mapping.Tensor]:
  embeddings, layers = 'roberta.embeddings', 'roberta.encoder.layer'
  found = [
    mapping.matrix(
      f'{embeddings}.{name}_embeddings.weight', f'{ours}{place}.table'
    )
    for name, place in bert.TABLES.items()
  ]
  found += gpt2.norm(f'{embeddings}.LayerNorm', f'{ours}embed.norm')
  for i in range(config.num_layers):
    found += bert.layer(f'{layers}.{i}', f'{ours}stack.blocks.{i}')
  if config.head_transform:
    found += [
      *_dense('lm_head.dense', f'{ours}head.dense'),
      *gpt2.norm('lm_head.layer_norm', f'{ours}head.norm'),
      mapping.vector('lm_head.bias', f'{ours}head.bias'),
    ]
  if not config.is_tied:
    found.append(
      mapping.linear('lm_head.decoder.weight', f'{ours}head.out.kernel')
    )
  return found


def _dense(theirs: str, ours: str) -> list[mapping.Tensor]:
  return [
    mapping.linear(f'{theirs}.weight', f'{ours}.kernel'),
    mapping.vector(f'{theirs}.bias', f'{ours}.bias'),
  ]


ROBERTA = mapping.Family(
  model_type='roberta',
  prefix='roberta.',
  read_config=read_config,
  write_config=write_config,
  tensors=tensors,
  ignored=(
    r'^lm_head\.decoder\.',  # Tied, stored again.
    r'pooler\.',
    r'embeddings\.position_ids$',
    r'embeddings\.token_type_ids$',
  ),
)
