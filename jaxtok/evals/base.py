# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The protocol of evals.

An eval's `Config` has `every_steps: int` and `split: str`, and
`make(context) -> Eval`. Evals accumulate sums and weights only, and return
plain floats: `{'bpb': 2.31, 'bpb_se': 0.02, 'bytes': 65536, ...}`. They also
return what identifies the text they were measured on: `corpus` (a hash string)
and `bytes`, so that runs on different text are never compared.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Context:
  """What an eval may use.

  Attributes:
    tokenizer: The run's tokenizer.
    batches: `batches(split, max_bytes)` iterates once over the first
      `max_bytes` source bytes of a split, in document order, in batches of
      one shape, the last one padded; already placed on the devices. 0 means
      all. The limit counts bytes, not rows: rows hold different text with
      different tokenizers.
    corpus_id: `corpus_id(split, max_bytes)` identifies that text: a short hash
      of its documents' bytes, independent of the tokenizer.
    objective: The run's objective, for held-out losses.
    workdir: Where samples and plots go.
    left_out: `left_out(split, max_bytes)` is the number of records of that text
      which fit into no row.
  """

  tokenizer: Any
  batches: Callable[[str, int], Iterator[dict[str, Any]]]
  corpus_id: Callable[[str, int], str]
  objective: Any
  workdir: Any
  left_out: Callable[[str, int], int] = lambda split, max_bytes: 0

  def first_documents(
    self, split: str, max_bytes: int
  ) -> Iterator[Int[np.ndarray, 'n']]:
    """The ids of each row's first document, without special tokens."""
    special = list(self.tokenizer.special.ids())
    for batch in self.batches(split, max_bytes):
      tokens = np.asarray(batch['tokens_bt'])
      documents = np.asarray(batch['segment_ids_bt'])
      for row, document in zip(tokens, documents, strict=True):
        ids = row[document == 1]
        yield ids[~np.isin(ids, special)]


class Eval(Protocol):
  """Measures a model; `rng` is a `jax.random.key`."""

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]: ...
