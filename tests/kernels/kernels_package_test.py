# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: what it imports, its documents, its commands."""

import dataclasses
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import jax
import jaxtok_kernels
import pytest
from jaxtok_kernels import (
  aot,
  bench,
  cases,
  check,
  docs,
  hardware,
)

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted((ROOT / 'kernels').rglob('*.py'))

# Renamed or removed between jax 0.9 and 0.11.
GONE = (
  r'pltpu\.(TPU\w+|ANY|repeat|delay|semaphore_\w+|DeviceIdType)\b',
  r'\b(TritonCompilerParams|GPUCompilerParams|GPUMesh|GPUBlockSpec)\b',
  r'\bpl\.(load|store|swap|atomic_\w+|Unblocked|dot|core_map|reciprocal)\b',
  r'\bindexing_mode=',
  r'\b(TransposeTransform|unswizzle_ref|untile_ref)\b',
)


def test_it_imports_with_jax_and_numpy_alone():
  """And quickly: no Pallas, no device."""
  code = (
    'import sys\n'
    'for x in ("flax", "jaxtyping", "ml_collections", "absl", "beartype"):\n'
    '  sys.modules[x] = None\n'
    'import jaxtok_kernels\n'
    'assert "jaxtok" not in sys.modules\n'
    'assert "jax.experimental.pallas" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_names_that_jax_dropped_are_not_used():
  for path in SOURCES:
    text = path.read_text()
    for pattern in GONE:
      found = re.search(pattern, text)
      assert not found, f'{path.name} uses {found}'


def test_private_names_of_jax_stay_in_one_module():
  for path in SOURCES:
    if path.name != '_compat.py':
      assert 'jax._src' not in path.read_text(), path


def test_the_page_on_kernels_is_up_to_date():
  page = (ROOT / 'docs' / 'kernels.md').read_text()
  if page != docs.render(ROOT / 'docs'):
    pytest.fail('stale: run `python -m jaxtok_kernels.docs`.')


def test_the_page_has_a_row_for_every_implementation():
  rows = {(kernel, name) for kernel, name, _ in docs.VERIFIED}
  assert len(rows) == len(docs.VERIFIED)
  modules = {
    importlib.import_module(f'jaxtok_kernels.{path.parent.name}.api')
    for path in pathlib.Path(jaxtok_kernels.__file__).parent.glob('*/api.py')
  }
  kernels = {
    kernel: module
    for module in modules
    for kernel, fn in vars(module).items()
    if inspect.isfunction(fn)
    and 'implementation' in inspect.signature(fn).parameters
    and fn.__module__ == module.__name__
    and not kernel.startswith('_')
  }
  want = {
    (kernel, name)
    for kernel, module in kernels.items()
    for name in module._AVAILABLE
    if name != 'reference'
  }
  assert rows == want
  for kernel, module in kernels.items():
    assert 'reference' in module._AVAILABLE, kernel


def test_roofline_is_the_slowest_of_three_limits():
  work = hardware.Work(flops=989e12, num_bytes=4.8e12, exps=7.4e12)
  assert hardware.roofline_seconds('h200', work) == pytest.approx(2.0)
  with pytest.raises(KeyError, match="chip='v9' is unknown"):
    hardware.roofline_seconds('v9', work)


UTILISATION = """MXU XLU VALU VPOP EUP VLOAD FILL VSTORE SPILL SALU
4 3 4 4 1 3 3 2 2 2
0 1 0 0 0 0 0 0 0 0
4 0 0 0 0 0 0 0 1 0
2 0 0 0 0 0 0 0 2 0
0 0 0 0 0 0 0 0 0 1
"""


def test_bundles_matrix_unit_and_spills_are_read_from_a_dump():
  found = aot.utilization(UTILISATION)
  assert found == {'bundles': 4, 'mxu_fill': 0.75, 'spills': 3}
  assert aot.utilization('nothing')['bundles'] == 0


def test_growth_beyond_five_percent_is_a_regression():
  row = dict(kernel='k', case='c', implementation='tpu', bundles=100, spills=0)
  assert not aot.regressions([row], [row | {'bundles': 105, 'spills': 9}])
  (problem,) = aot.regressions([row], [row | {'bundles': 106}])
  assert 'bundles grew from 100 to 106' in problem
  assert not aot.regressions([], [row])
  row |= dict(mxu_fill=0.8, temp_mib=0.0, vmem_mib=2.0)
  assert not aot.regressions([row], [row | {'mxu_fill': 0.77, 'vmem_mib': 2.1}])
  for worse in ({'mxu_fill': 0.76}, {'vmem_mib': 2.3}, {'temp_mib': 0.2}):
    (problem,) = aot.regressions([row], [row | worse])
    assert str(*worse.values()) in problem


def test_cases_that_only_one_side_has_are_named():
  row = dict(kernel='k', case='c', implementation='tpu', bundles=100)
  other = row | {'case': 'd'}
  found = aot.regressions([row], [other], is_whole=True)
  assert found == [
    'k, d, tpu: not in the baseline. Add it with --write.',
    'k, c, tpu: in the baseline, but not compiled.',
  ]


def test_naming_a_chip_that_cannot_be_compiled_for_fails(capsys):
  assert aot.main(['--chips=v9']) == 1
  assert 'v9: skipped, unknown chip' in capsys.readouterr().out


def test_cases_have_unique_names_and_shapes_without_memory():
  found = cases.accelerator() + cases.cpu()
  names = [(x.kernel, x.name) for x in found]
  assert len(set(names)) == len(names)
  for case in found:
    assert jax.tree.leaves(case.shapes())
    assert case.work.num_bytes > 0


def test_a_benchmark_row_has_time_rates_and_error():
  case = next(x for x in cases.cpu() if 'forward' in x.name)
  small = lambda key: tuple(x[:1] for x in case.draw(key))
  own, rival = bench.measure(
    bench.prepare(dataclasses.replace(case, draw=small)), repeats=1
  )
  assert own['implementation'] == 'xla'
  assert {'ms', 'tflops', 'gbps', 'temp_mib'} <= own.keys()
  assert rival['error'] < 1e-5
  assert bench.device_name() == 'cpu'


@pytest.mark.slow
@pytest.mark.skipif(
  aot.skipped('v5e') is not None, reason=str(aot.skipped('v5e'))
)
def test_kernels_compile_for_tpu_v5e_as_recorded():
  assert aot.main(['--chips=v5e', f'--baseline={ROOT}/docs/kernels']) == 0


def test_checking_a_device_finds_wrong_kernels_and_says_what_is_refused():
  draw = lambda key: (jax.random.normal(key, (4, 4)),)

  def run(implementation, x):
    if implementation == 'triton':
      raise NotImplementedError('x is not supported')
    if implementation == 'mosaic_gpu':
      raise RuntimeError('no such device')
    return x * (1.001 if implementation == 'tpu' else 1.0)

  case = check.Check('kernel', 'case', run, draw, 'float32')
  results = {
    name: check.compare(case, name)
    for name in ('xla', 'tpu', 'triton', 'mosaic_gpu')
  }
  assert results['xla']['result'] == 'ok'
  assert results['xla']['bit_equal']
  assert results['tpu']['result'] == 'wrong'
  assert results['tpu']['error'] == pytest.approx(1e-3, rel=0.1)
  assert results['triton']['result'] == 'refused'
  assert results['triton']['reason'] == 'x is not supported'
  assert results['mosaic_gpu']['result'] == 'wrong'


def test_the_stress_set_of_flash_attention_covers_what_it_promises():
  names = [x.name for x in check.flash()]
  assert len(set(names)) == len(names)
  for part in ('width=16', 'width=80', 'width=192', 'width=256', 'heads=7/1'):
    assert any(part in x for x in names)
  for part in ('NaN', 'softcap', 'sink', 'block lists', 'float32'):
    assert any(part in x for x in names)


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['xla', 'tpu', 'triton'])
def test_all_checks_pass_interpreted(implementation):
  args = ['--interpret', f'--implementations={implementation}']
  assert check.main(args) == 0
