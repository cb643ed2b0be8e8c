# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of texts of any lengths through the coders, in few compiled shapes."""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxtok.entropy import long_text, quantize, stream, window
from jaxtok.entropy.base import NextByteModel
from jaxtok.entropy.determinism import DeterminismLevel
from jaxtok.entropy.formats import WindowFormat

_BATCH_BYTES = 1 << 22  # Padded bytes of one call.
_BATCH_WORDS = 1 << 16


def batches(texts: Sequence[bytes]) -> Iterator[list[int]]:
  """Numbers of texts of about equal length, a padded batch at a time."""
  order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
  batch, width = [], 0
  for i in order:
    needed = 1 << max(4, len(texts[i]).bit_length())
    if batch and (needed > width or (len(batch) + 1) * needed > _BATCH_BYTES):
      yield batch
      batch = []
    batch.append(i)
    width = needed
  if batch:
    yield batch


def _pack(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
  """Symbols with EOS [b, t] (t a power of two), and bytes per text."""
  lengths = np.array([len(x) for x in texts], np.int32)
  width = 1 << max(4, int(lengths.max(initial=0)).bit_length())
  symbols = np.full((len(texts), width), quantize.EOS, np.int32)
  for row, text in zip(symbols, texts, strict=True):
    row[: len(text)] = np.frombuffer(text, np.uint8)
  return symbols, lengths


def encode_windows(
  texts: Sequence[bytes],
  model: NextByteModel,
  fmt: WindowFormat,
  *,
  verify: bool | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """`window.encode_windows` of each text; long ones at many places at once.

  Returns:
    Per text its words as limbs (uint16 [words, W / 16]), and how many symbols
    each covers, EOS included.
  """
  encode = lambda some: _encode_windows(some, model, fmt, verify)
  found: list = [None] * len(texts)
  short = []
  for i, text in enumerate(texts):
    if fmt.carries_model or not long_text.is_long(len(text), fmt.max_symbols):
      short.append(i)
    else:
      found[i] = long_text.encode(text, encode, fmt.max_symbols)
  coded = encode([texts[i] for i in short])
  for i, windows in zip(short, coded, strict=True):
    found[i] = windows
  return found


def _encode_windows(texts, model, fmt, verify) -> list:
  found: list = [None] * len(texts)
  for batch in batches(texts):
    symbols, lengths = _pack([texts[i] for i in batch])
    text_bt = symbols.astype(np.uint8)
    windows = window.encode_windows(text_bt, lengths, model, fmt, verify=verify)
    for i, words, num, spans in zip(batch, *windows, strict=True):
      found[i] = words[:num], spans[:num]
  return found


def decode_windows(
  words: Sequence[np.ndarray], model: NextByteModel, fmt: WindowFormat
) -> list[bytes]:
  """The texts of rows of words (limbs [words, W / 16]), each up to its EOS."""
  num = np.array([len(x) for x in words], np.int64)
  if fmt.carries_model:
    padded = np.zeros(
      (len(words), num.max(initial=0), fmt.num_limbs), np.uint16
    )
    for row, x in zip(padded, words, strict=True):
      row[: len(x)] = x
    return window.to_bytes(window.decode_windows(padded, num, model, fmt), num)
  # Words stand for themselves: all are decoded as one row, a part at a time.
  flat = np.concatenate([np.zeros((0, fmt.num_limbs), np.uint16), *words])
  symbols, spans = [np.zeros(0, np.uint16)], [np.zeros(0, np.int64)]
  for i in range(0, len(flat), _BATCH_WORDS):
    part = flat[None, i : i + _BATCH_WORDS]
    found = window.decode_windows(part, [part.shape[1]], model, fmt)
    place = np.arange(found.symbols_bkn.shape[2])
    is_used = place < found.num_symbols_bk[0, :, None]
    symbols.append(found.symbols_bkn[0][is_used])
    spans.append(found.num_symbols_bk[0])
  edges = np.append(0, np.cumsum(np.concatenate(spans)))
  stops = edges[np.cumsum(num)]
  rows = np.split(np.concatenate(symbols), stops[:-1]) if len(words) else []
  return [_until_eos(row) for row in rows]


def _until_eos(symbols: np.ndarray) -> bytes:
  end = np.flatnonzero(symbols == quantize.EOS)
  return symbols[: end[0] if len(end) else None].astype(np.uint8).tobytes()


def encode_streams(
  texts: Sequence[bytes], model: NextByteModel
) -> list[tuple[np.ndarray, np.ndarray]]:
  """`stream.encode_stream` of each text, followed by EOS.

  Returns:
    Per text its digits (uint16), and how many bytes went first into each
    (int32), which sum to the length of the text.
  """
  found: list = [None] * len(texts)
  for batch in batches(texts):
    symbols, lengths = _pad_lanes(*_pack([texts[i] for i in batch]), model)
    digits = stream.encode_stream(symbols, lengths + 1, model)
    places = np.asarray(digits.digit_of_bt)
    for row, i in enumerate(batch):
      num = digits.num_digits_b[row]
      place = places[row, : len(texts[i])]
      spans = np.bincount(place, minlength=num).astype(np.int32)
      found[i] = digits.digits_bk[row, :num], spans
  return found


def decode_streams(
  digits: Sequence[np.ndarray], model: NextByteModel
) -> list[bytes]:
  """The texts of digits, up to EOS or to where the digits are used up."""
  num = np.array([len(x) for x in digits], np.int32)
  padded = np.zeros((len(digits), max(1, num.max(initial=0))), np.uint16)
  for row, x in zip(padded, digits, strict=True):
    row[: len(x)] = x
  padded, num = _pad_lanes(padded, num, model)
  most = 64
  while True:
    symbols, lengths = stream.decode_stream(
      padded,
      np.where(num > 0, most, 0),
      model,
      until_eos=True,
      num_digits_b=num,
    )
    rows = [x[:n] for x, n in zip(symbols, lengths, strict=True)]
    if all(len(x) < most or x[-1] == quantize.EOS for x in rows):
      break
    most *= 8
  return [_until_eos(x) for x in rows[: len(digits)]]


def _pad_lanes(rows, lengths, model) -> tuple[np.ndarray, np.ndarray]:
  """Empty lanes, up to a batch size that is compiled for many batches."""
  lanes = 8
  while lanes < len(rows):
    lanes *= 4
  if model.level == DeterminismLevel.FIXED_TILE:
    lanes = model.tile
  pad = lambda x: np.pad(x, [(0, lanes - len(x))] + [(0, 0)] * (x.ndim - 1))
  return pad(rows), pad(lengths)
