# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Orders of tokens that give every device the same causal work."""

import numpy as np

LAYOUTS = ('contiguous', 'zigzag', 'striped')


def sharded_order(num_tokens: int, num_ranks: int, layout: str) -> np.ndarray:
  """Positions in the order in which they are sharded.

  `x[:, order]`, cut into `num_ranks` equal pieces, gives each rank its tokens;
  `np.argsort(order)` undoes it. Under a causal mask contiguous pieces differ in
  work up to `num_ranks` times; zigzag and striped ones do not.

  Args:
    num_tokens: Length of the sequence.
    num_ranks: Devices.
    layout: 'contiguous'; 'zigzag', rank r holds chunks r and 2 P - 1 - r of
      2 P; or 'striped', rank r holds the positions r, r + P, ...

  Returns:
    int32 `[num_tokens]`.

  Raises:
    ValueError: If the layout is unknown or the tokens do not divide.
  """
  if layout not in LAYOUTS:
    raise ValueError(
      f'layout={layout!r} is unknown; use one of {", ".join(LAYOUTS)}.'
    )
  pieces = num_ranks * (2 if layout == 'zigzag' else 1)
  if num_tokens % pieces:
    raise ValueError(
      f'num_tokens={num_tokens} must be a multiple of {pieces} for '
      f'layout={layout!r} on {num_ranks} ranks.'
    )
  order = np.arange(num_tokens, dtype=np.int32)
  if layout == 'contiguous':
    return order
  if layout == 'striped':
    return order.reshape(-1, num_ranks).T.ravel()
  chunks = order.reshape(2 * num_ranks, -1)
  rank = np.arange(num_ranks)
  pairs = np.stack([rank, 2 * num_ranks - 1 - rank], 1).ravel()
  return chunks[pairs].ravel()
