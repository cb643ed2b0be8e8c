# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Denoisers: functions from tokens to logits of the token at each place.

They are pytrees, so that models inside them are arguments of jitted functions.
For guidance and shifted logits see `pretrained`, for caches `block_cache`.
Axes: b rows, t positions, w positions of a window, v vocabulary.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.cache import overwrite
from jaxtok.diffusion import samplers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OfModel:
  """The logits of a sequence model without a causal mask.

  Attributes:
    graph: `nnx.split(model)[0]`, static.
    params: `nnx.split(model)[1]`.
    segment_ids_bt: Padding (0) and documents of the rows; None means one.
    mask: Replaces the model's own, e.g. `nn.block_masks.BlockCausal`.
  """

  graph: Any = dataclasses.field(metadata=dict(static=True))
  params: Any
  segment_ids_bt: Any = None
  mask: Any = None

  @classmethod
  def make(
    cls, model: Any, segment_ids_bt: Any = None, mask: Any = None
  ) -> 'OfModel':
    """Wraps an `nnx` model."""
    return cls(*nnx.split(model), segment_ids_bt, mask)

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    model = nnx.merge(self.graph, self.params)
    output = model(tokens_bt, segment_ids=self.segment_ids_bt, mask=self.mask)
    return model.logits(output.hidden_btd)

  def init_cache(self, tokens_bt: Int[Array, 'b t']) -> overwrite.Overwrite:
    """See `block_cache.Windowed`."""
    model = nnx.merge(self.graph, self.params)
    return overwrite.Overwrite.of(model.init_cache(*tokens_bt.shape))

  def window(
    self,
    tokens_bw: Int[Array, 'b w'],
    cache: overwrite.Overwrite,
    start: Int[Array, ''] | int,
    *,
    offset: Int[Array, ''] | int,
    size: int,
  ) -> tuple[Float[Array, 'b s v'], overwrite.Overwrite]:
    """See `block_cache.Windowed`."""
    model = nnx.merge(self.graph, self.params)
    segment_ids_bw = None
    if self.segment_ids_bt is not None:
      segment_ids_bw = jax.lax.dynamic_slice_in_dim(
        self.segment_ids_bt, start, tokens_bw.shape[1], axis=1
      )
    return logits_in_window(
      model,
      tokens_bw,
      cache.at(start),
      offset=offset,
      size=size,
      segment_ids=segment_ids_bw,
      mask=self.mask,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Timed(OfModel):
  """`OfModel` of a model that is told the time, for `first_hitting`."""

  def __call__(
    self, tokens_bt: Int[Array, 'b t'], times_b: Float[Array, 'b']
  ) -> Float[Array, 'b t v']:
    model = nnx.merge(self.graph, self.params)
    output = model(
      tokens_bt,
      segment_ids=self.segment_ids_bt,
      mask=self.mask,
      context=times_b,
    )
    return model.logits(output.hidden_btd)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BehindPadding:
  """The logits of a sequence model on rows that begin with padding.

  A row is padding, a prompt and an answer; the run of `pad_id` that it begins
  with is not seen. Positions count columns, which a model with relative
  positions does not notice.

  Attributes:
    model: A bidirectional `SequenceModel`, e.g. `pretrained.Aligned` for
      Dream's.
    prompt_len: Positions before the answer, padding among them; static.
    pad_id: A token that no prompt begins with, e.g. the mask; static.
  """

  model: Any
  prompt_len: int = dataclasses.field(metadata=dict(static=True))
  pad_id: int = dataclasses.field(metadata=dict(static=True))

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    return self.answer_logits(tokens_bt, 0)

  def answer_logits(
    self, tokens_bt: Int[Array, 'b t'], prompt_len: int
  ) -> Float[Array, 'b s v']:
    """See `samplers.answer_logits`: none are made for a prompt."""
    is_prompt_t = jnp.arange(tokens_bt.shape[1]) < self.prompt_len
    is_pad_bt = (tokens_bt == self.pad_id) & is_prompt_t
    seen_bt = jnp.cumsum(~is_pad_bt, axis=1) > 0
    output = self.model(tokens_bt, segment_ids=seen_bt.astype(jnp.int32))
    return self.model.logits(output.hidden_btd[:, prompt_len:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OpenRows:
  """A denoiser that leaves out rows in which nothing is masked any more.

  Rows of a batch are done after different numbers of calls, and the loop goes
  on for the slowest. Here open rows are moved to the front and the denoiser is
  called on the smallest of a few numbers of rows that holds them: all, a half,
  a quarter and so on, each compiled once. What done rows get has no meaning;
  samplers write nothing there.

  Rows must not depend on their place in the batch: a denoiser that holds an
  array for each row is refused if it is known (`OfModel.segment_ids_bt`). A
  batch that is split over devices would be sent around.

  Attributes:
    denoiser: Logits of whole rows from their tokens.
    mask_id: Stands where something is masked; static.
    prompt_len: Positions before the answer, in which it does not count; static.
    halvings: How often the batch is halved; static.
  """

  denoiser: Any
  mask_id: int = dataclasses.field(metadata=dict(static=True))
  prompt_len: int = dataclasses.field(metadata=dict(static=True))
  halvings: int = dataclasses.field(default=3, metadata=dict(static=True))

  def sizes(self, num_rows: int) -> list[int]:
    """Numbers of rows that the denoiser is compiled for, smallest first."""
    if self.halvings < 0:
      raise ValueError(f'OpenRows: halvings={self.halvings} must be >= 0.')
    return sorted({-(-num_rows // 2**i) for i in range(self.halvings + 1)})

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    """See the class.

    Raises:
      ValueError: If the denoiser holds an array for each row.
    """
    return self._of_open(self.denoiser, tokens_bt)

  def answer_logits(
    self, tokens_bt: Int[Array, 'b t'], prompt_len: int
  ) -> Float[Array, 'b s v']:
    """See `samplers.answer_logits`; raises what `__call__` does."""
    return self._of_open(
      lambda x: samplers.answer_logits(self.denoiser, x, prompt_len), tokens_bt
    )

  def _of_open(self, logits_of, tokens_bt):
    if getattr(self.denoiser, 'segment_ids_bt', None) is not None:
      raise ValueError(
        f'OpenRows: denoiser={type(self.denoiser).__name__} has segment_ids_bt '
        'of each row of the batch, which stay where they are when rows are '
        'moved. Use it as it is, or BehindPadding.'
      )
    num_rows = tokens_bt.shape[0]
    is_open_b = (tokens_bt[:, self.prompt_len :] == self.mask_id).any(-1)
    order_b = jnp.argsort(~is_open_b, stable=True)

    def first(size, tokens_bt):
      if size == num_rows:
        return logits_of(tokens_bt)
      rows = order_b[:size]
      logits = logits_of(tokens_bt[rows])
      zero = jnp.zeros((num_rows, *logits.shape[1:]), logits.dtype)
      return zero.at[rows].set(logits)

    sizes = self.sizes(num_rows)
    index = jnp.searchsorted(jnp.asarray(sizes), is_open_b.sum())
    branches = [functools.partial(first, size) for size in sizes]
    return jax.lax.switch(index, branches, tokens_bt)


def logits_in_window(
  model: Any,
  tokens_bw: Int[Array, 'b w'],
  cache: overwrite.Overwrite,
  *,
  offset: Int[Array, ''] | int,
  size: int,
  **options: Any,
) -> tuple[Float[Array, 'b s v'], overwrite.Overwrite]:
  """Runs the model on a window; logits of `size` positions from `offset` on."""
  output = model(tokens_bw, cache=cache, **options)
  hidden_bsd = jax.lax.dynamic_slice_in_dim(
    output.hidden_btd, offset, size, axis=1
  )
  return model.logits(hidden_bsd), output.cache
