# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Llama (1 to 3), and Qwen 2 and 3, which differ by biases and norms."""

import functools
from collections.abc import Callable, Collection
from typing import Any

from jaxtok.models import transformer
from jaxtok.models.interop import mapping
from jaxtok.nn import rope

_SCALINGS = {None: 'none', 'default': 'none'} | {
  kind: kind for kind in ('linear', 'llama3')
}


def read_rope(raw: dict[str, Any]) -> rope.Config:
  """Rotation settings, as transformers 4 (`rope_scaling`) or 5 wrote them."""
  new = raw.get('rope_parameters') or raw.get('rope_scaling') or {}
  kind = new.get('rope_type', new.get('type'))
  if kind not in _SCALINGS:
    raise mapping.Unsupported(
      f'config.json asks for RoPE scaling {kind!r}; only default, linear and '
      'llama3 can be loaded.'
    )
  theta = new.get('rope_theta', raw.get('rope_theta', 10_000.0))
  if _SCALINGS[kind] == 'none':
    return rope.Config(theta=theta)
  if kind == 'linear':
    return rope.Config(theta=theta, scaling=kind, factor=new['factor'])
  return rope.Config(
    theta=theta,
    scaling=kind,
    factor=new['factor'],
    low_frequency_factor=new['low_freq_factor'],
    high_frequency_factor=new['high_freq_factor'],
    original_max_len=new['original_max_position_embeddings'],
  )


def write_rope(config: rope.Config) -> dict[str, Any]:
  """The inverse of `read_rope`, in the form that all versions read."""
  if config.scaling == 'none':
    return {'rope_theta': config.theta}
  scaling = {'rope_type': config.scaling, 'factor': config.factor}
  if config.scaling == 'llama3':
    scaling |= {
      'low_freq_factor': config.low_frequency_factor,
      'high_freq_factor': config.high_frequency_factor,
      'original_max_position_embeddings': config.original_max_len,
    }
  return {'rope_theta': config.theta, 'rope_scaling': scaling}


def _read(
  raw: dict[str, Any],
  names: Collection[str],
  *,
  make: Callable[..., transformer.Config],
  bias: str,
  qk_norm: bool,
) -> transformer.Config:
  mapping.require(raw, 'hidden_act', 'silu')
  mapping.require(raw, 'use_sliding_window', False)
  # Qwen 2 has neither option, Qwen 3 no biases in the MLP.
  if bias == 'none' and raw.get('attention_bias'):
    bias = 'all'
  has_mlp_option = bias != 'qkv' and not qk_norm
  return make(
    vocab_size=raw['vocab_size'],
    dim=raw['hidden_size'],
    num_layers=raw['num_hidden_layers'],
    num_heads=raw['num_attention_heads'],
    num_kv_heads=raw.get('num_key_value_heads') or 0,
    head_dim=raw.get('head_dim') or (128 if qk_norm else 0),
    mlp_dim=raw['intermediate_size'],
    norm_eps=raw.get('rms_norm_eps', 1e-6),
    qk_norm=qk_norm,
    rotary=read_rope(raw),
    max_len=raw.get('max_position_embeddings', 0),
    attention_bias=bias,
    mlp_bias=has_mlp_option and raw.get('mlp_bias', False),
    is_tied=raw.get('tie_word_embeddings', False),
  )


def _write(config: transformer.Config, *, architecture: str) -> dict[str, Any]:
  return {
    'architectures': [architecture],
    'vocab_size': config.vocab_size,
    'hidden_size': config.dim,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_width,
    'intermediate_size': config.mlp_width,
    'hidden_act': 'silu',
    'rms_norm_eps': config.norm_eps,
    'max_position_embeddings': config.max_len or 4096,
    'attention_bias': config.attention_bias == 'all',
    'mlp_bias': config.mlp_bias,
    'tie_word_embeddings': config.is_tied,
    **write_rope(config.rotary),
  }


def _layer(
  config: transformer.Config, theirs: str, ours: str
) -> list[mapping.Tensor]:
  linear, vector = mapping.linear, mapping.vector
  att, mlp = f'{theirs}.self_attn', f'{theirs}.mlp'
  tensors = [
    vector(f'{theirs}.input_layernorm.weight', f'{ours}.attention_norm.scale'),
    vector(
      f'{theirs}.post_attention_layernorm.weight', f'{ours}.mlp_norm.scale'
    ),
    linear(f'{att}.o_proj.weight', f'{ours}.attention.out.kernel', num_in=2),
  ]
  for x in 'qkv':
    tensors.append(
      linear(f'{att}.{x}_proj.weight', f'{ours}.attention.{x}.kernel')
    )
    if config.attention_bias != 'none':
      tensors.append(
        vector(f'{att}.{x}_proj.bias', f'{ours}.attention.{x}.bias')
      )
  if config.attention_bias == 'all':
    tensors.append(vector(f'{att}.o_proj.bias', f'{ours}.attention.out.bias'))
  if config.qk_norm:
    for x in 'qk':
      tensors.append(
        vector(f'{att}.{x}_norm.weight', f'{ours}.attention.{x}_norm.scale')
      )
  for x in ('gate', 'up', 'down'):
    tensors.append(linear(f'{mlp}.{x}_proj.weight', f'{ours}.mlp.{x}.kernel'))
    if config.mlp_bias:
      tensors.append(vector(f'{mlp}.{x}_proj.bias', f'{ours}.mlp.{x}.bias'))
  return tensors


def tensors(config: transformer.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  found = [mapping.matrix('model.embed_tokens.weight', 'embed.tokens.table')]
  for i in range(config.num_layers):
    found += _layer(config, f'model.layers.{i}', f'stack.blocks.{i}')
  found.append(mapping.vector('model.norm.weight', 'stack.norm.scale'))
  if not config.is_tied:
    found.append(mapping.linear('lm_head.weight', 'head.out.kernel'))
  return found


def family(
  model_type: str,
  architecture: str,
  make: Callable[..., transformer.Config],
  *,
  bias: str,
  qk_norm: bool = False,
) -> mapping.Family:
  """A family with the tensor names and the config.json of Llama.

  Args:
    model_type: In config.json.
    architecture: Name of the class that `transformers` would load.
    make: Makes our config from its fields.
    bias: Biases of the attention's projections without any setting.
    qk_norm: Whether queries and keys are normalised.
  """
  return mapping.Family(
    model_type=model_type,
    prefix='model.',
    read_config=functools.partial(_read, make=make, bias=bias, qk_norm=qk_norm),
    write_config=functools.partial(_write, architecture=architecture),
    tensors=tensors,
    # Tied heads are sometimes stored all the same.
    ignored=(r'rotary_emb\.inv_freq$', r'^lm_head\.weight$'),
  )


LLAMA = family(
  'llama', 'LlamaForCausalLM', transformer.Config.llama, bias='none'
)
QWEN2 = family(
  'qwen2', 'Qwen2ForCausalLM', transformer.Config.qwen2, bias='qkv'
)
QWEN3 = family(
  'qwen3',
  'Qwen3ForCausalLM',
  transformer.Config.llama,
  bias='none',
  qk_norm=True,
)
