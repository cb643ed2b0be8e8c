# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What encoder and decoder must agree on besides the model."""

import dataclasses
from typing import Any

MAX_SYMBOLS = {16: 64, 32: 128, 64: 256, 128: 512}
CLOSE_RULES = ('cell', 'delay', 'greedy_zero_pad')


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowFormat:
  """What encoder and decoder must agree on besides the model.

  Attributes:
    window_bits: W: 16, 32, 64 or 128.
    close_rule: 'cell', 'delay' or 'greedy_zero_pad'.
    max_symbols: Most symbols in a window; 0 means the default for W.
    reset_every: The model is reset at every so-many-th window of a text; 0
      means never. Words then decode only after the ones before them.
  """

  window_bits: int = 16
  close_rule: str = 'cell'
  max_symbols: int = 0
  reset_every: int = 1

  def __post_init__(self):
    if self.window_bits not in MAX_SYMBOLS:
      raise ValueError(
        f'window_bits={self.window_bits} must be 16, 32, 64 or 128. Windows of '
        'other sizes (24, for replication) are coded by entropy.reference.'
      )
    if self.close_rule not in CLOSE_RULES:
      raise ValueError(
        f'close_rule={self.close_rule!r} must be one of {CLOSE_RULES}.'
      )
    if self.max_symbols == 0:
      limit = MAX_SYMBOLS[self.window_bits]
      object.__setattr__(self, 'max_symbols', limit)
    if not 0 < self.max_symbols < 1 << 15:
      raise ValueError(f'max_symbols={self.max_symbols} must be in 1..32767.')
    if self.reset_every < 0:
      raise ValueError(f'reset_every={self.reset_every} must be >= 0.')

  @property
  def num_limbs(self) -> int:
    return self.window_bits // 16

  @property
  def is_lossless(self) -> bool:
    return self.close_rule != 'greedy_zero_pad'

  @property
  def is_finite(self) -> bool:
    """Whether all words can be listed, so that a dictionary can code them."""
    return self.window_bits == 16 and self.reset_every == 1 and self.is_lossless

  @property
  def carries_model(self) -> bool:
    """Whether the model's state survives the end of a window."""
    return self.reset_every != 1

  def resets_before(self, count: Any) -> Any:
    """Whether the model is reset before the window of this number (or array
    of numbers), counted from the start of the text."""
    return (count % max(self.reset_every, 1) == 0) & (self.reset_every > 0)
