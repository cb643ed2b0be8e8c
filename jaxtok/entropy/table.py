# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models that look up integer CDFs by the last few symbols.

`fit` counts an order-k byte model. Rows of a table belong to contexts: the last
k symbols, hashed where there are more contexts than rows. Before the first
symbol the context is filled with EOS, whose rows hold the distribution at an
arbitrary place of a text, since that is where windows start.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from jaxtok.entropy import quantize
from jaxtok.entropy.determinism import DeterminismLevel, fingerprint

KIND = 'table-1'
_HASH = 0x9E3779B1  # 2**32 divided by the golden ratio: spreads well.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TableModel:
  """Order-k table model.

  Attributes:
    cdf_rv: A CDF per row, uint32 [rows, 258].
    order: k, static.
  """

  cdf_rv: Any
  order: int = dataclasses.field(metadata=dict(static=True), default=0)

  level = DeterminismLevel.TABLE

  def fingerprint(self) -> str:
    return self._fingerprint

  @functools.cached_property
  def _fingerprint(self) -> str:
    return fingerprint(KIND, {'cdf': self.cdf_rv}, order=self.order)

  def init_state(self, batch_size: int) -> UInt32[Array, 'b k']:
    return jnp.full((batch_size, self.order), quantize.EOS, jnp.uint32)

  def step(
    self, state: UInt32[Array, 'b k'], symbol_b: Int[Array, 'b']
  ) -> UInt32[Array, 'b k']:
    symbol_b1 = symbol_b.astype(jnp.uint32)[:, None]
    return jnp.concatenate([state, symbol_b1], axis=1)[:, 1:]

  def next_cdf(self, state: UInt32[Array, 'b k']) -> UInt32[Array, 'b 258']:
    return jnp.asarray(self.cdf_rv)[self._row(state)]

  def cdf_at(
    self, state: UInt32[Array, 'b k'], index_b: Int[Array, 'b']
  ) -> UInt32[Array, 'b']:
    return jnp.asarray(self.cdf_rv)[self._row(state), index_b]

  def _row(self, context: UInt32[Array, '*b k']) -> Array:
    return context_row(context, len(self.cdf_rv))

  def intervals(
    self, symbols_bt: Int[Array, 'b t']
  ) -> tuple[UInt32[Array, 'b t'], UInt32[Array, 'b t']]:
    symbols_bt = symbols_bt.astype(jnp.uint32)
    pad = [(0, 0), (self.order, 0)]
    padded_bt = jnp.pad(symbols_bt, pad, constant_values=quantize.EOS)
    t = symbols_bt.shape[1]
    past = [padded_bt[:, i : i + t] for i in range(self.order)]
    nothing = jnp.zeros((*symbols_bt.shape, 0), jnp.uint32)
    context_btk = jnp.stack(past, axis=-1) if past else nothing
    row_bt, cdf_rv = self._row(context_btk), jnp.asarray(self.cdf_rv)
    return cdf_rv[row_bt, symbols_bt], cdf_rv[row_bt, symbols_bt + 1]


def context_row(context: Any, num_rows: int) -> Any:
  """Row of contexts `[..., k]`: their number in base 257, hashed if too large.

  Works on NumPy and JAX arrays of uint32.
  """
  order = context.shape[-1]
  code = (context[..., :0].sum(-1)).astype(np.uint32)
  for i in range(order):
    code = code * np.uint32(quantize.NUM_SYMBOLS) + context[..., i]
  if quantize.NUM_SYMBOLS**order <= num_rows:
    return code
  code = (code ^ (code >> 15)) * np.uint32(_HASH)
  return (code ^ (code >> 13)) % np.uint32(num_rows)


def fit(
  documents: Iterable[bytes], order: int = 1, num_rows: int = 1 << 15
) -> TableModel:
  """Counts an interpolated order-k model (Witten-Bell) over documents.

  Args:
    documents: Texts; EOS is counted after each.
    order: k, 0..4.
    num_rows: Most rows; each takes 1032 bytes.

  Returns:
    The model. Contexts never seen get the distribution without context.
  """
  if not 0 <= order <= 4:
    raise ValueError(f'order={order} must be in 0..4.')
  if num_rows < quantize.NUM_SYMBOLS:
    raise ValueError(f'num_rows={num_rows} must be at least 257.')
  rows = min(num_rows, quantize.NUM_SYMBOLS**order)
  counts_rv = np.zeros((rows, quantize.NUM_SYMBOLS), np.int64)
  parents = {}  # Row -> row of the context without its first symbol.
  for document in documents:
    _count(document, order, counts_rv, parents)
  prob_rv = _interpolate(counts_rv, parents, order)
  freqs = quantize.quantize_pmf(prob_rv.astype(np.float32))
  return TableModel(np.asarray(quantize.freqs_to_cdf(freqs)), order)


def _count(document, order, counts_rv, parents) -> None:
  rows, num = counts_rv.shape
  symbols = np.append(np.frombuffer(document, np.uint8), quantize.EOS)
  symbols = symbols.astype(np.uint32)
  padded = np.pad(symbols, (order, 0), constant_values=quantize.EOS)
  past = [padded[i : i + len(symbols)] for i in range(order)]
  context = np.stack(past, -1) if past else np.zeros((len(symbols), 0), 'u4')
  parent = None
  for known in range(order + 1):  # Rows of all orders, each with its parent.
    part = context[known:].copy()
    part[:, : order - known] = quantize.EOS
    row = context_row(part, rows).astype(np.int64)
    pair, count = np.unique(row * num + symbols[known:], return_counts=True)
    counts_rv.reshape(-1)[pair] += count
    if parent is not None:
      parents.setdefault(known, {}).update(zip(row, parent[1:], strict=True))
    parent = row


def _interpolate(counts_rv, parents, order) -> np.ndarray:
  """Mixes each row with its parent, by the number of distinct symbols."""
  nothing = np.full((1, order), quantize.EOS, np.uint32)
  root = int(context_row(nothing, len(counts_rv))[0])
  total_r, kinds_r = counts_rv.sum(1), (counts_rv > 0).sum(1)
  base_v = (counts_rv[root] + 1) / (total_r[root] + quantize.NUM_SYMBOLS)
  prob_rv = np.tile(base_v, (len(counts_rv), 1))
  for known in sorted(parents):
    pairs = [x for x in parents[known].items() if x[0] != root]
    row, parent = np.array(pairs, np.int64).reshape(-1, 2).T
    mixed_rv = counts_rv[row] + kinds_r[row, None] * prob_rv[parent]
    prob_rv[row] = mixed_rv / (total_r[row] + kinds_r[row])[:, None]
  return prob_rv
