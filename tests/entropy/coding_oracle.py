# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Texts and models that are hard to code, shared by the coder tests."""

import random

import numpy as np

from jaxtok.entropy import quantize, table

NUM = quantize.NUM_SYMBOLS


def cdf_of(freqs):
  return np.concatenate([[0], np.cumsum(freqs)]).astype(np.uint32)


def sparse_freqs(rng, shape):
  """Frequencies of a gamma-distributed pmf with few likely symbols."""
  p = rng.gamma(shape, size=NUM)
  f = np.floor(p / p.sum() * (quantize.TOTAL - NUM)).astype(int) + 1
  f[np.argmax(f)] += quantize.TOTAL - f.sum()
  return f


def peaked_freqs(symbol):
  """One symbol has all that the others can spare."""
  f = np.ones(NUM, int)
  f[symbol] = quantize.TOTAL - NUM + 1
  return f


def flat_freqs():
  f = np.full(NUM, quantize.TOTAL // NUM)
  f[0] += quantize.TOTAL - f.sum()
  return f


def dyadic_freqs():
  """Bounds that fall on the edges of cells again and again."""
  f = np.ones(NUM, int)
  f[:4] = [1 << 15, 1 << 14, 1 << 13, 1 << 12]
  f[4] = quantize.TOTAL - f.sum() + 1
  return f


def order1(seed, shape=0.03):
  """A model whose every context has another sparse distribution."""
  rng = np.random.default_rng(seed)
  rows = [cdf_of(sparse_freqs(rng, shape)) for _ in range(NUM)]
  return table.TableModel(np.stack(rows), order=1)


def order0(freqs):
  return table.TableModel(cdf_of(freqs)[None], order=0)


MODELS = {
  'sparse': lambda: order1(0),
  'dense': lambda: order1(1, shape=1.0),
  'peaked': lambda: order0(peaked_freqs(97)),
  'peaked at EOS': lambda: order0(peaked_freqs(256)),
  'flat': lambda: order0(flat_freqs()),
  'dyadic': lambda: order0(dyadic_freqs()),
}


def widen(model):
  """An order-0 model as one of order 1, so that one program serves all."""
  if model.order == 1:
    return model
  return table.TableModel(np.repeat(model.cdf_rv, NUM, axis=0), order=1)


def next_cdf(model):
  """The model as the reference coders want it."""
  rows = model.cdf_rv.tolist()
  if len(rows) == 1:
    return lambda context: rows[0]
  return lambda context: rows[context[-1] if context else quantize.EOS]


def likely_text(model, length, seed):
  """Text drawn from a model, so that windows get long; no EOS inside."""
  rng, cdf, context = random.Random(seed), next_cdf(model), []
  while len(context) < length:
    row, u = cdf(tuple(context)), rng.randrange(quantize.TOTAL)
    symbol = int(np.searchsorted(row, u, side='right')) - 1
    context.append(symbol if symbol < 256 else rng.randrange(256))
  return bytes(context)


def hard_texts(model):
  rng = random.Random(0)
  return [
    b'',
    b'a',
    bytes(range(256)),
    b'a' * 200,
    rng.randbytes(60),
    'é😀 naïve 漢字'.encode() * 2,
    b'\x00\xff\x00' * 5,
    likely_text(model, 90, 1),
    likely_text(model, 91, 2),
  ]


WIDTH = 256  # One width for all tests, so that few programs are compiled.


def pack(texts):
  """Texts to `(text_bt, length_b)`, with noise behind their ends."""
  text_bt = np.random.default_rng(0).integers(0, 256, (len(texts), WIDTH))
  text_bt = text_bt.astype(np.uint8)
  for row, text in zip(text_bt, texts, strict=True):
    row[: len(text)] = np.frombuffer(text, np.uint8)
  return text_bt, np.array([len(x) for x in texts])


def as_pairs(windows, row):
  """`(number of symbols, word)` of each window of a row, as integers."""
  return [
    (int(n), int.from_bytes(word.astype('>u2').tobytes()))
    for n, word in zip(
      windows.num_symbols_bk[row, : windows.num_words_b[row]],
      windows.words_bkw[row],
      strict=False,
    )
  ]


def as_words(numbers, bits):
  """Integers to the limbs of one row of words."""
  data = b''.join(int(x).to_bytes(bits // 8) for x in numbers)
  return np.frombuffer(data, '>u2').reshape(1, -1, bits // 16).astype(np.uint32)
