# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which executions of a model give the same CDFs, bit for bit.

A coder loses everything after the first CDF that differs by one between
encoder and decoder, and float programs do differ: by shape, by fusion, by
device. Rounding makes that rarer, never impossible. So every model declares a
level, files record it, and decoders refuse what the level does not cover.
"""

import enum
import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, UInt32

from jaxtok.entropy import quantize


class DeterminismLevel(enum.IntEnum):
  """From the strongest guarantee to none.

  Attributes:
    TABLE: Looked up in stored integers: exact on every device, for ever.
    INTEGER: Computed in integers: exact on every device and batch size, for
      the whole sequence at once and step by step.
    FIXED_TILE: A float model that only ever runs as one compiled step on one
      batch shape: exact on one device kind with one version of jax.
    UNCHECKED: Anything else; for statistics, never decoded.
  """

  TABLE = 1
  INTEGER = 2
  FIXED_TILE = 3
  UNCHECKED = 4


class NotDecodableError(ValueError):
  """The model or this machine cannot decode what was coded."""


def require_decodable(level: DeterminismLevel) -> None:
  """Raises NotDecodableError for a model of level `UNCHECKED`."""
  if level == DeterminismLevel.UNCHECKED:
    raise NotDecodableError(
      "the model's determinism level is UNCHECKED: its CDFs may differ between "
      'two runs, so text coded with it cannot be decoded. Use it for '
      'code_length only, or wrap it in FixedTile.'
    )


def platform() -> dict[str, str]:
  """What `FIXED_TILE` results depend on besides the model and the tile."""
  device = jax.devices()[0]
  return {
    'backend': device.platform,
    'device': device.device_kind,
    'jax': jax.__version__,
    'jaxlib': jax.lib.__version__,
  }


def fingerprint(kind: str, arrays: dict[str, Any], **settings: Any) -> str:
  """SHA-256 (hex) of everything that determines a model's CDFs.

  Args:
    kind: Name of the algorithm, with its version.
    arrays: Parameters; names, dtypes, shapes and values count.
    **settings: Numbers and strings that matter too.
  """
  digest = hashlib.sha256(f'{kind} {sorted(settings.items())}'.encode())
  for name, value in sorted(arrays.items()):
    value = np.ascontiguousarray(value)
    digest.update(f'{name} {value.dtype.str} {value.shape} '.encode())
    digest.update(value.tobytes())
  return digest.hexdigest()


class FixedTile:
  """Runs a float model as two compiled functions on one batch shape.

  The wrapped model has `init_state(batch_size)`, `next_pmf(state) -> float32
  [b, 257]`, `step(state, symbol_b)` and `fingerprint()`. Coders see the level
  and call the two functions from the host, so that encoder and decoder run the
  same executables; encoding is therefore as slow as decoding. On a GPU also set
  the XLA flag for deterministic operations.

  Attributes:
    model: The float model.
    tile: Lanes per call, b; coders pad smaller batches.
  """

  level = DeterminismLevel.FIXED_TILE

  def __init__(self, model: Any, tile: int = 64):
    if tile < 1:
      raise ValueError(f'tile={tile} must be at least 1.')
    self.model, self.tile = model, tile
    self._next_cdf = jax.jit(self._cdf_of)
    self._step = jax.jit(model.step)

  def _cdf_of(self, state: Any) -> Any:
    freqs = quantize.quantize_pmf(self.model.next_pmf(state))
    return quantize.freqs_to_cdf(freqs)

  def fingerprint(self) -> str:
    return self.model.fingerprint()

  def init_state(self, batch_size: int) -> Any:
    if batch_size != self.tile:
      raise ValueError(
        f'batch_size={batch_size} must be the tile, {self.tile}: other shapes '
        'compile to other programs, whose floats may differ.'
      )
    return self.model.init_state(batch_size)

  def next_cdf(self, state: Any) -> UInt32[Array, 'b 258']:
    return self._next_cdf(state)

  def step(self, state: Any, symbol_b: Int[Array, 'b']) -> Any:
    return self._step(state, symbol_b)
