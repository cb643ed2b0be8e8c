# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Each notebook is the .py file beside it, without outputs."""

import pathlib

import jupytext
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / 'colabs'
SCRIPTS = sorted(FOLDER.glob('*.py'))


def cells(path: pathlib.Path) -> list[tuple[str, str]]:
  notebook = jupytext.read(path)
  return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def test_there_are_notebooks():
  assert SCRIPTS


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_the_script(script):
  assert cells(script) == cells(script.with_suffix('.ipynb')), (
    f'run: jupytext --to ipynb {script}'
  )


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_has_no_outputs(script):
  notebook = jupytext.read(script.with_suffix('.ipynb'))
  assert not any(cell.get('outputs') for cell in notebook.cells)
