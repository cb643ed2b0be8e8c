# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the Pallas forms of linear attention take."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Settings:
  """Static settings of a call.

  Attributes:
    feature: The feature map.
    normalize: Whether to divide by the normaliser.
    eps: Added to the normaliser.
    chunk: Tokens per chunk asked for; kernels may take fewer.
  """

  feature: str
  normalize: bool
  eps: float
  chunk: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
  """Arrays of a call, or their cotangents.

  Attributes:
    q: `[b, t, n, h]`, after elu where that is the feature.
    k: Likewise.
    v: `[b, t, n, e]`, 0 for tokens that are not valid.
    state: Start state `[b, n, f, e + 1]`, float32.
    decay: Log-decay, `[b, t, n]` or `[b, t, n, h]`, float32, or None.
    valid: bool `[b, t]` or None.
  """

  q: jax.Array
  k: jax.Array
  v: jax.Array
  state: jax.Array
  decay: jax.Array | None = None
  valid: jax.Array | None = None
