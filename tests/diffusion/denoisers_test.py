# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows that are done are left out, and nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jaxtok.diffusion import denoisers, samplers, selectors
from jaxtok.models import base as base_model
from jaxtok.tasks import base, dice_countdown

TASK = dice_countdown.DiceCountdown()
NUM_ROWS = 12


class Counting:
  """The exact denoiser of the dice, which tells the host its rows."""

  def __init__(self):
    self.rows = []

  def __call__(self, tokens_bt):
    tell = lambda: self.rows.append(tokens_bt.shape[0])
    io_callback(tell, None, ordered=True)
    return TASK.exact_denoiser(tokens_bt)


def decode(denoiser, selector, num_rows=NUM_ROWS):
  rows = jnp.asarray(base.batch(TASK, 0, 0, num_rows))
  is_answer_t = base.answer_positions(TASK)
  run = functools.partial(
    samplers.decode, prompt_len=TASK.prompt_len, mask_id=TASK.mask_id
  )
  canvas = samplers.start(
    rows, jnp.broadcast_to(is_answer_t, rows.shape), TASK.mask_id
  )
  rngs_b = samplers.row_rngs(jax.random.key(0), num_rows)
  out = jax.jit(lambda: run(denoiser, canvas, selector, rngs_b))()
  out = jax.block_until_ready(out)
  jax.effects_barrier()
  return out


def open_rows(denoiser, halvings=3):
  return denoisers.OpenRows(denoiser, TASK.mask_id, TASK.prompt_len, halvings)


@pytest.mark.parametrize('halvings', [0, 2, 9])
def test_rows_come_out_alike_and_done_ones_are_left_out(halvings):
  rule = selectors.EntropyBound(0.5)
  want = decode(TASK.exact_denoiser, rule)
  calls_b = np.asarray(want.num_calls_b)
  assert calls_b.min() < calls_b.max()
  counting = Counting()
  wrapped = open_rows(counting, halvings)
  got = decode(wrapped, rule)
  np.testing.assert_array_equal(got.tokens_bt, want.tokens_bt)
  np.testing.assert_array_equal(got.num_calls_b, calls_b)
  np.testing.assert_array_equal(got.reveal_step_bt, want.reveal_step_bt)
  # At each step the least of the sizes that holds the open rows.
  sizes = np.asarray(wrapped.sizes(NUM_ROWS))
  num_open_s = [(calls_b > step).sum() for step in range(calls_b.max())]
  assert counting.rows == [sizes[sizes >= n].min() for n in num_open_s]
  if halvings:
    assert sum(counting.rows) < NUM_ROWS * calls_b.max()


def test_a_row_in_between_keeps_its_own_logits():
  rows = jnp.asarray(base.batch(TASK, 0, 0, 5))
  is_open_b = np.asarray([False, True, False, False, True])
  tokens_bt = jnp.where(
    is_open_b[:, None] & (jnp.arange(rows.shape[1]) > 3), TASK.mask_id, rows
  )
  want = TASK.exact_denoiser(tokens_bt)
  got = jax.jit(open_rows(TASK.exact_denoiser))(tokens_bt)
  assert got.shape == want.shape
  # The exact denoiser takes each row by itself: the same operations.
  np.testing.assert_allclose(got[is_open_b], want[is_open_b], rtol=1e-6)
  np.testing.assert_array_equal(got[~is_open_b][0], 0)


def test_a_mask_in_the_prompt_does_not_count():
  rows = jnp.asarray(base.batch(TASK, 0, 0, 8)).at[:, 0].set(TASK.mask_id)
  counting = Counting()
  jax.block_until_ready(jax.jit(open_rows(counting))(rows))
  jax.effects_barrier()
  assert counting.rows == [1]


def test_sizes_are_halves_down_to_one():
  sizes = lambda num, halvings: open_rows(None, halvings).sizes(num)
  assert sizes(64, 3) == [8, 16, 32, 64]
  assert sizes(5, 9) == [1, 2, 3, 5]
  assert sizes(1, 3) == [1]
  with pytest.raises(ValueError, match='halvings=-1 must be >= 0'):
    sizes(8, -1)


def test_a_denoiser_of_this_batch_alone_is_refused():
  of_batch = denoisers.OfModel(None, None, segment_ids_bt=jnp.ones((2, 3)))
  with pytest.raises(ValueError, match='OfModel has segment_ids_bt'):
    open_rows(of_batch)(jnp.zeros((2, 3), jnp.int32))


class Shaped:
  """A language model that tells how many logits it was asked for."""

  def __init__(self, shapes):
    self.shapes = shapes

  def __call__(self, tokens_bt, *, segment_ids):
    hidden_btd = jax.nn.one_hot(tokens_bt * segment_ids, 7)
    return base_model.Output(hidden_btd, None)

  def logits(self, hidden_btd):
    self.shapes.append(hidden_btd.shape)
    return 2 * hidden_btd


@pytest.mark.parametrize('is_wrapped', [False, True])
def test_no_logits_are_made_for_prompts(is_wrapped):
  shapes, tokens_bt = [], jnp.asarray([[6, 1, 2, 6, 6], [6, 6, 3, 6, 6]])
  denoiser = denoisers.BehindPadding(Shaped(shapes), prompt_len=3, pad_id=6)
  whole_btv = denoiser(tokens_bt)
  assert shapes == [(2, 5, 7)]
  if is_wrapped:
    denoiser = denoisers.OpenRows(denoiser, 6, 3, halvings=0)
  canvas = samplers.start(tokens_bt, tokens_bt != 1, 6)
  view = samplers.look(
    denoiser,
    canvas,
    samplers.row_rngs(jax.random.key(0), 2),
    jnp.int32(0),
    prompt_len=3,
    mask_id=6,
  )
  assert shapes[1:] == [(2, 2, 7)]
  want = whole_btv[:, 3:].at[..., 6].set(-jnp.inf)
  np.testing.assert_array_equal(view.probs_btv, jax.nn.softmax(want))
