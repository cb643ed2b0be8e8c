# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""H-Net: chunks whose borders are learned with everything else.

Hwang et al. 2025, arXiv:2507.07955, section 2. In each stage a gate compares
the states of neighbours (`segmenters.CosineGate`); where they differ a chunk
begins, and the state there goes on to the next stage. Its results come back as
a moving average over the chunks, weighted by the gate's probabilities:

  x -> encoder -> x' ---------- W_res x' ------------------(+)-> decoder -> y
                  | at borders                              |
                  pad -> next stage, or main network -> average -> ste(c)

A gradient reaches the gate by the average and by `ste(c)`, a factor of 1 whose
gradient is that of the probability of what was decided. A loss steers how long
chunks are (`rate_control.RatioLoss`). The first position of a document begins
a chunk, with probability 1 exactly, so nothing is averaged over documents.

Encoders and decoders are layers of Mamba-2, as in the paper, or blocks of
attention (in a window) with MLPs; the main network is of these blocks.

The paper trains outer stages with larger learning rates: `Config.lr_scales`
for `train.optim`.

Differs from the paper: initial scales are those of `models.level`; with several
microbatches the ratio loss is of each of them, not of the batch.

Axes: b rows, t positions of a stage, s stored ones, w chunks, d width of a
stage, D of the next one.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, hnet_stage, level, mamba_level
from jaxtok.nn import (
  block,
  embed,
  linear,
  ragged,
  rate_control,
  rope,
  segmenters,
)
from jaxtok.objectives.base import Mean

MIXERS = ('attention', 'mamba2')


@configclass
class Config:
  """Hyper-parameters of `HNet`; tuples go from bytes to the main network."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dims: tuple[int, ...] = (128, 256)  # Width of each stage, main network last.
  # Of the encoder and again of the decoder of each stage; main network last.
  num_layers: tuple[int, ...] = (2, 4)
  lengths: tuple[float, ...] = (6.0,)  # Wanted positions per chunk, by stage.
  head_dim: int = 64  # Of all stages.
  mixer: str = 'attention'  # Of encoders and decoders; or 'mamba2'.
  state_dim: int = 128  # Of Mamba-2.
  window: int = 0  # Positions seen by attention in them; 0 means all.
  ratio_weight: float = 0.03  # Of the loss that steers the lengths.
  # Room for chunks in training, as a part of each stage's positions; beyond
  # it, targets are left out. Otherwise there is always enough.
  capacity: ragged.Capacity = dataclasses.field(
    default_factory=lambda: ragged.Capacity(policy='ratio', ratio=1 / 3)
  )
  rotary: rope.Config = dataclasses.field(
    default_factory=lambda: rope.Config(fraction=0.5)
  )
  embed_std: float = 0.02
  dropout: float = 0.0
  remat: bool = False  # Of blocks of attention.
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    sizes = (len(self.dims), len(self.num_layers), len(self.lengths) + 1)
    if min(sizes) < 2 or len(set(sizes)) > 1:
      raise ValueError(
        f'dims={self.dims} and num_layers={self.num_layers} must have one '
        f'entry more than lengths={self.lengths}, which has one for each stage.'
      )
    if list(self.dims) != sorted(self.dims):
      raise ValueError(f'dims={self.dims} must not fall: stages get wider.')
    level.check_sizes(self, 'head_dim')
    if min(self.dims) < 1 or any(d % self.head_dim for d in self.dims):
      raise ValueError(
        f'dims={self.dims} must be multiples of head_dim={self.head_dim}.'
      )
    if min(self.num_layers) < 1:
      raise ValueError(f'num_layers={self.num_layers} must be >= 1.')
    if self.mixer not in MIXERS:
      raise ValueError(
        f'mixer={self.mixer!r} must be one of {", ".join(MIXERS)}.'
      )
    if self.window < 0:
      raise ValueError(f'window={self.window} must be >= 0 (0 sees all).')
    for length in self.lengths:
      rate_control.Ratio(length=length)
    linear.check_dtype(self.dtype)

  @property
  def num_stages(self) -> int:
    return len(self.lengths)

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def lr_scales(self, token_bytes: float = 4.6) -> dict[str, float]:
    """Factors of the learning rate by stage; see `train.optim`.

    A learning rate grows with the square root of the positions in a batch, and
    falls with that of the width. Relative to a model of the main network's
    width over tokens, stage s has `token_bytes / (l_1 ... l_s)` times as many
    positions, l being the wanted lengths. (For two stages of 3 public code has
    3.0, 1.7 and 0.9.)

    Args:
      token_bytes: Bytes per token of the model whose learning rate is given.

    Returns:
      By name of parameters: '' for the first stage, 'stage.inner' for what is
      inside, and so on.
    """
    scales, share = {}, token_bytes
    for stage, dim in enumerate(self.dims):
      name = '.'.join(['stage'] + ['inner'] * stage) if stage else ''
      scales[name] = math.sqrt(share * self.dims[-1] / dim)
      if stage < self.num_stages:
        share /= self.lengths[stage]
    return scales

  def level(self, stage: int) -> level.Config:
    """The config of one stack of a stage, or of the main network."""
    return level.Config(
      dim=self.dims[stage],
      num_layers=self.num_layers[stage],
      num_heads=self.dims[stage] // self.head_dim,
      rotary=self.rotary,
      dropout=self.dropout,
      remat=self.remat,
      dtype=self.dtype,
      implementation=self.implementation,
    )

  def outer(self, stage: int, rngs: nnx.Rngs) -> nnx.Module:
    """Encoder or decoder of a stage."""
    if self.mixer == 'attention':
      return level.Level(self.level(stage), rngs=rngs)
    config = mamba_level.Config(
      dim=self.dims[stage],
      num_layers=self.num_layers[stage],
      head_dim=self.head_dim,
      state_dim=self.state_dim,
      dropout=self.dropout,
      dtype=self.dtype,
    )
    return mamba_level.MambaLevel(config, rngs=rngs)

  def make(self, rngs: nnx.Rngs) -> 'HNet':
    """Builds the model with random parameters."""
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. Set it '
        "to the tokenizer's vocab_size."
      )
    return HNet(self, rngs=rngs)


class HNet(nnx.Module):
  """A language model over bytes; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    self.embed = embed.Embed(
      c.vocab_rows, c.dims[0], std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    self.stage = hnet_stage.Stage(c, 0, rngs=rngs)
    self.head = embed.Head(
      c.dims[0], c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
    )

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: nested.NestedCache | None = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions; see `models.base`.

    Without an `rng` (evaluation, generation) no chunk is lost. With one, chunks
    beyond the capacity are, and `aux['target_mask_bt']` is False where a
    position needs one of them. Metrics: `units_per_token` of the first stage,
    `units_per_token_2` of the second.
    """
    level.refuse('HNet', context=context, mask=mask)
    documents_bt = jnp.ones(tokens_bt.shape, jnp.int32)
    if segment_ids is not None:
      documents_bt = jnp.broadcast_to(segment_ids, tokens_bt.shape)
    if positions is None:
      positions = jnp.arange(tokens_bt.shape[1])[None]
      if cache is not None:
        positions = cache.length_b[:, None] + positions
    rngs = block.split(rng, 2)
    x_btd = self.embed(tokens_bt)
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    x_btd = block.dropout(x_btd, self.config.dropout, rngs[0])
    x_btd, cache, report = self.stage(
      x_btd,
      positions_bt=positions,
      segment_ids_bt=documents_bt,
      cache=cache,
      rng=rngs[1],
    )
    return base.Output(
      x_btd, cache, _aux(report, documents_bt, rng is not None)
    )

  def boundaries(
    self,
    tokens_bt: Int[Array, 'b t'],
    segment_ids: Int[Array, '#b t'] | None = None,
  ) -> segmenters.Decision:
    """Where the first stage begins chunks, e.g. to look at them."""
    documents_bt = jnp.ones(tokens_bt.shape, jnp.int32)
    if segment_ids is not None:
      documents_bt = jnp.broadcast_to(segment_ids, tokens_bt.shape)
    x_btd, _ = self.stage.before(
      self.embed(tokens_bt),
      positions_bt=jnp.arange(tokens_bt.shape[1])[None],
      segment_ids_bt=documents_bt,
      mask=self.stage.mask(),
    )
    return self.stage.gate(x_btd, documents_bt)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache for `max_len` tokens per row, all may begin chunks."""
    return self.stage.init_cache(batch_size, max_len)

  def advance(self, metrics: dict[str, Mean]) -> None:
    """Counts a step of training; see `nn.rate_control`."""
    del metrics
    self.stage.advance()

  def flops(
    self, shape: base.Shape, kept: float | Sequence[float] | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Local attention counts the keys of the window; each next stage runs on the
    room for chunks, `capacity` of the positions.

    Args:
      shape: Sizes of the call.
      kept: Chunks per token in place of the room for them, one number for each
        stage, as the metrics `units_per_token`, `units_per_token_2` have them.
    """
    c, rows = self.config, shape.b * shape.t
    shares = None
    if kept is not None:
      shares = (kept,) if isinstance(kept, float | int) else tuple(kept)
      if len(shares) != c.num_stages:
        raise ValueError(
          f'kept={kept} must have a number for each of {c.num_stages} stages.'
        )
    parts = self.stage.flops(shape.b, shape.t, shape.kv or shape.t, shares)
    return parts | {'head': 2.0 * rows * c.dims[0] * c.vocab_rows}


def _aux(
  report: hnet_stage.Report, documents_bt, is_training: bool
) -> dict[str, Any]:
  """`Output.aux`; see `HNet.__call__`."""
  valid_bt = documents_bt != 0
  total_b = valid_bt.sum(axis=1).astype(jnp.float32)
  lost_bt = report.lost_bt & valid_bt
  metrics = {
    'units_per_token' + (f'_{stage}' if stage > 1 else ''): Mean(
      units_b, total_b
    )
    for stage, units_b in enumerate(report.units_b, 1)
  }
  lost_b = lost_bt.sum(axis=1).astype(jnp.float32)
  metrics['lost_targets'] = Mean(lost_b, total_b)
  aux = {'metrics': metrics, 'penalty_bt': report.penalty_b[:, None]}
  return aux | ({'target_mask_bt': ~lost_bt} if is_training else {})
