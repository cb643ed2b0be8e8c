# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of encoder-decoders: what is read, and what is to be written.

  context_bs    what the encoder reads
  tokens_bt     START t a r g e
  targets_bt    t a r g e t

Each row is one document for both sides (number 1; 0 is padding).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtok.data.batch import Batch


@dataclasses.dataclass(frozen=True)
class Pair:
  """One row before padding.

  Attributes:
    source: Ids that the encoder reads, int [s].
    target: Ids that the decoder writes, int [t].
    num_bytes: Source bytes charged to each target, int [t].
  """

  source: np.ndarray
  target: np.ndarray
  num_bytes: np.ndarray


def lay_out(
  pairs: Sequence[Pair | None],
  *,
  source_len: int,
  target_len: int,
  start: int = 0,
  pad: int = 0,
) -> Batch:
  """Pads pairs to a batch.

  Args:
    pairs: The rows; None is a row of padding.
    source_len: Width of the encoder's row.
    target_len: Width of the decoder's row.
    start: What the decoder reads first; T5 takes its pad.
    pad: What the encoder reads behind the end.

  Raises:
    ValueError: If a pair is too long.
  """
  shape, context_shape = (len(pairs), target_len), (len(pairs), source_len)
  batch = {
    'tokens_bt': np.zeros(shape, np.int32),
    'targets_bt': np.zeros(shape, np.int32),
    'loss_mask_bt': np.zeros(shape, np.float32),
    'segment_ids_bt': np.zeros(shape, np.int32),
    'positions_bt': np.tile(
      np.arange(target_len, dtype=np.int32), (shape[0], 1)
    ),
    'num_bytes_bt': np.zeros(shape, np.int32),
    'context_bs': np.full(context_shape, pad, np.int32),
    'context_segment_ids_bs': np.zeros(context_shape, np.int32),
  }
  for i, pair in enumerate(pairs):
    if pair is None:
      continue
    s, t = len(pair.source), len(pair.target)
    if s > source_len or t > target_len:
      raise ValueError(
        f'row {i} has {s} ids to read and {t} to write, but there is room for '
        f'source_len={source_len} and target_len={target_len}. Make it larger.'
      )
    batch['context_bs'][i, :s] = pair.source
    batch['context_segment_ids_bs'][i, :s] = 1
    batch['tokens_bt'][i, :1] = start
    batch['tokens_bt'][i, 1:t] = pair.target[:-1]
    batch['targets_bt'][i, :t] = pair.target
    batch['num_bytes_bt'][i, :t] = pair.num_bytes
    for key in ('loss_mask_bt', 'segment_ids_bt'):
      batch[key][i, :t] = 1
  return batch
