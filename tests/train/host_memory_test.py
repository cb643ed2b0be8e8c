# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Memory of freed arrays stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

# Touches 64 MiB three times and prints whether `keep_freed` acted and how many
# pages the third time brought in.
_PROGRAM = """
import resource, sys
import numpy as np
from jaxtok.train import host_memory

is_done = sys.argv[1] == 'keep' and host_memory.keep_freed()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
  before = faults()
  array = np.ones(2**26, np.uint8)
  del array
  num = faults() - before
print(is_done, num * resource.getpagesize())
"""


def _fresh_bytes(mode: str, **environ: str) -> tuple[str, int]:
  clean = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(('GLIBC_TUNABLES', 'MALLOC_'))
  }
  out = subprocess.run(
    [sys.executable, '-c', _PROGRAM, mode],
    env=clean | {'JAX_PLATFORMS': 'cpu'} | environ,
    capture_output=True,
    text=True,
    check=True,
  )
  is_done, num_bytes = out.stdout.split()
  return is_done, int(num_bytes)


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='needs the allocator of glibc'
)
def test_freed_memory_is_reused():
  # The system gives pages of 4 KiB or, if it likes, of 2 MiB in one fault: so
  # the plain program is compared, not a number of pages.
  _, plain = _fresh_bytes('plain')
  is_done, kept = _fresh_bytes('keep')
  assert is_done == 'True'
  assert kept <= plain / 4
  assert kept < 2**20


def test_the_environment_and_an_accelerator_are_left_alone():
  assert _fresh_bytes('keep', MALLOC_TOP_PAD_='131072')[0] == 'False'
  assert _fresh_bytes('keep', JAX_PLATFORMS='cuda')[0] == 'False'
