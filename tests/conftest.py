# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices, quick compilation, temporary caches.

On one device layers take other forms (`nn.platform`), so the comparisons with
torch run on one, as users do: `make test-parity` sets `JAXTOK_TEST_DEVICES=1`.

Most tests spend their time compiling small programs that run once, so XLA
compiles less thoroughly here, and the same program once. Set
`JAXTOK_TEST_OPTIMIZED=1` to test what users run; `make test-slow` does.
"""

import gc
import os
import pathlib

# Eight devices on a busy machine may wait long for each other; XLA's own limit
# of 40 seconds ends the process.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_cpu_collective_call_terminate_timeout_seconds=900'
)

import jax
import pytest

num_devices = int(os.environ.get('JAXTOK_TEST_DEVICES', '8'))
jax.config.update('jax_num_cpu_devices', num_devices)
if os.environ.get('JAXTOK_TEST_OPTIMIZED') != '1':
  jax.config.update('jax_disable_most_optimizations', True)
pytest.register_assert_rewrite('tests.conformance')


@pytest.fixture(autouse=True, scope='session')
def cache_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cache')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('JAXTOK_CACHE', str(folder))
    yield folder


@pytest.fixture(autouse=True, scope='session')
def compiled_once(tmp_path_factory):
  settings = {
    'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('compiled')),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  for name, value in settings.items():
    jax.config.update(name, value)


@pytest.fixture(autouse=True, scope='module')
def few_programs():
  """Drops the compiled programs of a file of tests when they are many.

  Each has mappings of memory; a process may have 65,530 (`vm.max_map_count`),
  and XLA crashes at the next. They also hold gigabytes.
  """
  yield
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > 20_000:
    jax.clear_caches()
    gc.collect()
