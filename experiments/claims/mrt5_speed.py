# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A shortened encoder is faster, not only smaller on paper.

Kallini et al. 2025, arXiv:2410.20771, report significant gains in run time. By
the count of matrix products, an encoder with ByT5-small's number of blocks that
loses half of 1,024 positions after 3 of 12 is 1.6 times as cheap.

Check: such an encoder of width 256 with random weights, two rows of 1,024 ids
on a CPU, float32. Half of each row is deleted (a random half: which positions
it is does not matter for the time), so that the survivors fill a bucket of 512.
Times with and without deletion are taken in turn, in one process, and the
fastest of each is compared. The survivors are gathered, their relative biases
looked up, and the result padded, all inside the measured call.
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.models import base, mrt5
from jaxtok.nn import shorteners

TITLE = 'MrT5, time of the encoder'
PAPER = 'Kallini et al. 2025, arXiv:2410.20771'
CLAIM = (
  'Deleting half of 1,024 positions after a quarter of the blocks makes the '
  'encoder at least 1.25 times as fast.'
)
THRESHOLD = {'speedup': '>= 1.25'}
SEEDS = (0,)
DEVICES = ('cpu', 'gpu')


def measure(
  workdir: pathlib.Path, *, seed: int, length: int = 1024, rounds: int = 5
) -> dict[str, float]:
  """Times the encoder; see the module."""
  del workdir
  config = mrt5.Config.byt5(
    vocab_size=384,
    dim=256,
    num_encoder_layers=12,
    num_layers=4,
    num_heads=4,
    head_dim=32,
    mlp_dim=640,
    shortener=shorteners.Random(mean=0.5),
  )
  model = config.make(nnx.Rngs(seed))
  graph, params = nnx.split(model)
  ids = np.random.default_rng(seed).integers(3, 259, (2, length))
  tokens = jnp.asarray(ids, jnp.int32)
  seconds: dict[str, list[float]] = {'off': [], 'hard': []}
  calls = {
    mode: jax.jit(
      lambda params, tokens, mode=mode: nnx.merge(graph, params).encode(
        tokens, deletion=mode
      )
    )
    for mode in seconds
  }
  for call in calls.values():
    jax.block_until_ready(call(params, tokens))  # Compiles.
  for _ in range(rounds):
    for mode, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call(params, tokens))
      seconds[mode].append(time.perf_counter() - start)
  shape = base.Shape(b=2, t=1, s=length)
  flops = {k: model.flops(shape, kept)['encoder'] for k, kept in _KEPT.items()}
  return {
    'speedup': min(seconds['off']) / min(seconds['hard']),
    'flops_ratio': flops['off'] / flops['hard'],
    'milliseconds_off': 1e3 * min(seconds['off']),
    'milliseconds_hard': 1e3 * min(seconds['hard']),
  }


_KEPT = {'off': 1.0, 'hard': 0.5}
