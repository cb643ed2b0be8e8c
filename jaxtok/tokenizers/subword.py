# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Byte-level subword tokenizers, encoded by `tiktoken` or `tokenizers`.

Byte-level BPE is encoded by tiktoken (the fast path) wherever that gives the
same ids as `tokenizers`, and by `tokenizers` otherwise; `fast` and
`slow_reason` of a tokenizer say which. tiktoken merges any adjacent pair that
joins to a token, and emits a word at once if it is one. This equals BPE by a
list of merges if every token re-encodes to itself, which is checked for the
whole vocabulary.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Int

from jaxtok.tokenizers import (
  base,
  bytelevel,
  concat,
  files,
  libraries,
  parallel,
  training,
  utf8,
)
from jaxtok.tokenizers import spec as spec_lib

# The last characters of Unicode are for private use. In the fast path, 128 of
# them stand for invalid bytes 0x80..0xFF, and one for the end of a text.
_ESCAPES = 0x10FF80
_ESCAPE_CHARS = frozenset(map(chr, range(_ESCAPES, _ESCAPES + 128)))
_END = chr(_ESCAPES - 1)
_END_ID = -1
_GROUP_BYTES = 1 << 18

# Encoded both ways when a tokenizer is made: what regex dialects differ in.
_PROBE = (
  "Don't DON'T we'll I'm 1234567 12,345.67 x=y+z\t\tif (a):\r\n\r\n    b  \n"
  'naïve café ÅΩ ſK 日本語テキスト العربية हिन्दी ไทย '
  '👩\u200d👩\u200d👧 ½²① _a__b --> ***   '
).encode()


def tokenizer_without_merges(
  table: list[bytes], special: base.SpecialTokens
) -> Any:
  """A `tokenizers` object that emits single bytes.

  Args:
    table: The byte of each id; empty for other ids.
    special: Ids of special tokens.
  """
  vocab = {bytelevel.to_chars(b): i for i, b in enumerate(table) if b}
  names = {f'<{name}>': i for name, i in special.by_name().items()}
  whole = bytelevel.byte_level(use_regex=False)
  return libraries.build(bytelevel.make_spec(vocab, (), names, whole))


class HfTokenizer(concat.ConcatTokenizer):
  """A byte-level subword tokenizer: BPE, or WordPiece or Unigram over bytes.

  Attributes:
    spec: The content of its tokenizer.json.
    slow_reason: What keeps it from the fast path; '' if nothing does.
  """

  depends_on = ('numpy', 'tokenizers', 'tiktoken')

  def __init__(
    self,
    spec: spec_lib.Spec,
    roles: dict[str, str] | None = None,
    *,
    slow_reason: str | None = None,
  ):
    """Checks that the tokenizer can express any bytes.

    Args:
      spec: See the module `spec`.
      roles: Role to name of special tokens, where names do not tell.
      slow_reason: The result of an earlier check; None checks now.

    Raises:
      ValueError: If the tokenizer would change or lose bytes.
    """
    spec_lib.check_concat(spec)
    self.spec, self.roles = spec, dict(roles or {})
    names = {i: n.encode() for n, i in spec_lib.special_ids(spec).items()}
    super().__init__(
      spec_lib.token_table(spec),
      spec_lib.special_tokens(spec, self.roles),
      special_text=names,
    )
    self.prefix, self.suffix = spec_lib.around(spec, self.special)
    if slow_reason is None:
      slow_reason = spec_lib.why_not_fast(spec) or self._find_disagreement()
    self.slow_reason = slow_reason
    if slow_reason:
      logging.warning('Slow encoding by `tokenizers`: %s.', slow_reason)

  @property
  def fast(self) -> bool:
    """Whether tiktoken encodes."""
    return not self.slow_reason

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    if self.fast:
      try:
        ids = self._encode_fast(data)
        if self._num_bytes(ids) == len(data):
          return ids
        problem = 'its regex skips some of the text'
      except ValueError as e:  # E.g. a run of a million spaces.
        problem = str(e)
      message = 'A text of %d bytes takes the slow path: %s'
      logging.log_first_n(logging.WARNING, message, 3, len(data), problem)
    return self._encode_slow([data])[0]

  def encode_batch(
    self,
    xs: Iterable[base.Data],
    *,
    add_special: bool = False,
    num_threads: int | None = None,
  ) -> base.Ragged:
    datas = [base.as_bytes(x) for x in xs]
    if add_special:
      return super().encode_batch(
        datas, add_special=add_special, num_threads=num_threads
      )
    if not self.fast:  # That library has threads of its own.
      return base.Ragged.from_rows(self._encode_slow(datas))
    end = _END.encode()
    joined = [
      b''.join(part for data in group for part in (data, end))
      for group in _groups(datas)
    ]
    rows = parallel.map_bytes(self._encode_joined, joined, num_threads)
    ids = np.concatenate([np.zeros(0, np.int32), *rows])
    is_end = ids == _END_ID
    ends = np.flatnonzero(is_end)
    if len(ends) != len(datas):  # A text holds `_END` itself.
      return super().encode_batch(datas, num_threads=num_threads)
    splits = np.append(0, ends - np.arange(len(ends)))
    return base.Ragged(ids[~is_end], splits)

  def _encode_joined(self, data: bytes) -> Int[np.ndarray, 'n']:
    """The ids of texts that end in `_END`, each followed by `_END_ID`."""
    texts = data.split(_END.encode())[:-1]
    num_bytes = sum(map(len, texts))
    try:
      ids = self._encode_fast(data, is_joined=True)
      if self._num_bytes(ids) == num_bytes:
        return ids
    except ValueError:  # `encode_bytes` finds out which text it was.
      pass
    rows = [np.append(self.encode_bytes(t), _END_ID) for t in texts]
    return np.concatenate(rows).astype(np.int32)

  def _num_bytes(self, ids: Int[np.ndarray, 'n']) -> int:
    """Bytes of ids, among which there may be `_END_ID`, which has none."""
    return int(self._lengths_and_end[ids].sum(dtype=np.int64))

  @functools.cached_property
  def _lengths_and_end(self) -> Int[np.ndarray, 'v_plus_1']:
    return np.append(self._lengths, np.int32(0))  # Index -1 is the last.

  def split(self, x: base.Data) -> Int[np.ndarray, 'w 2']:
    """Byte ranges of words, int64; an invalid byte is a word of its own."""
    ranges, start = [np.zeros((0, 2), np.int64)], 0
    for i, piece in enumerate(utf8.runs(base.as_bytes(x))):
      if i % 2:
        edges = np.arange(len(piece) + 1)
        words = np.stack([edges[:-1], edges[1:]], axis=1)
      else:
        edges = utf8.char_starts(piece)
        found = self._slow.pre_tokenizer.pre_tokenize_str(piece)
        spans = np.array([span for _, span in found], np.int64).reshape(-1, 2)
        words = edges[spans]
      ranges.append(start + words)
      start += edges[-1]
    return np.concatenate(ranges)

  def truncate(self, vocab_size: int) -> 'HfTokenizer':
    """The tokenizer without its last merges; see `spec.truncate`."""
    return HfTokenizer(spec_lib.truncate(self.spec, vocab_size), self.roles)

  def train(
    self, documents: training.Documents, vocab_size: int
  ) -> 'HfTokenizer':
    """Byte-level BPE with the same words and special tokens, of other text."""
    spec = training.train_spec(
      documents,
      vocab_size,
      self.spec['pre_tokenizer'],
      tuple(spec_lib.special_ids(self.spec)),
    )
    return HfTokenizer(spec, self.roles)

  def identity(self) -> dict[str, Any]:
    parts = ('model', 'pre_tokenizer', 'post_processor', 'added_tokens')
    spec = {part: self.spec[part] for part in parts}
    return {'tokenizer': 'hf', 'spec': spec, 'roles': self.roles}

  def to_hf(self) -> Any:
    return libraries.build(self.spec)

  def save_config(self, path: Any) -> dict[str, Any]:
    files.write(path, self.spec)
    checked = {'slow_reason': self.slow_reason, 'with': libraries.VERSIONS}
    return {'roles': self.roles, 'checked': checked}

  @classmethod
  def from_config(cls, path: Any, config: dict[str, Any]) -> 'HfTokenizer':
    spec, _ = files.read(str(path))
    checked = config['checked']
    is_same = checked['with'] == libraries.VERSIONS  # Else checks again.
    reason = checked['slow_reason'] if is_same else None
    return cls(spec, config['roles'], slow_reason=reason)

  def __getstate__(self) -> dict[str, Any]:
    rebuilt = (
      '_slow',
      '_moved',
      '_core',
      '_ids_of_ranks',
      '_lengths_and_end',
    )
    return {k: v for k, v in self.__dict__.items() if k not in rebuilt}

  @functools.cached_property
  def _slow(self) -> Any:
    return libraries.build(spec_lib.without_special(self.spec))

  @functools.cached_property
  def _moved(self) -> dict[int, int]:
    """Id in `_slow` to id, where the absence of special tokens moved it."""
    added = [t for t in self.spec['added_tokens'] if not t['special']]
    pairs = {self._slow.token_to_id(t['content']): t['id'] for t in added}
    return {found: i for found, i in pairs.items() if found != i}

  @functools.cached_property
  def _core(self) -> Any:
    ranks, _ = bytelevel.ranks(self.spec)
    first = len(ranks)
    special = {chr(_ESCAPES + k): first + k for k in range(128)}
    special[_END] = first + 128
    pattern = spec_lib.split_pattern(self.spec)
    return libraries.encoding(ranks, pattern, special)

  @functools.cached_property
  def _ids_of_ranks(self) -> Int[np.ndarray, 'ranks']:
    _, ids = bytelevel.ranks(self.spec)
    ids = np.concatenate([ids, self._byte_ids[128:], [_END_ID]])
    return ids.astype(np.int32)

  def _encode_fast(
    self, data: bytes, *, is_joined: bool = False
  ) -> Int[np.ndarray, 'n']:
    """Ids by tiktoken; `_END_ID` for each `_END` if `is_joined`."""
    allowed = {_END} if is_joined else set()
    try:
      text = data.decode('utf-8')
    except UnicodeDecodeError:
      text = utf8.shift_escapes(data, _ESCAPES)
      allowed |= _ESCAPE_CHARS
    if text is None:  # The text itself uses the private characters.
      rows = [
        self._bytes_as_ids(piece)
        if i % 2
        else self._encode_fast(piece.encode(), is_joined=is_joined)
        for i, piece in enumerate(utf8.runs(data))
      ]
      return np.concatenate(rows)
    ranks = self._core.encode_to_numpy(
      text, allowed_special=allowed, disallowed_special=()
    )
    return self._ids_of_ranks[ranks]

  def _encode_slow(self, datas: Sequence[bytes]) -> list[Int[np.ndarray, 'n']]:
    """Ids of several texts by `tokenizers`."""
    pieces = [utf8.runs(data) for data in datas]
    texts = [text for runs in pieces for text in runs[::2]]
    found = iter(self._slow.encode_batch_fast(texts, add_special_tokens=False))
    rows = []
    for data, runs in zip(datas, pieces, strict=True):
      ids: list[int] = []
      for i, piece in enumerate(runs):
        if i % 2:
          ids += self._byte_ids[list(piece)].tolist()
        else:
          ids += self._unmoved(next(found).ids)
      rows.append(np.array(ids, np.int32))
      if self._lengths[rows[-1]].sum(dtype=np.int64) != len(data):
        raise ValueError(
          f'{self!r} lost bytes of a text of {len(data)} bytes, although its '
          'tokenizer.json promises not to. Please report it with the text.'
        )
    return rows

  def _unmoved(self, ids: list[int]) -> list[int]:
    moved = self._moved
    return [moved.get(token, token) for token in ids] if moved else ids

  def _bytes_as_ids(self, data: bytes) -> Int[np.ndarray, 'n']:
    return self._byte_ids[np.frombuffer(data, np.uint8)]

  def _find_disagreement(self) -> str:
    """Why the two paths give different ids; '' if they do not."""
    model, ignore = self._slow.model, self.spec['model'].get('ignore_merges')
    if ignore:
      spec = spec_lib.without_special(self.spec)
      plain = spec['model'] | {'ignore_merges': False}
      model = libraries.build(spec | {'model': plain}).model
    ranks, _ = bytelevel.ranks(self.spec)
    for token in ranks:
      num = len(model.tokenize(bytelevel.to_chars(token)))
      # With ignore_merges, a token that merges do not make is emitted for
      # whole words only; tiktoken agrees unless two parts would meet.
      if num != 1 and not (ignore and num > 2):
        return f'token {token!r} does not re-encode to itself'
    try:
      fast = self._encode_fast(_PROBE)
    except ValueError as e:
      return f'tiktoken cannot use its regex ({e})'
    if not np.array_equal(fast, self._encode_slow([_PROBE])[0]):
      return 'tiktoken reads its regex differently'
    return ''

  def _repr_extra(self) -> str:
    return f'fast={self.fast}, {super()._repr_extra()}'


def _groups(datas: Sequence[bytes]) -> Iterator[list[bytes]]:
  """Neighbours of together about `_GROUP_BYTES` bytes."""
  group, size = [], 0
  for data in datas:
    group.append(data)
    size += len(data)
    if size >= _GROUP_BYTES:
      yield group
      group, size = [], 0
  if group:
    yield group
