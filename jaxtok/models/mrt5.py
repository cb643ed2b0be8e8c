# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MrT5: a ByT5 whose encoder deletes most of its positions.

Kallini et al. 2025, arXiv:2410.20771, section 3. Before one early block of the
encoder a gate says which positions survive; later blocks and the decoder's
cross-attention see only these, at the distances that they had:

  bytes -> blocks 0..l-1 -> gate -> blocks l.. -> decoder's cross-attention

In training deletion is soft: the gate's value, from k = -30 to 0, is added to
the scores of the position as a key. In evaluation and generation it is hard.
All attention is `softmax1`, `exp(s) / (1 + sum exp(s))`, without which a gate
that is low everywhere would change nothing. The slot of the gate also takes the
shorteners of the paper's baselines (`nn.shorteners`, `nn.pooling_shorteners`);
without one the model is the ByT5 that it is compared with.

`score_weight` penalises attention scores above `score_limit`, an option of the
paper's code for training from scratch: its weight is 0.5 there.

The number of survivors differs from row to row; there is room for as many as
`capacity` says. Evaluation loses none: where they do not fit, the whole length
is taken. Speed-ups follow the row with most survivors (`longest_kept`).

Axes: b rows, t positions of the decoder, s of the encoder, w survivors, d
width.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int

from jaxtok.cache import kv
from jaxtok.config import configclass
from jaxtok.models import adoption, base, interop, transformer
from jaxtok.nn import (
  block,
  cross,
  masks,
  ragged,
  score_excess,
  segmenters,
  shorteners,
)
from jaxtok.objectives.base import Mean

DELETIONS = ('soft', 'hard', 'off')


@configclass
class Config(transformer.Config):
  """Hyper-parameters of `MrT5`; start from `Config.byt5(...)`."""

  shortener: Any = dataclasses.field(
    default_factory=shorteners.Gate
  )  # Or None.
  shorten_at: int = 3  # Blocks l of the encoder that see all positions.
  softmax_one: bool = True  # In all attention; False for weights of ByT5.
  evaluation: str = 'hard'  # Deletion without an rng: 'hard', 'soft', 'off'.
  hard_share: float = 0.0  # Of training steps that delete hard.
  hard_keeps_bias: bool = False  # Survivors keep their gate, as softly.
  # Of the mean excess of attention scores, without the gate, over the limit:
  # encoder from block l on, and cross-attention. In training; 0: not computed.
  score_weight: float = 0.0
  score_limit: float = 5.0
  capacity: ragged.Capacity = dataclasses.field(
    default_factory=lambda: ragged.Capacity(policy='bucket')
  )

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.shorten_at < max(self.num_encoder_layers, 1):
      raise ValueError(
        f'shorten_at={self.shorten_at} must be in [0, num_encoder_layers='
        f'{self.num_encoder_layers}): the blocks from there on are shortened.'
      )
    if self.evaluation not in DELETIONS:
      raise ValueError(
        f'evaluation={self.evaluation!r} must be one of {", ".join(DELETIONS)}.'
      )
    if not 0 <= self.hard_share <= 1:
      raise ValueError(f'hard_share={self.hard_share} must be in [0, 1].')
    if self.score_weight < 0 or self.score_limit < 0:
      raise ValueError(
        f'score_weight={self.score_weight} must be >= 0 (0 turns the penalty '
        f'off), and score_limit={self.score_limit} too.'
      )

  def block_config(self, has_cross: bool) -> block.Config:
    """See `transformer.Config`."""
    config = super().block_config(has_cross)
    attention = dataclasses.replace(
      config.attention, softmax_one=self.softmax_one
    )
    return dataclasses.replace(config, attention=attention)

  def check_tokenizer(self, tokenizer: Any) -> None:
    """Raises a ValueError if ids are other bytes than the shortener reads."""
    rule = getattr(self.shortener, 'segmenter', None)
    segmenters.check_offset('model.shortener.segmenter', rule, tokenizer)

  def make(self, rngs: nnx.Rngs) -> 'MrT5':
    """Builds the model with random parameters.

    Raises:
      ValueError: If it has no vocabulary or no encoder.
    """
    if self.vocab_size < 1 or self.num_encoder_layers < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} and num_encoder_layers='
        f'{self.num_encoder_layers} must be >= 1 to build a model. Begin with '
        'mrt5.Config.byt5(vocab_size=384, ...).'
      )
    return MrT5(self, rngs=rngs)


def adopt(
  model: transformer.Transformer, *, rngs: nnx.Rngs, **fields: Any
) -> 'MrT5':
  """A MrT5 with the weights of a T5 or ByT5, and a new shortener.

  Args:
    model: An encoder-decoder, e.g. from `interop.load`.
    rngs: For the shortener.
    **fields: Of `Config`; with `softmax_one=False` and `evaluation='off'` it
      computes what the model does.

  Raises:
    ValueError: If the model has no decoder, or its weights do not fit the
      config.
  """
  is_t5 = isinstance(model, transformer.Transformer)
  if not is_t5 or not model.config.is_encoder_decoder:
    raise ValueError(
      f'model={type(model).__name__} must be an encoder-decoder, such as a T5 '
      'of interop.load, to become a MrT5.'
    )
  kept = _fields(model.config)
  adopted = Config(**kept | fields).make(rngs)
  found = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
  adoption.put(adopted, found, new=('shortener',), kept=kept, given=fields)
  return adopted


def _fields(config: transformer.Config) -> dict[str, Any]:
  """What a config has in common with that of a T5."""
  names = [f.name for f in dataclasses.fields(transformer.Config)]
  return {name: getattr(config, name) for name in names}


@dataclasses.dataclass(frozen=True)
class _Early:
  """The encoder's row where it is shortened; see `shorteners.Shortened`."""

  x_bsd: Any
  positions_bs: Any
  segment_ids_bs: Any  # None: one document.
  short: Any
  rng: Any  # Of the blocks.


class MrT5(transformer.Transformer):
  """An encoder-decoder with a shortened encoder; see the module."""

  config: Config

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    super().__init__(config, rngs=rngs)
    has_one = config.shortener is not None
    self.shortener = (
      config.shortener.make(config.dim, rngs) if has_one else None
    )

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: kv.KVCache | None = None,
    mask: masks.Mask | None = None,
    rng: Array | None = None,
    deletion: str = '',
  ) -> base.Output:
    """Computes the states of all positions; see `Transformer`.

    Args:
      tokens_bt: What the decoder reads.
      positions: See `Transformer`.
      segment_ids: See `Transformer`.
      context: See `Transformer`; `cross.Encoded` is taken as it is.
      cache: See `Transformer`.
      mask: See `Transformer`.
      rng: Given in training.
      deletion: 'soft', 'hard' or 'off'; '' is soft with an rng, else the
        config's `evaluation`. Shorteners that pool know no 'soft'.

    Returns:
      The states; in `aux` the penalty of the shortener and its metrics.
    """
    decoder_rng, encoder_rng, draw = block.split(rng, 3)
    decode = functools.partial(
      super().__call__,
      tokens_bt,
      positions=positions,
      segment_ids=segment_ids,
      cache=cache,
      mask=mask,
      rng=decoder_rng,
    )
    if context is None or isinstance(context, cross.Encoded):
      return decode(context=context)
    early, mode = self._early(context, encoder_rng), self._mode(deletion, rng)
    sizes = self._sizes(early, rng is not None)
    soft = lambda: self._finish(decode, early, mode)
    hard = lambda: self._hard(decode, early, sizes, cache is not None)
    share = 0.0 if deletion or rng is None else self.config.hard_share
    if mode == 'soft' and share:
      is_hard = jax.random.bernoulli(draw, share)
      output = jax.lax.cond(is_hard, hard, soft)
    else:
      output = hard() if mode == 'hard' else soft()
    aux = {} if mode == 'off' else self._aux(early, sizes[-1])
    if 'excess_b' in output.aux:
      aux = self._with_excess(aux, early, output.aux['excess_b'])
    return dataclasses.replace(output, aux=aux)

  def encode(
    self,
    tokens_bs: Int[Array, 'b s'],
    *,
    positions: Int[Array, '#b s'] | None = None,
    segment_ids: Int[Array, '#b s'] | None = None,
    rng: Array | None = None,
    deletion: str = '',
  ) -> cross.Encoded:
    """Runs the encoder; see `__call__` for `deletion`.

    Returns:
      Room for s states, survivors in front; the document of an empty place
      is 0.
    """
    source = base.Source(tokens_bs, segment_ids, positions)
    early, mode = self._early(source, rng), self._mode(deletion, rng)
    if mode != 'hard':
      return self._late(early, mode)[0]
    return self._widest(early, self._sizes(early, rng is not None))

  def _mode(self, deletion: str, rng: Any) -> str:
    if deletion not in ('', *DELETIONS):
      raise ValueError(
        f"deletion={deletion!r} must be '' or one of {', '.join(DELETIONS)}."
      )
    if self.shortener is None:
      return 'off'
    mode = deletion or ('soft' if rng is not None else self.config.evaluation)
    return 'hard' if mode == 'soft' and not self.shortener.is_soft else mode

  def _sizes(self, early: _Early, is_training: bool) -> tuple[int, ...]:
    """Room for survivors, ascending; in evaluation also the whole length."""
    s = early.x_bsd.shape[1]
    sizes = set(self.config.capacity.sizes(s))
    return tuple(sorted(sizes if is_training else sizes | {s}))

  def _early(self, context: Any, rng: Any) -> _Early:
    """The blocks that see all positions, and the shortener's decision."""
    is_source = isinstance(context, base.Source)
    source = context if is_source else base.Source(context)
    tokens_bs, segment_ids_bs = source.tokens_bs, source.segment_ids_bs
    embed_rng, own_rng, rng = block.split(rng, 3)
    shape, positions_bs = tokens_bs.shape, source.positions_bs
    if positions_bs is None:
      positions_bs = jnp.arange(shape[1])[None]
    shared = self._context(
      self.encoder.bias,
      shape[1],
      positions_bs,
      masks.Segments(),
      segment_ids_bs,
    )
    x_bsd = self._embed(tokens_bs, positions_bs, embed_rng)
    x_bsd, _ = self.encoder.run(
      x_bsd, shared, stop=self.config.shorten_at, rng=rng
    )
    short = None
    if self.shortener is not None:
      short = self.shortener(
        x_bsd,
        tokens_bs=tokens_bs,
        segment_ids_bs=_documents(segment_ids_bs, shape),
        rng=own_rng,
      )
    return _Early(x_bsd, positions_bs, segment_ids_bs, short, rng)

  def _late(
    self, early: _Early, mode: str, size: int = 0
  ) -> tuple[cross.Encoded, Any]:
    """The other blocks, over `size` survivors (static) if deletion is hard.

    Also how far their scores exceed the limit, summed over blocks [b], or None.
    """
    x_bwd, positions_bw = early.x_bsd, early.positions_bs
    segment_ids_bw, bias_bw, short = early.segment_ids_bs, None, early.short
    if mode == 'soft':
      x_bwd, bias_bw = short.x_bsd, short.bias_bs
    elif mode == 'hard':
      shape = x_bwd.shape[:2]
      kept = ragged.compact(short.x_bsd, short.keep_bs, size)
      take = lambda x: ragged.gather(x, kept.index_bw)
      x_bwd = kept.values_bwd
      positions_bw = take(jnp.broadcast_to(positions_bw, shape))
      segment_ids_bw = take(_documents(segment_ids_bw, shape))
      if self.config.hard_keeps_bias and short.bias_bs is not None:
        bias_bw = take(short.bias_bs)
    shared = self._context(
      self.encoder.bias,
      x_bwd.shape[1],
      positions_bw,
      masks.Segments(),
      segment_ids_bw,
    )
    own_bias, excess_b = shared.bias, None
    if bias_bw is not None:
      shared = dataclasses.replace(shared, bias=_add(shared.bias, bias_bw))
    given = dict(start=self.config.shorten_at, rng=early.rng)
    if self._measures(early.rng):
      x_bwd, excess_b = score_excess.run(
        self.encoder,
        x_bwd,
        shared,
        bias=own_bias,
        limit=self.config.score_limit,
        **given,
      )
    else:
      x_bwd, _ = self.encoder.run(x_bwd, shared, **given)
    norm = self.encoder.norm
    x_bwd = x_bwd if norm is None else norm(x_bwd)
    return cross.Encoded(x_bwd, segment_ids_bw, bias_bw), excess_b

  def _measures(self, rng: Any) -> bool:
    return rng is not None and self.config.score_weight > 0

  def _decode(self, x_btd, shared, cache, cross_kvs, rng) -> base.Output:
    if cache is not None or not self._measures(rng):
      return super()._decode(x_btd, shared, cache, cross_kvs, rng)
    x_btd, excess_b = score_excess.run(
      self.stack,
      x_btd,
      shared,
      cross_kvs=cross_kvs,
      rng=rng,
      limit=self.config.score_limit,
    )
    norm = self.stack.norm
    x_btd = x_btd if norm is None else norm(x_btd)
    return base.Output(x_btd, aux={'excess_b': excess_b})

  def _finish(self, decode, early, mode, size=0) -> base.Output:
    """The other blocks and the decoder; in `aux` their mean excess, if any."""
    encoded, excess_b = self._late(early, mode, size)
    output, c = decode(context=encoded), self.config
    if excess_b is None or 'excess_b' not in output.aux:
      return output
    num = c.num_encoder_layers - c.shorten_at + c.num_layers
    mean_b = (excess_b + output.aux['excess_b']) / num
    return dataclasses.replace(output, aux={'excess_b': mean_b})

  def _hard(self, decode, early, sizes, has_cache) -> base.Output:
    """The output of `decode` with the least size that holds all survivors."""
    if has_cache:  # Its arrays have one size.
      return decode(context=self._widest(early, sizes))
    return ragged.dispatch(
      lambda size: self._finish(decode, early, 'hard', size),
      sizes,
      early.short.keep_bs.sum(axis=1),
    )

  def _widest(self, early, sizes) -> cross.Encoded:
    """The survivors, with empty places up to the largest size."""

    def call(size):
      encoded, _ = self._late(early, 'hard', size)
      pad = lambda x: jnp.pad(
        x, [(0, 0), (0, sizes[-1] - size), *[(0, 0)] * (x.ndim - 2)]
      )
      return jax.tree.map(pad, encoded)

    return ragged.dispatch(call, sizes, early.short.keep_bs.sum(axis=1))

  def _aux(self, early: _Early, room: int) -> dict[str, Any]:
    """See `models.base.Output`; `room` is that of hard deletion."""
    short, ids_bs = early.short, early.segment_ids_bs
    valid_bs = _documents(ids_bs, short.keep_bs.shape) != 0
    kept_b = short.keep_bs.sum(axis=1).astype(jnp.float32)
    is_row_b = valid_bs.any(axis=1).astype(jnp.float32)
    metrics = {
      # Over all rows of a batch: what the hardware has to wait for.
      'longest_kept': Mean(kept_b.max() * is_row_b, is_row_b),
      'emptied_rows': Mean((kept_b == 0) * is_row_b, is_row_b),
      'overflow': Mean(jnp.maximum(kept_b - room, 0.0), kept_b),
    }
    return {
      'penalty_bt': short.penalty[None, None],
      'metrics': short.metrics | metrics,
    }

  def _with_excess(self, aux, early, excess_b) -> dict[str, Any]:
    """The penalty on scores added to each row's targets, and its metric."""
    shape, weight = early.x_bsd.shape[:2], self.config.score_weight
    is_row_b = (_documents(early.segment_ids_bs, shape) != 0).any(axis=1)
    is_row_b = is_row_b.astype(jnp.float32)
    metrics = {'score_excess': Mean(excess_b * is_row_b, is_row_b)}
    return {
      'penalty_bt': weight * excess_b[:, None] + aux.get('penalty_bt', 0.0),
      'metrics': aux.get('metrics', {}) | metrics,
    }

  def advance(self, metrics: dict[str, Mean]) -> None:
    """Lets the shortener's controller see a training step."""
    if hasattr(self.shortener, 'advance'):
      self.shortener.advance(metrics)

  def new_parts(self, source: Any) -> tuple[str, ...]:
    """The shortener, if weights come from a T5 or ByT5; see `models.base`."""
    if type(source) is not transformer.Config:
      return ()
    changes = interop.differences(
      source, transformer.Config(**_fields(self.config))
    )
    if changes:
      raise ValueError(
        f'its weights would compute something else here:\n{changes}'
      )
    return ('shortener',)

  def flops(
    self, shape: base.Shape, kept: float | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass, by part; see `Transformer.flops`.

    Args:
      shape: Sizes of the call.
      kept: Share of the encoder's positions that survive; None means as in
        training, which computes all of them if deletion is soft, and scores
        twice if they are penalised.
    """
    c, parts, size = self.config, super().flops(shape), shape.s
    late = c.num_encoder_layers - c.shorten_at
    if kept is not None:
      size = math.ceil(kept * shape.s)
    elif self.shortener is not None and not self.shortener.is_soft:
      size = c.capacity.sizes(max(shape.s, 1))[-1]
    if kept is None and c.score_weight:
      pairs = late * size**2 + c.num_layers * shape.t * size
      parts['scores'] = 2.0 * shape.b * pairs * c.num_heads * c.head_width
    if self.shortener is None:
      return parts
    rows, rows_w = shape.b * shape.s, shape.b * size
    count = lambda *args: sum(c.block_config(False).flops(*args).values())
    cross_parts = c.block_config(True).flops(
      shape.b * shape.t, shape.kv or shape.t, rows_w, size
    )
    return parts | {
      'encoder': c.shorten_at * count(rows, shape.s)
      + late * count(rows_w, size)
      + self.shortener.flops(rows),
      'cross': c.num_layers * cross_parts['cross'],
    }


def _documents(segment_ids_bs: Any, shape: tuple[int, int]) -> Any:
  """The document of each position, in full."""
  if segment_ids_bs is None:
    return jnp.ones(shape, jnp.int32)
  return jnp.broadcast_to(segment_ids_bs, shape)


def _add(bias: Any, bias_bs: Any) -> Any:
  """A bias of scores [#b, n, s, s] (or None) and one of keys."""
  b, s = bias_bs.shape
  bias_b1ss = jnp.broadcast_to(bias_bs[:, None, None], (b, 1, s, s))
  return bias_b1ss if bias is None else bias + bias_b1ss
