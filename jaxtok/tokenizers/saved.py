# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers in a folder: `jaxtok_tokenizer.json` and what belongs to it.

The JSON file names the class as `"module:Class"`, so that tokenizers from
outside the package load the same way.
"""

import importlib.metadata
import json
from typing import Any

from etils import epath

from jaxtok import config as config_lib
from jaxtok._version import __version__
from jaxtok.tokenizers import base

FILE_NAME = 'jaxtok_tokenizer.json'
_FORMAT = 1
_KEYS = ('format', 'class', 'config', 'fingerprint')


@config_lib.configclass
class Config:
  """The tokenizer of another run, or any other that was saved."""

  path: str = ''  # The folder, e.g. 'runs/a/tokenizer'.

  def make(self, documents: Any = None) -> base.Tokenizer:
    """Reads it; `documents` are not used.

    Raises:
      FileNotFoundError: If there is no saved tokenizer.
    """
    del documents
    return load(self.path)


def save(tokenizer: base.Tokenizer, path: Any) -> None:
  """Writes a tokenizer; the JSON file last, so that it marks a whole one."""
  folder = epath.Path(path)
  folder.mkdir(parents=True, exist_ok=True)
  data = {
    'format': _FORMAT,
    'class': config_lib.type_name(type(tokenizer)),
    'version': __version__,
    'config': tokenizer.save_config(folder),
    'fingerprint': tokenizer.fingerprint,
    'libraries': {n: _library_version(n) for n in tokenizer.depends_on},
  }
  text = json.dumps(data, indent=2, ensure_ascii=False) + '\n'
  (folder / FILE_NAME).write_bytes(text.encode())


def load(path: Any) -> base.Tokenizer:
  """Reads a tokenizer and checks that it still is the one that was saved."""
  folder = epath.Path(path)
  data = _read(folder)
  cls = _load_class(data['class'], folder)
  tokenizer = cls.from_config(folder, data['config'])
  if tokenizer.fingerprint != data['fingerprint']:
    raise ValueError(
      f'the tokenizer in {folder} has fingerprint '
      f'{tokenizer.fingerprint[:12]}, but it was saved as '
      f'{data["fingerprint"][:12]}: a file was edited, or this version of the '
      f'code ({__version__}; saved by {data.get("version")}) reads it '
      'differently. Restore the original files.'
    )
  return tokenizer


def _read(folder: epath.Path) -> dict[str, Any]:
  path = folder / FILE_NAME
  if not path.exists():
    hint = ''
    if (folder / 'tokenizer.json').exists():
      hint = (
        ' It has a tokenizer.json: read that with '
        f'jaxtok.tokenizers.hf.Config(path={str(folder)!r}).make().'
      )
    elif not folder.exists():
      hint = ' The folder does not exist.'
    raise FileNotFoundError(f'no saved tokenizer: {path} is missing.{hint}')
  try:
    data = json.loads(path.read_bytes())
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise ValueError(f'{path} is not valid JSON ({e}).') from e
  if not isinstance(data, dict) or set(_KEYS) - set(data):
    raise ValueError(
      f'{path} was not written by Tokenizer.save: it must have the keys '
      f'{", ".join(_KEYS)}.'
    )
  if data['format'] != _FORMAT:
    raise ValueError(
      f'{path} has format {data["format"]}; this version of jaxtok reads '
      f'format {_FORMAT}. It was saved by version {data.get("version")}.'
    )
  return data


def _load_class(name: str, folder: epath.Path) -> type[base.Tokenizer]:
  module, _, qualname = str(name).partition(':')
  try:
    found: Any = importlib.import_module(module)
    for part in qualname.split('.'):
      found = getattr(found, part)
  except (ImportError, AttributeError, ValueError) as e:
    raise ValueError(
      f'{folder / FILE_NAME} names class {name!r}, which cannot be imported '
      f'({e}). If it lives outside jaxtok, put its folder on PYTHONPATH.'
    ) from e
  if not (isinstance(found, type) and issubclass(found, base.Tokenizer)):
    raise ValueError(
      f'{folder / FILE_NAME} names class {name!r}, which is no Tokenizer.'
    )
  return found


def _library_version(name: str) -> str:
  return importlib.metadata.version(name)
