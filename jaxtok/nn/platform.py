# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the program that is being traced will run on."""

import jax
from jaxtok_kernels import dispatch


def is_single_cpu() -> bool:
  """Whether it is one CPU device: nothing is sharded, and caches are small.

  Layers may then use forms that XLA for CPU compiles better and that would
  gather sharded arrays on several devices. The devices are those of the mesh
  (`jax.set_mesh`); without one they are all of this process's, because
  arguments may be sharded over them.
  """
  mesh = jax.sharding.get_abstract_mesh()
  num_devices = jax.device_count() if mesh.empty else mesh.size
  return dispatch.platforms() == ('cpu',) and num_devices == 1
