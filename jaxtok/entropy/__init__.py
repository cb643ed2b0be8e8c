# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact entropy coding in uint32, under jit, over thousands of lanes.

  words_bkw, num_words_b, _ = entropy.encode_windows(text_bt, length_b, model)
  symbols = entropy.decode_windows(words_bkw, num_words_b, model)
  texts = entropy.to_bytes(symbols, num_words_b)

Models are integer CDFs: tables (`fit`), integer networks (`IntByteLM`;
`shipped.model()` is a trained one) or, tied to one machine, float models
(`FixedTile`). On the command line:
`python -m jaxtok.entropy compress FILE -o FILE.jtz`.
"""

import importlib

_EXPORTS = {
  'DeterminismLevel': 'determinism',
  'EOS': 'quantize',
  'FixedTile': 'determinism',
  'FormatError': 'header',
  'IntByteLM': 'integer_model',
  'NextByteModel': 'base',
  'NotDecodableError': 'determinism',
  'RangeDecoder': 'stream',
  'RangeEncoder': 'stream',
  'RoundTripError': 'window',
  'StreamHeader': 'header',
  'TableModel': 'table',
  'WindowDictionary': 'dictionary',
  'WindowFormat': 'formats',
  'code_length': 'stream',
  'compile_window_dictionary': 'dictionary',
  'decode_stream': 'stream',
  'decode_windows': 'window',
  'encode_stream': 'stream',
  'encode_windows': 'window',
  'fit': 'table',
  'freqs_from_logits': 'quantize',
  'freqs_to_cdf': 'quantize',
  'load_model': 'model_file',
  'mulshift16': 'quantize',
  'quantize_pmf': 'quantize',
  'save_model': 'model_file',
  'to_bytes': 'window',
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
  if name in _EXPORTS:
    module = importlib.import_module(f'jaxtok.entropy.{_EXPORTS[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return __all__
