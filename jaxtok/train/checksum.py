# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checksums of arrays, computed where the arrays are."""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp


def of_arrays(tree: Any) -> dict[str, int]:
  """A 32-bit checksum of each array by its name.

  The sum over elements of (bits times an odd number that depends on the
  place), modulo 2**32: independent of shardings, and sure to change if a
  single element does.
  """
  found = {
    _name(path): _array(x) for path, x in jax.tree.leaves_with_path(tree)
  }
  return {name: int(value) for name, value in jax.device_get(found).items()}


def of_json(data: Any, meta: Any) -> int:
  """A 32-bit checksum of two JSON values."""
  return zlib.crc32(json.dumps([data, meta], sort_keys=True).encode())


def verify(state: Any, data: Any, meta: dict[str, Any]) -> None:
  """Compares what was read with the checksums in its meta data.

  Args:
    state: All arrays of a checkpoint, or some of them.
    data: State of the data iterator.
    meta: 'values', and the checksums 'arrays' and 'json'.

  Raises:
    ValueError: Naming what does not match.
  """
  if of_json(data, meta['values']) != meta['json']:
    raise ValueError('the checksum of data and meta does not match')
  want = meta['arrays']
  bad = [k for k, v in of_arrays(state).items() if want.get(k) != v]
  if bad:
    raise ValueError(f'the checksum of {bad[0]} does not match')


@jax.jit
def _array(x):
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  if x.dtype == bool:
    x = x.astype(jnp.uint8)
  unsigned = jnp.dtype(f'uint{8 * min(x.dtype.itemsize, 4)}')
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  place = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    place = place * jnp.uint32(size) + index
  return jnp.sum(bits * (place * jnp.uint32(2654435762) + jnp.uint32(1)))


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
