# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The integer model: exact in every way of running it."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.entropy import integer_model, model_file, quantize, stream, window
from jaxtok.entropy.formats import WindowFormat
from tests.entropy import coding_oracle as oracle

DIM, LAYERS = 24, 4


def random_model(seed=0, dim=DIM, layers=LAYERS):
  """Weights over the whole of int8, so that clips and shifts are in use."""
  rng = np.random.default_rng(seed)
  int8 = lambda *shape: rng.integers(-127, 128, shape).astype(np.int8)
  bias = lambda *shape: rng.integers(-20000, 20001, shape).astype(np.int32)
  return integer_model.check(
    integer_model.IntByteLM(
      embed_vd=int8(258, dim),
      mix_led=int8(layers, 2 * dim, dim),
      bias_ld=bias(layers, dim),
      out_ldd=int8(layers, dim, dim),
      head_dv=int8(dim, 257),
      head_bias_v=bias(257),
      shifts_l2=rng.integers(8, 13, (layers, 2)).astype(np.int32),
      head_shift=np.int32(7),
    )
  )


def brute_force(model, symbols):
  """Logits before each symbol of one text, place by place in int64."""
  w = {k: np.asarray(v).astype(np.int64) for k, v in model.arrays().items()}
  shift = lambda x, s: np.floor_divide(x + (2**s) // 2, 2**s)
  tokens = [257, *symbols]
  states = [w['embed_vd'][tokens]]
  for i in range(model.num_layers):
    h, rows = states[-1], []
    for t in range(len(tokens)):
      past = h[t - 2**i] if t >= 2**i else 0 * h[t]
      a = np.concatenate([h[t], past]) @ w['mix_led'][i] + w['bias_ld'][i]
      g = np.clip(shift(a, w['shifts_l2'][i, 0]), 0, 127)
      o = shift(g @ w['out_ldd'][i], w['shifts_l2'][i, 1])
      rows.append(np.clip(h[t] + o, -127, 127))
    states.append(np.array(rows))
  sums = states[-1] @ w['head_dv'] + w['head_bias_v']
  return shift(sums, w['head_shift'])


@pytest.fixture(scope='module')
def model():
  return random_model()


def random_symbols(rows, length, seed=1):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 257, (rows, length)).astype(np.int32)


@pytest.mark.parametrize('matmul', ['int8', 'float32'])
def test_logits_equal_a_place_by_place_computation_in_int64(model, matmul):
  model = dataclasses.replace(model, matmul=matmul)
  symbols = random_symbols(2, 40)
  inputs = np.pad(symbols, ((0, 0), (1, 0)), constant_values=257)
  run = jax.jit(lambda m, x: m.logits(m.hidden(x)))
  got = np.asarray(run(model, jnp.asarray(inputs)))
  for row, text in zip(got, symbols, strict=True):
    np.testing.assert_array_equal(row, brute_force(model, text.tolist()))


def test_steps_and_whole_texts_give_the_same_cdfs(model):
  symbols = random_symbols(3, 50)
  low, high = map(np.asarray, stream.intervals(model, symbols))
  step, next_cdf = jax.jit(model.step), jax.jit(model.next_cdf)
  state, rows = model.init_state(3), np.arange(3)
  for t in range(50):
    cdf = np.asarray(next_cdf(state))
    quantize.check_cdf(cdf)
    np.testing.assert_array_equal(cdf[rows, symbols[:, t]], low[:, t])
    np.testing.assert_array_equal(cdf[rows, symbols[:, t] + 1], high[:, t])
    state = step(state, jnp.asarray(symbols[:, t]))


def test_lanes_that_wait_or_reset_keep_in_step(model):
  """Each lane's history is its own: some step, some rest, some start anew."""
  rng = np.random.default_rng(0)
  follow, next_cdf = jax.jit(model.follow), jax.jit(model.next_cdf)
  fresh = state = model.init_state(4)
  texts = [[], [], [], []]
  for symbols in random_symbols(60, 4, seed=2):
    advance, reset = rng.random(4) < 0.7, rng.random(4) < 0.06
    state = follow(state, fresh, *map(jnp.asarray, (symbols, advance, reset)))
    for b, text in enumerate(texts):
      text += [int(symbols[b])] * bool(advance[b])
      texts[b] = [] if reset[b] else text
  want = [integer_logits_to_cdf(brute_force(model, text)[-1]) for text in texts]
  np.testing.assert_array_equal(next_cdf(state), want)


def integer_logits_to_cdf(logits):
  freqs = quantize.freqs_from_logits(jnp.asarray(logits, jnp.int32))
  return oracle.cdf_of(np.asarray(freqs).astype(int))


@pytest.mark.slow  # Half a minute of compilation.
def test_words_do_not_depend_on_batch_size_jit_or_matmul(model):
  fmt = WindowFormat(window_bits=64)
  rng = np.random.default_rng(0)
  texts = [rng.bytes(n) for n in (0, 3, 16, 11, 16)]

  def words(model, size):
    rows = []
    for i in range(0, len(texts), size):
      packed = oracle.pack(texts[i : i + size])
      windows = window.encode_windows(*packed, model, fmt, verify=False)
      rows += [oracle.as_pairs(windows, b) for b in range(len(packed[1]))]
    return rows

  want = words(model, 5)
  assert words(model, 2) == want
  assert words(dataclasses.replace(model, matmul='float32'), 5) == want
  with jax.disable_jit():
    assert words(model, 5) == want


def test_text_round_trips_with_and_without_resets(model):
  texts = [b'', b'hello hello', bytes(range(200, 256)), b'\x00' * 33]
  for reset_every in (1, 3):
    fmt = WindowFormat(window_bits=32, reset_every=reset_every)
    window.encode_windows(*oracle.pack(texts), model, fmt, verify=True)


def test_streams_round_trip(model):
  symbols = random_symbols(3, 70)
  length = np.array([70, 0, 33])
  digits = stream.encode_stream(symbols, length, model)
  got, _ = stream.decode_stream(digits.digits_bk, length, model)
  for row, want, num in zip(got, symbols, length, strict=True):
    np.testing.assert_array_equal(row[:num], want[:num])


def test_models_are_saved_with_their_hash(model, tmp_path):
  path = tmp_path / 'model.npz'
  for any_model in (
    model,
    oracle.order1(0),
    oracle.order0(oracle.flat_freqs()),
  ):
    model_file.save_model(any_model, path)
    again = model_file.load_model(path)
    assert again.fingerprint() == any_model.fingerprint()
    assert type(again) is type(any_model)
  data = bytearray(path.read_bytes())
  for place in range(0, len(data), 7):
    bad = bytes(data[:place]) + bytes([data[place] ^ 4]) + data[place + 1 :]
    path.write_bytes(bad)
    try:  # Some bytes of a zip archive mean nothing.
      found = model_file.load_model(path)
    except model_file.ModelFileError:
      continue
    assert found.fingerprint() == any_model.fingerprint()


def test_files_that_are_no_models_are_named(tmp_path):
  path = tmp_path / 'x.npz'
  with pytest.raises(FileNotFoundError, match='no model file'):
    model_file.load_model(path)
  path.write_bytes(b'something else')
  with pytest.raises(model_file.ModelFileError, match='not a model file'):
    model_file.load_model(path)
  np.savez(path, kind='window-dictionary-1')
  with pytest.raises(model_file.ModelFileError, match='window-dictionary-1'):
    model_file.load_model(path)


def test_weights_that_would_not_be_exact_are_refused(model):
  wrong = {
    'bias_ld': model.bias_ld * 100,
    'embed_vd': np.full_like(model.embed_vd, -128),
    'mix_led': model.mix_led.astype(np.int32),
    'head_shift': np.int32(31),
  }
  for name, value in wrong.items():
    with pytest.raises(ValueError, match=name):
      integer_model.check(dataclasses.replace(model, **{name: value}))


DIGEST = """
import hashlib, sys
sys.path[:0] = ['tests/entropy']
import coding_oracle as oracle
import numpy as np
from integer_model_test import random_model
from jaxtok.entropy import window
from jaxtok.entropy.formats import WindowFormat
rng = np.random.default_rng(0)
texts = [rng.bytes(n) for n in range(0, 90, 9)]
packed = oracle.pack(texts)
windows = window.encode_windows(
  *packed, random_model(), WindowFormat(window_bits=64), verify=True)
print(hashlib.sha256(windows.words_bkw.tobytes()).hexdigest())
"""


@pytest.mark.multihost
def test_words_are_the_same_in_other_processes_with_other_devices():
  flags = ['', '--xla_force_host_platform_device_count=4']
  flags += ['--xla_cpu_multi_thread_eigen=false']
  found = set()
  for i, flag in enumerate(flags):
    environment = {
      **os.environ,
      'XLA_FLAGS': flag,
      'PYTHONHASHSEED': str(i),
      'JAX_PLATFORMS': 'cpu',
    }
    done = subprocess.run(
      [sys.executable, '-c', DIGEST],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    found.add(done.stdout)
  assert len(found) == 1
