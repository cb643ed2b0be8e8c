# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices, quick compilation, temporary caches.

Most tests spend their time compiling small programs that run once, so XLA
compiles less thoroughly here, and the same program once. Set
`JAXTOK_TEST_OPTIMIZED=1` to test what users run; `make test-slow` does.
"""

import os

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
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
