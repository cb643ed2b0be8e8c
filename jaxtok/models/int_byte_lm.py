# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains `entropy.integer_model.IntByteLM`, the byte model of exact coders.

The same dilated convolutions in float32, with every weight and activation
rounded to the grid of the integer model and gradients passed straight through
(Bengio et al. 2013, arXiv:1308.3432). Grids are powers of two and sums stay
below 2**24 steps, so this model computes the integers of the exported one
exactly. With `is_quantized=False` nothing is rounded: the float twin that the
integers are compared with.

Token ids are those of `tokenizers.bytes`: 0..255 bytes, 257 starts a document.
A document's end is predicted as the next one's start; that is the exported
model's EOS. In training, random places are treated like the start of a window:
what came before is hidden, and the token is replaced by the start symbol, so
that the model knows the middle of a text without its beginning.

Axes: b rows, t positions, d width, v vocabulary, s slots of a cache.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.entropy import integer_model, quantize
from jaxtok.models import base

VOCAB_SIZE = 259  # Of `tokenizers.bytes`: bytes, pad, bos, eos.
_BOS = 257
_NEVER = -1e9  # Logit of ids that are no target.
_LOGIT_SCALE = 6  # Logits are multiples of 2**-6 bit.


@configclass
class Config:
  """Hyper-parameters of `ByteTwin`.

  Scales are base-2 logarithms of steps per unit: with `state_scale=5` states
  are multiples of 1/32 between -127/32 and 127/32.
  """

  vocab_size: int = 0  # 0 means the tokenizer's; at most 259.
  dim: int = 128  # Width d.
  num_layers: int = 6  # Layer i looks back 2**i places.
  state_scale: int = 5
  gate_scale: int = 5
  weight_scale: int = 8
  head_scale: int = 6
  is_quantized: bool = True  # False trains the float twin.
  reset_rate: float = 0.06  # Places where windows start, in training.
  reset_rows: float = 0.5  # Share of the rows that have such places.

  def __post_init__(self):
    if not 1 <= self.dim <= integer_model.MAX_DIM:
      raise ValueError(
        f'dim={self.dim} must be in 1..{integer_model.MAX_DIM}, so that sums '
        'are exact.'
      )
    if not 1 <= self.num_layers <= 10:
      raise ValueError(f'num_layers={self.num_layers} must be in 1..10.')
    for name in ('reset_rate', 'reset_rows'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'{name}={getattr(self, name)} must be in [0, 1].')
    if self.vocab_size > VOCAB_SIZE:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be at most {VOCAB_SIZE}: this is '
        'a model of bytes. Use tokenizers.bytes.Config().'
      )
    if min(self.shifts) < 0:
      raise ValueError(
        f'the scales give shifts {self.shifts}, which must be >= 0. Raise '
        'weight_scale or head_scale.'
      )

  @property
  def shifts(self) -> tuple[int, int, int]:
    """The integer model's s, u and v."""
    return (
      self.state_scale + self.weight_scale - self.gate_scale,
      self.gate_scale + self.weight_scale - self.state_scale,
      self.state_scale + self.head_scale - _LOGIT_SCALE,
    )

  def make(self, rngs: nnx.Rngs) -> 'ByteTwin':
    """Builds the model with random parameters."""
    return ByteTwin(self, rngs=rngs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenCache:
  """All tokens so far, of which the model reads the last 2**layers.

  Attributes:
    tokens_bs: int32.
    segment_ids_bs: int32.
    length_b: Tokens appended; more than there are slots after an overflow.
  """

  tokens_bs: Any
  segment_ids_bs: Any
  length_b: Any

  @property
  def max_len(self) -> int:
    return self.tokens_bs.shape[1]

  @property
  def overflow_b(self) -> Bool[Array, 'b']:
    return self.length_b > self.max_len

  def truncate(self, length_b: Int[Array, 'b'] | int) -> 'TokenCache':
    """Forgets the tokens of each row from `length_b` on."""
    length_b = jnp.minimum(self.length_b, length_b)
    return dataclasses.replace(self, length_b=length_b)

  def gather(self, rows: Int[Array, 'n']) -> 'TokenCache':
    """The given rows, in the given order."""
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), self)

  def append(
    self, tokens_bt: Int[Array, 'b t'], segment_ids_bt: Int[Array, 'b t']
  ) -> 'TokenCache':
    """Adds tokens to each row; what does not fit is dropped."""
    rows_b1 = jnp.arange(tokens_bt.shape[0])[:, None]
    t = tokens_bt.shape[1]
    slots_bt = self.length_b[:, None] + jnp.arange(t)
    put = lambda x, new: x.at[rows_b1, slots_bt].set(new, mode='drop')
    return TokenCache(
      put(self.tokens_bs, tokens_bt),
      put(self.segment_ids_bs, segment_ids_bt),
      self.length_b + t,
    )

  def last(self, num: int) -> tuple[Array, Array]:
    """The last `num` tokens and segments; segment -1 before the first."""
    index_bt = self.length_b[:, None] - num + jnp.arange(num)
    take = lambda x: jnp.take_along_axis(x, jnp.maximum(index_bt, 0), axis=1)
    segments_bt = jnp.where(index_bt >= 0, take(self.segment_ids_bs), -1)
    return take(self.tokens_bs), segments_bt


class ByteTwin(nnx.Module):
  """The model in float32, on or off the integers' grid."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config, dim = config, config.dim
    num, symbols = config.num_layers, quantize.NUM_SYMBOLS

    def param(*shape, std, axes):
      value = jax.random.normal(rngs.params(), shape) * std
      return nnx.Param(value, axes=axes)

    self.embed = param(
      integer_model.NUM_INPUTS, dim, std=0.5, axes=('vocab', 'embed')
    )
    layer_axes = ('layers', 'embed', 'mlp')
    self.mix = param(
      num, 2 * dim, dim, std=1 / math.sqrt(2 * dim), axes=layer_axes
    )
    self.bias = nnx.Param(jnp.zeros((num, dim)), axes=('layers', 'mlp'))
    self.out = param(
      num, dim, dim, std=1 / math.sqrt(dim * num), axes=layer_axes
    )
    self.head = param(
      dim, symbols, std=1 / math.sqrt(dim), axes=('embed', 'vocab')
    )
    self.head_bias = nnx.Param(jnp.zeros(symbols), axes=('vocab',))

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: TokenCache | None = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions.

    Args:
      tokens_bt: Ids of `tokenizers.bytes`.
      positions: Not needed: the model knows distances only.
      segment_ids: Documents of a packed row; none reads another.
      context: Must be None.
      cache: Earlier tokens of each row.
      mask: Must be None: the model is causal.
      rng: In training, draws where windows start.
    """
    del positions
    if context is not None or mask is not None:
      raise ValueError('context and mask must be None: this model has neither.')
    num_new = tokens_bt.shape[1]
    if segment_ids is None:
      segment_ids = jnp.ones_like(tokens_bt)
    segment_ids = jnp.broadcast_to(segment_ids, tokens_bt.shape)
    if cache is not None:
      cache = cache.append(tokens_bt, segment_ids)
      past = 1 << self.config.num_layers
      tokens_bt, segment_ids = cache.last(past + num_new)
    starts_bt = _starts(segment_ids) | (tokens_bt == _BOS)
    if rng is not None:
      starts_bt |= self._random_starts(rng, starts_bt.shape)
    hidden_btd = self._hidden(tokens_bt, starts_bt)[:, -num_new:]
    return base.Output(hidden_btd=hidden_btd, cache=cache)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Log-probabilities in nats, up to a constant, of the tokenizer's ids."""
    bits_btv = self.symbol_logits(hidden_btd)
    never = jnp.full_like(bits_btv[..., :1], _NEVER)
    bytes_btv, end = bits_btv[..., :256], bits_btv[..., 256:]
    all_btv = jnp.concatenate([bytes_btv, never, end, never], axis=-1)
    size = self.config.vocab_size or VOCAB_SIZE
    return all_btv[..., :size] * math.log(2)

  def symbol_logits(
    self, hidden_btd: Float[Array, 'b t d']
  ) -> Float[Array, 'b t v']:
    """Logits of the 257 symbols, in bits."""
    c = self.config
    head_dv = self._weights(self.head, c.head_scale)
    bias_v = self._bias(self.head_bias, c.state_scale + c.head_scale)
    bits_btv = hidden_btd.astype(jnp.float32) @ head_dv + bias_v
    return self._round(bits_btv, _LOGIT_SCALE)

  def init_cache(
    self, batch_size: int, max_len: int, dtype: str = ''
  ) -> TokenCache:
    """An empty cache for `max_len` tokens per row."""
    del dtype  # It holds token ids.
    empty = jnp.zeros((batch_size, max_len), jnp.int32)
    return TokenCache(empty, empty, jnp.zeros(batch_size, jnp.int32))

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """Matmul FLOPs of one forward pass (2 per multiply-add), by part."""
    c, rows = self.config, shape.b * shape.t
    layer = 2.0 * rows * c.dim * c.dim * c.num_layers
    head = 2.0 * rows * c.dim * quantize.NUM_SYMBOLS
    return {'mix': 2 * layer, 'out': layer, 'head': head}

  def export(self) -> integer_model.IntByteLM:
    """The integer model, with CDFs from the same integers as these logits."""
    c = self.config
    ints = lambda x, scale, limit=127: np.asarray(
      _grid(x[...], scale, limit) * 2.0**scale
    )
    weights = lambda x, scale: ints(x, scale).astype(np.int8)
    s, u, v = c.shifts
    bias = lambda x, scale: ints(x, scale, integer_model.BIAS_LIMIT)
    mix_scale = c.state_scale + c.weight_scale
    head_scale = c.state_scale + c.head_scale
    return integer_model.check(
      integer_model.IntByteLM(
        embed_vd=weights(self.embed, c.state_scale),
        mix_led=weights(self.mix, c.weight_scale),
        bias_ld=bias(self.bias, mix_scale).astype(np.int32),
        out_ldd=weights(self.out, c.weight_scale),
        head_dv=weights(self.head, c.head_scale),
        head_bias_v=bias(self.head_bias, head_scale).astype(np.int32),
        shifts_l2=np.tile(np.array([[s, u]], np.int32), (c.num_layers, 1)),
        head_shift=np.int32(v),
      )
    )

  def _hidden(self, tokens_bt, starts_bt) -> Float[Array, 'b t d']:
    c = self.config
    window_bt = jnp.cumsum(starts_bt, axis=1)
    inputs_bt = jnp.where(tokens_bt < 256, tokens_bt, quantize.EOS)
    inputs_bt = jnp.where(starts_bt, integer_model.START, inputs_bt)
    h_btd = self._weights(self.embed, c.state_scale)[inputs_bt]
    mix, out = (self._weights(x, c.weight_scale) for x in (self.mix, self.out))
    bias = self._bias(self.bias, c.state_scale + c.weight_scale)
    for layer in range(c.num_layers):
      past_btd = _delay(h_btd, window_bt, 1 << layer)
      both_bte = jnp.concatenate([h_btd, past_btd], axis=-1)
      gate_btd = jax.nn.relu(both_bte @ mix[layer] + bias[layer])
      gate_btd = self._round(gate_btd, c.gate_scale, 127)
      added_btd = self._round(gate_btd @ out[layer], c.state_scale)
      h_btd = self._clip(h_btd + added_btd, c.state_scale)
    return h_btd

  def _random_starts(self, rng: Array, shape: tuple[int, int]) -> Array:
    rows_rng, places_rng = jax.random.split(rng)
    c = self.config
    rows_b1 = jax.random.bernoulli(rows_rng, c.reset_rows, (shape[0], 1))
    return rows_b1 & jax.random.bernoulli(places_rng, c.reset_rate, shape)

  def _weights(self, param: nnx.Param, scale: int) -> Array:
    if not self.config.is_quantized:
      return param[...]
    return _grid(param[...], scale, 127)

  def _bias(self, param: nnx.Param, scale: int) -> Array:
    if not self.config.is_quantized:
      return param[...]
    return _grid(param[...], scale, integer_model.BIAS_LIMIT)

  def _round(self, x: Array, scale: int, limit: int | None = None) -> Array:
    return _grid(x, scale, limit) if self.config.is_quantized else x

  def _clip(self, x: Array, scale: int) -> Array:
    if not self.config.is_quantized:
      return x
    return jnp.clip(x, -127 / 2**scale, 127 / 2**scale)


def _grid(x: Array, scale: int, limit: int | None) -> Array:
  """The nearest multiple of 2**-scale, halves up; gradients pass through.

  Beyond `limit` steps x is clipped, and its gradient is zero.
  """
  if limit is not None:
    x = jnp.clip(x, -limit / 2**scale, limit / 2**scale)
  rounded = jnp.floor(x * 2**scale + 0.5) / 2**scale
  # x - x is exactly 0, so that the value is exactly on the grid.
  return jax.lax.stop_gradient(rounded) + (x - jax.lax.stop_gradient(x))


def _starts(segment_ids_bt: Int[Array, 'b t']) -> Bool[Array, 'b t']:
  """Where a document starts; the first place of a row always does."""
  changes = segment_ids_bt[:, 1:] != segment_ids_bt[:, :-1]
  return jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)


def _delay(
  h_btd: Float[Array, 'b t d'], window_bt: Int[Array, 'b t'], num: int
) -> Float[Array, 'b t d']:
  """The states `num` places earlier, zeros outside the window."""
  t = h_btd.shape[1]
  past_btd = jnp.pad(h_btd, ((0, 0), (num, 0), (0, 0)))[:, :t]
  before_bt = jnp.pad(window_bt, ((0, 0), (num, 0)), constant_values=-1)[:, :t]
  return jnp.where((before_bt == window_bt)[..., None], past_btd, 0)
