# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLT: patches of bytes (Pagnoni et al. 2024).

  python -m experiments.byte_lm --workdir=runs/blt \\
      --config=experiments/byte_lm/configs/blt.py:tiny

Patches end at bytes like spaces. For patches by entropy, train the model that
the entropies are of, write its weights where the config looks for them, and
train with them:

  python -m experiments.byte_lm --workdir=runs/patcher \\
      --config=experiments/byte_lm/configs/blt.py:tiny_patcher
  python -c "from jaxtok import runs; from jaxtok.models import interop; \\
      interop.save(runs.load('runs/patcher').model, 'runs/patcher/weights')"
  python -m experiments.byte_lm --workdir=runs/blt_entropy \\
      --config=experiments/byte_lm/configs/blt.py:tiny_entropy

`patcher.threshold` finds the threshold for a mean length of patches.
`experiments/claims/blt.py` does all of it, and compares with a fixed stride.
Sizes: tiny, quickstart, small, 1b or paper (that of the published model, 24 kB
of text in a row), each also with `_patcher` and `_entropy`.
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import blt, patcher
from jaxtok.models import transformer as transformer_lib
from jaxtok.nn import ragged, rope, segmenters
from jaxtok.tokenizers import bytes as byte_tokenizer

WEIGHTS = 'runs/patcher/weights'


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  base, kind = sizes.pick(
    size,
    **{
      name + kind: ('1b' if name == 'paper' else name, kind[1:])
      for name in ('tiny', 'quickstart', 'small', '1b', 'paper')
      for kind in ('', '_patcher', '_entropy')
    },
  )
  config = transformer.get_config('small' if base == '1b' else base)
  if base == '1b':
    config.data.seq_len = 24_576
    config.tokenizer = byte_tokenizer.Config(map='blt')
  if kind == 'patcher':
    config.model = _language_model(base)
    return config
  offset = 4 if base == '1b' else 0
  config.model = _model(base)
  config.model.patcher = segmenters.Spacelike(offset=offset)
  if kind == 'entropy':
    config.model.patcher = patcher.Entropy(
      model=_language_model(base), path=WEIGHTS
    )
  return config


def _model(size: str) -> blt.Config:
  dim, byte_dim, layers, decoder_layers, head_dim, rows = sizes.pick(
    size,
    tiny=(128, 64, 2, 1, 32, 4096),
    quickstart=(256, 128, 3, 2, 64, 8192),
    small=(1024, 512, 8, 4, 64, 50_002),
    **{'1b': (2048, 1024, 25, 9, 128, 500_002)},
  )
  widths = {}
  if size == '1b':
    widths = dict(mlp_dim=5632, encoder_mlp_dim=2730, decoder_mlp_dim=2816)
  return blt.Config(
    dim=dim,
    byte_dim=byte_dim,
    num_layers=layers,
    num_decoder_layers=decoder_layers,
    num_heads=dim // head_dim,
    num_byte_heads=byte_dim // min(head_dim, 64),
    hash_rows=rows,
    capacity=ragged.Capacity(policy='ratio', ratio=1 / 3),
    **widths,
  )


def _language_model(size: str) -> transformer_lib.Config:
  dim, layers, heads, hidden = sizes.pick(
    size,
    tiny=(64, 2, 2, 0),
    quickstart=(128, 2, 2, 0),
    small=(384, 6, 6, 0),
    **{'1b': (768, 14, 12, 2048)},
  )
  return transformer_lib.Config.llama(
    dim=dim,
    num_layers=layers,
    num_heads=heads,
    mlp_dim=hidden,
    norm_eps=1e-5,
    rotary=rope.Config(theta=500_000.0),
    is_tied=False,
  )
