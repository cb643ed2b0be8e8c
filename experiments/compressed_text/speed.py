# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times the coders: dictionary, stream with a table, windows with M1, files.

  JAXTOK_DATA=DATA python -m experiments.compressed_text.speed

Each figure is the best of a few passes after one that compiles, in wall time.
"""

import functools
import io
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.compressed_text import texts
from jaxtok.entropy import (
  container,
  documents,
  shipped,
  stream,
  table,
  trie,
  window,
)
from jaxtok.entropy.formats import WindowFormat

_LANES, _LANE_BYTES = 1024, 4096  # Of the stream coder.
_WINDOWS = 4096  # Decoded side by side.


def best(run: Callable[[], Any], passes: int = 3) -> float:
  """Seconds of the fastest pass."""
  run()
  seconds = []
  for _ in range(passes):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return min(seconds)


def dictionary(text: bytes) -> None:
  """MB/s of the dictionary of 16-bit windows, by engine."""
  words = shipped.window_dictionary()
  engines = {'numpy': False} | ({'numba': True} if trie.has_numba() else {})
  for name, use_numba in engines.items():
    encode = functools.partial(words.encode, text, use_numba=use_numba)
    coded, _ = encode()
    decode = functools.partial(words.decode, coded, use_numba=use_numba)
    assert decode() == text
    rates = [len(text) / best(x) / 1e6 for x in (encode, decode)]
    print(
      f'dictionary, {name}: encode {rates[0]:.1f}, decode {rates[1]:.1f} MB/s',
      flush=True,
    )


def stream_coder(text: bytes) -> None:
  """MB/s of the stream coder with an order-1 table."""
  model = table.fit([text[: 1 << 20]], order=1)
  num = _LANES * _LANE_BYTES
  data = np.frombuffer((text * (num // len(text) + 1))[:num], np.uint8)
  symbols = data.reshape(_LANES, _LANE_BYTES).astype(np.int32)
  lengths = np.full(_LANES, _LANE_BYTES)
  encode = lambda: stream.encode_stream(symbols, lengths, model)
  digits = encode().digits_bk
  decode = lambda: stream.decode_stream(digits, lengths, model)
  np.testing.assert_array_equal(decode()[0], symbols)
  rates = [num / best(x) / 1e6 for x in (encode, decode)]
  print(
    f'stream, table: encode {rates[0]:.2f}, decode {rates[1]:.2f} MB/s',
    flush=True,
  )


@functools.partial(jax.jit, static_argnames='steps')
def _model_alone(model, state, symbols_tb, steps):
  """As many steps of the model as decoding takes, with nothing else."""

  def body(t, carry):
    state, total = carry
    cdf_bv = model.next_cdf(state)
    nobody_b = jnp.zeros(symbols_tb.shape[1], bool)
    after = model.follow(state, state, symbols_tb[t], ~nobody_b, nobody_b)
    return after, total + cdf_bv[:, 128].sum()

  return jax.lax.fori_loop(0, steps, body, (state, jnp.uint32(0)))[1]


def window_decoder(text: bytes) -> None:
  """kB/s of windows of 64 bits with M1, and the model's share of the time."""
  model, fmt = shipped.model(), WindowFormat(window_bits=64)
  text = text[: 22 * _WINDOWS]
  [(words, spans)] = documents.encode_windows([text], model, fmt, verify=False)
  words, spans = words[:_WINDOWS], spans[:_WINDOWS]
  count = np.ones(len(words), np.int32)
  decode = lambda: window.decode_windows(words[:, None], count, model, fmt)
  total = best(decode, passes=2)
  steps = int(spans.max()) + 1
  lanes = 4096 if len(words) > 512 else 512
  symbols = jnp.full((steps, lanes), 101, jnp.int32)
  state = model.init_state(lanes)
  alone = best(
    lambda: _model_alone(model, state, symbols, steps).block_until_ready(),
    passes=2,
  )
  kilobytes = int(spans.sum()) / 1000
  print(
    f'windows of 64 bits, M1: decode {kilobytes / total:.1f} kB/s, '
    f'{len(words)} windows side by side; model {100 * alone / total:.0f} %, '
    f'coder {100 * (1 - alone / total):.0f} % of the time',
    flush=True,
  )


def files(text: bytes) -> None:
  """kB/s of `jaxtok.entropy compress` and `decompress` with M1."""
  model, coded = shipped.model(), io.BytesIO()

  def compress():
    coded.seek(0)
    coded.truncate()
    container.compress(io.BytesIO(text), coded, model, verify=False)

  def decompress():
    coded.seek(0)
    container.decompress(coded, io.BytesIO(), model)

  rates = [len(text) / best(x, passes=1) / 1e3 for x in (compress, decompress)]
  print(
    f'files of {len(text)} bytes, M1: compress {rates[0]:.0f} kB/s without '
    f'verifying, decompress {rates[1]:.0f} kB/s',
    flush=True,
  )


@cli.one_line_errors()
def main() -> None:
  """Prints all speeds."""
  cli.no_arguments(__doc__)
  novel = texts.novel()
  dictionary(novel)
  stream_coder(novel)
  window_decoder(novel)
  files(novel[:1_000_000])


if __name__ == '__main__':
  main()
