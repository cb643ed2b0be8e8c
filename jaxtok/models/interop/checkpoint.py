# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads and saves whole checkpoints: config.json and tensors."""

import dataclasses
import json
import os
from typing import Any

from flax import nnx

from jaxtok import config as config_lib
from jaxtok.models import transformer
from jaxtok.models.interop import (
  bert,
  blt,
  dnabert2,
  gpt2,
  llada,
  llama,
  mapping,
  roberta,
  safetensors,
  t5,
)

FAMILIES = {
  family.model_type: family
  for family in (
    llama.LLAMA,
    llama.QWEN2,
    llama.QWEN3,
    gpt2.GPT2,
    bert.BERT,
    roberta.ROBERTA,
    t5.T5,
    llada.LLADA,
    llada.DREAM,
  )
}

# Settings that do not change the function that a model computes.
_FREE = (
  *('vocab_multiple', 'embed_std', 'dropout', 'remat', 'dtype'),
  'implementation',
)


def read_config(path: str | os.PathLike) -> dict[str, Any]:
  """The config.json of a checkpoint folder, e.g. for its `eos_token_id`."""
  file = os.path.join(path, 'config.json')
  if not os.path.isfile(file):
    what = 'not a folder' if os.path.isfile(path) else 'without config.json'
    raise FileNotFoundError(
      f'{os.fspath(path)} is {what}. Give the folder of a checkpoint: '
      'config.json and .safetensors files.'
    )
  with open(file, encoding='utf-8') as f:
    try:
      raw = json.load(f)
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
      raise safetensors.FormatError(f'{file} is not JSON: {e}.') from e
  if not isinstance(raw, dict) or 'model_type' not in raw:
    raise safetensors.FormatError(
      f'{file} has no "model_type", so it is not the configuration of a model.'
    )
  return raw


def load(
  path: str | os.PathLike,
  *,
  dtype: str = 'float32',
  shardings: mapping.Shardings | None = None,
) -> tuple[Any, nnx.Module]:
  """Loads a model, one tensor after the other.

  Args:
    path: Folder with config.json and `.safetensors` files.
    dtype: Of the parameters and of the matmuls, whatever the files hold.
    shardings: Where each parameter goes, e.g. `by_rules(mesh)`; each device
      then gets its part straight from the file. None is the default device.

  Returns:
    The config that the checkpoint describes, and the model: of `transformer`,
    of `blt`, of `dnabert2`, or of `code_merge` (a classifier of the family of
    RoBERTa).

  Raises:
    FileNotFoundError: If there is no checkpoint.
    Unsupported: If we have no such model.
    FormatError: If the files are damaged or do not fit config.json.
    MissingError: If the files lack a tensor.
  """
  raw = read_config(path)
  family = FAMILIES.get(raw['model_type'])
  if raw['model_type'] == 'blt':
    family = blt.BLT
  if dnabert2.is_one(raw):
    family = dnabert2.DNABERT2
  if family is None:
    raise mapping.Unsupported(
      f'{os.fspath(path)} is of type {raw["model_type"]!r}; can be loaded: '
      f'{", ".join(FAMILIES)}, blt.'
    )
  reader = safetensors.Reader(path)
  try:
    config = family.read_config(raw, set(reader))
  except KeyError as e:
    raise safetensors.FormatError(
      f'{os.path.join(path, "config.json")} lacks {e.args[0]!r}, which a '
      f'{family.model_type} model needs.'
    ) from e
  config = _with_dtype(config, dtype)
  tensors = family.tensors(config)
  tensors = mapping.without_prefix(tensors, family.prefix, reader)
  mapping.check_names(reader, tensors, family.ignored)
  graph, params = nnx.split(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))))
  params = mapping.read(
    reader, tensors, params, dtype=dtype, shardings=shardings
  )
  return config, nnx.merge(graph, params)


def _with_dtype(config: Any, dtype: str) -> Any:
  if hasattr(config, 'dtype'):
    return dataclasses.replace(config, dtype=dtype)
  encoder = dataclasses.replace(config.encoder, dtype=dtype)
  return dataclasses.replace(config, encoder=encoder)


def save(
  model: Any,
  path: str | os.PathLike,
  *,
  model_type: str = '',
  dtype: str = 'float32',
  max_shard_bytes: int = 5 * 10**9,
  extra: dict[str, Any] | None = None,
) -> None:
  """Writes a new folder that `transformers` can load, or none at all.

  Rows that pad the vocabulary are left out. With several processes, call it
  in one of them.

  Args:
    model: The model.
    path: A folder that does not exist yet (or is empty).
    model_type: One of `FAMILIES`; '' takes the one that fits the config.
    dtype: Type in the files.
    max_shard_bytes: Size limit of each file.
    extra: More entries of config.json, e.g. `{'eos_token_id': 2}`.

  Raises:
    Unsupported: If no family can express the model's config.
    FileExistsError: If there is something at `path`.
  """
  family, raw = _describe(model.config, model_type)
  pending = mapping.pending(
    family.tensors(model.config),
    nnx.state(model, nnx.Param),
    model.config.vocab_size,
    dtype,
  )
  raw |= {'model_type': family.model_type, 'torch_dtype': dtype}
  with safetensors.new_folder(path) as folder:
    safetensors.write(folder, pending, max_shard_bytes=max_shard_bytes)
    with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8') as f:
      json.dump(raw | (extra or {}), f, indent=2)


def _describe(
  config: Any, model_type: str
) -> tuple[mapping.Family, dict[str, Any]]:
  """The family that can express a config, and its config.json."""
  if model_type and model_type not in FAMILIES:
    raise mapping.Unsupported(
      f'model_type={model_type!r} must be one of {", ".join(FAMILIES)}.'
    )
  if not isinstance(config, transformer.Config):
    kind = config_lib.type_name(type(config))
    raise mapping.Unsupported(f'a {kind} can be read, not written.')
  misfits = []
  for name in [model_type] if model_type else FAMILIES:
    family = FAMILIES[name]
    raw = family.write_config(config)
    names = {t.name for t in family.tensors(config)}
    try:
      back = family.read_config(raw, names)
    except ValueError as e:  # Kept for the message below.
      misfits.append((float('inf'), f'{name!r} cannot: {e}'))
      continue
    lost = config_lib.diff(_canonical(config), _canonical(back))
    if not lost:
      return family, raw
    changes = config_lib.format_diff(lost)
    misfits.append((len(lost), f'{name!r} would change\n{changes}'))
  raise mapping.Unsupported(
    f'no family expresses this config; of those tried, {min(misfits)[1]}'
  )


def differences(old: transformer.Config, new: transformer.Config) -> str:
  """Settings in which two configs describe different functions of weights.

  The vocabulary's size is not looked at: 0 may stand for the tokenizer's.

  Returns:
    One line per setting; '' if there is none.
  """
  old = dataclasses.replace(old, vocab_size=new.vocab_size)
  return config_lib.format_diff(
    config_lib.diff(_canonical(old), _canonical(new))
  )


def _canonical(config: transformer.Config) -> transformer.Config:
  """Derived sizes filled in, settings without effect at their defaults."""
  c = config
  reset = [*_FREE]
  reset += ['rotary'] * (c.position != 'rope')
  reset += ['max_len', 'first_position'] * (c.position != 'learned')
  reset += ['num_buckets', 'max_distance'] * (c.position != 't5')
  default = transformer.Config()
  return dataclasses.replace(
    c,
    num_kv_heads=c.kv_heads,
    head_dim=c.head_width,
    mlp_dim=c.mlp_width,
    attention_scale=c.attention_scale or c.head_width**-0.5,
    **{name: getattr(default, name) for name in reset},
  )
