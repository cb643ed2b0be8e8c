# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Several corpora as one: each split holds that split of all of them."""

import dataclasses
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import cache, stored


@configclass
class Joined:
  """The documents of several sources, one source after the other."""

  sources: tuple[Any, ...] = dataclasses.field(default=())  # Source configs.

  def __post_init__(self):
    if not self.sources:
      raise ValueError('sources is empty. Give source configs, e.g. Stdlib().')

  def make(self, split: str) -> stored.Stored:
    """The documents of a split.

    Raises:
      TypeError: If a source is not kept as ranges of bytes.
      ValueError: If a source has no documents for the split.
    """
    arrays, ranges, names, keys = [], [], [], []
    for config in self.sources:
      part = config.make(split)
      if not isinstance(part, stored.Stored):
        raise TypeError(
          f'{type(config).__name__} cannot be joined: its documents are not '
          'ranges of bytes. Use Files, Jsonl or Stdlib.'
        )
      shift = np.array([len(arrays), 0, 0])
      ranges.append(part.ranges + shift)
      arrays += part.arrays
      names += part.names or [str(i) for i in range(len(part))]
      keys.append(part.key)
    key = cache.digest(*keys)
    return stored.Stored(arrays, np.concatenate(ranges), names, key)
