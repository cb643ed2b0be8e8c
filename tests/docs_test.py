# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The documentation's code runs, and its links lead somewhere."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'adding_a_method.md'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def page_files() -> dict[str, str]:
  """Path to text of the files that the page on adding a method shows."""
  found = re.findall(
    r'```python\n# file: (\S+)\n(.*?)```', PAGE.read_text(), re.DOTALL
  )
  return dict(found)


@pytest.fixture(scope='module')
def overlay(tmp_path_factory):
  """A copy of the checkout with the page's files in it."""
  root = tmp_path_factory.mktemp('overlay')
  for name in ('jaxtok', 'experiments', 'tests'):
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / name, root / name, ignore=ignored)
  shutil.copy(ROOT / 'pyproject.toml', root)
  for name, text in page_files().items():
    assert not (root / name).exists(), f'{name} is in the library already'
    (root / name).write_text(text)
  return root


def call(overlay, *args: str):
  result = subprocess.run(
    [sys.executable, '-m', *args],
    cwd=overlay,
    env=os.environ | {'PYTHONPATH': str(overlay), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


def test_a_method_is_module_config_test_and_claim():
  folders = [str(pathlib.PurePath(name).parent) for name in page_files()]
  assert folders == [
    'jaxtok/models',
    'experiments/byte_lm/configs',
    'tests/models',
    'experiments/claims',
  ]


@pytest.mark.parametrize('args', [['check'], ['format', '--check']])
def test_files_of_the_page_are_in_the_house_style(overlay, args):
  call(overlay, 'ruff', *args, *page_files())


@pytest.mark.slow
def test_the_test_of_the_page_passes(overlay):
  out = call(overlay, 'pytest', '-q', 'tests/models/window_mlp_test.py')
  assert 'passed' in out


@pytest.mark.slow
def test_the_config_of_the_page_trains(overlay, tmp_path):
  call(
    overlay,
    'experiments.byte_lm',
    '--config=experiments/byte_lm/configs/window_mlp.py:tiny',
    '--config.steps=2',
    f'--workdir={tmp_path / "run"}',
  )
  assert (tmp_path / 'run' / 'metrics.jsonl').exists()


@pytest.mark.slow
def test_the_claim_of_the_page_is_reproduced(overlay, tmp_path):
  out = call(
    overlay, 'experiments.claims', 'window_mlp', f'--workdir={tmp_path}'
  )
  assert 'not reproduced' not in out
  assert 'reproduced' in out


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
    if not re.match(r'https?:', target):
      assert (page.parent / target).exists(), f'{page.name}: {target}'


@pytest.fixture(scope='module')
def settings():
  """Names of all fields of classes and of all keyword-only arguments."""
  names = set()
  for folder in ('jaxtok', 'experiments', 'kernels'):
    for path in (ROOT / folder).rglob('*.py'):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
          fields = [x for x in node.body if isinstance(x, ast.AnnAssign)]
          names |= {x.target.id for x in fields}
        elif isinstance(node, ast.FunctionDef):
          names |= {x.arg for x in node.args.kwonlyargs}
  return names


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page, settings):
  """`name=value` in backticks, outside of blocks of code."""
  prose = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  for name in re.findall(r'`(?:\w+\.)*(\w+)=[^`\s]*`', prose):
    assert name in settings, f'{page.name}: {name}'
