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

Differs from the paper: encoder and decoder are attention (in a window) with
MLPs, not Mamba-2; all learning rates are the same; initial scales are those of
`models.level`; the ratio loss is of each row, not of the batch.

Axes: b rows, t positions of a stage, s stored ones, w chunks, d width of a
stage, D of the next one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, level
from jaxtok.nn import (
  block,
  ema,
  embed,
  linear,
  masks,
  ragged,
  rate_control,
  rope,
  segmenters,
)
from jaxtok.objectives.base import Mean

# Probabilities in the average; so even a sure border leaves a gradient.
_MARGIN = 1e-4


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
  window: int = 0  # Positions seen by encoders and decoders; 0 means all.
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
  remat: bool = False
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
    if min(self.dims) < 1 or any(d % self.head_dim for d in self.dims):
      raise ValueError(
        f'dims={self.dims} must be multiples of head_dim={self.head_dim}.'
      )
    if min(self.num_layers) < 1:
      raise ValueError(f'num_layers={self.num_layers} must be >= 1.')
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

  def make(self, rngs: nnx.Rngs) -> 'HNet':
    """Builds the model with random parameters."""
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. Set it '
        "to the tokenizer's vocab_size."
      )
    return HNet(self, rngs=rngs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
  """What a stage says of its chunks.

  Attributes:
    lost_bt: Positions whose chunk, here or in a later stage, found no room.
    penalty_b: The weighted ratio losses of this stage and the later ones.
    units_b: Number of chunks, one array per stage.
  """

  lost_bt: Any
  penalty_b: Any
  units_b: tuple[Any, ...] = ()


def ste(c: Float[Array, '*n']) -> Float[Array, '*n']:
  """1 exactly, with the gradient of `c`."""
  return 1 + (c - jax.lax.stop_gradient(c))


class Main(nnx.Module):
  """The innermost network."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.level = level.Level(config.level(config.num_stages), rngs=rngs)

  def __call__(self, x_btd, *, rng, **kwargs):
    """Like a `Stage`, without chunks of its own."""
    y_btd, cache = self.level(x_btd, mask=masks.Causal(), rng=rng, **kwargs)
    b, t = x_btd.shape[:2]
    return y_btd, cache, Report(jnp.zeros((b, t), bool), jnp.zeros(b))

  def init_cache(self, batch_size: int, max_len: int) -> Any:
    return self.level.config.init_cache(batch_size, max_len)

  def flops(self, b: int, t: int, keys: int) -> dict[str, float]:
    return {'main': float(self.level.config.flops(b * t, keys))}


class Stage(nnx.Module):
  """Encoder, gate, what is inside, average and decoder; see the module."""

  def __init__(self, config: Config, stage: int, *, rngs: nnx.Rngs):
    self.config, self.stage = config, stage
    dim, inner = config.dims[stage : stage + 2]
    self.before = level.Level(config.level(stage), rngs=rngs)
    self.gate = segmenters.CosineGate(dim)
    pad = lambda n: jax.random.normal(rngs.params(), (n,)) * config.embed_std
    self.pad = (
      nnx.Param(pad(inner - dim), axes=('embed',)) if inner > dim else None
    )
    is_last = stage + 1 == config.num_stages
    self.inner = (
      Main(config, rngs=rngs)
      if is_last
      else Stage(config, stage + 1, rngs=rngs)
    )
    axes = ('embed', 'mlp')
    self.residual = linear.Linear((dim,), (dim,), axes=axes, rngs=rngs)
    self.residual.kernel = nnx.Param(jnp.zeros((dim, dim)), axes=axes)
    self.after = level.Level(config.level(stage), rngs=rngs)
    self.rate = rate_control.Ratio(
      length=config.lengths[stage], weight=config.ratio_weight
    ).make()

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    *,
    positions_bt: Int[Array, '#b t'],
    segment_ids_bt: Int[Array, 'b t'],
    cache: nested.NestedCache | None = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any, Report]:
    """States behind the decoder, the longer cache, and what became of chunks.

    Args:
      x_btd: Residual stream.
      positions_bt: For the rotation.
      segment_ids_bt: Documents; 0 is padding.
      cache: Of this stage.
      rng: Turns dropout, and the limit of room, on.
    """
    rngs = block.split(rng, 3)
    slots_bt, local = None, (None, None)
    if cache is not None:
      local = cache.local
      zeros_bt = jnp.zeros(x_btd.shape[:2], jnp.int32)
      cache, slots_bt = cache.reserve(zeros_bt, segment_ids_bt)
    shared = dict(
      positions_bt=positions_bt,
      segment_ids_bt=segment_ids_bt,
      mask=self._mask(),
    )
    x_btd, first = self.before(x_btd, cache=local[0], rng=rngs[0], **shared)
    decision, is_first_bt, cache = self._decide(
      x_btd, segment_ids_bt, cache, slots_bt
    )
    z_btd, cache, report = self._inside(
      x_btd, decision, is_first_bt, segment_ids_bt, cache, slots_bt, rngs[1]
    )
    prob_bt = decision.prob_bt
    sure_bt = jnp.where(decision.start_bt, prob_bt, 1 - prob_bt)
    y_btd = z_btd * ste(sure_bt)[..., None]
    y_btd = y_btd + self.residual(x_btd.astype(jnp.float32))
    y_btd, second = self.after(
      y_btd.astype(x_btd.dtype), cache=local[1], rng=rngs[2], **shared
    )
    if cache is not None:
      cache = dataclasses.replace(cache, local=(first, second))
    return y_btd, cache, self._add(report, decision, segment_ids_bt, rng)

  def _mask(self) -> masks.Mask:
    window = self.config.window
    return masks.Causal() & masks.Window(window) if window else masks.Causal()

  def _decide(self, x_btd, segment_ids_bt, cache, slots_bt):
    """The gate's decision, where documents begin, and the cache with x."""
    before_b1, before_b1d = jnp.zeros_like(segment_ids_bt[:, :1]), x_btd[:, :1]
    if cache is not None:
      cache = cache.put('hidden', slots_bt, x_btd)
      before_b1d = ragged.gather(cache.states['hidden'], slots_bt[:, :1] - 1)
      before_b1 = ragged.gather(cache.segment_ids_bs, slots_bt[:, :1] - 1)
    join = lambda x, y: jnp.concatenate([x, y], axis=1)
    documents_bt = join(before_b1, segment_ids_bt)
    decision = self.gate(join(before_b1d, x_btd), documents_bt)
    is_first_bt = segmenters.first(documents_bt, documents_bt)
    decision, is_first_bt = jax.tree.map(
      lambda x: x[:, 1:], (decision, is_first_bt)
    )
    return decision, is_first_bt, cache

  def _inside(
    self, x_btd, decision, is_first_bt, segment_ids_bt, cache, slots_bt, rng
  ):
    """Averages of the inner network at each position, cache, inner report."""
    start_bt, t = decision.start_bt, x_btd.shape[1]
    prob_bt = jnp.clip(decision.prob_bt, _MARGIN, 1 - _MARGIN)
    prob_bt = jnp.where(is_first_bt, 1.0, prob_bt)
    unit_bt = ragged.segment_ids(start_bt)
    trunk = None if cache is None else cache.trunk
    if cache is not None:
      unit_bt = unit_bt + trunk.length_b[:, None]

    def call(size):
      if size == 0:
        z_btd = ragged.gather(cache.states['average'], unit_bt)
        return z_btd, cache, trunk, self._nothing(x_btd)
      kept = ragged.compact(x_btd, start_bt, size)
      places_bw, last_bd = jnp.arange(size)[None], None
      if trunk is not None:
        places_bw = trunk.length_b[:, None] + places_bw
        average_bwd = cache.states['average']
        last_bd = ragged.gather(average_bwd, places_bw[:, :1] - 1)[:, 0]
      v_bwd, longer, report = self.inner(
        self._widen(kept.values_bwd),
        positions_bt=places_bw,
        segment_ids_bt=ragged.gather(segment_ids_bt, kept.index_bw),
        cache=trunk,
        rng=rng,
      )
      # Slots without a chunk have rate 0: they carry the average on.
      rate_bw = ragged.gather(prob_bt, kept.index_bw)
      z_bwd = ema.smooth(v_bwd[..., : x_btd.shape[2]], rate_bw, last_bd)
      lost_bt = ragged.gather(report.lost_bt, ragged.segment_ids(start_bt))
      report = dataclasses.replace(report, lost_bt=lost_bt)
      if cache is None:
        return ragged.expand(z_bwd, unit_bt), None, None, report
      longer_cache = cache.put('average', places_bw, z_bwd)
      z_btd = ragged.gather(longer_cache.states['average'], unit_bt)
      return z_btd, longer_cache, longer, report

    sizes = level.unit_sizes(self.config.capacity, t, rng is not None, cache)
    z_btd, cache, trunk, report = ragged.dispatch(
      call, sizes, start_bt.sum(axis=1)
    )
    if cache is not None:
      cache = cache.add_units(start_bt, slots_bt, trunk)
    return z_btd, cache, report

  def _widen(self, x_bwd):
    if self.pad is None:
      return x_bwd
    pad_d = self.pad[...].astype(x_bwd.dtype)
    pad_bwd = jnp.broadcast_to(pad_d, (*x_bwd.shape[:2], pad_d.shape[0]))
    return jnp.concatenate([x_bwd, pad_bwd], axis=-1)

  def _nothing(self, x_btd) -> Report:
    """The inner report of a step in which no chunk begins."""
    b, t = x_btd.shape[:2]
    later = self.config.num_stages - self.stage - 1
    return Report(
      jnp.zeros((b, t), bool), jnp.zeros(b), (jnp.zeros(b),) * later
    )

  def _add(self, report, decision, segment_ids_bt, rng) -> Report:
    """The report of this stage, given that of the inner one."""
    room = self.config.capacity.sizes(segment_ids_bt.shape[1])[-1]
    lost_bt = report.lost_bt
    if rng is not None:
      lost_bt = lost_bt | (ragged.segment_ids(decision.start_bt) >= room)
    loss_b = self.rate.loss(
      decision.start_bt, decision.prob_bt, segment_ids_bt != 0
    )
    units_b = decision.start_bt.sum(axis=1).astype(jnp.float32)
    return Report(
      lost_bt,
      report.penalty_b + self.rate.coef() * loss_b,
      (units_b, *report.units_b),
    )

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache; each position may begin a chunk."""
    local = self.before.config.init_cache(batch_size, max_len)
    shape = (batch_size, max_len, self.config.dims[self.stage])
    states = {
      'hidden': jnp.zeros(shape, self.config.dtype),
      'average': jnp.zeros(shape),
    }
    inner = self.inner.init_cache(batch_size, max_len)
    return nested.NestedCache.empty((local, local), inner, states)

  def flops(self, b: int, t: int, keys: int) -> dict[str, float]:
    """Matmul FLOPs of this stage and the inner ones, by part."""
    c, stage = self.config, self.stage
    sight = min(keys, c.window or keys)
    room, room_kv = c.capacity.sizes(t)[-1], c.capacity.sizes(keys)[-1]
    # Two maps of the gate and the residual one.
    parts = {
      f'stage_{stage}': 2.0 * self.before.config.flops(b * t, sight),
      f'gate_{stage}': 3 * 2.0 * b * t * c.dims[stage] ** 2,
    }
    return parts | self.inner.flops(b, room, room_kv)

  def advance(self) -> None:
    """Counts a step of training."""
    self.rate.update(jnp.zeros(()))
    if isinstance(self.inner, Stage):
      self.inner.advance()


class HNet(nnx.Module):
  """A language model over bytes; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    self.embed = embed.Embed(
      c.vocab_rows, c.dims[0], std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    self.stage = Stage(c, 0, rngs=rngs)
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
      mask=self.stage._mask(),
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

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Local attention counts the keys of the window; each next stage runs on the
    room for chunks, `capacity` of the positions.
    """
    c, rows = self.config, shape.b * shape.t
    parts = self.stage.flops(shape.b, shape.t, shape.kv or shape.t)
    return parts | {'head': 2.0 * rows * c.dims[0] * c.vocab_rows}


def _aux(report: Report, documents_bt, is_training: bool) -> dict[str, Any]:
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
