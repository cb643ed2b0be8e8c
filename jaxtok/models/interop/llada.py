# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA and Dream: masked diffusion language models without causal masks.

LLaDA (Nie et al. 2025, arXiv:2502.09992) is a Llama with tensor names of its
own; Dream (Ye et al. 2025, arXiv:2508.15487) is a Qwen 2 under its own name,
whose logits at a position are for the next one. See `diffusion.pretrained` for
how text is generated with them.
"""

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

from jaxtok.models import transformer
from jaxtok.models.interop import llama, mapping
from jaxtok.nn import rope

_PREFIX = 'model.transformer.'


@dataclasses.dataclass(frozen=True)
class Conventions:
  """What a checkpoint means by its logits and ids.

  Attributes:
    mask_id: The mask token.
    eos_ids: Tokens that end a text: the first pads answers, others end a turn.
    is_shifted: Whether logits at a position are for the next one.
  """

  mask_id: int
  eos_ids: tuple[int, ...]
  is_shifted: bool


# By `model_type`; the ids are those of the published vocabularies.
_CONVENTIONS = {
  'llada': Conventions(126_336, (126_081, 126_348), is_shifted=False),
  'Dream': Conventions(151_666, (151_643, 151_645), is_shifted=True),
}


def conventions(raw: dict[str, Any]) -> Conventions:
  """Those of a config.json; ids that it does not name are the published ones.

  Raises:
    Unsupported: If it is of no LLaDA or Dream.
  """
  kind = raw.get('model_type')
  if kind not in _CONVENTIONS:
    raise mapping.Unsupported(
      f'config.json has model_type={kind!r}, but only '
      f'{" and ".join(map(repr, _CONVENTIONS))} fill in masks. Give a '
      'checkpoint of LLaDA or Dream.'
    )
  found = _CONVENTIONS[kind]
  if raw.get('mask_token_id') is not None:
    found = dataclasses.replace(found, mask_id=raw['mask_token_id'])
  eos = raw.get('eos_token_id')
  eos_ids = tuple(eos) if isinstance(eos, list) else (eos,)
  if eos is not None and not set(eos_ids) <= set(found.eos_ids):
    found = dataclasses.replace(found, eos_ids=eos_ids)
  return found


def llada_8b(**fields) -> transformer.Config:
  """The config of LLaDA-8B, 8,015,581,184 parameters."""
  sizes = dict(
    vocab_size=126_464,
    dim=4096,
    num_layers=32,
    num_heads=32,
    mlp_dim=12_288,
    rotary=rope.Config(theta=500_000.0),
    max_len=4096,
    is_causal=False,
  )
  return transformer.Config.llama(**sizes | fields)


def dream_7b(**fields) -> transformer.Config:
  """The config of Dream-7B, that of Qwen2.5-7B: 7,615,616,512 parameters."""
  sizes = dict(
    vocab_size=152_064,
    dim=3584,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    mlp_dim=18_944,
    is_tied=False,
    is_causal=False,
  )
  return transformer.Config.qwen2(**sizes | fields)


def _read(raw: dict[str, Any], names: Collection[str]) -> transformer.Config:
  mapping.require(raw, 'block_type', 'llama')
  mapping.require(raw, 'activation_type', 'silu')
  mapping.require(raw, 'layer_norm_type', 'rms')
  mapping.require(raw, 'rope', True)
  for key in ('alibi', 'attention_layer_norm', 'include_bias', 'scale_logits'):
    mapping.require(raw, key, False)
  mapping.require(raw, 'include_qkv_bias', False)
  mapping.require(raw, 'input_emb_norm', False)
  return transformer.Config.llama(
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
    is_causal=False,
  )


def _write(config: transformer.Config) -> dict[str, Any]:
  return {
    'architectures': ['LLaDAModelLM'],
    'block_type': 'llama',
    'activation_type': 'silu',
    'layer_norm_type': 'rms',
    'rope': True,
    'include_bias': False,
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


def _tensors(config: transformer.Config) -> list[mapping.Tensor]:
  linear, vector = mapping.linear, mapping.vector
  found = [mapping.matrix(f'{_PREFIX}wte.weight', 'embed.tokens.table')]
  for i in range(config.num_layers):
    theirs, ours = f'{_PREFIX}blocks.{i}', f'stack.blocks.{i}'
    found += [
      vector(f'{theirs}.attn_norm.weight', f'{ours}.attention_norm.scale'),
      vector(f'{theirs}.ff_norm.weight', f'{ours}.mlp_norm.scale'),
      linear(
        f'{theirs}.attn_out.weight', f'{ours}.attention.out.kernel', num_in=2
      ),
      linear(f'{theirs}.ff_proj.weight', f'{ours}.mlp.gate.kernel'),
      linear(f'{theirs}.up_proj.weight', f'{ours}.mlp.up.kernel'),
      linear(f'{theirs}.ff_out.weight', f'{ours}.mlp.down.kernel'),
    ]
    found += [
      linear(f'{theirs}.{x}_proj.weight', f'{ours}.attention.{x}.kernel')
      for x in 'qkv'
    ]
  found.append(vector(f'{_PREFIX}ln_f.weight', 'stack.norm.scale'))
  if not config.is_tied:
    found.append(linear(f'{_PREFIX}ff_out.weight', 'head.out.kernel'))
  return found


LLADA = mapping.Family(
  model_type='llada',
  prefix='model.',
  read_config=_read,
  write_config=_write,
  tensors=_tensors,
)
DREAM = llama.family(
  'Dream',
  'DreamModel',
  functools.partial(transformer.Config.qwen2, is_causal=False),
  bias='qkv',
)
