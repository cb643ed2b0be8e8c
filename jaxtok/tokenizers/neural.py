# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Equal-Info Windows: tokens that carry the same amount of information.

Lester et al. 2024, arXiv:2404.03626. A small byte model M1 compresses text into
windows of W bits; coder and model start anew at each window, which makes the
bits learnable for another model. A window is W / N tokens of N bits.

  neural.NeuralCompressionTokenizer()            16-bit windows, 65,536 ids
  neural.Config(window_bits=64, token_bits=8).make()
  neural.Config(path='m1.npz').make()            another model as M1
  neural.Train(order=3).make(documents)          a counted model as M1

Windows of 16 bits are looked up in a dictionary that M1 was compiled into; they
need no model at run time. Tokens of a window share its bytes; the first token
is charged with them.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from jaxtok.config import configclass
from jaxtok.entropy import (
  dictionary,
  documents,
  model_file,
  shipped,
  table,
  trie,
)
from jaxtok.entropy.base import NextByteModel
from jaxtok.entropy.determinism import DeterminismLevel, require_decodable
from jaxtok.entropy.formats import WindowFormat
from jaxtok.tokenizers import base, coded, parallel

_DICTIONARY = 'windows.npz'
_MODEL = 'model.npz'

Documents = Callable[[], Iterable[bytes]]


@configclass
class Config:
  """Reads M1, or a dictionary compiled from it, from a file.

  A file that `entropy.save_model` or `WindowDictionary.save` wrote; without a
  path, the model that comes with the package.
  """

  path: str = ''
  window_bits: int = 16  # 16, 32, 64 or 128.
  token_bits: int = 16  # 8 or 16.
  close_rule: str = 'cell'
  reset_every: int = 1  # Windows between resets of M1; 0 never resets it.
  dense_ids: bool = False  # 16-bit windows: ids of the words in use only.

  def make(
    self, documents: Documents | None = None
  ) -> 'NeuralCompressionTokenizer':
    """Builds the tokenizer; `documents` are not read.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is no model, or the fields do not fit together.
    """
    del documents
    return _make(self, _load(self.path) if self.path else None)


@configclass
class Train:
  """Counts an order-k table model on the training split, as M1."""

  order: int = 2  # Bytes of context.
  num_rows: int = 1 << 14  # Contexts are hashed to so many rows.
  max_bytes: int = 16_000_000  # Reads only the first so many.
  window_bits: int = 16
  token_bits: int = 16
  close_rule: str = 'cell'
  reset_every: int = 1
  dense_ids: bool = False

  def make(
    self, documents: Documents | None = None
  ) -> 'NeuralCompressionTokenizer':
    """Counts the documents and builds the tokenizer."""
    if documents is None:
      raise ValueError(
        'neural.Train counts text: call make(documents), with a function that '
        'returns the documents. To read a model, use neural.Config(path=...).'
      )
    some = limited(documents(), self.max_bytes)
    return _make(self, table.fit(some, self.order, self.num_rows))


def limited(texts: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
  """The first documents, until `max_bytes` are reached; the last one is cut."""
  for text in texts:
    if max_bytes <= 0:
      return
    yield base.as_bytes(text)[:max_bytes]
    max_bytes -= len(text)


def _make(
  config: Config | Train, compressor: Any
) -> 'NeuralCompressionTokenizer':
  return NeuralCompressionTokenizer(
    compressor,
    WindowFormat(
      window_bits=config.window_bits,
      close_rule=config.close_rule,
      reset_every=config.reset_every,
    ),
    token_bits=config.token_bits,
    dense_ids=config.dense_ids,
  )


def _shipped(fmt: WindowFormat) -> Any:
  """What the package has for a format: compiling takes a minute."""
  words = shipped.window_dictionary()
  is_known = fmt.is_finite and fmt.max_symbols == words.max_symbols
  return words if is_known else shipped.model()


def _load(path: Any) -> NextByteModel | dictionary.WindowDictionary:
  """A dictionary or a model, whichever the file holds."""
  try:
    return dictionary.load(path)
  except dictionary.NotADictionaryError:
    return model_file.load_model(path)


class NeuralCompressionTokenizer(coded.CodedTokenizer):
  """Equal-Info Windows of a byte model.

  Attributes:
    fmt: Window size, close rule, resets.
    words: The dictionary of 16-bit windows, or None.
    model: M1, or None where the dictionary replaces it.
  """

  depends_on = ('numpy', 'jax')

  def __init__(
    self,
    compressor: NextByteModel | dictionary.WindowDictionary | None = None,
    fmt: WindowFormat | None = None,
    *,
    token_bits: int = 16,
    dense_ids: bool = False,
  ):
    """Builds the tokenizer; compiles M1 into a dictionary if it can be.

    Args:
      compressor: M1, or the dictionary of its 16-bit windows; by default those
        that come with the package.
      fmt: By default 16-bit windows with rule `cell`.
      token_bits: 8 or 16.
      dense_ids: Number only the words that encoding uses (about 25,000 of
        65,536); needs the dictionary and 16-bit tokens.

    Raises:
      ValueError: If these do not fit together.
    """
    self.fmt = fmt = fmt or WindowFormat()
    if compressor is None:
      compressor = _shipped(fmt)
    self.words, self.model = None, None
    if isinstance(compressor, dictionary.WindowDictionary):
      if not fmt.is_finite or compressor.max_symbols != fmt.max_symbols:
        raise ValueError(
          f'{fmt} cannot be coded with a dictionary of 16-bit windows of at '
          f'most {compressor.max_symbols} symbols. Give the model itself.'
        )
      self.words = compressor.with_close_rule(fmt.close_rule)
    elif fmt.is_finite:
      words = dictionary.compile_window_dictionary(
        compressor, max_symbols=fmt.max_symbols
      )
      self.words = words.with_close_rule(fmt.close_rule)
    else:
      require_decodable(compressor.level)
      self.model = compressor
    self._dense = None
    if dense_ids:
      if self.words is None or token_bits != 16:
        raise ValueError(
          'dense_ids needs 16-bit windows with rule cell or delay and '
          'reset_every=1, and token_bits=16.'
        )
      self._dense = self.words.used_words
    num_values = 0 if self._dense is None else len(self._dense)
    super().__init__(token_bits, num_values)
    self.tokens_per_window = fmt.window_bits // token_bits
    if not fmt.is_lossless:
      self.kind, self.lossless = 'lossy', 'no'

  @property
  def level(self) -> DeterminismLevel:
    """How far the ids are the same on other machines."""
    return self.words.level if self.words else self.model.level

  def compress(self, data: Sequence[bytes]) -> list[coded.Coded]:
    if self.words is not None:  # The loops of numba release the GIL.
      threads = None if trie.has_numba() else 1
      return parallel.map_bytes(self._look_up, data, threads)
    rows = documents.encode_windows(data, self.model, self.fmt)
    return [(words.reshape(-1), self._charges(spans)) for words, spans in rows]

  def decompress(self, digits: Sequence[np.ndarray]) -> list[bytes]:
    width = self.fmt.num_limbs
    rows = [x[: len(x) // width * width].reshape(-1, width) for x in digits]
    if self.words is not None:
      return [self.words.decode(row[:, 0]) for row in rows]
    return documents.decode_windows(rows, self.model, self.fmt)

  def encode_prompt(self, x: base.Data) -> tuple[Int[np.ndarray, 'n'], bytes]:
    data = base.as_bytes(x)
    if self.words is None or not data:
      return super().encode_prompt(data)
    ids, offsets = self.encode_with_offsets(data)
    keep = len(ids) - self.tokens_per_window  # The last window ends the text.
    return ids[:keep], data[offsets[keep, 0] :]

  def window_text(self, ids: Sequence[int]) -> bytes:
    """The text of one 16-bit window, without EOS."""
    return self._texts[0][int(self._digits(np.asarray(ids))[0])]

  def allowed(self, rest: bytes, ids: Sequence[int]) -> np.ndarray:
    """Which ids may come next if the text must go on with `rest`.

    Args:
      rest: From the start of the window; at least one byte.
      ids: Those of the window so far.

    Returns:
      bool [vocab_size]; all False if no word that encoding uses fits.
    """
    texts, ends = self._texts
    fits = np.zeros(1 << 16, bool)
    for word in self.words.used_words[~ends[self.words.used_words]].tolist():
      text = texts[word]
      fits[word] = text.startswith(rest) or rest.startswith(text)
    if self._dense is not None:
      fits = fits[self._dense]
    elif self.token_bits == 8:
      fits = fits.reshape(256, 256)
      fits = fits[ids[0]] if len(ids) else fits.any(axis=1)
    return np.pad(fits, (0, self.vocab_size - len(fits)))

  @functools.cached_property
  def _texts(self) -> tuple[list[bytes], np.ndarray]:
    return self.words.texts()

  def identity(self) -> dict[str, Any]:
    codec = self.model if self.words is None else self.words
    return {
      'tokenizer': 'neural',
      'window': dataclasses.asdict(self.fmt),
      'token_bits': self.token_bits,
      'dense_ids': self._dense is not None,
      'codec': codec.fingerprint(),
    }

  def save_config(self, path: Any) -> dict[str, Any]:
    if self.words is not None:
      self.words.save(epath.Path(path) / _DICTIONARY)
    elif self.level == DeterminismLevel.FIXED_TILE:
      raise ValueError(
        'a tokenizer of a float model cannot be saved: its ids are only right '
        'on this machine. Use an integer model.'
      )
    else:
      model_file.save_model(self.model, epath.Path(path) / _MODEL)
    return {
      'window': dataclasses.asdict(self.fmt),
      'token_bits': self.token_bits,
      'dense_ids': self._dense is not None,
      'is_dictionary': self.words is not None,
      'self_test': self.self_test(),
    }

  @classmethod
  def from_config(
    cls, path: Any, config: dict[str, Any]
  ) -> 'NeuralCompressionTokenizer':
    folder = epath.Path(path)
    if config['is_dictionary']:
      compressor = dictionary.load(folder / _DICTIONARY)
    else:
      compressor = model_file.load_model(folder / _MODEL)
    tokenizer = cls(
      compressor,
      WindowFormat(**config['window']),
      token_bits=config['token_bits'],
      dense_ids=config['dense_ids'],
    )
    tokenizer.check_self_test(config['self_test'])
    return tokenizer

  def _look_up(self, data: bytes) -> coded.Coded:
    words, spans = self.words.encode(data)
    return words, self._charges(spans)

  def _charges(self, spans: np.ndarray) -> np.ndarray:
    """Source bytes per digit, from symbols per window."""
    charges = np.zeros((len(spans), self.fmt.num_limbs), np.int64)
    charges[:, 0] = spans
    charges[-1, 0] -= 1  # EOS is no source byte.
    return charges.reshape(-1)

  def _tokens(self, digits: np.ndarray) -> np.ndarray:
    if self._dense is None:
      return super()._tokens(digits)
    return np.searchsorted(self._dense, digits).astype(np.int32)

  def _digits(self, tokens: np.ndarray) -> np.ndarray:
    if self._dense is None:
      return super()._digits(tokens)
    return self._dense[tokens]

  def _repr_extra(self) -> str:
    return (
      f'window_bits={self.fmt.window_bits}, close_rule='
      f'{self.fmt.close_rule!r}, level={self.level.name}, '
      + super()._repr_extra()
    )
