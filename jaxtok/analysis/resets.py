# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What resetting M1 costs: compression by how often it forgets.

Lester et al. 2024, arXiv:2404.03626: a model that remembers earlier windows
compresses better, and what it leaves is harder to learn. The coder itself is
reset at every window in each case.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtok.analysis import trivial
from jaxtok.entropy.base import NextByteModel
from jaxtok.entropy.formats import WindowFormat
from jaxtok.tokenizers import neural


@dataclasses.dataclass(frozen=True)
class Resets:
  """Compression by `reset_every`.

  Attributes:
    reset_every: Windows between resets [k]; 0 means never.
    bytes_per_token: [k].
    uniform_bpb: Bits per byte of a model that knows nothing [k].
    unigram_bpb: And of one that knows frequencies [k].
  """

  reset_every: np.ndarray
  bytes_per_token: np.ndarray
  uniform_bpb: np.ndarray
  unigram_bpb: np.ndarray


def measure(
  model: NextByteModel,
  documents: Sequence[bytes],
  reset_every: Sequence[int] = (1, 2, 0),
  *,
  window_bits: int = 16,
  token_bits: int = 8,
) -> Resets:
  """Tokenizes documents with each setting.

  Args:
    model: M1.
    documents: Texts.
    reset_every: Settings to compare.
    window_bits: Of each window.
    token_bits: Of each token.
  """
  found = [
    trivial.measure(
      neural.NeuralCompressionTokenizer(
        model,
        WindowFormat(window_bits=window_bits, reset_every=every),
        token_bits=token_bits,
      ),
      documents,
    )
    for every in reset_every
  ]
  column = lambda name: np.array([getattr(x, name) for x in found])
  return Resets(
    np.asarray(reset_every),
    column('bytes_per_token'),
    column('uniform_bpb'),
    column('unigram_bpb'),
  )
