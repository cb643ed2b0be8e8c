# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pipelines of `tokenizers` that change the text, taken as they are."""

import functools
import re
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import base, files, libraries, utf8
from jaxtok.tokenizers import spec as spec_lib

_ESCAPED = re.compile('[\udc80-\udcff]')


class LossyHfTokenizer(base.Tokenizer):
  """Any pipeline of `tokenizers`, as it is, with its losses.

  Encoding and decoding are the library's; `decode(encode(x))` is a fixed
  point as far as the file's decoder inverts its normalizer. An invalid byte
  becomes U+FFFD. Offsets are the source range that the library reports, in
  bytes; they need not tile the input.
  """

  depends_on = ('numpy', 'tokenizers')

  def __init__(self, spec: spec_lib.Spec, roles: dict[str, str] | None = None):
    self.kind, self.lossless = 'lossy', 'no'
    self.spec, self.roles = spec, dict(roles or {})
    self.special = spec_lib.special_tokens(spec, self.roles)
    self.special_text = {
      i: name.encode() for name, i in spec_lib.special_ids(spec).items()
    }
    self.vocab_size = len(spec_lib.token_table(spec))
    self.prefix, self.suffix = spec_lib.around(spec, self.special)

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    text = _ESCAPED.sub('�', data.decode('utf-8', 'surrogateescape'))
    found = self._slow.encode(text, add_special_tokens=False)
    return np.array(found.ids, np.int32)

  def encode_with_offsets(
    self, x: base.Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    text = base.as_bytes(x).decode('utf-8', 'surrogateescape')
    starts = utf8.char_starts(text)
    text = _ESCAPED.sub('�', text)
    found = self._slow.encode(text, add_special_tokens=False)
    spans = starts[np.array(found.offsets, np.int64).reshape(-1, 2)]
    if not add_special:
      return np.array(found.ids, np.int32), spans
    ids = np.concatenate([self.prefix, found.ids, self.suffix])
    ends = [(0, 0)] * len(self.prefix), [(starts[-1],) * 2] * len(self.suffix)
    before, after = (np.array(e, np.int64).reshape(-1, 2) for e in ends)
    return ids.astype(np.int32), np.concatenate([before, spans, after])

  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    ids = base.check_ids(ids, self.vocab_size)
    text = self._slow.decode(ids.tolist(), skip_special_tokens=skip_special)
    return text.encode()

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': 'hf_lossy', 'spec': self.spec, 'roles': self.roles}

  def to_hf(self) -> Any:
    return libraries.build(self.spec)

  def save_config(self, path: Any) -> dict[str, Any]:
    files.write(path, self.spec)
    return {'roles': self.roles}

  @classmethod
  def from_config(cls, path: Any, config: dict[str, Any]) -> 'LossyHfTokenizer':
    return cls(files.read(str(path))[0], config['roles'])

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k != '_slow'}

  @functools.cached_property
  def _slow(self) -> Any:
    tokenizer = libraries.build(self.spec)
    tokenizer.encode_special_tokens = True
    return tokenizer
