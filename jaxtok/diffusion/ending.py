# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""When a sample ends before its canvas does.

Block diffusion writes texts of any length (Arriola et al. 2025,
arXiv:2503.09573): after each block a row ends if the block has an end of text,
or if the last `window` tokens repeat each other so much that their unigram
entropy is below a limit.

Axes: b rows, t positions of the whole row, w positions of the window.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.diffusion import samplers


@dataclasses.dataclass(frozen=True)
class Ending:
  """Fills up rows that have ended; all fields are static.

  Attributes:
    eos: Token that ends a text and fills what is behind it.
    min_entropy: Nats; rows below it end with the block. 0 turns it off. The
      paper takes 4 with GPT-2's tokens; text in bytes has about 3.
    window: Tokens that the entropy is of; until a row has so many, it is not
      asked. At most the length of the answer.
  """

  eos: int
  min_entropy: float = 0.0
  window: int = 256

  def __post_init__(self):
    if self.eos < 0 or self.min_entropy < 0 or self.window < 1:
      raise ValueError(
        f'eos={self.eos} and min_entropy={self.min_entropy} must be >= 0, '
        f'window={self.window} >= 1.'
      )

  def __call__(
    self,
    canvas: samplers.Canvas,
    stop: Int[Array, ''] | int,
    prompt_len: int,
  ) -> samplers.Canvas:
    """The canvas with `eos` behind the end of rows that have ended.

    Args:
      canvas: All positions before `stop` are revealed.
      stop: First position that has not been decoded.
      prompt_len: Positions in which an end of text does not count; static.

    Raises:
      ValueError: If no row can ever have `window` tokens.
    """
    length = canvas.tokens_bt.shape[1] - prompt_len
    if self.min_entropy and self.window > length:
      raise ValueError(
        f'window={self.window} exceeds the length={length} of the answer, so '
        f'that min_entropy={self.min_entropy} would never be asked. Lower the '
        'window or lengthen the answer.'
      )
    index_t = jnp.arange(canvas.tokens_bt.shape[1])
    is_eos_bt = (canvas.tokens_bt == self.eos) & (index_t >= prompt_len)
    is_eos_bt &= (index_t < stop) & ~canvas.is_masked_bt
    is_behind_bt = (jnp.cumsum(is_eos_bt, axis=1) - is_eos_bt) > 0
    if self.min_entropy:
      start = jnp.maximum(stop - self.window, 0)
      tokens_bw = jax.lax.dynamic_slice_in_dim(
        canvas.tokens_bt, start, self.window, axis=1
      )
      is_dull_b = entropy(tokens_bw) < self.min_entropy
      is_dull_b &= stop - prompt_len >= self.window
      is_behind_bt |= is_dull_b[:, None] & (index_t >= stop)
    return dataclasses.replace(
      canvas,
      tokens_bt=jnp.where(is_behind_bt, self.eos, canvas.tokens_bt),
      is_masked_bt=canvas.is_masked_bt & ~is_behind_bt,
    )


def entropy(tokens_bw: Int[Array, 'b w']) -> Float[Array, 'b']:
  """Entropy of the frequencies of tokens in each row, nats."""
  same_bww = tokens_bw[:, :, None] == tokens_bw[:, None, :]
  return -jnp.log(same_bww.mean(-1, dtype=jnp.float32)).mean(-1)


def is_text(
  tokens_bt: Int[Array, 'b t'], eos: int, prompt_len: int = 0
) -> Bool[Array, 'b t']:
  """True before the first end of text behind the prompt."""
  is_answer_t = jnp.arange(tokens_bt.shape[1]) >= prompt_len
  return jnp.cumsum((tokens_bt == eos) & is_answer_t, axis=1) == 0
