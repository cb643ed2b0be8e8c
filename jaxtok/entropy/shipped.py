# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The byte model that comes with the package, and its dictionary of windows.

`docs/compressed_text_model.md` says what they were trained on, how, and how
good they are. `python -m experiments.compressed_text.export` wrote them.
"""

import functools
import pathlib

from jaxtok.entropy import dictionary, model_file
from jaxtok.entropy.integer_model import IntByteLM

FOLDER = pathlib.Path(__file__).parent / 'weights'
MODEL, DICTIONARY = 'm1.npz', 'm1_windows16.npz'


@functools.cache
def model() -> IntByteLM:
  """The model: int8, for English prose and Python code."""
  return model_file.load_model(FOLDER / MODEL)


@functools.cache
def window_dictionary() -> dictionary.WindowDictionary:
  """The strings of its 16-bit windows; `with_close_rule` has another rule."""
  return dictionary.load(FOLDER / DICTIONARY)
