# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs programs once: Pallas kernels interpreted, compiled in little time."""

from typing import Any

import jax
from jaxtok_kernels import interpret_mode

# An interpreted kernel, or a gradient, is a large program that runs once.
_OPTIONS = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


def run(fn, *args, params: Any = True):
  """`fn(*args)` under jit.

  Args:
    fn: Function of arrays.
    *args: Its operands.
    params: As for `interpret_mode`.
  """
  with interpret_mode(params):
    lowered = jax.jit(fn).lower(*args)
  compiled = lowered.compile(compiler_options=_OPTIONS)
  return jax.block_until_ready(compiled(*args))
