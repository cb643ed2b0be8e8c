# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bytes to ids and back, on the host.

Each module is one kind of tokenizer (`bytes`, `hf`, ...) with a `Config`;
`load(folder)` reads any of them. Modules are imported on first use.
"""

import importlib

_MODULES = ('base', 'bytes', 'concat', 'hf', 'ragged')
_NAMES = {
  'ConcatTokenizer': 'concat',
  'NotExpressible': 'base',
  'Ragged': 'ragged',
  'SpecialTokens': 'base',
  'Tokenizer': 'base',
  'load': 'base',
}

__all__ = [*_MODULES, *_NAMES]


def __getattr__(name: str):
  if name in _MODULES:
    return importlib.import_module(f'{__name__}.{name}')
  if name in _NAMES:
    return getattr(importlib.import_module(f'{__name__}.{_NAMES[name]}'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted(__all__)
