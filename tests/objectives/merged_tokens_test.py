# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which tokens the third pass of MergeDNA masks, and how the losses add up."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.objectives import merged_tokens


def test_group_sizes_count_members():
  group = jnp.array([[0, 1, 0, 2, 0, -1], [1, 1, 0, -1, -1, -1]])
  want = [[3, 1, 3, 1, 3, 0], [2, 2, 1, 0, 0, 0]]
  np.testing.assert_array_equal(merged_tokens.group_sizes(group), want)


def law(weights, num):
  """Probability that each item is among `num` drawn one after the other."""
  found = np.zeros(len(weights))
  for order in itertools.permutations(range(len(weights)), num):
    p, left = 1.0, sum(weights)
    for i in order:
      p *= weights[i] / left
      left -= weights[i]
    found[list(order)] += p
  return found


def test_tokens_are_drawn_with_weight_one_over_the_square_of_their_group():
  n, size = 20_000, np.array([1, 1, 2, 3, 3, 5])
  can = np.array([True, True, True, True, True, False])
  drawn = merged_tokens.draw_tokens(
    jnp.broadcast_to(jnp.asarray(size, jnp.float32), (n, 6)),
    jnp.broadcast_to(can, (n, 6)),
    jnp.full(n, 2),
    jax.random.key(0),
  )
  drawn = np.asarray(drawn)
  assert (drawn.sum(1) == 2).all()
  want = law(1 / size[can] ** 2.0, 2)
  got = drawn.mean(0)[can]
  # 4.5 standard errors: a false alarm in 30 thousand tests of five numbers.
  error = np.sqrt(want * (1 - want) / n)
  assert (np.abs(got - want) < 4.5 * error).all()
  assert not drawn[:, 5].any()


def test_negative_weights_are_refused():
  with pytest.raises(ValueError, match=r'latent_weight=-1\.0'):
    merged_tokens.Config(latent_weight=-1.0)
