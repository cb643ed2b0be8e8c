# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of freed arrays for the next step, on a CPU.

XLA for CPU allocates the temporary arrays of every step anew. glibc takes
large ones from the operating system and gives them back when they are freed,
so each step pays for the first touch of all its memory: a fifth of the time of
a small model (docs/measurements.md). `keep_freed` makes glibc keep it.
"""

import ctypes
import importlib.util
import os
import platform

import jax

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # Of <malloc.h>.
_ENVIRONMENT = ('GLIBC_TUNABLES', 'MALLOC_')


def keep_freed() -> bool:
  """Lets this process reuse the memory of freed arrays; safe to call again.

  All threads then share one heap (`M_ARENA_MAX`), which holds large arrays too
  (`M_MMAP_MAX`) and returns memory to the system only once 2 GiB at its end
  are free (`M_TRIM_THRESHOLD`); see mallopt(3). Call it before the first JAX
  computation, which starts XLA's threads: they keep heaps that they have.

  Returns:
    Whether it was done: not where there is no glibc, where an accelerator is
    installed (its hosts' threads are better off with a heap each), or where
    the environment sets the allocator's options itself.
  """
  if any(name.startswith(_ENVIRONMENT) for name in os.environ):
    return False
  if platform.libc_ver()[0] != 'glibc' or not _is_cpu():
    return False
  mallopt = ctypes.CDLL(None).mallopt
  options = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
  return all(mallopt(name, value) == 1 for name, value in options)


def _is_cpu() -> bool:
  """Whether JAX will run on the CPU, without starting it."""
  if jax.config.jax_platforms:
    return jax.config.jax_platforms.split(',')[0] == 'cpu'
  plugins = ('libtpu', 'jax_plugins')
  return not any(importlib.util.find_spec(name) for name in plugins)
