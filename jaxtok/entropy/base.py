# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The models that text is coded with, and how coders drive them.

A model gives, lane by lane, the CDF of the next symbol. Coders are state
machines: one step takes every lane's CDF and says which symbol to feed to the
model of each lane. `drive` joins the two into one compiled loop, or, for models
that may only run as one executable, into a loop on the host.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from jaxtok.entropy import interval
from jaxtok.entropy.determinism import DeterminismLevel


@runtime_checkable
class NextByteModel(Protocol):
  """A model over the symbols 0..255 and EOS, as integer CDFs.

  It is a pytree, so that its parameters are arguments of compiled functions;
  the leaves of a state have the lanes first. Optional methods make it faster:
  `cdf_at(state, index_b)` gives single CDF entries, and `intervals(symbols_bt)`
  gives the entries `(low_bt, high_bt)` around each symbol of a text given the
  ones before it, all at once (exactly what stepping gives), and
  `follow(state, fresh, symbol_b, advance_b, reset_b)` steps some lanes and
  resets others to the state `fresh`.
  """

  level: DeterminismLevel

  def fingerprint(self) -> str:
    """SHA-256 (hex) of all that determines the CDFs; needs concrete arrays."""
    ...

  def init_state(self, batch_size: int) -> Any:
    """The state before the first symbol of a window or stream."""
    ...

  def next_cdf(self, state: Any) -> UInt32[Array, 'b 258']: ...

  def step(self, state: Any, symbol_b: Int[Array, 'b']) -> Any:
    """The state after one more symbol; any state will do after EOS."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Feed:
  """What a coder wants from the model, lane by lane, in this order.

  Attributes:
    symbol_b: The symbol to step with, int32.
    advance_b: Which lanes step; the others keep their state.
    save_b: Which lanes remember the state that they had before stepping.
    restore_b: Which lanes go back to the remembered state.
    reset_b: Which lanes go back to the initial state.
  """

  symbol_b: Any
  advance_b: Any
  reset_b: Any
  save_b: Any = None
  restore_b: Any = None


def access(model: NextByteModel, state: Any) -> interval.Cdf:
  """Access to single entries of the CDFs of the next symbol."""
  if hasattr(model, 'cdf_at'):
    return lambda index_b: model.cdf_at(state, index_b)
  return interval.lookup(model.next_cdf(state))


def start(model: NextByteModel, num_lanes: int, saving: bool) -> tuple:
  """The memory `(state, saved state or None)` before the first symbol."""
  state = model.init_state(num_lanes)
  return state, (state if saving else None)


def _follow(model: NextByteModel, memory: tuple, fresh: Any, feed: Feed):
  """The memory after a feed."""
  state, saved = memory
  if saved is None and hasattr(model, 'follow'):
    after = model.follow(
      state, fresh, feed.symbol_b, feed.advance_b, feed.reset_b
    )
    return after, None
  return _merge(memory, model.step(state, feed.symbol_b), fresh, feed)


def _merge(memory: tuple, stepped: Any, fresh: Any, feed: Feed) -> tuple:
  """The memory after a feed, given the stepped and the initial state."""
  state, saved = memory
  after = interval.select(feed.advance_b, stepped, state)
  if saved is not None:
    saved = interval.select(feed.save_b, state, saved)
    after = interval.select(feed.restore_b, saved, after)
  return interval.select(feed.reset_b, fresh, after), saved


@functools.partial(jax.jit, static_argnames=('coder_step', 'fmt', 'saving'))
def _drive_fused(model, coder, inputs, *, coder_step, fmt, saving):
  def body(carry):
    coder, memory = carry
    cdf = access(model, memory[0])
    coder, feed = coder_step(fmt, coder, inputs, cdf)
    return coder, _follow(model, memory, fresh, feed)

  memory = start(model, coder.active_b.shape[0], saving)
  fresh = memory[0]
  is_active = lambda carry: carry[0].active_b.any()
  return jax.lax.while_loop(is_active, body, (coder, memory))[0]


@functools.partial(jax.jit, static_argnames=('coder_step', 'fmt'))
def _step_coder(coder, inputs, cdf_bv, *, coder_step, fmt):
  return coder_step(fmt, coder, inputs, interval.lookup(cdf_bv))


_merge_alone = jax.jit(_merge)


def drive(
  model: NextByteModel,
  coder: Any,
  inputs: Any,
  *,
  coder_step: Callable,
  fmt: Any,
  saving: bool = False,
) -> Any:
  """Runs a coder until none of its lanes is active.

  Args:
    model: The model.
    coder: Initial coder state, a pytree with bool `active_b`.
    inputs: Arrays that the coder reads.
    coder_step: `(fmt, coder, inputs, cdf) -> (coder, Feed)`, where
      `cdf(index_b)` gives entries of the CDFs; static.
    fmt: Settings of the coder; static.
    saving: Static; whether feeds save and restore.

  Returns:
    The final coder state.
  """
  if model.level != DeterminismLevel.FIXED_TILE:
    settings = dict(coder_step=coder_step, fmt=fmt, saving=saving)
    return _drive_fused(model, coder, inputs, **settings)
  memory = start(model, coder.active_b.shape[0], saving)
  fresh = memory[0]
  while bool(coder.active_b.any()):
    cdf_bv = model.next_cdf(memory[0])
    coder, feed = _step_coder(
      coder, inputs, cdf_bv, coder_step=coder_step, fmt=fmt
    )
    stepped = model.step(memory[0], feed.symbol_b)
    memory = _merge_alone(memory, stepped, fresh, feed)
  return coder


def lanes_of(mask_b: Bool[Array, 'b']) -> Int[Array, 'b']:
  """Lane numbers, with lanes outside the mask moved out of bounds.

  Scatters with `mode='drop'` then write to the masked lanes only.
  """
  lanes = jnp.arange(mask_b.shape[0])
  return jnp.where(mask_b, lanes, mask_b.shape[0])
