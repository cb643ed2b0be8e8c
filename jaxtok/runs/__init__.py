# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Run directories: written by training, read by everything else.

run = runs.load('runs/a')
run.plot()
run.generate(b'def main')
"""

import importlib

_EXPORTS = {
  'Run': 'run',
  'load': 'run',
  'start': 'run',
  'Writer': 'metrics',
}

_MODULES = ('compare', 'curves', 'metrics', 'plots', 'summary')

__all__ = sorted([*_EXPORTS, *_MODULES])


def __getattr__(name: str):
  if name in _MODULES:
    return importlib.import_module(f'jaxtok.runs.{name}')
  if name in _EXPORTS:
    module = importlib.import_module(f'jaxtok.runs.{_EXPORTS[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return __all__
