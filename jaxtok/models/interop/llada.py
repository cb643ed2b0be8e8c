# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA: a Llama without causal mask, under other names.

Nie et al. 2025, arXiv:2502.09992; keys of the published 8B checkpoints (blocks
of type "llama"). Two tensors of a checkpoint are called `ff_out.weight`: the
head and, inside a block, the projection down. Logits at a place are those of
the token there. The mask token is `mask_token_id` of config.json.
"""

from collections.abc import Collection
from typing import Any

from jaxtok.models import transformer
from jaxtok.models.interop import mapping
from jaxtok.nn import rope


def _read(raw: dict[str, Any], names: Collection[str]) -> transformer.Config:
  del names
  mapping.require(raw, 'block_type', 'llama')
  mapping.require(raw, 'activation_type', 'silu')
  mapping.require(raw, 'layer_norm_type', 'rms')
  mapping.require(raw, 'rope', True)
  for key in ('alibi', 'include_bias', 'include_qkv_bias', 'scale_logits'):
    mapping.require(raw, key, False, None)
  mapping.require(raw, 'attention_layer_norm', False)
  return transformer.Config.llama(
    is_causal=False,
    vocab_size=raw.get('embedding_size') or raw['vocab_size'],
    dim=raw['d_model'],
    num_layers=raw['n_layers'],
    num_heads=raw['n_heads'],
    num_kv_heads=raw.get('n_kv_heads') or 0,
    mlp_dim=raw['mlp_hidden_size'],
    norm_eps=raw.get('rms_norm_eps', 1e-5),
    rotary=rope.Config(theta=raw.get('rope_theta', 10_000.0)),
    max_len=raw.get('max_sequence_length', 0),
    is_tied=raw.get('weight_tying', False),
  )


def _write(config: transformer.Config) -> dict[str, Any]:
  return {
    'architectures': ['LLaDAModelLM'],
    'block_type': 'llama',
    'activation_type': 'silu',
    'layer_norm_type': 'rms',
    'rope': True,
    'vocab_size': config.vocab_size,
    'embedding_size': config.vocab_size,
    'd_model': config.dim,
    'n_layers': config.num_layers,
    'n_heads': config.num_heads,
    'n_kv_heads': config.kv_heads,
    'mlp_hidden_size': config.mlp_width,
    'rms_norm_eps': config.norm_eps,
    'rope_theta': config.rotary.theta,
    'max_sequence_length': config.max_len or 4096,
    'weight_tying': config.is_tied,
  }


def _layer(theirs: str, ours: str) -> list[mapping.Tensor]:
  linear, vector = mapping.linear, mapping.vector
  tensors = [
    vector(f'{theirs}.attn_norm.weight', f'{ours}.attention_norm.scale'),
    vector(f'{theirs}.ff_norm.weight', f'{ours}.mlp_norm.scale'),
    linear(
      f'{theirs}.attn_out.weight', f'{ours}.attention.out.kernel', num_in=2
    ),
    linear(f'{theirs}.ff_proj.weight', f'{ours}.mlp.gate.kernel'),
    linear(f'{theirs}.up_proj.weight', f'{ours}.mlp.up.kernel'),
    linear(f'{theirs}.ff_out.weight', f'{ours}.mlp.down.kernel'),
  ]
  return tensors + [
    linear(f'{theirs}.{x}_proj.weight', f'{ours}.attention.{x}.kernel')
    for x in 'qkv'
  ]


def tensors(config: transformer.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  root = 'model.transformer'
  found = [mapping.matrix(f'{root}.wte.weight', 'embed.tokens.table')]
  for i in range(config.num_layers):
    found += _layer(f'{root}.blocks.{i}', f'stack.blocks.{i}')
  found.append(mapping.vector(f'{root}.ln_f.weight', 'stack.norm.scale'))
  if not config.is_tied:
    found.append(mapping.linear(f'{root}.ff_out.weight', 'head.out.kernel'))
  return found


LLADA = mapping.Family(
  model_type='llada',
  prefix='model.',
  read_config=_read,
  write_config=_write,
  tensors=tensors,
  ignored=(r'rotary_emb\.inv_freq$',),
)
