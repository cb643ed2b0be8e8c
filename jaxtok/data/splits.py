# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How a corpus is divided: 90 % train, 5 % validation, 5 % test.

By a fixed hash of each document's name where there are many documents, by
position inside a document where there are few. Hashes are BLAKE2 or splitmix,
never Python's `hash`, which differs between processes.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtok.data.permutation import mix
from jaxtok.data.source import SPLITS, check_split

_SHARES = (0.90, 0.95)  # End of train, end of validation.


def name_hash(name: str) -> int:
  """64 bits from a name, the same everywhere."""
  data = name.encode('utf-8', 'surrogateescape')
  return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def hash_order(names: Sequence[str]) -> list[int]:
  """Indices of names sorted by hash: the same mixed order everywhere."""
  return sorted(
    range(len(names)), key=lambda i: (name_hash(names[i]), names[i])
  )


def _split_of(hashed: int) -> str:
  place = hashed / 2**64
  return SPLITS[sum(place >= share for share in _SHARES)]


def by_name(names: Sequence[str], sizes: Sequence[int]) -> list[str] | None:
  """Assigns whole documents to splits.

  1. By the hash of the name, if each split then has at least 1 % of the bytes
     and train has at least half.
  2. Else, the first document in hash order that has 1 to 20 % of the bytes is
     validation, the second one is test, all others are train.
  3. If there are no two such documents, none can be spared as a whole.

  Args:
    names: Names without the machine's own folders.
    sizes: Bytes of each.

  Returns:
    The split of each document, or None in the third case.
  """
  total = sum(sizes)
  assigned = [_split_of(name_hash(name)) for name in names]
  share = lambda split: sum(
    size for size, its in zip(sizes, assigned, strict=True) if its == split
  )
  if share('train') >= total / 2 and all(
    share(split) >= total / 100 for split in SPLITS
  ):
    return assigned
  middling = [
    index
    for index in hash_order(names)
    if total / 100 <= sizes[index] <= total / 5
  ]
  if len(middling) < 2:
    return None
  assigned = ['train'] * len(names)
  assigned[middling[0]], assigned[middling[1]] = 'validation', 'test'
  return assigned


def choose_path(config: Any, split: str) -> tuple[str, bool]:
  """Where a split lies, by the fields `path`, `validation` and `test`.

  If none of the held-out splits has a path of its own, all are parts of
  `path`; else `path` is all train.

  Returns:
    The path, and whether the split is only a part of it.

  Raises:
    ValueError: If only the other held-out split has a path.
  """
  check_split(split)
  explicit = {'validation': config.validation, 'test': config.test}
  if split == 'train' or not any(explicit.values()):
    return config.path, not any(explicit.values())
  if not explicit[split]:
    raise ValueError(
      f'there are no documents for {split}: the other held-out split is given '
      f'by a path, so give {split}=PATH too.'
    )
  return explicit[split], False


def by_index(count: int, split: str) -> np.ndarray:
  """The numbers of the records of a split, ascending.

  By a hash of the record's number; if that leaves a split empty, the last
  record is test and the one before it validation.

  Raises:
    ValueError: If there are fewer than 3 records.
  """
  check_split(split)
  if count < 3:
    raise ValueError(
      f'{count} records cannot be divided into {", ".join(SPLITS)}. Give the '
      'held-out records as files of their own (validation=..., test=...).'
    )
  dtype = np.int32 if count < 2**31 else np.int64
  number = np.empty(count, np.uint8)
  bounds = np.array([int(share * 2**64) for share in _SHARES], np.uint64)
  for start in range(0, count, 1 << 20):
    stop = min(start + (1 << 20), count)
    hashed = mix(np.arange(start + 1, stop + 1, dtype=np.uint64))
    number[start:stop] = np.searchsorted(bounds, hashed, side='right')
  if len(np.unique(number)) < len(SPLITS):
    number[:] = 0
    number[-2:] = 1, 2
  return np.flatnonzero(number == SPLITS.index(split)).astype(dtype)


def cut_near(data, at: int, near: int) -> int:
  """Moves a cut back to the end of a line, else to that of a UTF-8 character.

  Args:
    data: Sliceable bytes as a uint8 array.
    at: Where to cut; at least `near`, and not the end of the data.
    near: The cut moves by less than this many bytes.

  Returns:
    A position in `(at - near, at]`; `at` if nothing ends there.
  """
  part = data[at - near : at + 1]
  ends = np.flatnonzero(part[:-1] == 10)
  if ends.size:
    return at - near + int(ends[-1]) + 1
  for back in range(min(near, 4)):
    if part[-1 - back] & 0xC0 != 0x80:  # The first byte of a character.
      return at - back
  return at


def by_position(data, start: int, stop: int, split: str) -> tuple[int, int]:
  """The part of a document that belongs to a split.

  Cuts are moved back to the end of a line, by at most 1 % of the document and
  at most 64 KiB.

  Args:
    data: Sliceable bytes as a uint8 array.
    start: First byte of the document.
    stop: End of the document.
    split: Which part.

  Returns:
    First byte and end of the part; it may be empty in tiny documents.
  """
  check_split(split)
  size = stop - start
  near = min(1 << 16, size // 100)
  inner = [cut_near(data, start + int(size * share), near) for share in _SHARES]
  cuts = [start, *inner, stop]
  number = SPLITS.index(split)
  return cuts[number], cuts[number + 1]
