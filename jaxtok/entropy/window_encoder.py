# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The lanes of the window encoder; `window` has the public functions.

A lane is a text. A lane that ends a window starts its next one in place, so
that no lane waits for another.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxtok.entropy import base, interval, quantize
from jaxtok.entropy.formats import WindowFormat


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoder:
  """State of the encoder's lanes.

  Attributes:
    node: The prefix of the current window.
    start_b: Where the window starts in the text.
    best_n_b: Symbols of the best prefix so far.
    word: The best prefix's word; with `delay`, the word to find again.
    again_b: Whether the window is walked a second time (`delay`).
    count_b: Windows so far.
    words_bkw: Output words, as limbs.
    symbols_bk: Output: how many symbols each word covers.
    active_b: Whether the text goes on.
  """

  node: interval.Node
  start_b: Any
  best_n_b: Any
  word: interval.Limbs
  again_b: Any
  count_b: Any
  words_bkw: Any
  symbols_bk: Any
  active_b: Any


def init(fmt: WindowFormat, num_lanes: int, capacity: int) -> Encoder:
  """Lanes before their texts, with room for `capacity` words each."""
  node = interval.root(num_lanes, fmt.window_bits)
  shape = num_lanes, capacity
  return Encoder(
    node=node,
    start_b=node.n_b,
    best_n_b=node.n_b,
    word=node.low[:-1],
    again_b=node.n_b > 0,
    count_b=node.n_b,
    words_bkw=jnp.zeros((*shape, fmt.num_limbs), jnp.uint32),
    symbols_bk=jnp.zeros(shape, jnp.int32),
    active_b=node.n_b == 0,
  )


def _choose(fmt, enc, cdf, at_end_b, stuck_b):
  """Applies the close rule to the current prefixes.

  Args:
    fmt: The format.
    enc: The lanes.
    cdf: Access to the lanes' CDFs.
    at_end_b: Prefixes that must not grow: text or window is full.
    stuck_b: Active lanes whose prefix cannot take the next symbol.

  Returns:
    enc: With the best prefix and its word up to date.
    better_b: Lanes whose best prefix is now the current one.
    close_b: Lanes whose window ends, with the best prefix.
    rewind_b: Lanes that walk the window a second time.
  """
  node, nobody_b = enc.node, jnp.zeros_like(stuck_b)
  if fmt.close_rule == 'cell':
    better_b, word = interval.straddling_word(node, cdf)
    word = interval.select(at_end_b, interval.first_word(node), word)
    better_b, close_b, rewind_b = better_b | at_end_b, stuck_b, nobody_b
  elif fmt.close_rule == 'greedy_zero_pad':
    word = interval.zero_padded_word(node)
    better_b, close_b, rewind_b = stuck_b, stuck_b, nobody_b
  else:
    word = interval.zero_padded_word(node)
    differs_b = sum(a ^ b for a, b in zip(word, enc.word, strict=True)) > 0
    close_b = enc.active_b & enc.again_b & (node.n_b > 0) & ~differs_b
    rewind_b = stuck_b & ~enc.again_b
    better_b = close_b | rewind_b
  best_n_b = jnp.where(better_b, node.n_b, enc.best_n_b)
  word = interval.select(better_b, word, enc.word)
  enc = dataclasses.replace(enc, best_n_b=best_n_b, word=word)
  return enc, better_b, close_b, rewind_b


def step(fmt, enc, inputs, cdf):
  """One symbol of every lane; see `base.drive`."""
  text_bt, length_b = inputs
  node = enc.node
  place_b = enc.start_b + node.n_b
  at_end_b = (place_b == length_b + 1) | (node.n_b == fmt.max_symbols)
  byte_b = interval.take(text_bt, jnp.minimum(place_b, text_bt.shape[1] - 1))
  symbol_b = jnp.where(
    place_b < length_b, byte_b.astype(jnp.int32), quantize.EOS
  )
  child = interval.child_of(node, cdf, symbol_b)
  stuck_b = enc.active_b & (at_end_b | ~interval.is_feasible(child))
  enc, better_b, close_b, rewind_b = _choose(fmt, enc, cdf, at_end_b, stuck_b)
  go_b = enc.active_b & ~close_b & ~rewind_b
  is_start_b = node.n_b == 0
  node = interval.select(go_b, child, node)
  enc = _close_windows(fmt, enc, node, length_b, close_b, rewind_b)
  if not fmt.carries_model:
    return enc, base.Feed(symbol_b, go_b, close_b | rewind_b)
  reset_b = close_b & fmt.resets_before(enc.count_b)
  if fmt.close_rule == 'cell':  # Back to the state after the best prefix.
    return enc, base.Feed(symbol_b, go_b, reset_b, better_b, close_b)
  return enc, base.Feed(symbol_b, go_b, reset_b, is_start_b, rewind_b)


def _close_windows(fmt, enc, node, length_b, close_b, rewind_b):
  """Writes the words of windows that end and goes to the next ones."""
  lanes = base.lanes_of(close_b)
  word_bw = jnp.stack(enc.word, axis=1)
  words = enc.words_bkw.at[lanes, enc.count_b].set(word_bw, mode='drop')
  symbols = enc.symbols_bk.at[lanes, enc.count_b].set(enc.best_n_b, mode='drop')
  root = interval.root(close_b.shape[0], fmt.window_bits)
  start_b = enc.start_b + jnp.where(close_b, enc.best_n_b, 0)
  count_b = enc.count_b + close_b
  return Encoder(
    node=interval.select(close_b | rewind_b, root, node),
    start_b=start_b,
    best_n_b=enc.best_n_b,
    word=enc.word,
    again_b=rewind_b | (enc.again_b & ~close_b),
    count_b=count_b,
    words_bkw=words,
    symbols_bk=symbols,
    active_b=(start_b <= length_b) & (count_b < symbols.shape[1]),
  )
