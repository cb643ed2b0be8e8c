# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices, and caches in a temporary folder."""

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
pytest.register_assert_rewrite('tests.conformance')


@pytest.fixture(autouse=True, scope='session')
def cache_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cache')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('JAXTOK_CACHE', str(folder))
    yield folder
