# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLT in the form of `transformers`; checkpoints are read, not written.

Their rotation turns neighbouring dimensions of a head, ours those half a head
apart, so the outputs of query and key matrices change places. Cross-attention
adds its input twice there.
"""

from collections.abc import Collection
from typing import Any

from jaxtok.models import blt, patcher, transformer
from jaxtok.models.interop import llama, mapping
from jaxtok.nn import segmenters


def read_config(raw: dict[str, Any], names: Collection[str]) -> blt.Config:
  """config.json -> our config, with the patcher if the checkpoint has it."""
  encoder, decoder = raw['encoder_config'], raw['decoder_config']
  wide = raw['global_config']
  for part in (encoder, decoder, wide):
    mapping.require(part, 'hidden_act', 'silu')
    mapping.require(part, 'num_key_value_heads', part['num_attention_heads'])
    mapping.require(part, 'rms_norm_eps', encoder['rms_norm_eps'])
  mapping.require(raw, 'tie_word_embeddings', False)
  mapping.require(encoder, 'cross_attn_all_layers', False)
  mapping.require(decoder, 'cross_attn_all_layers', True)
  for key in ('hidden_size', 'num_attention_heads'):
    mapping.require(decoder, key, encoder[key])
  for part in (encoder, decoder):
    mapping.require(part, 'cross_attn_k', raw['cross_attn_k'])
  thetas = {llama.read_rope(part) for part in (encoder, decoder, wide)}
  if len(thetas) > 1:
    raise mapping.Unsupported(
      f'config.json has rotations that differ between levels: {thetas}.'
    )
  return blt.Config(
    vocab_size=raw['vocab_size'],
    vocab_multiple=1,
    dim=wide['hidden_size'],
    byte_dim=encoder['hidden_size'],
    num_parts=raw['cross_attn_k'],
    num_layers=wide['num_hidden_layers'],
    num_encoder_layers=encoder['num_hidden_layers'],
    num_decoder_layers=decoder['num_hidden_layers'],
    num_heads=wide['num_attention_heads'],
    num_byte_heads=encoder['num_attention_heads'],
    mlp_dim=wide['intermediate_size'],
    encoder_mlp_dim=encoder['intermediate_size'],
    decoder_mlp_dim=decoder['intermediate_size'],
    window=raw.get('local_attention_window_len') or 0,
    ngrams=tuple(raw['encoder_hash_byte_group_size']),
    num_hashes=raw['encoder_hash_byte_group_nb_functions'],
    hash_rows=raw['encoder_hash_byte_group_vocab'],
    patcher=_patcher(raw, names),
    double_residual=True,
    rotary=thetas.pop(),
    norm_eps=encoder['rms_norm_eps'],
  )


def _patcher(raw: dict[str, Any], names: Collection[str]) -> Any:
  if not any('patcher.' in name for name in names):
    # `transformers` makes each byte a patch then.
    return segmenters.Stride(size=1)
  mapping.require(raw, 'patching_mode', 'entropy')
  part = raw['patcher_config']
  model = transformer.Config.llama(
    vocab_size=part['vocab_size'],
    vocab_multiple=1,
    dim=part['hidden_size'],
    num_layers=part['num_hidden_layers'],
    num_heads=part['num_attention_heads'],
    num_kv_heads=part.get('num_key_value_heads') or 0,
    mlp_dim=part['intermediate_size'],
    norm_eps=part['rms_norm_eps'],
    rotary=llama.read_rope(part),
    is_tied=False,
  )
  rule = segmenters.Entropy(
    threshold=raw['patching_threshold'],
    longest=raw.get('max_patch_length') or 0,
  )
  window = part.get('sliding_window') or 0
  return patcher.Entropy(model=model, rule=rule, window=window)


def write_config(config: Any) -> dict[str, Any]:
  """Refused."""
  del config
  raise mapping.Unsupported('checkpoints of BLT are read, not written.')


def _layer(theirs: str, ours: str) -> list[mapping.Tensor]:
  linear, vector = mapping.linear, mapping.vector
  attention = f'{theirs}.self_attn'
  turned = [
    linear(f'{attention}.{x}_proj.weight', f'{ours}.attention.{x}.kernel')
    for x in 'qk'
  ]
  return [
    *map(mapping.interleaved, turned),
    linear(f'{attention}.v_proj.weight', f'{ours}.attention.v.kernel'),
    linear(
      f'{attention}.o_proj.weight', f'{ours}.attention.out.kernel', num_in=2
    ),
    vector(f'{theirs}.input_layernorm.weight', f'{ours}.attention_norm.scale'),
    vector(
      f'{theirs}.post_attention_layernorm.weight', f'{ours}.mlp_norm.scale'
    ),
    *(
      linear(f'{theirs}.mlp.{x}_proj.weight', f'{ours}.mlp.{x}.kernel')
      for x in ('gate', 'up', 'down')
    ),
  ]


def _cross(theirs: str, ours: str) -> list[mapping.Tensor]:
  linear, vector = mapping.linear, mapping.vector
  return [
    *(
      vector(f'{theirs}.{x}_norm.weight', f'{ours}.{x}_norm.scale')
      for x in 'qk'
    ),
    *(
      linear(f'{theirs}.{x}_proj.weight', f'{ours}.attention.{x}.kernel')
      for x in 'qkv'
    ),
    linear(f'{theirs}.o_proj.weight', f'{ours}.attention.out.kernel', num_in=2),
  ]


def tensors(config: blt.Config) -> list[mapping.Tensor]:
  """All tensors of a checkpoint."""
  linear, vector, matrix = mapping.linear, mapping.vector, mapping.matrix
  encoder, decoder = 'model.local_encoder', 'model.local_decoder'
  wide, projection = 'model.global_transformer', 'patch_embedding_projection'
  found = [
    matrix(f'{encoder}.embed_tokens.weight', 'embed.table'),
    matrix('model.encoder_hash_tok_embedding.weight', 'hashes.table'),
    linear(f'{encoder}.{projection}.weight', 'parts.kernel'),
    *_cross(f'{encoder}.cross_attn_layers.0', 'encoder_cross'),
    linear(f'{decoder}.{projection}.weight', 'down.kernel'),
    vector(
      f'{decoder}.norm.weight',
      f'decoder.{config.num_decoder_layers - 1}.stack.norm.scale',
    ),
    linear('lm_head.weight', 'head.out.kernel'),
  ]
  if config.num_parts * config.byte_dim != config.dim:
    name = f'{wide}.token_embedding_projection.weight'
    found.append(linear(name, 'up.kernel'))
  for i in range(config.num_encoder_layers):
    found += _layer(f'{encoder}.layers.{i}', f'encoder.stack.blocks.{i}')
  for i in range(config.num_layers):
    found += _layer(f'{wide}.layers.{i}', f'trunk.stack.blocks.{i}')
  for i in range(config.num_decoder_layers):
    found += _layer(f'{decoder}.layers.{i}', f'decoder.{i}.stack.blocks.0')
    found += _cross(f'{decoder}.cross_attn_layers.{i}', f'decoder_cross.{i}')
  if isinstance(config.patcher, patcher.Entropy):
    found += _of_patcher(config.patcher.model)
  return found


def _of_patcher(config: transformer.Config) -> list[mapping.Tensor]:
  theirs, ours = 'model.patcher', 'patcher.model'
  found = [
    mapping.matrix(
      f'{theirs}.embed_tokens.weight', f'{ours}.embed.tokens.table'
    ),
    mapping.vector(f'{theirs}.norm.weight', f'{ours}.stack.norm.scale'),
    mapping.linear(f'{theirs}.lm_head.weight', f'{ours}.head.out.kernel'),
  ]
  for i in range(config.num_layers):
    found += _layer(f'{theirs}.layers.{i}', f'{ours}.stack.blocks.{i}')
  return found


BLT = mapping.Family(
  model_type='blt',
  prefix='model.',
  read_config=read_config,
  write_config=write_config,
  tensors=tensors,
  ignored=(r'rotary_emb\.inv_freq$',),
)
