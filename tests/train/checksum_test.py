# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxtok.train import checksum as checksum_lib
from jaxtok.train import sharding


def test_checksums_depend_on_every_bit_and_place_but_not_on_the_mesh():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(8, 4)).astype(np.float32)
  checksum = lambda x: checksum_lib.of_arrays({'x': x})['x']
  want = checksum(x)
  for _ in range(20):
    changed = x.copy()
    bits = changed.view(np.uint32)
    bits[rng.integers(8), rng.integers(4)] ^= 1 << rng.integers(32)
    assert checksum(changed) != want
  assert checksum(x[::-1].copy()) != want
  for config in (sharding.Config(data=8), sharding.Config(data=2, model=4)):
    split = NamedSharding(config.make(), PartitionSpec('data', 'model'))
    assert checksum(jax.device_put(x, split)) == want
  for dtype in ('bool', 'int8', 'bfloat16', 'int32', 'uint16'):
    assert checksum(jnp.ones(3, dtype)) != checksum(jnp.zeros(3, dtype))
