# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic coding of whole texts, to 16-bit digits, many lanes at a time.

A range coder in uint32 without branches. Per symbol at most one digit comes
out; a carry is noted at the digit that was put out last, and carries are
resolved at the end, for all digits at once. The last digit is such that the
decoder may read zeros for ever after it. The decoder must know the number of
symbols, or the text must end with EOS.

Texts of models that are exact for whole sequences are coded without stepping:
`intervals` first, then a scan of a dozen integer operations per symbol.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from jaxtok.entropy import base, interval, quantize
from jaxtok.entropy.determinism import DeterminismLevel, require_decodable

_FULL = np.uint32(0xFFFFFFFF)


class Digits(NamedTuple):
  """Coded texts.

  Attributes:
    digits_bk: uint16, most significant first; zeros after the last.
    num_digits_b: int32, at least 1.
    digit_of_bt: int32, still on the device: how many digits were out before
      each symbol, i.e. the digit that it went into first.
  """

  digits_bk: np.ndarray
  num_digits_b: np.ndarray
  digit_of_bt: Any


class Emission(NamedTuple):
  """What one step of the encoder puts out, lane by lane.

  Attributes:
    carry_b: Whether 1 is added to the digit put out last.
    has_digit_b: Whether there is a digit (after that).
    digit_b: The digit.
  """

  carry_b: Any
  has_digit_b: Any
  digit_b: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RangeEncoder:
  """State of encoders: the interval [low, low + r) behind the last digit."""

  low_b: Any
  r_b: Any

  @classmethod
  def init(cls, num_lanes: int) -> 'RangeEncoder':
    return cls(
      jnp.zeros(num_lanes, jnp.uint32), jnp.full(num_lanes, _FULL, jnp.uint32)
    )

  def push(
    self,
    c_low_b: UInt32[Array, 'b'],
    c_high_b: UInt32[Array, 'b'],
    is_used_b: Bool[Array, 'b'],
  ) -> tuple['RangeEncoder', Emission]:
    """Codes a symbol in the lanes that are used, given its CDF entries."""
    start_b = quantize.mulshift16(self.r_b, c_low_b)
    r_b = quantize.mulshift16(self.r_b, c_high_b) - start_b
    start_b = jnp.where(is_used_b, start_b, 0)
    r_b = jnp.where(is_used_b, r_b, self.r_b)
    low_b = self.low_b + start_b
    shift_b = r_b < 1 << 16
    emission = Emission(low_b < self.low_b, shift_b, low_b >> 16)
    after = RangeEncoder(
      jnp.where(shift_b, low_b << 16, low_b), jnp.where(shift_b, r_b << 16, r_b)
    )
    return after, emission

  def last_digit(self) -> UInt32[Array, 'b']:
    """The digit that ends the code; 2**16 stands for 0 with a carry."""
    return (self.low_b >> 16) + ((self.low_b & 0xFFFF) != 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RangeDecoder:
  """State of decoders.

  Attributes:
    rest_b: The code's position in the interval, in units of `r`.
    r_b: The interval's length.
    next_b: Index of the next digit to read.
  """

  rest_b: Any
  r_b: Any
  next_b: Any

  @classmethod
  def init(cls, digits_bk: UInt32[Array, 'b k']) -> 'RangeDecoder':
    b = digits_bk.shape[0]
    first_b2 = jnp.pad(digits_bk, ((0, 0), (0, 1)))[:, :2]
    rest_b = first_b2[:, 0] << 16 | first_b2[:, 1]
    full_b = jnp.full(b, _FULL, jnp.uint32)
    return cls(rest_b, full_b, jnp.full(b, 2, jnp.int32))

  def pop(
    self, cdf: interval.Cdf, digits_bk: UInt32[Array, 'b k']
  ) -> tuple['RangeDecoder', Int[Array, 'b']]:
    """Decodes a symbol in every lane."""
    bound = lambda index_b: quantize.mulshift16(self.r_b, cdf(index_b))
    symbol_b = interval.search(bound, self.rest_b)
    start_b = bound(symbol_b)
    rest_b, r_b = self.rest_b - start_b, bound(symbol_b + 1) - start_b
    shift_b = r_b < 1 << 16
    last = digits_bk.shape[1] - 1
    digit_b = interval.take(digits_bk, jnp.minimum(self.next_b, last))
    digit_b = jnp.where(self.next_b <= last, digit_b, 0)
    after = RangeDecoder(
      jnp.where(shift_b, rest_b << 16 | digit_b, rest_b),
      jnp.where(shift_b, r_b << 16, r_b),
      self.next_b + shift_b,
    )
    return after, symbol_b


def resolve_carries(slots_bk: UInt32[Array, 'b k']) -> UInt32[Array, 'b k']:
  """Digits with carries added, which may reach 2**16, to proper digits.

  A digit makes a carry if it is 2**16 or more, and passes one on if it is
  2**16 - 1; both compose, so that all are found by one scan from the right.
  """

  def combine(right, left):
    return left[0] | (left[1] & right[0]), left[1] & right[1]

  makes, passes = slots_bk > 0xFFFF, slots_bk == 0xFFFF
  carry_bk, _ = jax.lax.associative_scan(
    combine, (makes, passes), reverse=True, axis=1
  )
  carry_in_bk = jnp.pad(carry_bk[:, 1:], ((0, 0), (0, 1)))
  return (slots_bk + carry_in_bk) & 0xFFFF


@functools.partial(jax.jit, static_argnames='capacity')
def _encode(low_bt, high_bt, length_b, capacity):
  """Codes symbols given their CDF entries.

  Returns:
    Digits in `capacity` columns, their number, which may be more, and the
    digits that were out before each symbol.
  """

  def push(encoder, entry):
    t, low_b, high_b = entry
    return encoder.push(low_b, high_b, t < length_b)

  num_lanes, num = low_bt.shape
  encoder = RangeEncoder.init(num_lanes)
  encoder, out_tb = jax.lax.scan(
    push, encoder, (jnp.arange(num), low_bt.T, high_bt.T)
  )
  after_tb = jnp.cumsum(out_tb.has_digit_b, axis=0, dtype=jnp.int32)
  before_tb = after_tb - out_tb.has_digit_b
  total_b = after_tb[-1]
  lane_b = jnp.arange(num_lanes)
  slots_bk = jnp.zeros((num_lanes, capacity), jnp.uint32)
  # Out of bounds, hence dropped, where there is no digit or no carry.
  place_tb = jnp.where(out_tb.has_digit_b, before_tb, capacity)
  slots_bk = slots_bk.at[lane_b, place_tb].set(out_tb.digit_b, mode='drop')
  place_tb = jnp.where(out_tb.carry_b, before_tb - 1, capacity)
  slots_bk = slots_bk.at[lane_b, place_tb].add(1, mode='drop')
  last_b = encoder.last_digit()
  slots_bk = slots_bk.at[lane_b, total_b].set(last_b, mode='drop')
  return resolve_carries(slots_bk), total_b + 1, before_tb.T


@jax.jit
def _intervals(model, symbols_bt):
  """CDF entries around each symbol, in one pass or by stepping."""
  if hasattr(model, 'intervals'):
    return model.intervals(symbols_bt)

  def look_up(state, symbol_b):
    cdf = base.access(model, state)
    entries = cdf(symbol_b), cdf(symbol_b + 1)
    return model.step(state, symbol_b), entries

  state = model.init_state(symbols_bt.shape[0])
  _, (low_tb, high_tb) = jax.lax.scan(look_up, state, symbols_bt.T)
  return low_tb.T, high_tb.T


_entries = jax.jit(
  lambda cdf_bv, symbol_b: (
    interval.take(cdf_bv, symbol_b),
    interval.take(cdf_bv, symbol_b + 1),
  )
)


def intervals(
  model: base.NextByteModel, symbols_bt: Any
) -> tuple[UInt32[Array, 'b t'], UInt32[Array, 'b t']]:
  """CDF entries `C[x]` and `C[x + 1]` of each symbol given the ones before."""
  symbols_bt = jnp.asarray(symbols_bt, jnp.int32)
  if model.level != DeterminismLevel.FIXED_TILE:
    return _intervals(model, symbols_bt)
  state, found = model.init_state(symbols_bt.shape[0]), []
  for symbol_b in symbols_bt.T:
    found.append(_entries(model.next_cdf(state), symbol_b))
    state = model.step(state, symbol_b)
  low, high = zip(*found, strict=True)
  return jnp.stack(low, axis=1), jnp.stack(high, axis=1)


def encode_stream(
  symbols_bt: Any, length_b: Any, model: base.NextByteModel
) -> Digits:
  """Codes texts.

  Args:
    symbols_bt: Symbols 0..256; anything behind a text's length.
    length_b: Symbols per text, at most t. EOS is a symbol like any other.
    model: The model.
  """
  symbols_bt = _check_symbols(symbols_bt, length_b)
  low_bt, high_bt = intervals(model, symbols_bt)
  length_b = jnp.asarray(length_b, jnp.int32)
  bits_b = _bits(low_bt, high_bt, length_b)
  # Rounding of bounds seldom costs 1 %; one digit per symbol is always enough.
  likely = int(bits_b.max(initial=0) * 1.01 / 16) + 8
  for capacity in (_round_up(likely), symbols_bt.shape[1] + 1):
    digits_bk, num_b, of_bt = _encode(low_bt, high_bt, length_b, capacity)
    num = np.asarray(num_b)
    if num.max(initial=0) <= capacity:
      break
  used = num.max(initial=0)
  return Digits(np.asarray(digits_bk)[:, :used].astype(np.uint16), num, of_bt)


def _bits(low_bt, high_bt, length_b) -> np.ndarray:
  freqs_bt = np.asarray(high_bt - low_bt).astype(np.float64)
  is_used_bt = np.arange(freqs_bt.shape[1]) < np.asarray(length_b)[:, None]
  bits_bt = quantize.PRECISION - np.log2(freqs_bt)
  return (bits_bt * is_used_bt).sum(1)


def code_length(
  symbols_bt: Any, length_b: Any, model: base.NextByteModel
) -> np.ndarray:
  """Ideal code lengths in bits, float64, without coding.

  The only function that takes models of level UNCHECKED. Coding adds up to 32
  bits per text, and on likely text less than 0.1 %.
  """
  symbols_bt = _check_symbols(symbols_bt, length_b)
  return _bits(*intervals(model, symbols_bt), length_b)


def _round_up(num: int) -> int:
  """To a power of two, so that few sizes are compiled."""
  return 1 << max(0, num - 1).bit_length()


def _check_symbols(symbols_bt: Any, length_b: Any) -> np.ndarray:
  symbols_bt, length_b = np.asarray(symbols_bt), np.asarray(length_b)
  if symbols_bt.ndim != 2 or not np.issubdtype(symbols_bt.dtype, np.integer):
    raise ValueError(
      f'symbols_bt is {symbols_bt.dtype} of rank {symbols_bt.ndim}; it must be '
      'integers of rank 2, one text per row.'
    )
  most = symbols_bt.shape[1]
  fits = (length_b >= 0).all() and (length_b <= most).all()
  if length_b.shape != symbols_bt.shape[:1] or not fits:
    raise ValueError(
      f'length_b={length_b} must hold a length in 0..{most} for each of the '
      f'{len(symbols_bt)} rows of symbols_bt.'
    )
  return np.clip(symbols_bt, 0, quantize.EOS).astype(np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Decoder:
  """State of `decode_stream`.

  Attributes:
    coder: The range decoders.
    t: Symbols decoded so far.
    symbols_tb: Output.
    length_b: How many symbols to decode.
    num_digits_b: After how many digits a text without EOS is over.
    active_b: Lanes that go on.
  """

  coder: RangeDecoder
  t: Any
  symbols_tb: Any
  length_b: Any
  num_digits_b: Any
  active_b: Any


def _decode_step(until_eos, dec, digits_bk, cdf):
  """One symbol of every lane; see `base.drive`."""
  coder, symbol_b = dec.coder.pop(cdf, digits_bk)
  length_b = dec.length_b
  if until_eos:
    # A code's own decoding needs one digit more than it has.
    is_over_b = coder.next_b > dec.num_digits_b + 1
    is_end_b = dec.active_b & ((symbol_b == quantize.EOS) | is_over_b)
    length_b = jnp.where(is_end_b, dec.t + 1, length_b)
  symbols_tb = dec.symbols_tb.at[dec.t].set(symbol_b.astype(jnp.uint16))
  is_active_b = dec.t + 1 < length_b
  after = dataclasses.replace(
    dec,
    coder=coder,
    t=dec.t + 1,
    symbols_tb=symbols_tb,
    length_b=length_b,
    active_b=is_active_b,
  )
  nobody_b = jnp.zeros_like(is_active_b)
  return after, base.Feed(symbol_b, dec.active_b, nobody_b)


def decode_stream(
  digits_bk: Any,
  length_b: Any,
  model: base.NextByteModel,
  *,
  until_eos: bool = False,
  num_digits_b: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The inverse of `encode_stream`.

  Args:
    digits_bk: Digits; zeros may be missing at the end.
    length_b: Symbols per text; with `until_eos`, the most that there may be.
    model: The model that coded them.
    until_eos: Whether texts end after their first EOS, or where the digits
      are used up.
    num_digits_b: Digits per text; by default k. Only for `until_eos`.

  Returns:
    symbols_bt (uint16, anything behind the length) and length_b.

  Raises:
    NotDecodableError: If the model's level is UNCHECKED.
  """
  require_decodable(model.level)
  digits_bk = np.asarray(digits_bk)
  if num_digits_b is None:
    num_digits_b = np.full(len(digits_bk), digits_bk.shape[1])
  more = _round_up(digits_bk.shape[1]) - digits_bk.shape[1]
  digits_bk = jnp.asarray(np.pad(digits_bk, ((0, 0), (0, more))), jnp.uint32)
  length_b = np.asarray(length_b, np.int32)
  longest = int(length_b.max(initial=0))
  decoder = _Decoder(
    RangeDecoder.init(digits_bk),
    jnp.int32(0),
    jnp.zeros((_round_up(longest), len(length_b)), jnp.uint16),
    jnp.asarray(length_b),
    jnp.asarray(num_digits_b, jnp.int32),
    jnp.asarray(length_b > 0),
  )
  decoder = base.drive(
    model, decoder, digits_bk, coder_step=_decode_step, fmt=until_eos
  )
  symbols_tb = np.asarray(decoder.symbols_tb)[:longest]
  return symbols_tb.T, np.asarray(decoder.length_b)
