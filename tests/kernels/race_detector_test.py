# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The simulators find the bugs that the kernel tests rely on them to find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import _compat, flash_attention, interpret_mode, masks
from jaxtok_kernels.flash_attention import cost, gpu_mosaic


def _doubled(x, mode, *, waits):
  """Copies rows by hand, one copy ahead of its use, and doubles them."""

  def kernel(x_ref, out_ref, buffer, sem):
    def copy(i):
      return pltpu.make_async_copy(x_ref.at[i], buffer.at[i % 2], sem.at[i % 2])

    copy(0).start()
    for i in range(4):
      if i < 3:
        copy(i + 1).start()
      if waits or i != 2:
        copy(i).wait()
      out_ref[i] = 2 * buffer[i % 2]
    if not waits:
      copy(2).wait()

  return pl.pallas_call(
    kernel,
    out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
    scratch_shapes=[
      pltpu.VMEM((2, *x.shape[1:]), x.dtype),
      pltpu.SemaphoreType.DMA((2,)),
    ],
    interpret=pltpu.InterpretParams(
      detect_races=True, uninitialized_memory='nan', dma_execution_mode=mode
    ),
  )(x)


@pytest.mark.parametrize('mode', ['on_wait', 'eager'])
def test_a_copy_that_is_not_waited_for_is_a_race_on_tpu(mode):
  x = jnp.arange(4 * 8 * 128, dtype=jnp.float32).reshape(4, 8, 128)
  good = jax.block_until_ready(_doubled(x, mode, waits=True))
  assert not _compat.tpu_races()
  np.testing.assert_array_equal(good, 2 * x)
  pltpu.reset_tpu_interpret_mode_state()
  bad = jax.block_until_ready(_doubled(x, mode, waits=False))
  assert _compat.tpu_races()
  # Eager copies hide the bug in the values: only the detector sees it.
  assert np.array_equal(bad, 2 * x) == (mode == 'eager')
  pltpu.reset_tpu_interpret_mode_state()


def test_reading_keys_before_they_arrived_is_a_race_on_hopper(monkeypatch):
  """The flash kernel with one wait moved behind the use of its tile."""
  monkeypatch.setattr(cost, 'mosaic_tiles', lambda h: cost.MosaicTiles(64, 2))
  wait, step = plgpu.barrier_wait, gpu_mosaic._step

  def late(*args):
    held = []

    def first_later(ref):
      return wait(ref) if held else held.append(ref)

    monkeypatch.setattr(plgpu, 'barrier_wait', first_later)
    found = step(*args)
    monkeypatch.setattr(plgpu, 'barrier_wait', wait)
    wait(held[0])
    return found

  monkeypatch.setattr(gpu_mosaic, '_step', late)
  q = jnp.ones((1, 128, 1, 64), jnp.bfloat16)
  with interpret_mode(_compat.gpu_interpret_params(detect_races=True)):
    jax.block_until_ready(
      functools.partial(
        flash_attention, mask=masks.full(), implementation='mosaic_gpu'
      )(q, q, q)
    )
  assert _compat.gpu_races()
