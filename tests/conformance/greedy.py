# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Greedy generation with a cache against arg max without one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from jaxtok.decoding import autoregressive


def generate(model: Any, rows: Sequence[Any], num: int) -> np.ndarray:
  """Continues prompts, and checks each token by a call over the whole row.

  Args:
    model: See `models.base`.
    rows: Prompts of different lengths.
    num: Tokens to generate.

  Returns:
    The new tokens [b, num].
  """
  prompts, lengths = autoregressive.pad_prompts(rows)
  got = autoregressive.generate(model, prompts, lengths, num_tokens=num)
  new = np.asarray(got.tokens)
  whole = np.zeros((len(rows), prompts.shape[1] + num), np.int32)
  for row, prompt, n, continued in zip(
    whole, prompts, lengths, new, strict=True
  ):
    row[: n + num] = [*prompt[:n], *continued]
  best = nnx.jit(lambda model, x: model.logits(model(x).hidden_btd).argmax(-1))
  for row, n, continued in zip(best(model, whole), lengths, new, strict=True):
    np.testing.assert_array_equal(continued, row[n - 1 : n - 1 + num])
  return new
