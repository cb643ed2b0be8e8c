# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the program that is being traced will run on."""

import jax
from jaxtok_kernels import dispatch


def is_single_cpu() -> bool:
  """Whether it is one CPU device: nothing is sharded, and caches are small.

  Layers may then use forms that XLA for CPU compiles better and that would
  gather sharded arrays on several devices.
  """
  return dispatch.platforms() == ('cpu',) and jax.device_count() == 1
