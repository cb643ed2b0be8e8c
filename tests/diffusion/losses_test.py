# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches that are cut to a random length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxtok.diffusion import llada, losses, mdlm
from tests.diffusion import enumerable

ROWS, T = 3, 6


def batch():
  rng = np.random.default_rng(0)
  draw = lambda high: jnp.asarray(rng.integers(1, high, (ROWS, T)), jnp.int32)
  return {
    'tokens_bt': draw(9),
    'targets_bt': draw(9),
    'loss_mask_bt': jnp.ones((ROWS, T)),
    'segment_ids_bt': draw(3),
    'positions_bt': draw(9),
    'num_bytes_bt': draw(5),
  }


def test_a_share_of_batches_is_cut_to_a_uniform_length():
  num, rate = 6000, 0.3
  rows = batch()
  found = jax.vmap(lambda rng: losses.cropped(rows, rng, rate))(
    jax.random.split(jax.random.key(0), num)
  )
  length = np.asarray(found['loss_mask_bt']).sum(-1).astype(int)
  assert (length == length[:, :1]).all(), 'rows of one batch differ'
  is_kept = np.arange(T) < length[:, :1, None]
  for name, x in rows.items():
    is_hidden = name in ('loss_mask_bt', 'segment_ids_bt', 'num_bytes_bt')
    want = (
      np.where(is_kept, x, 0)
      if is_hidden
      else np.broadcast_to(x, (num, *x.shape))
    )
    np.testing.assert_array_equal(found[name], want)
    assert found[name].dtype == x.dtype
  # A whole batch also comes from the longest length.
  want = np.full(T, rate / T) + (1 - rate) * (np.arange(1, T + 1) == T)
  counted = np.bincount(length[:, 0], minlength=T + 1)
  assert counted[0] == 0
  assert stats.chisquare(counted[1:], num * want).pvalue > 1e-3


@pytest.mark.parametrize('module', [mdlm, llada])
def test_the_loss_of_a_cut_batch_is_that_of_the_shorter_one(module):
  model, rows = enumerable.Lookup(), enumerable.batch(4)
  objective = module.Config(mask_id=enumerable.V, crop_rate=1.0).make()
  plain = module.Config(mask_id=enumerable.V).make()
  lengths = set()
  for seed in range(6):
    rng = jax.random.key(seed)
    loss = objective(model, rows, rng)
    mask_rng, crop_rng = jax.random.split(rng)
    cut = losses.cropped(rows, crop_rng, 1.0)
    lengths.add(int(cut['loss_mask_bt'][0].sum()))
    want = plain(model, cut, mask_rng)
    np.testing.assert_array_equal(loss.sum_nats, want.sum_nats)
    assert loss.weight == cut['loss_mask_bt'].sum()
  assert len(lengths) > 1
  # Evaluation cuts nothing.
  ours, theirs = (
    x.per_row(model, rows, jax.random.key(9))['bpb_bound']
    for x in (objective, plain)
  )
  np.testing.assert_array_equal(ours.total, theirs.total)
  np.testing.assert_array_equal(ours.weight, theirs.weight)


def test_wrong_rates_are_refused():
  with pytest.raises(ValueError, match=r'crop_rate=2.0 must be in \[0, 1\]'):
    mdlm.Config(mask_id=1, crop_rate=2.0)
  with pytest.raises(ValueError, match='cuts answers'):
    llada.FineTuning(mask_id=1, crop_rate=0.01)
