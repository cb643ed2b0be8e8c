# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Headers are read back, checked against the model, and refuse damage."""

import dataclasses
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.entropy import determinism
from jaxtok.entropy.determinism import DeterminismLevel, NotDecodableError
from jaxtok.entropy.formats import CLOSE_RULES, MAX_SYMBOLS, WindowFormat
from jaxtok.entropy.header import FormatError, StreamHeader
from tests.entropy import coding_oracle as oracle

WINDOWS = st.builds(
  WindowFormat,
  window_bits=st.sampled_from(sorted(MAX_SYMBOLS)),
  close_rule=st.sampled_from(CLOSE_RULES),
  max_symbols=st.integers(0, 1000),
  reset_every=st.integers(0, 9),
)


@given(st.one_of(st.none(), WINDOWS), st.binary(min_size=16, max_size=16))
@settings(deadline=None)
def test_headers_read_back_as_written(window, model):
  header = StreamHeader(
    level=DeterminismLevel.INTEGER,
    model_fingerprint=model.hex(),
    coder='window' if window else 'stream',
    window=window,
  )
  data = header.to_bytes()
  file = io.BytesIO(data + b'rest')
  assert StreamHeader.read(file) == header
  assert file.read() == b'rest'
  assert len(data) <= 48


def test_every_flipped_bit_and_every_cut_is_an_error():
  data = StreamHeader.of(oracle.order1(0), WindowFormat()).to_bytes()
  for place in range(len(data)):
    with pytest.raises(FormatError):
      StreamHeader.read(io.BytesIO(data[:place]))
    for bit in range(8):
      bad = bytearray(data)
      bad[place] ^= 1 << bit
      with pytest.raises(FormatError):
        StreamHeader.read(io.BytesIO(bytes(bad)))


def test_another_model_is_refused_by_name():
  header = StreamHeader.of(oracle.order1(0))
  header.check(oracle.order1(0))
  with pytest.raises(NotDecodableError, match='coded with model'):
    header.check(oracle.order1(1))


class FloatModel:
  """Only what headers look at."""

  def fingerprint(self):
    return 64 * 'a'

  def step(self, state, symbol_b):
    return state


def test_float_models_are_tied_to_their_tile_and_platform():
  header = StreamHeader.of(determinism.FixedTile(FloatModel(), tile=4))
  again = StreamHeader.read(io.BytesIO(header.to_bytes()))
  assert again == header
  assert again.platform['backend'] == 'cpu'
  again.check(determinism.FixedTile(FloatModel(), tile=4))
  with pytest.raises(NotDecodableError, match='tile=4'):
    again.check(determinism.FixedTile(FloatModel(), tile=8))
  other = dataclasses.replace(again, platform={**again.platform, 'jax': '0'})
  with pytest.raises(NotDecodableError, match='platform'):
    other.check(determinism.FixedTile(FloatModel(), tile=4))


def test_unchecked_models_get_no_header():
  model = FloatModel()
  model.level = DeterminismLevel.UNCHECKED
  with pytest.raises(NotDecodableError, match='UNCHECKED'):
    StreamHeader.of(model)
