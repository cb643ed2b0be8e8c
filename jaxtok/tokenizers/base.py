# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The one tokenizer interface: bytes to ids and back, on the host.

Inputs are `bytes` (or anything that exposes its bytes) or `str`, which means
its UTF-8 bytes. Ids are int32 NumPy arrays. Tokenizers are deterministic and
picklable, and come in three kinds:

  concat   Each id stands for a fixed string of bytes and decoding is
           concatenation, so `decode(encode(b)) == b` and byte offsets are
           exact. See `concat.ConcatTokenizer`.
  context  Free of loss, but what an id means depends on its neighbours or on
           a model. Offsets are shared by the ids of one window.
  lossy    Normalises. `decode(encode(x))` is a fixed point. May not be used
           to report bits per byte.
"""

import abc
import dataclasses
import functools
import hashlib
import json
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import parallel
from jaxtok.tokenizers.ragged import Ragged
from jaxtok.tokenizers.stream import StreamDecoder

Data = bytes | bytearray | memoryview | str
Kind = Literal['concat', 'context', 'lossy']
Lossless = Literal['bytes', 'text', 'no']


class NotExpressible(ValueError):
  """Raised by `to_hf` where `tokenizers` has no equivalent pipeline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialTokens:
  """Ids that stand for no bytes; None where a tokenizer lacks the role.

  One id may have several roles (GPT-2: bos and eos). Special ids without a
  role are in `extra`, by name.
  """

  pad: int | None = None
  bos: int | None = None
  eos: int | None = None
  unk: int | None = None
  mask: int | None = None
  sep: int | None = None
  cls: int | None = None
  extra: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def by_name(self) -> dict[str, int]:
    """Role or extra name to id, without the absent ones."""
    roles = [f.name for f in dataclasses.fields(self) if f.name != 'extra']
    found = {r: getattr(self, r) for r in roles if getattr(self, r) is not None}
    return found | dict(self.extra)

  def ids(self) -> frozenset[int]:
    """All special ids."""
    return frozenset(self.by_name().values())


def as_bytes(x: Any) -> bytes:
  """The bytes of an input; a `str` gives its UTF-8.

  Raises:
    TypeError: If `x` is neither text nor bytes.
    ValueError: If a `str` holds a lone surrogate, which has no UTF-8.
  """
  match x:
    case bytes():
      return x
    case str():
      try:
        return x.encode('utf-8')
      except UnicodeEncodeError as e:
        raise ValueError(
          f'text has a lone surrogate ({x[e.start]!r} at character {e.start}), '
          'which no UTF-8 can express. Pass the original bytes instead of a '
          'str decoded with errors="surrogateescape".'
        ) from e
    case bytearray() | memoryview():
      return bytes(x)
  raise TypeError(
    f'a tokenizer encodes bytes or str, got {type(x).__name__}. Use '
    '`.tobytes()` for arrays and `encode_batch` for several inputs.'
  )


def as_ids(ids: Any) -> Int[np.ndarray, 'n']:
  """Ids as a flat integer array.

  Raises:
    TypeError: If `ids` are not integers.
    ValueError: If `ids` have more than one axis.
  """
  array = np.asarray(ids)
  if array.size == 0:
    array = array.astype(np.int32)
  if not np.issubdtype(array.dtype, np.integer):
    raise TypeError(f'ids must be integers, got {array.dtype}.')
  if array.ndim != 1:
    raise ValueError(
      f'ids have shape {array.shape}; decode takes one row at a time. Use '
      '`[tokenizer.decode(row) for row in ids]`.'
    )
  return array


def check_ids(
  ids: Any, vocab_size: int, pad: int | None = None
) -> Int[np.ndarray, 'n']:
  """Ids as a flat array, in [0, vocab_size); a `pad` beyond is dropped.

  Raises:
    ValueError: If other ids are out of range.
  """
  ids = as_ids(ids)
  if pad is not None and not 0 <= pad < vocab_size:
    ids = ids[ids != pad]
  outside = (ids < 0) | (ids >= vocab_size)
  if outside.any():
    at = int(np.argmax(outside))
    raise ValueError(
      f'ids[{at}]={ids[at]} is outside the vocabulary [0, {vocab_size}). If '
      'the model pads its vocabulary, mask the padded logits before sampling.'
    )
  return ids


class Tokenizer(abc.ABC):
  """Turns bytes into ids and back.

  A subclass sets the attributes, writes the abstract methods, and inherits
  the rest.

  Attributes:
    kind: 'concat', 'context' or 'lossy'; see the module.
    lossless: What round trips exactly: any 'bytes', any 'text' (valid UTF-8),
      or 'no' promise.
    vocab_size: Every emitted id is in [0, vocab_size): the number of rows of
      the embedding table.
    special: Ids that stand for no bytes.
    tokens_per_window: How many ids make a unit that is coded together: the
      i-th id of a text is number `i % tokens_per_window` of its unit.
    max_tokens_per_byte: Most ids that a byte may take, in a text of any length.
    prefix: Ids that `add_special=True` puts before the text.
    suffix: Ids that `add_special=True` puts after the text.
    special_text: What special ids are called in text, e.g. b'<bos>'.
  """

  kind: Kind
  lossless: Lossless
  vocab_size: int
  special: SpecialTokens
  tokens_per_window: int = 1
  max_tokens_per_byte: int = 1
  prefix: tuple[int, ...] = ()
  suffix: tuple[int, ...] = ()
  special_text: Mapping[int, bytes] = types.MappingProxyType({})
  # Distributions whose versions are written down by `save`.
  depends_on: tuple[str, ...] = ('numpy',)

  @abc.abstractmethod
  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    """The ids of `data`, int32, without special tokens."""

  @abc.abstractmethod
  def encode_with_offsets(
    self, x: Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    """Ids and the half-open range of source bytes of each.

    Returns:
      int32 ids, and int64 offsets in bytes; special tokens get (p, p).
    """

  @abc.abstractmethod
  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    """The bytes of a row of ids; special tokens give none, or their names."""

  @abc.abstractmethod
  def identity(self) -> dict[str, Any]:
    """Everything that changes `encode`, as JSON types."""

  @abc.abstractmethod
  def save_config(self, path: Any) -> dict[str, Any]:
    """What `from_config` needs; writes any larger files into folder `path`."""

  @classmethod
  @abc.abstractmethod
  def from_config(cls, path: Any, config: dict[str, Any]) -> 'Tokenizer':
    """The inverse of `save_config`."""

  @property
  def storage_dtype(self) -> np.dtype:
    """The smallest type in which ids are kept on disk."""
    return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of `identity()`; stored in checkpoints and compared on load."""
    text = json.dumps(self.identity(), sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()

  def encode(
    self, x: Data, *, add_special: bool = False, parse_special: bool = False
  ) -> Int[np.ndarray, 'n']:
    """The ids of one text, int32.

    Args:
      x: Bytes, or a str, which means its UTF-8.
      add_special: Whether to add `prefix` and `suffix` ids.
      parse_special: Whether the names of special tokens in `x` become their
        ids. Off for data: there they are text like any other.
    """
    data = as_bytes(x)
    encode = self._encode_parsed if parse_special else self.encode_bytes
    ids = encode(data)
    if add_special and (self.prefix or self.suffix):
      ids = np.concatenate([self.prefix, ids, self.suffix]).astype(np.int32)
    return ids

  def encode_prompt(self, x: Data) -> tuple[Int[np.ndarray, 'n'], bytes]:
    """The ids of a text that will go on.

    Returns:
      Ids, and the bytes at the end that they leave out, because what stands for
      them depends on what follows. `allowed` says how to go on from there.
    """
    return self.encode(x), b''

  def _encode_parsed(self, data: bytes) -> Int[np.ndarray, 'n']:
    ids = {text: token for token, text in self.special_text.items()}
    if not ids:
      return self.encode_bytes(data)
    names = sorted(ids, key=len, reverse=True)
    pieces = re.split(b'(' + b'|'.join(map(re.escape, names)) + b')', data)
    rows = [
      np.array([ids[piece]]) if i % 2 else self.encode_bytes(piece)
      for i, piece in enumerate(pieces)
    ]
    return np.concatenate(rows).astype(np.int32)

  def encode_batch(
    self,
    xs: Iterable[Data],
    *,
    add_special: bool = False,
    num_threads: int | None = None,
  ) -> Ragged:
    """The ids of several texts; equal to `encode` of each.

    Args:
      xs: Texts.
      add_special: As in `encode`.
      num_threads: None uses all cores that this process may use, once there
        is enough to do.
    """
    datas = [as_bytes(x) for x in xs]
    encode = functools.partial(self.encode, add_special=add_special)
    return Ragged.from_rows(parallel.map_bytes(encode, datas, num_threads))

  def decode_text(
    self, ids: Any, *, skip_special: bool = True, errors: str = 'replace'
  ) -> str:
    """Decodes to text; bytes that are no UTF-8 go by `errors`."""
    data = self.decode(ids, skip_special=skip_special)
    return data.decode('utf-8', errors)

  def decode_batch(
    self, batch: Ragged, *, skip_special: bool = True
  ) -> list[bytes]:
    """Decodes every row."""
    decode = functools.partial(self.decode, skip_special=skip_special)
    return [decode(row) for row in batch.rows()]

  def decode_next(self, before: Any, ids: Any) -> bytes:
    """The bytes that a row of ids adds behind the ids before it."""
    del before
    return self.decode(ids)

  def stream_decoder(self) -> StreamDecoder:
    """An object whose `push(id)` returns the text that became complete."""
    return StreamDecoder(self.decode, incremental=self.kind == 'concat')

  def token_bytes(self, token: int) -> bytes | None:
    """The bytes that an id stands for; None unless `kind` is 'concat'."""
    del token

  @property
  def token_byte_lengths(self) -> Int[np.ndarray, 'v']:
    """Bytes per id, int32, 0 for special ids; concat tokenizers only."""
    raise TypeError(
      f'{self!r} has no bytes per id, because it is of kind {self.kind!r}. Use '
      'encode_with_offsets to count the bytes of a text.'
    )

  def to_hf(self) -> Any:
    """The same tokenizer as a `tokenizers.Tokenizer`.

    Raises:
      NotExpressible: If that library has no such pipeline.
    """
    raise NotExpressible(
      f'{type(self).__name__} cannot be written as a tokenizer.json: the '
      '`tokenizers` library has no equivalent pipeline.'
    )

  def save(self, path: Any) -> None:
    """Writes the tokenizer into folder `path`, for `load`."""
    from jaxtok.tokenizers import saved

    saved.save(self, path)

  @classmethod
  def load(cls, path: Any) -> 'Tokenizer':
    """Reads a folder written by `save`; see the function `load`."""
    tokenizer = load(path)
    if not isinstance(tokenizer, cls):
      raise TypeError(
        f'{path} holds a {type(tokenizer).__name__}, not a {cls.__name__}.'
      )
    return tokenizer

  def __repr__(self) -> str:
    return (
      f'{type(self).__name__}(kind={self.kind!r}, vocab_size='
      f'{self.vocab_size}, {self._repr_extra()})'
    )

  def _repr_extra(self) -> str:
    return f'fingerprint={self.fingerprint[:12]!r}'


@runtime_checkable
class Trainable(Protocol):
  """A tokenizer that can be trained anew, with the same settings."""

  def train(self, documents: Iterable[Data], vocab_size: int) -> Tokenizer: ...


@runtime_checkable
class Truncatable(Protocol):
  """A tokenizer whose smaller versions are prefixes of it."""

  def truncate(self, vocab_size: int) -> Tokenizer: ...


@runtime_checkable
class Resumable(Protocol):
  """A tokenizer whose training can go on, to a larger vocabulary."""

  def extend(self, documents: Iterable[Data], vocab_size: int) -> Tokenizer: ...


@runtime_checkable
class PretokenSplit(Protocol):
  """A tokenizer that cuts its input into words first."""

  def split(self, x: Data) -> Int[np.ndarray, 'w 2']:
    """Byte ranges of the words; they tile the input."""
    ...


@runtime_checkable
class Led(Protocol):
  """A tokenizer that puts bytes before a text, and takes them off again.

  Attributes:
    lead: These bytes; the empty text gets none, and no ids.
    inner: Of kind 'concat': the ids of a text are its ids of lead and text.
  """

  lead: bytes
  inner: Tokenizer


def load(path: Any) -> Tokenizer:
  """Loads a tokenizer that `Tokenizer.save` wrote into folder `path`.

  Raises:
    FileNotFoundError: If there is no saved tokenizer.
    ValueError: If the files are damaged, or give other ids than when saved.
  """
  from jaxtok.tokenizers import saved

  return saved.load(path)
