# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Equal-Info Windows: text to words of a fixed number of bits, exactly.

Lester et al. 2024, arXiv:2404.03626, "Training LLMs over Neurally Compressed
Text", section 3.3. A window is arithmetic coding that stops when the next
symbol would not fit in W bits; coder and model are then reset.

Close rules say which prefix a window takes and which word it gets:
  greedy_zero_pad: the longest prefix that fits, and its shortest codeword
    padded with zeros. The paper's; several prefixes share a word, so most texts
    do not decode.
  delay: the shortest prefix with that same word (the paper's appendix A.5).
  cell: a word V decodes to s(V), the longest string whose interval contains
    V's cell. The encoder takes the longest prefix that is s(V) for some V.
    Every word decodes, every text decodes to itself, at 97-99 % of the length
    of greedy_zero_pad.

Differs from the paper: rule `cell`; precision 16 instead of 14; a bound on the
symbols of a window; EOS is part of the alphabet and ends every text.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.entropy import base, quantize, window_decoder, window_encoder
from jaxtok.entropy.determinism import DeterminismLevel, require_decodable
from jaxtok.entropy.formats import WindowFormat

MAX_LANES = 4096  # Texts or words coded at once; bounds memory.


class RoundTripError(RuntimeError):
  """What was just coded does not decode to the text."""


class Windows(NamedTuple):
  """Coded texts.

  Attributes:
    words_bkw: uint16, the limbs of each word, most significant first; these are
      the 16-bit tokens.
    num_words_b: int32, words per text.
    num_symbols_bk: int32, how many symbols each word covers. Their sum over a
      text is its length plus 1 for EOS.
  """

  words_bkw: np.ndarray
  num_words_b: np.ndarray
  num_symbols_bk: np.ndarray


class Symbols(NamedTuple):
  """Decoded words.

  Attributes:
    symbols_bkn: uint16, the symbols of each word; 256 is EOS.
    num_symbols_bk: int32, symbols per word.
    is_exact_bk: Whether a text that the model knows could have made the word
      with these symbols; always true for `cell`.
    is_candidate_bkn: For `greedy_zero_pad` (else None), whether the first n + 1
      symbols have this word, so that they may be what was coded.
  """

  symbols_bkn: np.ndarray
  num_symbols_bk: np.ndarray
  is_exact_bk: np.ndarray
  is_candidate_bkn: np.ndarray | None = None


def encode_windows(
  text_bt: Any,
  length_b: Any,
  model: base.NextByteModel,
  fmt: WindowFormat | None = None,
  *,
  verify: bool | None = None,
  max_lanes: int = MAX_LANES,
) -> Windows:
  """Codes texts, each followed by EOS.

  Args:
    text_bt: uint8.
    length_b: Bytes of each text, at most t.
    model: The model.
    fmt: Window size, close rule and so on.
    verify: Whether to decode everything at once and compare; by default if the
      close rule and the model promise that it will be equal.
    max_lanes: Texts per compiled call.

  Returns:
    The words, with as many columns as the longest text needs.

  Raises:
    RoundTripError: If `verify` found a difference.
  """
  fmt = fmt or WindowFormat()
  text_bt, length_b = _check_text(text_bt, length_b)
  padded_bt = _pad_text(text_bt)
  lanes = _num_lanes(model, len(text_bt), max_lanes)
  tile = lambda i: (padded_bt[i : i + lanes], length_b[i : i + lanes])
  starts = range(0, max(1, len(text_bt)), lanes)
  parts = [_encode_tile(*tile(i), model, fmt, lanes) for i in starts]
  coded = Windows(*(_concatenate(x) for x in zip(*parts, strict=True)))
  can_verify = fmt.is_lossless and model.level != DeterminismLevel.UNCHECKED
  if can_verify if verify is None else verify:
    _verify(text_bt, length_b, coded, model, fmt)
  return coded


def decode_windows(
  words_bkw: Any,
  num_words_b: Any,
  model: base.NextByteModel,
  fmt: WindowFormat | None = None,
  *,
  max_lanes: int = MAX_LANES,
) -> Symbols:
  """Decodes words to symbols; any words, also ones that no encoder makes.

  Where the model is reset at every window, all words decode side by side.

  Args:
    words_bkw: Words as limbs of 16 bits, any integer type.
    num_words_b: Words per row.
    model: The model that coded them.
    fmt: The format that they were coded with.
    max_lanes: Rows or words per compiled call.

  Returns:
    The symbols. With `greedy_zero_pad`, of the candidates the longest.

  Raises:
    NotDecodableError: If the model's level is UNCHECKED.
  """
  fmt = fmt or WindowFormat()
  require_decodable(model.level)
  words, count = _check_words(words_bkw, num_words_b, fmt)
  is_word = np.arange(words.shape[1]) < count[:, None]
  if not fmt.carries_model:
    words, count = _spread(words[is_word], model, fmt, max_lanes)
  lanes = _num_lanes(model, len(words), max_lanes)
  tile = lambda i: (words[i : i + lanes], count[i : i + lanes])
  starts = range(0, max(1, len(words)), lanes)
  parts = [_decode_tile(*tile(i), model, fmt, lanes) for i in starts]
  arrays = [_concatenate(x) for x in zip(*parts, strict=True)]
  if not fmt.carries_model:
    num = is_word.sum()
    flat = [
      x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:num] for x in arrays
    ]
    arrays = [_scatter(x, is_word) for x in flat]
  return _apply_rule(fmt, *arrays)


def to_bytes(symbols: Symbols, num_words_b: Any) -> list[bytes]:
  """Concatenates each row's words and cuts at the first EOS."""
  place = np.arange(symbols.symbols_bkn.shape[2])
  texts = []
  for b, num in enumerate(np.asarray(num_words_b)):
    used = place < symbols.num_symbols_bk[b, :num, None]
    row = symbols.symbols_bkn[b, :num][used]
    end = np.flatnonzero(row == quantize.EOS)
    texts.append(row[: end[0] if len(end) else None].astype(np.uint8).tobytes())
  return texts


def _check_text(text_bt: Any, length_b: Any) -> tuple[np.ndarray, np.ndarray]:
  text_bt, length_b = np.asarray(text_bt), np.asarray(length_b, np.int32)
  if text_bt.dtype != np.uint8 or text_bt.ndim != 2:
    raise ValueError(
      f'text_bt is {text_bt.dtype} of rank {text_bt.ndim}; it must be uint8 of '
      'rank 2, one text per row. Use np.frombuffer(data, np.uint8)[None].'
    )
  most = text_bt.shape[1]
  fits = (length_b >= 0).all() and (length_b <= most).all()
  if length_b.shape != text_bt.shape[:1] or not fits:
    raise ValueError(
      f'length_b={length_b} must hold a length in 0..{most} for each of the '
      f'{len(text_bt)} rows of text_bt.'
    )
  return text_bt, length_b


def _check_words(words_bkw, num_words_b, fmt) -> tuple[np.ndarray, np.ndarray]:
  words, count = np.asarray(words_bkw), np.asarray(num_words_b, np.int32)
  if words.ndim != 3 or words.shape[2] != fmt.num_limbs:
    raise ValueError(
      f'words_bkw has shape {words.shape}; it must be (rows, words, '
      f'{fmt.num_limbs}) for window_bits={fmt.window_bits}.'
    )
  if words.size and not 0 <= words.min() <= words.max() < 1 << 16:
    raise ValueError(
      f'words_bkw holds {words.min()}..{words.max()}; limbs are in 0..65535.'
    )
  if fmt.close_rule == 'greedy_zero_pad' and fmt.carries_model:
    raise ValueError(
      'close_rule=greedy_zero_pad with reset_every != 1 cannot be decoded: the '
      "model's state after a window is not known. Use close_rule=cell."
    )
  return words.astype(np.uint32), count


def _num_lanes(model: base.NextByteModel, wanted: int, max_lanes: int) -> int:
  """The batch size of one call: few different ones, as each is compiled."""
  if model.level == DeterminismLevel.FIXED_TILE:
    return model.tile
  lanes = 8
  while lanes < wanted:
    lanes *= 4
  return min(max_lanes, lanes)


def _pad_rows(x: np.ndarray, rows: int) -> np.ndarray:
  return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def _pad_text(text_bt: np.ndarray) -> np.ndarray:
  """Zeros up to a power of two, so that few lengths are compiled."""
  length = 1 << max(4, (text_bt.shape[1] - 1).bit_length())
  return np.pad(text_bt, [(0, 0), (0, length - text_bt.shape[1])])


def _spread(words_kw, model, fmt, max_lanes) -> tuple[np.ndarray, np.ndarray]:
  """Independent words over lanes, several to a lane if there are many.

  Words differ in length; the more of them share a lane, the less the lanes wait
  for the one with the most symbols.

  Returns:
    words_bkw, and how many words each lane has.
  """
  lanes = _num_lanes(model, len(words_kw), max_lanes)
  needed = -(-len(words_kw) // lanes)
  most = max(1, 4096 // fmt.max_symbols)  # Bounds the decoder's output.
  num = min(most, 1 << max(0, needed - 1).bit_length())
  rows = -(-len(words_kw) // num)
  count_b = np.clip(len(words_kw) - num * np.arange(rows), 0, num)
  padded = _pad_rows(words_kw, rows * num)
  return padded.reshape(rows, num, fmt.num_limbs), count_b.astype(np.int32)


def _concatenate(parts: tuple[np.ndarray, ...]) -> np.ndarray:
  """Along the rows, with the other axes padded to the largest."""
  shape = np.max([x.shape[1:] for x in parts], axis=0)
  widths = lambda x: [
    (0, 0),
    *zip([0] * len(shape), shape - x.shape[1:], strict=True),
  ]
  if not len(shape):
    return np.concatenate(parts)
  return np.concatenate([np.pad(x, widths(x)) for x in parts])


def _scatter(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Rows of values to where the mask is set, zeros elsewhere."""
  full = np.zeros((*mask.shape, *values.shape[1:]), values.dtype)
  full[mask] = values
  return full


def _encode_tile(text_bt, length_b, model, fmt, lanes) -> tuple:
  num = len(text_bt)
  inputs = _pad_rows(text_bt, lanes), _pad_rows(length_b, lanes)
  inputs = jax.tree.map(jnp.asarray, inputs)
  for capacity in _capacities(fmt, lanes, text_bt.shape[1] + 1):
    coder = base.drive(
      model,
      window_encoder.init(fmt, lanes, capacity),
      inputs,
      coder_step=window_encoder.step,
      fmt=fmt,
      saving=fmt.carries_model and fmt.close_rule != 'greedy_zero_pad',
    )
    if bool((coder.start_b == inputs[1] + 1).all()):
      break
  used = int(coder.count_b[:num].max(initial=0))
  return (
    np.asarray(coder.words_bkw)[:num, :used].astype(np.uint16),
    np.asarray(coder.count_b)[:num],
    np.asarray(coder.symbols_bk)[:num, :used],
  )


def _capacities(fmt: WindowFormat, lanes: int, longest: int) -> list[int]:
  """Room for words to try: for 8 bits per symbol, then for the worst case of
  one symbol per word; at once for that if it is little memory."""
  if lanes * longest * fmt.num_limbs <= 1 << 20:
    return [longest]
  return [longest * 8 // fmt.window_bits + 8, longest]


def _decode_tile(words_bkw, count_b, model, fmt, lanes) -> tuple:
  num = len(words_bkw)
  inputs = _pad_rows(words_bkw, lanes), _pad_rows(count_b, lanes)
  inputs = jax.tree.map(jnp.asarray, inputs)
  coder = base.drive(
    model,
    window_decoder.init(fmt, *inputs),
    inputs,
    coder_step=window_decoder.step,
    fmt=fmt,
  )
  lengths = np.asarray(coder.lengths_bk)[:num]
  used = int(lengths.max(initial=0))
  arrays = np.asarray(coder.symbols_bkn)[:num, :, :used], lengths
  if coder.padded_bkn is None:
    return arrays
  return *arrays, np.asarray(coder.padded_bkn)[:num, :, :used]


def _apply_rule(fmt, symbols_bkn, lengths_bk, padded_bkn=None) -> Symbols:
  if fmt.close_rule == 'cell':
    return Symbols(symbols_bkn, lengths_bk, np.ones(lengths_bk.shape, bool))
  is_exact_bk = padded_bkn.any(axis=2)
  if fmt.close_rule == 'delay':
    return Symbols(symbols_bkn, lengths_bk, is_exact_bk)
  place = np.arange(1, symbols_bkn.shape[2] + 1, dtype=np.int32)
  longest_bk = (padded_bkn * place).max(axis=2, initial=0)
  length_bk = np.where(is_exact_bk, longest_bk, lengths_bk)
  return Symbols(symbols_bkn, length_bk, is_exact_bk, padded_bkn)


def _verify(text_bt, length_b, coded, model, fmt) -> None:
  decoded = decode_windows(coded.words_bkw, coded.num_words_b, model, fmt)
  for b, text in enumerate(to_bytes(decoded, coded.num_words_b)):
    if text != text_bt[b, : length_b[b]].tobytes():
      raise RoundTripError(
        f'row {b} of text_bt does not decode to itself with {fmt} and model '
        f'{model.fingerprint()[:16]} of level {model.level.name}: the model '
        'gave other CDFs when decoding. Do not use this output.'
      )
