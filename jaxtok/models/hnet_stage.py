# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A stage of `hnet`: encoder, gate, what is inside, average, decoder.

Hwang et al. 2025, arXiv:2507.07955, section 2.2. What is inside is another
stage or the main network; both are called alike.

Axes: b rows, t positions of a stage, s stored ones, w chunks, d width of a
stage, D of the next one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.cache import nested
from jaxtok.models import level
from jaxtok.nn import (
  block,
  ema,
  linear,
  masks,
  ragged,
  rate_control,
  segmenters,
)

# Probabilities in the average; so even a sure border leaves a gradient.
_MARGIN = 1e-4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
  """What a stage says of its chunks.

  Attributes:
    lost_bt: Positions whose chunk, here or in a later stage, found no room.
    penalty_b: The weighted ratio losses of this stage and the later ones: in
      training that of the batch, for each row, else that of the row.
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

  def __init__(self, config: Any, *, rngs: nnx.Rngs):
    self.level = level.Level(config.level(config.num_stages), rngs=rngs)

  def __call__(self, x_btd, *, rng, **kwargs):
    """Like a `Stage`, without chunks of its own."""
    y_btd, cache = self.level(x_btd, mask=masks.Causal(), rng=rng, **kwargs)
    b, t = x_btd.shape[:2]
    return y_btd, cache, Report(jnp.zeros((b, t), bool), jnp.zeros(b))

  def init_cache(self, batch_size: int, max_len: int) -> Any:
    return self.level.config.init_cache(batch_size, max_len)

  def flops(
    self, b: int, t: int, keys: int, kept: tuple[float, ...] | None = None
  ) -> dict[str, float]:
    del kept  # It has no chunks.
    return {'main': float(self.level.config.flops(b * t, keys))}


class Stage(nnx.Module):
  """See the module; `config` is a `hnet.Config`, `stage` counts from 0."""

  def __init__(self, config: Any, stage: int, *, rngs: nnx.Rngs):
    self.config, self.stage = config, stage
    dim, inner = config.dims[stage : stage + 2]
    self.before = config.outer(stage, rngs)
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
    self.after = config.outer(stage, rngs)
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
      mask=self.mask(),
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

  def mask(self) -> masks.Mask:
    """What positions see in encoder and decoder."""
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
      decision.start_bt,
      decision.prob_bt,
      segment_ids_bt != 0,
      by_row=rng is None,
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

  def flops(
    self, b: int, t: int, keys: int, kept: tuple[float, ...] | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of this stage and the inner ones, by part.

    Args:
      b: Rows.
      t: Positions of this stage.
      keys: Keys of each.
      kept: Chunks per position of this stage, here and in the inner ones; None
        means the room for them.
    """
    c, stage = self.config, self.stage
    sight = min(keys, c.window or keys)
    share, inner = None, None
    if kept is not None:
      share, inner = kept[0], tuple(x / kept[0] for x in kept[1:])
    room, room_kv = c.capacity.room(t, share), c.capacity.room(keys, share)
    # Two maps of the gate and the residual one.
    parts = {
      f'stage_{stage}': 2.0 * self.before.config.flops(b * t, sight),
      f'gate_{stage}': 3 * 2.0 * b * t * c.dims[stage] ** 2,
    }
    return parts | self.inner.flops(b, room, room_kv, inner)

  def advance(self) -> None:
    """Counts a step of training."""
    self.rate.update(jnp.zeros(()))
    if isinstance(self.inner, Stage):
      self.inner.advance()
