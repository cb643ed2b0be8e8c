# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A shortened encoder is faster, not only smaller on paper.

Kallini et al. 2025, arXiv:2410.20771, report significant gains in run time. By
the count of matrix products, an encoder with ByT5-small's number of blocks that
loses half of 1,024 positions after 3 of 12 is 1.6 times as cheap.

Check: such an encoder of width 256 with random weights, two rows of 1,024 ids
on a CPU, float32. Half of each row, and seven in ten, are deleted (at random:
which positions it is does not matter for the time), so that the survivors fill
buckets of 512 and 384. Times with and without deletion are taken in turn, in
one process, and the fastest of each is compared. The survivors are gathered,
their relative biases looked up, and the result padded, all inside the measured
call.
"""

import dataclasses
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
  'encoder at least 1.25 times as fast, on a CPU.'
)
THRESHOLD = {'speedup': '>= 1.25'}
SEEDS = (0,)
_SHARES = {'': 0.5, '_70': 0.7}  # Deleted.


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
  )
  return speedups(config, seed, rows=2, length=length, rounds=rounds)


def speedups(
  config: mrt5.Config, seed: int, *, rows: int, length: int, rounds: int
) -> dict[str, float]:
  """Ratios of times, and of FLOPs, with half and with 0.7 deleted.

  Args:
    config: Of the model; its shortener is replaced.
    seed: Of weights and ids.
    rows: Of a batch.
    length: Ids of a row.
    rounds: How often each is timed.
  """
  ids = np.random.default_rng(seed).integers(3, 259, (rows, length))
  tokens, calls = jnp.asarray(ids, jnp.int32), {}
  for name, share in _SHARES.items():
    config = dataclasses.replace(
      config, shortener=shorteners.Random(mean=share)
    )
    model = config.make(nnx.Rngs(seed))
    if not name:
      calls['off'] = _encoder(model, tokens, 'off')
    calls[f'hard{name}'] = _encoder(model, tokens, 'hard')
  seconds = {name: [] for name in calls}
  for call in calls.values():
    jax.block_until_ready(call())  # Compiles.
  for _ in range(rounds):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      seconds[name].append(time.perf_counter() - start)
  best = {name: min(times) for name, times in seconds.items()}
  shape = base.Shape(b=rows, t=1, s=length)
  flops = lambda kept: model.flops(shape, kept)['encoder']
  numbers = {'milliseconds_off': 1e3 * best['off']}
  for name, share in _SHARES.items():
    numbers |= {
      f'speedup{name}': best['off'] / best[f'hard{name}'],
      f'flops_ratio{name}': flops(1.0) / flops(1 - share),
      f'milliseconds_hard{name}': 1e3 * best[f'hard{name}'],
    }
  return numbers


def _encoder(model: mrt5.MrT5, tokens, deletion: str):
  graph, params = nnx.split(model)
  call = jax.jit(
    lambda params, tokens: nnx.merge(graph, params).encode(
      tokens, deletion=deletion
    )
  )
  return lambda: call(params, tokens)
