# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import logging
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxtok.train import checkpoint, errors, sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  step: Any
  params: Any
  rest: Any
  ema: Any
  opt_state: Any


def make_state(config=None, step=0, ema=False):
  """A state with all kinds of leaves, split over a mesh."""
  mesh = (config or sharding.Config(data=2, model=2)).make()
  split = NamedSharding(mesh, PartitionSpec('data', 'model'))
  whole = NamedSharding(mesh, PartitionSpec())
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(64, 64)).astype(np.float32) + step
  kernels = {i: {'kernel': jax.device_put(kernel + i, split)} for i in (0, 10)}
  half = jnp.arange(4, dtype=jnp.bfloat16)
  return State(
    step=jax.device_put(jnp.int32(step), whole),
    params={'layers': kernels, 'scale': jax.device_put(half, whole)},
    rest={'layers': {0: {'calls': jax.device_put(jnp.uint8(7), whole)}}},
    ema=jax.tree.map(lambda x: x + 1, {'layers': kernels}) if ema else {},
    opt_state=({'mu': jax.device_put(kernel * 2, split)}, ()),
  )


def shapes(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


def save(workdir, *steps, scores=None, max_to_keep=3, **kwargs):
  saved = checkpoint.Checkpoints(workdir, max_to_keep=max_to_keep)
  for step in steps:
    saved.save(
      step,
      make_state(step=step, **kwargs),
      data=[{'row': step * 2**40}],
      meta={'tally': {'x': 0.1 + step}},
      score=(scores or {}).get(step),
    )
  saved.wait()
  kept = saved.steps()
  saved.close()
  return kept


def restore(workdir, state):
  saved = checkpoint.Checkpoints(workdir)
  try:
    return saved.restore(shapes(state))
  finally:
    saved.close()


def test_a_2x2_checkpoint_restores_on_1x4(tmp_path):
  save(tmp_path, 3)
  want = make_state(sharding.Config(data=1, model=4), step=3)
  found = restore(tmp_path, want)
  assert (found.step, found.data) == (3, [{'row': 3 * 2**40}])
  assert found.meta == {'tally': {'x': 3.1}}
  jax.tree.map(np.testing.assert_array_equal, found.state, want)
  kernel = found.state.params['layers'][10]['kernel']
  assert kernel.sharding == want.params['layers'][10]['kernel'].sharding
  assert {s.data.shape for s in kernel.addressable_shards} == {(64, 16)}


def test_an_empty_workdir_restores_nothing(tmp_path):
  assert restore(tmp_path, make_state()) is None


def test_a_saved_state_may_be_donated_at_once(tmp_path):
  spoil = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, state := make_state(step=1), data=[], meta={})
  spoil(state)
  saved.close()
  want = make_state(step=1)
  jax.tree.map(
    np.testing.assert_array_equal, restore(tmp_path, want).state, want
  )


def test_the_newest_and_the_best_are_kept_across_restarts(tmp_path):
  scores = {1: 3.0, 2: 1.0, 3: 2.0}
  assert save(tmp_path, 1, 2, 3, 4, scores=scores, max_to_keep=2) == [2, 3, 4]
  assert save(tmp_path, 5, 6, scores={5: 1.5}, max_to_keep=2) == [2, 5, 6]
  assert save(tmp_path, 7, scores={7: 0.5}, max_to_keep=1) == [7]


# When a read fails, Orbax leaves its other reads with a closed event loop.
orphans = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


@pytest.fixture
def settle():
  """Gives such reads the time to end before the next test."""
  yield
  time.sleep(0.3)


def array_files(folder):
  """The files with the arrays, in Orbax' data folders."""
  return [path for path in folder.glob('state/**/d/*') if path.is_file()]


def flip_bits(folder):
  for path in array_files(folder):
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 4, len(content), 512):
      content[i] ^= 0x10
    path.write_bytes(content)


def truncate(folder):
  for path in array_files(folder):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_state(folder):
  shutil.rmtree(folder / 'state')


def change_meta(folder):
  path = folder / 'meta' / 'metadata'
  meta = json.loads(path.read_text())
  meta['values']['tally']['x'] += 1
  path.write_text(json.dumps(meta))


@orphans
@pytest.mark.usefixtures('settle')
@pytest.mark.parametrize(
  'damage', [flip_bits, truncate, lose_state, change_meta]
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
  tmp_path, caplog, damage
):
  save(tmp_path, 1, 2)
  damage(tmp_path / 'checkpoints' / '2')
  with caplog.at_level(logging.WARNING):
    found = restore(tmp_path, make_state())
  assert found.step == 1
  # Orbax' abandoned reads may log too, with the path of this test.
  records = [r for r in caplog.records if r.name == 'absl']
  message = next(r.getMessage() for r in records if 'damaged' in r.msg)
  assert str(tmp_path / 'checkpoints' / '2') in message
  assert 'Continuing from step 1' in message
  # The run can write step 2 again.
  assert (tmp_path / checkpoint.BAD_FOLDER / '2').exists()
  assert save(tmp_path, 2) == [1, 2]
  assert restore(tmp_path, make_state()).step == 2


@orphans
@pytest.mark.usefixtures('settle')
def test_if_all_checkpoints_are_damaged_each_is_named(tmp_path):
  save(tmp_path, 1, 2)
  for step in (1, 2):
    truncate(tmp_path / 'checkpoints' / str(step))
  with pytest.raises(errors.CheckpointError, match=r'step 2: .*; step 1: '):
    restore(tmp_path, make_state())


@pytest.mark.parametrize('ema', [False, True])
def test_parameters_can_be_read_without_the_optimizer(tmp_path, ema):
  save(tmp_path, 1, 2, ema=ema)
  for step in (1, 2):
    found = checkpoint.restore_params(tmp_path, None if step == 2 else step)
    state = make_state(step=step, ema=ema)
    for i in (0, 10):
      want = (state.ema if ema else state.params)['layers'][i]['kernel']
      np.testing.assert_array_equal(found['layers'][i]['kernel'], want)
    assert found['layers'][0]['calls'] == 7
  with pytest.raises(errors.CheckpointError, match=r'of step 5\. It has: 1, 2'):
    checkpoint.restore_params(tmp_path, 5)
  with pytest.raises(errors.CheckpointError, match='there is none'):
    checkpoint.restore_params(tmp_path / 'nothing')


@orphans
@pytest.mark.usefixtures('settle')
def test_reading_parameters_passes_over_damaged_checkpoints(tmp_path):
  save(tmp_path, 1, 2)
  flip_bits(tmp_path / 'checkpoints' / '2')
  found = checkpoint.restore_params(tmp_path)
  want = make_state(step=1).params['layers'][0]['kernel']
  np.testing.assert_array_equal(found['layers'][0]['kernel'], want)
