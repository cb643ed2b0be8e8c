# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np


def test_jit_on_cpu_multiplies_small_matrices_rightly():
  # jax and jaxlib 0.10.2 do not (jax-ml/jax issue 39103): the last value is
  # then about 0.5 % too small. This release has to give the exact numbers:
  # squares of integers whose value float32 rounds in the same way.
  numbers = np.arange(32_769, dtype=np.float32)
  rows = np.stack([numbers, 0 * numbers, 0 * numbers], axis=1)
  energy = lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)
  with jax.default_device(jax.devices('cpu')[0]):
    # As users run it: the other tests compile without most optimizations.
    program = jax.jit(jax.vmap(energy)).lower(rows)
    got = program.compile({'xla_backend_optimization_level': 3})(rows)
  np.testing.assert_array_equal(got, numbers**2)
