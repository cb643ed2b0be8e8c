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

  Also that other prompts in the same shape, of which a model may make other
  units, need no other program.

  Args:
    model: See `models.base`.
    rows: Prompts of different lengths.
    num: Tokens to generate.

  Returns:
    The new tokens [b, num].
  """
  prompts, lengths = autoregressive.pad_prompts(rows)
  call = lambda *args: np.asarray(
    autoregressive.generate(model, *args, num_tokens=num).tokens
  )
  new = call(prompts, lengths)
  programs = autoregressive._start._cache_size()
  # Another order, and prompts of which all but the longest are cut.
  np.testing.assert_array_equal(call(prompts[::-1], lengths[::-1])[::-1], new)
  call(prompts, np.where(lengths == max(lengths), lengths, min(lengths)))
  assert autoregressive._start._cache_size() == programs
  whole = np.zeros((len(rows), prompts.shape[1] + num), np.int32)
  for row, prompt, n, continued in zip(
    whole, prompts, lengths, new, strict=True
  ):
    row[: n + num] = [*prompt[:n], *continued]
  best = nnx.jit(lambda model, x: model.logits(model(x).hidden_btd).argmax(-1))
  for row, n, continued in zip(best(model, whole), lengths, new, strict=True):
    np.testing.assert_array_equal(continued, row[n - 1 : n - 1 + num])
  return new
