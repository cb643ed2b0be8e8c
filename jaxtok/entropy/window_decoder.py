# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The lanes of the window decoder; `window` has the public functions.

A lane is a sequence of words: one word each where the model is reset at every
window, so that all words of a text decode side by side.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from jaxtok.entropy import base, interval, quantize
from jaxtok.entropy.formats import WindowFormat


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoder:
  """State of the decoder's lanes.

  Attributes:
    node: The prefix decoded so far.
    rest_b: The word's position relative to the prefix, in units of its range.
    count_b: Words so far.
    since_b: Words since the last EOS.
    ended_b: Whether the prefix ends with EOS.
    symbols_bkn: Output symbols.
    lengths_bk: Output: symbols per word.
    padded_bkn: Output (None for `cell`): whether the prefix that ends with
      this symbol has the word as its zero-padded word.
    active_b: Whether there are more words.
  """

  node: interval.Node
  rest_b: Any
  count_b: Any
  since_b: Any
  ended_b: Any
  symbols_bkn: Any
  lengths_bk: Any
  padded_bkn: Any
  active_b: Any


def init(
  fmt: WindowFormat,
  words_bkw: UInt32[Array, 'b k w'],
  num_words_b: Int[Array, 'b'],
) -> Decoder:
  """Lanes before their first words."""
  num_lanes, num_words, _ = words_bkw.shape
  node = interval.root(num_lanes, fmt.window_bits)
  shape = num_lanes, num_words, fmt.max_symbols
  return Decoder(
    node=node,
    rest_b=_first_range(words_bkw[:, 0]),
    count_b=node.n_b,
    since_b=node.n_b,
    ended_b=node.n_b > 0,
    symbols_bkn=jnp.zeros(shape, jnp.uint16),
    lengths_bk=jnp.zeros(shape[:2], jnp.int32),
    padded_bkn=jnp.zeros(shape, bool) if fmt.close_rule != 'cell' else None,
    active_b=num_words_b > 0,
  )


def _first_range(word_bw: UInt32[Array, 'b w']) -> UInt32[Array, 'b']:
  """The first 32 bits of a word, filled up with zeros."""
  high = word_bw[:, 0] << 16
  return high | word_bw[:, 1] if word_bw.shape[1] > 1 else high


def _grow(node, rest_b, word_bw, bound, symbol_b):
  """The child that holds the word, and the word's position in it."""
  start_b, end_b = bound(symbol_b), bound(symbol_b + 1)
  child = interval.child(node, start_b, end_b)
  # The whole cell is in the child: of course while cells are finer than
  # bounds; rest + cell cannot overflow (see interval.straddling_word).
  finer_b = (node.p_b < node.p_max) | (node.n_b == 0)
  inside_b = finer_b | (rest_b + 0x10000 <= end_b)
  rest_b = rest_b - start_b
  limbs_bw = jnp.pad(word_bw, ((0, 0), (0, 1)))
  next_b = interval.take(limbs_bw, jnp.minimum(node.p_b + 2, node.p_max + 1))
  shifted_b = child.p_b > node.p_b
  rest_b = jnp.where(shifted_b, rest_b << 16 | next_b, rest_b)
  return child, rest_b, inside_b


def step(
  fmt: WindowFormat, dec: Decoder, inputs: tuple, cdf: interval.Cdf
) -> tuple[Decoder, base.Feed]:
  """Decodes one symbol in every lane; see `base.drive`."""
  words_bkw, num_words_b = inputs
  node, word_bw = dec.node, _word_at(words_bkw, dec.count_b)
  bound = lambda index_b: interval.bounds(node, cdf(index_b))
  symbol_b = interval.search(bound, dec.rest_b)
  child, rest_b, inside_b = _grow(node, dec.rest_b, word_bw, bound, symbol_b)
  is_short_b = (node.n_b < fmt.max_symbols) & ~dec.ended_b
  go_b = dec.active_b & inside_b & is_short_b
  if fmt.close_rule != 'cell':
    dec, is_padded_b = _mark_padded(dec, word_bw)
    if fmt.close_rule == 'delay':
      go_b &= ~is_padded_b
  ended_b = jnp.where(go_b, symbol_b == quantize.EOS, dec.ended_b)
  lane = base.lanes_of(go_b)
  symbols_bkn = dec.symbols_bkn.at[lane, dec.count_b, node.n_b].set(
    symbol_b.astype(jnp.uint16), mode='drop'
  )
  grown = dataclasses.replace(
    dec,
    node=interval.select(go_b, child, node),
    rest_b=jnp.where(go_b, rest_b, dec.rest_b),
    ended_b=ended_b,
    symbols_bkn=symbols_bkn,
  )
  close_b = dec.active_b & ~go_b
  after = _next_words(grown, words_bkw, num_words_b, close_b)
  reset_b = close_b & (fmt.resets_before(after.since_b) | (after.since_b == 0))
  return after, base.Feed(symbol_b, go_b, reset_b)


def _word_at(
  words_bkw: UInt32[Array, 'b k w'], index_b: Int[Array, 'b']
) -> UInt32[Array, 'b w']:
  index_b = jnp.minimum(index_b, words_bkw.shape[1] - 1)
  index_b11 = index_b[:, None, None]
  return jnp.take_along_axis(words_bkw, index_b11, axis=1)[:, 0]


def _mark_padded(dec: Decoder, word_bw: Array) -> tuple[Decoder, Array]:
  """Notes which prefixes have the word as their zero-padded word."""
  padded_bw = jnp.stack(interval.zero_padded_word(dec.node), axis=1)
  is_padded_b = (padded_bw == word_bw).all(1) & (dec.node.n_b > 0)
  is_padded_b &= dec.active_b
  lane = base.lanes_of(is_padded_b)
  padded_bkn = dec.padded_bkn.at[lane, dec.count_b, dec.node.n_b - 1].set(
    True, mode='drop'
  )
  return dataclasses.replace(dec, padded_bkn=padded_bkn), is_padded_b


def _next_words(dec, words_bkw, num_words_b, close_b) -> Decoder:
  """Writes the lengths of words that end and goes to the next ones."""
  lane = base.lanes_of(close_b)
  lengths_bk = dec.lengths_bk.at[lane, dec.count_b].set(
    dec.node.n_b, mode='drop'
  )
  count_b = dec.count_b + close_b
  first_b = _first_range(_word_at(words_bkw, count_b))
  root = interval.root(close_b.shape[0], 16 * words_bkw.shape[2])
  return dataclasses.replace(
    dec,
    node=interval.select(close_b, root, dec.node),
    rest_b=jnp.where(close_b, first_b, dec.rest_b),
    count_b=count_b,
    since_b=jnp.where(close_b & dec.ended_b, 0, dec.since_b + close_b),
    ended_b=dec.ended_b & ~close_b,
    lengths_bk=lengths_bk,
    active_b=count_b < num_words_b,
  )
