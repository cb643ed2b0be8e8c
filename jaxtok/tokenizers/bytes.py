# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bytes as tokens, under the id maps of published byte-level models.

  map      pad   bos  eos  others                        byte b   vocabulary
  default  256   257  258                                b        259
  byt5     0     -    1    unk 2; sentinels, see below   b + 3    384
  blt      -1    1    2    boe 0, bpe_delimiter 3        b + 4    260
  hnet     -     254  255                                b        256
  hat      255   -    192  word 248, sentence = eos      b        256
  evabyte  0     1    2    61 unused slots               b + 64   320

Sources: ByT5, arXiv:2105.13626; BLT, arXiv:2412.09871; H-Net,
arXiv:2507.07955; HAT, arXiv:2501.10322 (its pad, word and sentence bytes are
our choice); EvaByte's special ids are from memory.

Sentinels of `byt5` mark spans that are left out. ByT5 takes the ids of bytes
that no UTF-8 contains, 258 down to 248 (0xFF to 0xF5); 259 to 383 are unused.

`hnet` and `hat` put special tokens on byte values that never occur in UTF-8.
Under them, text round trips; input with such a byte is refused, or, with
`strict=False`, taken for the special token, which makes the map lossy.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.config import configclass
from jaxtok.tokenizers import base, concat


@dataclasses.dataclass(frozen=True)
class _Map:
  offset: int
  vocab_size: int
  special: base.SpecialTokens


_SPECIAL = base.SpecialTokens
MAPS: dict[str, _Map] = {
  'default': _Map(0, 259, _SPECIAL(pad=256, bos=257, eos=258)),
  'byt5': _Map(3, 384, _SPECIAL(pad=0, eos=1, unk=2)),
  'blt': _Map(
    4,
    260,
    _SPECIAL(pad=-1, bos=1, eos=2, extra={'boe': 0, 'bpe_delimiter': 3}),
  ),
  'hnet': _Map(0, 256, _SPECIAL(bos=254, eos=255)),
  'hat': _Map(
    0,
    256,
    _SPECIAL(pad=255, eos=192, extra={'word': 248, 'sentence': 192}),
  ),
  'evabyte': _Map(64, 320, _SPECIAL(pad=0, bos=1, eos=2)),
}


SENTINELS = ('bytes', 'extra')
_NUM_IMPOSSIBLE = 11  # Byte values 0xF5 to 0xFF, which no UTF-8 contains.


@configclass
class Config:
  """Builds a `ByteTokenizer`."""

  map: str = 'default'  # A key of `MAPS`.
  strict: bool = True  # Refuse bytes that a map uses as special tokens.

  def __post_init__(self):
    if self.map not in MAPS:
      raise ValueError(
        f'map={self.map!r} is no byte map. Use one of {", ".join(MAPS)}.'
      )

  def make(self, documents: Any = None) -> 'ByteTokenizer':
    """Builds the tokenizer; nothing is trained, `documents` are not read."""
    del documents
    return ByteTokenizer(self.map, strict=self.strict)


class ByteTokenizer(concat.ConcatTokenizer):
  """One token per byte; encoding is a cast and an addition."""

  def __init__(self, map: str = 'default', *, strict: bool = True):
    config = Config(map=map, strict=strict)
    chosen = MAPS[config.map]
    self.map, self.strict, self.offset = map, strict, chosen.offset
    table = [b''] * chosen.vocab_size
    for b in range(256):
      table[b + self.offset] = bytes([b])
    special = chosen.special
    taken = [i - self.offset for i in sorted(special.ids())]
    self._taken = [bytes([b]) for b in taken if 0 <= b < 256]
    is_lossy = bool(self._taken) and not strict
    super().__init__(
      table,
      special,
      kind='lossy' if is_lossy else 'concat',
      lossless='text' if self._taken else 'bytes',
    )
    self.prefix = () if special.bos is None else (special.bos,)
    self.suffix = () if special.eos is None else (special.eos,)

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    if self.strict:
      self._refuse_taken(data)
    raw = np.frombuffer(data, np.uint8)
    if not self.offset:
      return raw.astype(np.int32)
    return np.add(raw, self.offset, dtype=np.int32)

  def encode_batch(
    self, xs: Any, *, add_special: bool = False, num_threads: int | None = None
  ) -> base.Ragged:
    if add_special:
      return super().encode_batch(
        xs, add_special=add_special, num_threads=num_threads
      )
    datas = [base.as_bytes(x) for x in xs]
    splits = np.zeros(len(datas) + 1, np.int64)
    np.cumsum([len(d) for d in datas], out=splits[1:])
    return base.Ragged(self.encode_bytes(b''.join(datas)), splits)

  def encode_with_offsets(
    self, x: base.Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    ids = self.encode(x, add_special=add_special)
    before, after = self._added(add_special)
    num = len(ids) - before - after
    edges = np.arange(num + 1, dtype=np.int64)
    edges = np.pad(edges, (before, after), mode='edge')
    return ids, np.stack([edges[:-1], edges[1:]], axis=1)

  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    if not skip_special:
      return super().decode(ids, skip_special=False)
    ids = base.as_ids(ids)
    first, last = self.offset, self.offset + 255
    is_plain = first <= ids.min(initial=first) and ids.max(initial=0) <= last
    if self._taken or not is_plain:
      ids = base.check_ids(ids, self.vocab_size, self.special.pad)
      ids = ids[self._lengths[ids] == 1]
    return (ids - self.offset).astype(np.uint8).tobytes()

  def sentinels(self, kind: str = 'bytes') -> Int[np.ndarray, 'n']:
    """The ids that stand for spans which are left out, in their order.

    Args:
      kind: 'bytes' takes 258, 257, ... as ByT5 does, at most 11, which text in
        UTF-8 never contains; 'extra' takes 259, 260, ..., which ByT5's
        checkpoints have never seen.

    Raises:
      ValueError: If the kind is unknown or the map has no sentinels.
    """
    if kind not in SENTINELS:
      raise ValueError(
        f'sentinels={kind!r} must be one of {", ".join(SENTINELS)}.'
      )
    if self.map != 'byt5':
      raise ValueError(
        f"map={self.map!r} has no ids for sentinels; use map='byt5'."
      )
    last = self.offset + 255
    if kind == 'bytes':
      return last - np.arange(_NUM_IMPOSSIBLE, dtype=np.int32)
    return np.arange(last + 1, self.vocab_size, dtype=np.int32)

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': 'bytes', 'map': self.map, 'strict': self.strict}

  def to_hf(self) -> Any:
    from jaxtok.tokenizers import subword

    if self.special.pad is not None and self.special.pad < 0:
      raise base.NotExpressible(
        f'map {self.map!r} has pad id {self.special.pad}, and `tokenizers` '
        'knows no negative ids.'
      )
    if self._taken:
      raise base.NotExpressible(
        f'map {self.map!r} gives one id to a byte and a special token, which '
        '`tokenizers` cannot express.'
      )
    return subword.tokenizer_without_merges(self._table, self.special)

  def save_config(self, path: Any) -> dict[str, Any]:
    del path
    return {'map': self.map, 'strict': self.strict}

  @classmethod
  def from_config(cls, path: Any, config: dict[str, Any]) -> 'ByteTokenizer':
    del path
    return cls(config['map'], strict=config['strict'])

  def _added(self, add_special: bool) -> tuple[int, int]:
    return (len(self.prefix), len(self.suffix)) if add_special else (0, 0)

  def _refuse_taken(self, data: bytes) -> None:
    for value in self._taken:
      if (at := data.find(value)) >= 0:
        raise ValueError(
          f'byte 0x{value[0]:02X} at position {at}: map {self.map!r} uses it '
          'as a special token, because it never occurs in UTF-8 text. For '
          "binary data use map='default', or strict=False (lossy)."
        )

  def _repr_extra(self) -> str:
    return f'map={self.map!r}'
