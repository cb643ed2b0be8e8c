# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The batch: a dict of arrays with a fixed list of keys.

Rows are made on the host; objectives and evals read nothing but these keys.
`num_bytes_bt[b, t]` is the number of *source* bytes charged to the target at
that place (0 for special tokens and padding), so that

  bits per byte = sum(nats * loss_mask) / ln 2 / sum(num_bytes).
"""

import numpy as np

Batch = dict  # str -> jax.Array or np.ndarray, keys as in `KEYS`.

# Key -> (dtype, rank). The first six are present in every text batch.
KEYS: dict[str, tuple[str, int]] = {
  'tokens_bt': ('int32', 2),
  'targets_bt': ('int32', 2),
  'loss_mask_bt': ('float32', 2),
  'segment_ids_bt': ('int32', 2),
  'positions_bt': ('int32', 2),
  'num_bytes_bt': ('int32', 2),
  'image_byxc': ('float32', 4),
  'video_bpyxc': ('float32', 5),
  'audio_bt': ('float32', 2),
  'features_btd': ('float32', 3),
  'labels_b': ('int32', 1),
  'rewards_b': ('float32', 1),
  'context_bs': ('int32', 2),
  'context_segment_ids_bs': ('int32', 2),
}

TEXT_KEYS = tuple(KEYS)[:6]


def validate(batch: Batch) -> None:
  """Checks keys, dtypes, ranks and the agreement of batch sizes.

  Segment ids count documents of a row from 1; 0 marks padding.

  Raises:
    ValueError: If the batch breaks the contract; the message names the key.
  """
  if unknown := sorted(set(batch) - set(KEYS)):
    raise ValueError(
      f'batch has keys {unknown}, which no objective may read. Allowed: '
      f'{", ".join(KEYS)}.'
    )
  for key, value in batch.items():
    dtype, rank = KEYS[key]
    if np.dtype(value.dtype) != np.dtype(dtype) or value.ndim != rank:
      raise ValueError(
        f'batch[{key!r}] is {value.dtype} of rank {value.ndim}; it must be '
        f'{dtype} of rank {rank}.'
      )
  sizes = {key: value.shape[0] for key, value in batch.items()}
  if len(set(sizes.values())) > 1:
    raise ValueError(f'batch sizes differ between keys: {sizes}.')
