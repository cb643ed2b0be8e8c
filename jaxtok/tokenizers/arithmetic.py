# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens cut from one arithmetic code per document.

The baselines "AC" and "StaticAC" of Lester et al. 2024, arXiv:2404.03626: the
code of a strong byte model, whose bits look random, so that nothing can be
learned from them; and the code of byte frequencies alone.

  arithmetic.Config().make()                the model of the package
  arithmetic.Config(path='m1.npz').make()
  arithmetic.Static().make(documents)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxtok.config import configclass
from jaxtok.entropy import documents, model_file, shipped, table
from jaxtok.entropy.base import NextByteModel
from jaxtok.entropy.determinism import DeterminismLevel, require_decodable
from jaxtok.tokenizers import coded, neural

_MODEL = 'model.npz'


@configclass
class Config:
  """Reads the model from a file, by default that of the package."""

  path: str = ''  # Written by entropy.save_model.
  token_bits: int = 16  # 8 or 16.

  def make(
    self, documents: neural.Documents | None = None
  ) -> 'ArithmeticTokenizer':
    """Builds the tokenizer; `documents` are not read."""
    del documents
    model = model_file.load_model(self.path) if self.path else shipped.model()
    return ArithmeticTokenizer(model, token_bits=self.token_bits)


@configclass
class Train:
  """Counts an order-k table model on the training split, as `neural.Train`."""

  order: int = 2  # Bytes of context.
  num_rows: int = 1 << 14  # Contexts are hashed to so many rows.
  max_bytes: int = 16_000_000  # Reads only the first so many.
  token_bits: int = 16  # 8 or 16.

  def make(
    self, documents: neural.Documents | None = None
  ) -> 'ArithmeticTokenizer':
    """Counts the documents and builds the tokenizer."""
    if documents is None:
      raise ValueError(
        'arithmetic.Train counts text: call make(documents), with a function '
        'that returns the documents. To read a model, use Config(path=...).'
      )
    some = neural.limited(documents(), self.max_bytes)
    model = table.fit(some, self.order, self.num_rows)
    return ArithmeticTokenizer(model, token_bits=self.token_bits)


@configclass
class Static:
  """Counts the bytes of the training split: the model without context."""

  max_bytes: int = 16_000_000  # Reads only the first so many.
  token_bits: int = 16  # 8 or 16.

  def make(
    self, documents: neural.Documents | None = None
  ) -> 'ArithmeticTokenizer':
    """Counts the documents and builds the tokenizer."""
    if documents is None:
      raise ValueError(
        'arithmetic.Static counts text: call make(documents), with a function '
        'that returns the documents.'
      )
    some = neural.limited(documents(), self.max_bytes)
    model = table.fit(some, order=0)
    return ArithmeticTokenizer(model, token_bits=self.token_bits)


class ArithmeticTokenizer(coded.CodedTokenizer):
  """One arithmetic code per document, ended by EOS.

  A byte is charged to the digit that was next to come out when it was coded.

  Attributes:
    model: The byte model.
  """

  depends_on = ('numpy', 'jax')

  def __init__(self, model: NextByteModel, *, token_bits: int = 16):
    require_decodable(model.level)
    self.model = model
    super().__init__(token_bits)

  def compress(self, data: Sequence[bytes]) -> list[coded.Coded]:
    return documents.encode_streams(data, self.model)

  def decompress(self, digits: Sequence[np.ndarray]) -> list[bytes]:
    return documents.decode_streams(digits, self.model)

  def identity(self) -> dict[str, Any]:
    return {
      'tokenizer': 'arithmetic',
      'token_bits': self.token_bits,
      'model': self.model.fingerprint(),
    }

  def save_config(self, path: Any) -> dict[str, Any]:
    if self.model.level == DeterminismLevel.FIXED_TILE:
      raise ValueError(
        'a tokenizer of a float model cannot be saved: its ids are only right '
        'on this machine. Use an integer model.'
      )
    model_file.save_model(self.model, epath.Path(path) / _MODEL)
    return {'token_bits': self.token_bits, 'self_test': self.self_test()}

  @classmethod
  def from_config(
    cls, path: Any, config: dict[str, Any]
  ) -> 'ArithmeticTokenizer':
    model = model_file.load_model(epath.Path(path) / _MODEL)
    tokenizer = cls(model, token_bits=config['token_bits'])
    tokenizer.check_self_test(config['self_test'])
    return tokenizer
