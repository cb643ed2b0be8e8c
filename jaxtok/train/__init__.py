# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: `run = train.run(train.Config(...), workdir)`."""

import importlib

_EXPORTS = {'Config': 'config', 'run': 'loop'}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
  if name in _EXPORTS:
    module = importlib.import_module(f'jaxtok.train.{_EXPORTS[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return __all__
