# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""jaxtok: research in JAX on what a token is.

Sub-packages are imported on first use, so `import jaxtok` is cheap and
initialises no device.
"""

import importlib

from jaxtok._version import __version__

_SUBPACKAGES = (
  'cache',
  'config',
  'data',
  'decoding',
  'entropy',
  'evals',
  'models',
  'nn',
  'objectives',
  'runs',
  'tokenizers',
  'train',
)

__all__ = ['__version__', *_SUBPACKAGES]


def __getattr__(name: str):
  if name in _SUBPACKAGES:
    return importlib.import_module(f'jaxtok.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted(__all__)
