# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Selections, trees, linear attention and writes lower without their device.

At the shapes of the benchmarks; with libtpu they are compiled too.
"""

import functools
import os
import subprocess
import sys

import jax
import pytest
from jaxtok_kernels import _compat, aot, cases

CASES = {
  f'{x.kernel}, {x.name}': x
  for x in cases.accelerator()
  if x.kernel
  not in ('flash_attention', 'shared_prefix_attention', 'column_sums')
}
# One of each kernel, gradients rather than values; others differ in sizes.
QUICK = {x.kernel: name for name, x in reversed(CASES.items())}
QUICK |= {x.kernel: name for name, x in CASES.items() if 'taylor2' in name}
PARAMS = [
  pytest.param(
    name, marks=() if name in QUICK.values() else pytest.mark.slow, id=name
  )
  for name in CASES
]


@pytest.mark.parametrize('name', PARAMS)
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_kernels_lower_at_the_shapes_of_the_benchmarks(name, implementation):
  case = CASES[name]
  fn = jax.jit(functools.partial(case.run, implementation))
  if implementation == 'triton':
    with _compat.absent_gpu():
      lowered = fn.trace(*case.shapes()).lower(lowering_platforms=('cuda',))
    assert '__gpu$xla.gpu.triton' in lowered.as_text()
    return
  check = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  exported = jax.export.export(fn, platforms=['tpu'], disabled_checks=[check])
  assert 'tpu_custom_call' in exported(*case.shapes()).mlir_module()


@pytest.mark.slow
@pytest.mark.skipif(
  aot.skipped('v5e') is not None, reason=str(aot.skipped('v5e'))
)
def test_a_donated_cache_is_not_copied_on_tpu():
  """Compiled by libtpu in a process of its own, which keeps global state."""

  code = """
import functools, jax
from jax.experimental import topologies
from jaxtok_kernels import cases
topology = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2')
sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
for case in cases.selections():
  donated = {'write_kv': (0, 1), 'compact_kv': (0,)}.get(case.kernel)
  if donated is None:
    continue
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    case.shapes())
  for name in ('tpu', 'xla'):
    fn = jax.jit(functools.partial(case.run, name), donate_argnums=donated)
    lowered = fn.trace(*shapes).lower(lowering_platforms=('tpu',))
    compiled = lowered.compile()
    size = sum(shapes[i].size * 2 for i in donated)
    stats = compiled.memory_analysis()
    assert stats.alias_size_in_bytes >= size, (case.kernel, name)
    assert stats.temp_size_in_bytes < size // 4, (case.kernel, name)
    whole = str(shapes[0].shape).replace(' ', '')[1:-1]
    for line in compiled.as_text().splitlines():
      if ' copy(' in line or ' copy-start(' in line:
        assert whole not in line, (case.kernel, name, line)
print('fine')
"""
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  env |= {'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=env, capture_output=True, check=False
  )
  assert b'fine' in done.stdout, done.stderr[-2000:].decode()
