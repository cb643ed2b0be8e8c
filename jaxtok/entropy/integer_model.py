# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A byte model in integers only: dilated causal convolutions in int8.

Weights and activations are int8, sums int32, scales powers of two. Nothing is
rounded differently anywhere, so CDFs are the same bit for bit on every device,
for every batch size, and step by step as for a whole text. Each layer reads two
places, `dilation` apart, and adds to the residual stream:

  a = W0 h[t] + W1 h[t - dilation] + b
  g = clip(a >> s, 0, 127)
  h = clip(h + (Wo g >> u), -127, 127)
  z = (Wout h + b_out) >> v        logits in units of 1/64 bit

where x >> s rounds to nearest, (x + 2**(s - 1)) >> s. Dilations are 1, 2, 4,
... so L layers see 2**L symbols, counting the start of a window as one.

Sums stay below 2**24 for widths up to 512, so float32 matmuls of the same
integers are exact too; `matmul='float32'` is for devices without int8 ones.
`models.int_byte_lm` trains it.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Int32, UInt32

from jaxtok.entropy import base, interval, quantize
from jaxtok.entropy.determinism import DeterminismLevel, fingerprint

KIND = 'int-byte-lm-1'
NUM_INPUTS = 258  # Bytes, EOS, and the row that starts a window.
START = 257
MAX_DIM = 512  # Keeps sums exact in float32.
BIAS_LIMIT = 1 << 17
_ROWS = 8  # Rows per pass of `intervals`: bounds memory.

_PARAMS = (
  'embed_vd',
  'mix_led',
  'bias_ld',
  'out_ldd',
  'head_dv',
  'head_bias_v',
  'shifts_l2',
  'head_shift',
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepState:
  """What a model remembers of each lane.

  Attributes:
    ring_bnd: int8, the last `dilation` inputs of each layer, one layer after
      another, each as a ring.
    t_b: Symbols so far.
    h_bd: int8, the final state.
  """

  ring_bnd: Any
  t_b: Any
  h_bd: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IntByteLM:
  """The model; see `entropy.base.NextByteModel`.

  Attributes:
    embed_vd: int8 [258, d].
    mix_led: int8 [layers, 2 d, d]: W0 above W1, inputs first.
    bias_ld: int32 [layers, d].
    out_ldd: int8 [layers, d, d]: Wo.
    head_dv: int8 [d, 257]: Wout.
    head_bias_v: int32 [257].
    shifts_l2: int32 [layers, 2]: s and u.
    head_shift: int32: v.
    matmul: 'int8' or 'float32', static; results are the same.
  """

  embed_vd: Any
  mix_led: Any
  bias_ld: Any
  out_ldd: Any
  head_dv: Any
  head_bias_v: Any
  shifts_l2: Any
  head_shift: Any
  matmul: str = dataclasses.field(metadata=dict(static=True), default='int8')

  level = DeterminismLevel.INTEGER

  @property
  def num_layers(self) -> int:
    return self.mix_led.shape[0]

  @property
  def num_params(self) -> int:
    return sum(np.size(x) for x in self.arrays().values())

  def arrays(self) -> dict[str, Any]:
    """Parameters by name."""
    return {name: getattr(self, name) for name in _PARAMS}

  def fingerprint(self) -> str:
    return self._fingerprint

  @functools.cached_property
  def _fingerprint(self) -> str:
    return fingerprint(KIND, self.arrays())

  def hidden(self, inputs_bt: Int[Array, 'b t']) -> Int8[Array, 'b t d']:
    """Final states of whole rows; nothing is read before their first input."""
    h_btd = jnp.asarray(self.embed_vd)[inputs_bt]
    for layer in range(self.num_layers):
      past_btd = _delay(h_btd, 1 << layer)
      h_btd = self._layer(layer, h_btd, past_btd)
    return h_btd

  def logits(self, h_btd: Int8[Array, '*b d']) -> Int32[Array, '*b v']:
    """Logits of the next symbol, in units of 1/64 bit."""
    sum_btv = self._dot(h_btd, self.head_dv) + self.head_bias_v
    return _round_shift(sum_btv, self.head_shift)

  def _layer(
    self, layer: int, h: Int8[Array, '*b d'], past: Int8[Array, '*b d']
  ) -> Int8[Array, '*b d']:
    shifts_2 = jnp.asarray(self.shifts_l2)[layer]
    both = jnp.concatenate([h, past], axis=-1)
    a = self._dot(both, self.mix_led[layer]) + self.bias_ld[layer]
    g = jnp.clip(_round_shift(a, shifts_2[0]), 0, 127).astype(jnp.int8)
    added = _round_shift(self._dot(g, self.out_ldd[layer]), shifts_2[1])
    return jnp.clip(h + added, -127, 127).astype(jnp.int8)

  def _dot(self, x: Int8[Array, '*b d'], w_de: Any) -> Int32[Array, '*b e']:
    if self.matmul == 'float32':
      # Exact also if the device rounds inputs to bfloat16 or TF32: they are
      # integers below 128.
      product = x.astype(jnp.float32) @ jnp.asarray(w_de, jnp.float32)
      return product.astype(jnp.int32)
    contract = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(
      x, jnp.asarray(w_de), contract, preferred_element_type=jnp.int32
    )

  def init_state(self, batch_size: int) -> StepState:
    dim = self.embed_vd.shape[1]
    num = (1 << self.num_layers) - 1
    empty = StepState(
      jnp.zeros((1, num, dim), jnp.int8),
      jnp.full(1, -1, jnp.int32),
      jnp.zeros((1, dim), jnp.int8),
    )
    first = self.step(empty, jnp.full(1, START, jnp.int32))
    spread = lambda x: jnp.broadcast_to(x, (batch_size, *x.shape[1:]))
    return jax.tree.map(spread, first)

  def step(self, state: StepState, symbol_b: Int[Array, 'b']) -> StepState:
    nobody_b = jnp.zeros(symbol_b.shape, bool)
    return self.follow(state, state, symbol_b, ~nobody_b, nobody_b)

  def follow(
    self,
    state: StepState,
    fresh: StepState,
    symbol_b: Int[Array, 'b'],
    advance_b: Bool[Array, 'b'],
    reset_b: Bool[Array, 'b'],
  ) -> StepState:
    """Steps in some lanes and resets others, without copying rings.

    A reset lane needs `fresh` only where the start of the window was written:
    no layer reads further back than `t_b`.
    """
    t_b, lanes = state.t_b + 1, jnp.arange(symbol_b.shape[0])
    dilation_l = 1 << jnp.arange(self.num_layers)
    slot_bl = dilation_l - 1 + t_b[:, None] % dilation_l
    past_bld = state.ring_bnd[lanes[:, None], slot_bl]
    is_past_bl = t_b[:, None] >= dilation_l
    past_bld = jnp.where(is_past_bl[..., None], past_bld, 0)
    h_bd, inputs = jnp.asarray(self.embed_vd)[symbol_b], []
    for layer in range(self.num_layers):
      inputs.append(h_bd)
      h_bd = self._layer(layer, h_bd, past_bld[:, layer])

    def choose(new, start, old):
      shape = (-1,) + (1,) * (new.ndim - 1)
      advance, reset = advance_b.reshape(shape), reset_b.reshape(shape)
      return jnp.where(reset, start, jnp.where(advance, new, old))

    start_ld = fresh.ring_bnd[:, dilation_l - 1]
    write_bld = choose(jnp.stack(inputs, axis=1), start_ld, past_bld)
    slot_bl = choose(slot_bl, dilation_l - 1, slot_bl)
    writing = base.lanes_of(advance_b | reset_b)[:, None]
    return StepState(
      state.ring_bnd.at[writing, slot_bl].set(write_bld, mode='drop'),
      choose(t_b, fresh.t_b, state.t_b),
      choose(h_bd, fresh.h_bd, state.h_bd),
    )

  def next_cdf(self, state: StepState) -> UInt32[Array, 'b 258']:
    freqs_bv = quantize.freqs_from_logits(self.logits(state.h_bd))
    return quantize.freqs_to_cdf(freqs_bv)

  def intervals(
    self, symbols_bt: Int[Array, 'b t']
  ) -> tuple[UInt32[Array, 'b t'], UInt32[Array, 'b t']]:
    """CDF entries around each symbol, for whole texts at once."""
    inputs_bt = jnp.pad(symbols_bt, ((0, 0), (1, 0)), constant_values=START)

    def of_row(row):
      inputs_t, symbols_t = row
      logits_tv = self.logits(self.hidden(inputs_t[None, :-1])[0])
      freqs_tv = quantize.freqs_from_logits(logits_tv)
      is_before_tv = jnp.arange(quantize.NUM_SYMBOLS) < symbols_t[:, None]
      low_t = jnp.where(is_before_tv, freqs_tv, 0).sum(1, dtype=jnp.uint32)
      return low_t, low_t + interval.take(freqs_tv, symbols_t)

    return jax.lax.map(of_row, (inputs_bt, symbols_bt), batch_size=_ROWS)


def _round_shift(x: Int32[Array, '*b'], shift: Any) -> Int32[Array, '*b']:
  """x / 2**shift, to the nearest integer, halves up; shift 0 is x."""
  return (x + ((1 << shift) >> 1)) >> shift


def _delay(h_btd: Int8[Array, 'b t d'], num: int) -> Int8[Array, 'b t d']:
  """The states `num` places earlier, zeros before the first."""
  return jnp.pad(h_btd, ((0, 0), (num, 0), (0, 0)))[:, : h_btd.shape[1]]


def check(model: IntByteLM) -> IntByteLM:
  """The model, if its shapes, types and sizes are as promised.

  Raises:
    ValueError: If results might not be exact or the arrays do not fit.
  """
  arrays = {k: np.asarray(v) for k, v in model.arrays().items()}
  num, dim = arrays['bias_ld'].shape
  want = {
    'embed_vd': ('int8', (NUM_INPUTS, dim)),
    'mix_led': ('int8', (num, 2 * dim, dim)),
    'bias_ld': ('int32', (num, dim)),
    'out_ldd': ('int8', (num, dim, dim)),
    'head_dv': ('int8', (dim, quantize.NUM_SYMBOLS)),
    'head_bias_v': ('int32', (quantize.NUM_SYMBOLS,)),
    'shifts_l2': ('int32', (num, 2)),
    'head_shift': ('int32', ()),
  }
  for name, (dtype, shape) in want.items():
    found = arrays[name]
    if found.dtype != dtype or found.shape != shape:
      raise ValueError(
        f'{name} is {found.dtype}{found.shape}; it must be {dtype}{shape}.'
      )
    if dtype == 'int8' and found.size and found.min() < -127:
      raise ValueError(f'{name} holds -128; weights are in -127..127.')
  if dim > MAX_DIM:
    raise ValueError(f'dim={dim} must be at most {MAX_DIM} to stay exact.')
  for name in ('bias_ld', 'head_bias_v'):
    if np.abs(arrays[name].astype(np.int64)).max(initial=0) > BIAS_LIMIT:
      raise ValueError(f'{name} must be within +-{BIAS_LIMIT}.')
  for name in ('shifts_l2', 'head_shift'):
    if arrays[name].min(initial=0) < 0 or arrays[name].max(initial=0) > 30:
      raise ValueError(f'{name}={arrays[name]} must be in 0..30.')
  return model


def from_arrays(arrays: dict[str, np.ndarray]) -> IntByteLM:
  """A model from its arrays by name, checked."""
  return check(IntByteLM(**{name: arrays[name] for name in _PARAMS}))
