# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The methods that are compared, by name, and what their tokens cost."""

from typing import Any

from experiments.compressed_text.configs import (
  arithmetic,
  bpe,
  bytes,
  gzip,
  neural,
  static_arithmetic,
)
from jaxtok import train
from jaxtok.entropy import integer_model, shipped

# Config file and settings of each method; `v` is the number of values here.
METHODS: dict[str, tuple[Any, str]] = {
  'bytes': (bytes, ''),
  'bpe': (bpe, ''),
  'equalinfo_b16_v65k': (neural, ',b=16,v=16'),
  'equalinfo_b16_v256': (neural, ',b=16,v=8'),
  'equalinfo_b16_v65k_shipped': (neural, ',b=16,v=16,m1=shipped'),
  'equalinfo_b16_v256_shipped': (neural, ',b=16,v=8,m1=shipped'),
  'equalinfo_b16_v65k_half': (neural, ',b=16,v=16,half=1'),
  'equalinfo_b32_v256': (neural, ',b=32,v=8'),
  'equalinfo_b64_v256': (neural, ',b=64,v=8'),
  'equalinfo_b128_v256': (neural, ',b=128,v=8'),
  'equalinfo_b16_v256_delay': (neural, ',b=16,v=8,rule=delay'),
  'equalinfo_b16_v256_reset2': (neural, ',b=16,v=8,reset=2'),
  'equalinfo_b16_v256_never': (neural, ',b=16,v=8,reset=0'),
  'ac_v256': (arithmetic, ',v=8'),
  'ac_v256_shipped': (arithmetic, ',v=8,m1=shipped'),
  'ac_v65k': (arithmetic, ',v=16'),
  'static_ac_v256': (static_arithmetic, ',v=8'),
  'gzip_v256': (gzip, ',v=8'),
  'gzip_v65k': (gzip, ',v=16'),
}

DEFAULT = (
  *('bytes', 'bpe', 'equalinfo_b16_v65k', 'equalinfo_b16_v256'),
  *('equalinfo_b64_v256', 'ac_v256', 'static_ac_v256', 'gzip_v256'),
)


def get_config(method: str, size: str) -> train.Config:
  """The run of a method.

  Raises:
    ValueError: If there is no such method.
  """
  if method not in METHODS:
    raise ValueError(
      f'method {method!r} does not exist. Use some of: {", ".join(METHODS)}.'
    )
  module, settings = METHODS[method]
  return module.get_config(size + settings)


def m1_flops_per_byte(tokenizer: Any) -> float:
  """FLOPs of M1 per byte of text: 2 per weight of its matmuls.

  0 for tokenizers without a model, and for tables, which are looked up. The
  model that a dictionary was compiled from is counted, as in the paper, though
  the dictionary replaces it; it is known if it is that of the package.
  """
  model, words = (getattr(tokenizer, x, None) for x in ('model', 'words'))
  if words is not None:
    its = shipped.model()
    model = its if words.model_fingerprint == its.fingerprint() else None
  if not isinstance(model, integer_model.IntByteLM):
    return 0.0
  weights = model.mix_led.size + model.out_ldd.size + model.head_dv.size
  return 2.0 * weights


def paper_flops_per_byte(
  num_weights: float, bytes_per_token: float, m1_flops: float
) -> float:
  """Lester et al. 2024: 2 params(M2) / (bytes per token) + 2 params(M1).

  Args:
    num_weights: Parameters of M2 without embeddings.
    bytes_per_token: Of the tokenizer on the text.
    m1_flops: `m1_flops_per_byte`.
  """
  return 2.0 * num_weights / bytes_per_token + m1_flops
