# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Caches of many token sequences that share beginnings, in one batch.

A row of the pool is the cache of one sequence. A new sequence is a row that is
copied and gets one more token, so that each costs one step of the model. Rows
are taken and given back on the host. The number of rows, and the rows of a
call, are powers of four, and the room of a row at least doubles where it is too
small, so that few programs are compiled.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.decoding import autoregressive


class CoverPool:
  """Rows of a cache.

  Attributes:
    max_len: Tokens that a row can hold; grows with the longest.
    calls: Calls of the model, each for several rows at once.
    rows: Rows computed in them, without padding.
  """

  def __init__(self, model: Any, max_len: int):
    """Makes an empty pool.

    Args:
      model: See `models.base`.
      max_len: Tokens that a row will hold, as far as known.

    Raises:
      ValueError: If they exceed the positions of the model.
    """
    self._graph, self._params = nnx.split(model)
    self._limit = getattr(model, 'max_len', 0)
    self._cache, self._free = None, []
    self._lengths: dict[int, int] = {}  # Tokens of each row.
    self.max_len = 0
    self._reserve(max_len)
    self.calls = self.rows = 0

  def start(
    self, prompts: Sequence[Sequence[int]]
  ) -> tuple[list[int], Float[np.ndarray, 'r v']]:
    """Rows with prompts of at least one token, and the logits behind them."""
    tokens, lengths = autoregressive.pad_prompts(prompts)
    self._reserve(tokens.shape[1])
    width = min(autoregressive.bucket(tokens.shape[1]), self.max_len)
    tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
    rows = self._take(len(prompts))
    self._cache, logits = _start(
      self._graph,
      self._params,
      self._cache,
      tokens,
      lengths,
      np.array(rows),
      max_len=self.max_len,
    )
    self._count(rows, lengths.tolist())
    return rows, np.asarray(logits)

  def extend(
    self, parents: Sequence[int], tokens: Sequence[int]
  ) -> tuple[list[int], Float[np.ndarray, 'r v']]:
    """Rows that are those of the parents and one token each, and the logits.

    Raises:
      ValueError: If a row exceeds the positions of the model.
    """
    lengths = [self._lengths[parent] + 1 for parent in parents]
    self._reserve(max(lengths))
    rows = self._take(len(parents))
    size = _power_of_four(len(rows))
    pad = lambda x, fill: np.array([*x, *[fill] * (size - len(x))], np.int32)
    # What is written to the row behind the last is dropped.
    self._cache, logits = _extend(
      self._graph,
      self._params,
      self._cache,
      pad(parents, 0),
      pad(tokens, 0),
      pad(rows, self._num_rows),
    )
    self._count(rows, lengths)
    return rows, np.asarray(logits)[: len(rows)]

  def give_back(self, row: int) -> None:
    """Frees a row."""
    self._free.append(row)

  @property
  def _num_rows(self) -> int:
    return (
      0 if self._cache is None else jax.tree.leaves(self._cache)[0].shape[0]
    )

  def _count(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
    self.calls += 1
    self.rows += len(rows)
    self._lengths.update(zip(rows, lengths, strict=True))

  def _take(self, num: int) -> list[int]:
    if len(self._free) < num:
      old = self._num_rows
      new = _power_of_four(old + num - len(self._free))
      self._resize(new)
      self._free += range(old, new)
    taken, self._free = self._free[:num], self._free[num:]
    return taken

  def _reserve(self, num_tokens: int) -> None:
    """Makes room for rows of so many tokens."""
    if num_tokens <= self.max_len:
      return
    if self._limit and num_tokens > self._limit:
      raise ValueError(
        f'{num_tokens} tokens exceed the {self._limit} positions of the model. '
        'Shorten the prompts, or ask for fewer bytes behind them (num_bytes).'
      )
    room = autoregressive.bucket(max(num_tokens, 2 * self.max_len))
    self.max_len = min(room, self._limit) if self._limit else room
    if self._cache is not None:
      self._resize(self._num_rows)

  def _resize(self, num_rows: int) -> None:
    """Moves the cache into a larger one; slots are filled from the left."""
    model = nnx.merge(self._graph, self._params)
    grown = model.init_cache(num_rows, self.max_len)
    if self._cache is not None:
      grown = jax.tree.map(
        lambda big, small: big.at[tuple(map(slice, small.shape))].set(small),
        grown,
        self._cache,
      )
    self._cache = grown


def _power_of_four(num: int) -> int:
  """The least power of four that is not below `num`, and at least 4."""
  size = 4
  while size < num:
    size *= 4
  return size


def _write(pool: Any, new: Any, rows_r: Int[Array, 'r']) -> Any:
  return jax.tree.map(
    lambda x, y: x.at[rows_r].set(y.astype(x.dtype), mode='drop'), pool, new
  )


@functools.partial(jax.jit, static_argnames=('graph', 'max_len'))
def _start(
  graph: Any,
  params: Any,
  pool: Any,
  tokens_rt: Int[Array, 'r t'],
  length_r: Int[Array, 'r'],
  rows_r: Int[Array, 'r'],
  *,
  max_len: int,
) -> tuple[Any, Float[Array, 'r v']]:
  model = nnx.merge(graph, params)
  output = model(tokens_rt, cache=model.init_cache(len(tokens_rt), max_len))
  last_r11 = (length_r - 1)[:, None, None]
  hidden_r1d = jnp.take_along_axis(output.hidden_btd, last_r11, axis=1)
  cache = output.cache.truncate(length_r)
  return _write(pool, cache, rows_r), model.logits(hidden_r1d)[:, 0]


@functools.partial(jax.jit, static_argnames='graph', donate_argnames='pool')
def _extend(
  graph: Any,
  params: Any,
  pool: Any,
  parents_r: Int[Array, 'r'],
  tokens_r: Int[Array, 'r'],
  rows_r: Int[Array, 'r'],
) -> tuple[Any, Float[Array, 'r v']]:
  model = nnx.merge(graph, params)
  output = model(tokens_r[:, None], cache=pool.gather(parents_r))
  logits_rv = model.logits(output.hidden_btd)[:, 0]
  return _write(pool, output.cache, rows_r), logits_rv


@functools.partial(jax.jit, static_argnames='graph')
def token_logprobs(
  graph: Any, params: Any, tokens_bt: Int[Array, 'b t']
) -> Float[Array, 'b t']:
  """Log-probability of each token but the first, nats; 0 for the first."""
  model = nnx.merge(graph, params)
  logits_btv = model.logits(model(tokens_bt).hidden_btd[:, :-1])
  logprob_btv = jax.nn.log_softmax(logits_btv.astype(jnp.float32), axis=-1)
  found = jnp.take_along_axis(logprob_btv, tokens_bt[:, 1:, None], axis=-1)
  return jnp.pad(found[..., 0], ((0, 0), (1, 0)))
