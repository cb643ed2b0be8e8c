# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Float models code losslessly as fixed tiles, and only so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.entropy import determinism, stream, window
from jaxtok.entropy.determinism import FixedTile, NotDecodableError
from jaxtok.entropy.formats import WindowFormat
from tests.entropy import coding_oracle as oracle


class Recurrent:
  """A float32 model: h <- tanh(W h + E x), p = softmax(V h)."""

  def __init__(self, seed=0, width=48):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    self.w = draw(width, width) / width**0.5
    self.e = draw(257, width)
    self.v = draw(width, 257)

  def fingerprint(self):
    arrays = {'w': self.w, 'e': self.e, 'v': self.v}
    return determinism.fingerprint('recurrent', arrays)

  def init_state(self, batch_size):
    return jnp.zeros((batch_size, len(self.w)), jnp.float32)

  def next_pmf(self, state):
    return jax.nn.softmax(state @ self.v)

  def step(self, state, symbol_b):
    return jnp.tanh(state @ self.w + self.e[symbol_b])


TEXTS = [b'', b'abc' * 9, bytes(range(40)), b'\x00\xff' * 7, b'zz']


@pytest.mark.parametrize('reset_every', [1, 2])
def test_float_models_round_trip_as_fixed_tiles(reset_every):
  model = FixedTile(Recurrent(), tile=4)
  fmt = WindowFormat(window_bits=32, reset_every=reset_every)
  packed = oracle.pack(TEXTS)
  windows = window.encode_windows(*packed, model, fmt, verify=False)
  decoded = window.decode_windows(*windows[:2], model, fmt)
  assert window.to_bytes(decoded, windows.num_words_b) == TEXTS


def test_float_models_round_trip_through_the_stream_coder():
  model = FixedTile(Recurrent(), tile=4)
  text_bt, length_b = oracle.pack(TEXTS[:4])
  digits = stream.encode_stream(text_bt, length_b, model)
  got, _ = stream.decode_stream(digits.digits_bk, length_b, model)
  for row, text, num in zip(got, TEXTS, length_b, strict=False):
    assert bytes(row[:num].astype(np.uint8)) == text


def test_verification_catches_a_model_that_changes_between_runs():
  class Moody(FixedTile):
    """Changes its probabilities when asked for the 40th time."""

    calls = 0

    def next_cdf(self, state):
      Moody.calls += 1
      if Moody.calls == 40:
        self.model = Recurrent(seed=1)
        self._next_cdf = jax.jit(self._cdf_of)
      return super().next_cdf(state)

  model = Moody(Recurrent(), tile=4)
  with pytest.raises(window.RoundTripError, match='row'):
    window.encode_windows(*oracle.pack(TEXTS), model, WindowFormat())


def test_fixed_tiles_refuse_other_batch_sizes():
  model = FixedTile(Recurrent(), tile=4)
  with pytest.raises(ValueError, match='batch_size=3'):
    model.init_state(3)
  with pytest.raises(ValueError, match='tile=0'):
    FixedTile(Recurrent(), tile=0)


def test_levels_that_cannot_decode_say_so():
  with pytest.raises(NotDecodableError, match='code_length'):
    determinism.require_decodable(determinism.DeterminismLevel.UNCHECKED)


def test_fingerprints_change_with_anything_that_matters():
  arrays = {'a': np.arange(4, dtype=np.int32), 'b': np.zeros(2)}
  base = determinism.fingerprint('kind', arrays, order=1)
  assert base == determinism.fingerprint('kind', dict(arrays), order=1)
  others = [
    determinism.fingerprint('other', arrays, order=1),
    determinism.fingerprint('kind', arrays, order=2),
    determinism.fingerprint('kind', {**arrays, 'b': np.ones(2)}, order=1),
    determinism.fingerprint(
      'kind', {**arrays, 'a': arrays['a'].astype(np.int64)}, order=1
    ),
    determinism.fingerprint(
      'kind', {**arrays, 'a': arrays['a'].reshape(2, 2)}, order=1
    ),
  ]
  assert len({base, *others}) == 6
