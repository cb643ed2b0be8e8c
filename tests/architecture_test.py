# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and what an import may cost."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Sub-package of jaxtok -> sub-packages that it may import besides itself.
# `config` and `partition` are modules that all may use.
ALLOWED = {
  'tokenizers': {'entropy'},
  'nn': set(),
  'cache': set(),
  'data': set(),
  'analysis': {
    *('data', 'entropy', 'models', 'objectives', 'runs', 'tokenizers'),
  },
  'evals': {'data', 'decoding', 'objectives', 'runs'},
  'objectives': set(),
  'entropy': set(),
  'models': {'nn', 'cache', 'entropy'},
  'decoding': set(),
  'diffusion': {'cache', 'decoding', 'nn', 'objectives'},
  'tasks': set(),
  'runs': {'decoding', 'tokenizers', 'train'},
  'train': {'data', 'evals', 'objectives', 'models', 'runs', 'tokenizers'},
}
# The types that sub-packages share, open to all.
TYPES = {
  'jaxtok.config',
  'jaxtok.partition',
  'jaxtok._version',
  'jaxtok.data.batch',
  'jaxtok.evals.base',
  'jaxtok.models.base',
  'jaxtok.objectives.base',
  'jaxtok.tokenizers.base',
}


def imports(path: pathlib.Path) -> set[str]:
  """Dotted names that a file imports, also inside functions."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def modules(folder: str) -> list[pathlib.Path]:
  return sorted((ROOT / folder).rglob('*.py'))


def test_kernels_know_only_jax_and_numpy():
  allowed = {*sys.stdlib_module_names, 'jax', 'numpy', 'jaxtok_kernels'}
  # Looked for, or compared with in benchmarks, if they are installed.
  allowed |= {'jaxlib', 'jax_plugins', 'libtpu', 'tokamax'}
  for path in modules('kernels'):
    used = {name.partition('.')[0] for name in imports(path)}
    assert used <= allowed, f'{path}: {used - allowed}'


def test_the_library_imports_neither_experiments_nor_flags_nor_tensorflow():
  for path in modules('jaxtok'):
    for name in imports(path):
      root = name.partition('.')[0]
      assert root not in ('experiments', 'tensorflow', 'clu', 'tests'), path
      # grain's worker processes read the flags of absl.
      if not name.startswith('absl.flags') or path.name == 'pipeline.py':
        continue
      raise AssertionError(f'{path}: {name}')


@pytest.mark.parametrize('package', ALLOWED)
def test_sub_packages_import_only_what_the_architecture_allows(package):
  for path in modules(f'jaxtok/{package}'):
    for name in imports(path):
      parts = name.split('.')
      if parts[0] != 'jaxtok' or len(parts) < 2 or name in TYPES:
        continue
      if '.'.join(parts[:3]) in TYPES or '.'.join(parts[:2]) in TYPES:
        continue
      other = parts[1]
      assert other == package or other in ALLOWED[package], f'{path}: {name}'


def test_runs_use_of_training_only_the_checkpoints():
  for path in modules('jaxtok/runs'):
    for name in imports(path):
      if name.startswith('jaxtok.train'):
        assert name.startswith('jaxtok.train.checkpoint'), f'{path}: {name}'


def run_python(code: str) -> str:
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def test_importing_initialises_no_device_and_parses_no_flags():
  out = run_python(
    'import jaxtok\n'
    'from jaxtok import cache, data, decoding, evals, models, nn, objectives\n'
    'from jaxtok import runs, tokenizers, train\n'
    'from jaxtok.models import transformer\n'
    'from jaxtok.data import text\n'
    'import jax._src.xla_bridge as bridge\n'
    'from absl import flags\n'
    'print(bridge.backends_are_initialized(), flags.FLAGS.is_parsed())\n'
  )
  assert out.split() == ['False', 'False']


def test_importing_the_package_alone_loads_no_heavy_library():
  out = run_python(
    'import sys, jaxtok\n'
    'print([m for m in ("jax", "flax", "torch", "grain") if m in sys.modules])'
  )
  assert out.strip() == '[]'


def test_files_carry_the_licence_and_stay_short():
  for folder, longest in (
    ('jaxtok', 500),
    ('kernels', 800),
    ('experiments', 500),
  ):
    for path in modules(folder):
      text = path.read_text()
      assert text.startswith('# Copyright 2026 The jaxtok Authors.\n'), path
      assert len(text.splitlines()) <= longest, path


def test_functions_are_short():
  limits = {('jaxtok/train/loop.py', 'run'): 120}
  for folder in ('jaxtok', 'kernels', 'experiments'):
    for path in modules(folder):
      name = str(path.relative_to(ROOT))
      for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
          continue
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node) is not None:  # Not counted.
          lines -= node.body[0].end_lineno - node.body[0].lineno + 1
        assert lines <= limits.get((name, node.name), 60), (name, node.name)
