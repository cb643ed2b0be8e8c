# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The decoding loop: accounting, independence of rows, exact distributions."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import samplers, selectors

MASK = 3
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.1, 0.5]])
LENGTH = 4
# Not the stationary law: equal marginals would leave the choice of the most
# confident position to rounding.
START = np.array([0.55, 0.3, 0.15])


def joint():
  """All rows of the chain and their probabilities."""
  rows = np.array(list(itertools.product(range(3), repeat=LENGTH)))
  steps = P[rows[:, :-1], rows[:, 1:]].prod(-1)
  return rows, START[rows[:, 0]] * steps


def chain(tokens):
  """The exact denoiser of the chain, by conditioning the table of all rows."""
  rows, p = map(jnp.asarray, joint())
  fits = (tokens[:, None] == rows) | (tokens[:, None] == MASK)
  weight = jnp.where(fits.all(-1), p, 0)
  hot = jax.nn.one_hot(rows, 3)
  return jnp.log(jnp.einsum('br,rtv->btv', weight, hot) + 1e-30)


run = jax.jit(
  functools.partial(samplers.decode, chain),
  static_argnames=('prompt_len', 'mask_id', 'block', 'temperature'),
)


def blank(b, given=0):
  """Rows whose first `given` tokens are 0."""
  masked = jnp.tile(jnp.arange(LENGTH) >= given, (b, 1))
  return samplers.start(jnp.zeros((b, LENGTH), jnp.int32), masked, MASK)


def test_a_negative_mask_is_refused():
  tokens = jnp.zeros((1, 2), jnp.int32)
  with pytest.raises(ValueError, match='mask_id=-1 must be >= 0'):
    samplers.start(tokens, tokens == 0, -1)


def total_variation(selector, n):
  rngs = samplers.row_rngs(jax.random.key(0), n)
  out = run(
    blank(n), selector, rngs, prompt_len=0, mask_id=MASK, temperature=1.0
  )
  _, p = joint()
  index = np.asarray(out.tokens_bt) @ 3 ** np.arange(LENGTH - 1, -1, -1)
  got = np.bincount(index, minlength=len(p)) / n
  chi2 = n * ((got - p) ** 2 / p).sum()
  return chi2, 0.5 * np.abs(got - p).sum()


def test_one_token_at_a_random_position_per_step_is_exact():
  chi2, _ = total_variation(selectors.Random(1), 20_000)
  assert chi2 < 125  # The 0.999 quantile of chi-square with 80 degrees: 124.8.


def test_tokens_drawn_together_are_not():
  chi2, distance = total_variation(selectors.Random(4), 20_000)
  assert chi2 > 1000
  assert distance > 0.2


@pytest.mark.parametrize(
  'selector', [selectors.Random(1), selectors.Threshold(0.6)]
)
def test_a_row_decodes_alone_as_in_a_batch(selector):
  b = 8
  masked = np.random.default_rng(1).random((b, LENGTH)) < 0.6
  masked[0] = False
  masked[1] = True
  tokens = jnp.zeros((b, LENGTH), jnp.int32)
  canvas = samplers.start(tokens, jnp.asarray(masked), MASK)
  rngs = samplers.row_rngs(jax.random.key(5), b)
  options = dict(prompt_len=0, mask_id=MASK, temperature=1.0)
  whole = run(canvas, selector, rngs, **options)
  for row in range(b):
    one = lambda x, row=row: x[row : row + 1]
    alone = run(jax.tree.map(one, canvas), selector, rngs[row][None], **options)
    got, want = (
      jax.tree.leaves(alone),
      jax.tree.leaves(jax.tree.map(one, whole)),
    )
    for x, y in zip(got, want, strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-6)
  calls, open_ = np.asarray(whole.num_calls_b), masked.sum(-1)
  assert calls[0] == 0
  assert (calls <= open_).all()
  # A row is charged up to the step of its last reveal, and no further.
  np.testing.assert_array_equal(calls, whole.reveal_step_bt.max(-1) + 1)
  assert not whole.is_masked_bt.any()
  assert not (np.asarray(whole.tokens_bt) == MASK).any()


def test_blocks_go_left_to_right_and_given_tokens_stay():
  out = run(
    blank(16, given=2),
    selectors.Random(1),
    samplers.row_rngs(jax.random.key(2), 16),
    prompt_len=2,
    mask_id=MASK,
    block=1,
  )
  steps = np.asarray(out.reveal_step_bt)
  np.testing.assert_array_equal(steps, np.tile([-1, -1, 0, 1], (16, 1)))
  assert not np.asarray(out.tokens_bt)[:, :2].any()
  assert out.num_calls_b.tolist() == [2] * 16


def test_prompts_of_one_shape_compile_once():
  before = run._cache_size()
  for seed in range(3):
    rngs = samplers.row_rngs(jax.random.key(seed), 5)
    run(blank(5), selectors.TopK(seed + 1), rngs, prompt_len=0, mask_id=MASK)
  assert run._cache_size() == before + 1


def test_bad_arguments_are_named():
  rngs = samplers.row_rngs(jax.random.key(0), 1)
  with pytest.raises(ValueError, match='prompt_len=4'):
    run(blank(1), selectors.TopK(), rngs, prompt_len=4, mask_id=MASK)


@pytest.mark.parametrize('num_rows', [1, 5, 16, 17])
@pytest.mark.parametrize('rows_per_call', [0, 1, 4, 5, 16, 99])
def test_parts_hold_every_row_in_as_few_calls(num_rows, rows_per_call):
  parts = samplers.chunks(num_rows, rows_per_call)
  most = rows_per_call or num_rows
  assert len(parts) == math.ceil(num_rows / most)
  assert len({len(part) for part in parts}) == 1
  assert len(parts[0]) <= most
  joined = np.concatenate(parts)
  np.testing.assert_array_equal(joined[:num_rows], np.arange(num_rows))
  # What fills up the last part is its last row.
  assert (joined[num_rows:] == num_rows - 1).all()


def test_a_part_has_rows():
  with pytest.raises(ValueError, match='rows_per_call=-1 must be >= 0'):
    samplers.chunks(4, -1)
  assert samplers.rows_that_fit(256, 126_464) == 16
  assert samplers.rows_that_fit(10**6, 10**6) == 1
