# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tile sizes: what was measured on this chip, else what the kernel proposes.

`tune` measures and writes `tuned/<chip>.json`. A kernel asks `config` for its
tile sizes at a shape; the answer is the measured row whose sizes are nearest,
or the kernel's own choice if no row is near or the chip has none.
"""

import contextlib
import functools
import json
import math
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels.hardware import CHIPS

FOLDER = pathlib.Path(__file__).parent / 'tuned'
# Sum over the sizes of |log2| of the ratio to a measured row.
_FAR = 4.0


class _Local(threading.local):
  override: Mapping[str, Mapping[str, int]] = {}
  chip: str | None = None
  asked: list[tuple[str, str, str, dict[str, int]]] | None = None


_local = _Local()


@contextlib.contextmanager
def override(kernel: str, config: Mapping[str, int]) -> Iterator[None]:
  """Uses `config` for every call of a kernel traced inside.

  Args:
    kernel: As in `config`.
    config: Some or all of its entries; others stay as they are.
  """
  before = _local.override
  _local.override = {**before, kernel: config}
  try:
    yield
  finally:
    _local.override = before


@contextlib.contextmanager
def for_chip(chip: str | None) -> Iterator[None]:
  """States the chip that programs traced inside will run on.

  Needed only for ahead-of-time compilation; the default is the device here.

  Args:
    chip: A key of `hardware.CHIPS`; None for the default.
  """
  before, _local.chip = _local.chip, chip
  try:
    yield
  finally:
    _local.chip = before


@contextlib.contextmanager
def recording() -> Iterator[list[tuple[str, str, str, dict[str, int]]]]:
  """Collects what kernels ask for: kernel, implementation, dtype, sizes."""
  before, _local.asked = _local.asked, []
  try:
    yield _local.asked
  finally:
    _local.asked = before


def chip() -> str | None:
  """Key of `hardware.CHIPS` for the default device, None if it has none."""
  if _local.chip is not None:
    return _local.chip
  if jax.default_backend() == 'cpu':
    return None
  kind = jax.devices()[0].device_kind.lower()
  kind = kind.replace(' lite', 'e').replace('tpu ', '')
  return next((name for name in CHIPS if name in kind), None)


def config(
  kernel: str,
  implementation: str,
  dtype: jax.typing.DTypeLike,
  sizes: Mapping[str, int],
  default: Mapping[str, int],
) -> dict[str, int]:
  """Tile sizes of a call.

  Args:
    kernel: Name of the kernel, shared by the functions that run it.
    implementation: 'tpu', 'triton' or 'mosaic_gpu'.
    dtype: Of the operands.
    sizes: What the best tiles depend on, all at least 1.
    default: The kernel's own choice; its keys are the entries of a config.
  """
  found, name = dict(default), jnp.dtype(dtype).name
  if _local.asked is not None:
    _local.asked.append((kernel, implementation, name, dict(sizes)))
  where = chip()
  if where is not None:
    row = nearest(load(where), kernel, implementation, name, sizes)
    found |= {} if row is None else row['config']
  return found | dict(_local.override.get(kernel, {}))


@functools.cache
def load(chip: str) -> tuple[dict[str, Any], ...]:
  """Measured rows of a chip; none if it was not tuned."""
  path = FOLDER / f'{chip}.json'
  if not path.exists():
    return ()
  return tuple(json.loads(path.read_text())['rows'])


def nearest(
  rows: tuple[dict[str, Any], ...],
  kernel: str,
  implementation: str,
  dtype: str,
  sizes: Mapping[str, int],
) -> dict[str, Any] | None:
  """The row with the nearest sizes, or None if all are far.

  Rows that were ranked by static counts are not used: those ignore stalls and
  copies.
  """
  same = [
    row
    for row in rows
    if (row['kernel'], row['implementation'], row['dtype'])
    == (kernel, implementation, dtype)
    and row['how'] == 'measured'
    and row['sizes'].keys() == sizes.keys()
  ]
  distance = lambda row: sum(
    abs(math.log2(sizes[name] / size)) for name, size in row['sizes'].items()
  )
  best = min(same, key=distance, default=None)
  return None if best is None or distance(best) > _FAR else best
