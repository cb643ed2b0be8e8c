# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A denoiser small enough to sum over all of its masks, in double precision."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.models import base

T, V = 4, 3  # Positions; real tokens. The mask is token V.
X = np.array([2, 0, 1, 1])
IS_TARGET = np.array([True, True, False, True])  # Position 2 is padding.
TARGETS = np.flatnonzero(IS_TARGET)


class Lookup(nnx.Module):
  """Random logits for each of the (V + 1)**T inputs."""

  def __init__(self, seed=0, is_normalised=False):
    rng = np.random.default_rng(seed)
    table = 1.5 * rng.normal(size=((V + 1) ** T, T, V + 1))
    if is_normalised:  # exp(logits) of real tokens sum to V.
      table -= np.log(np.exp(table[..., :V]).sum(-1, keepdims=True) / V)
    self.table = nnx.Param(jnp.asarray(table, jnp.float32))

  def __call__(self, tokens_bt, **unused):
    place = (V + 1) ** jnp.arange(T)
    return base.Output(hidden_btd=self.table[(tokens_bt * place).sum(-1)])

  def logits(self, hidden_btd):
    return hidden_btd


def batch(rows):
  """The same row many times."""
  wide = lambda x, dtype: jnp.asarray(np.tile(np.asarray(x, dtype), (rows, 1)))
  return {
    'tokens_bt': wide(X, 'int32'),
    'targets_bt': wide(X, 'int32'),
    'loss_mask_bt': wide(IS_TARGET, 'float32'),
    'segment_ids_bt': wide(np.ones(T), 'int32'),
    'positions_bt': wide(np.arange(T), 'int32'),
    'num_bytes_bt': wide(2 * IS_TARGET, 'int32'),
  }


def log_probs(model, tokens):
  """Of the denoiser at one input [T, V], double precision, mask left out."""
  logits = np.asarray(model.logits(model(jnp.asarray(tokens)[None]).hidden_btd))
  x = logits[0, :, :V].astype(np.float64)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def subsets():
  """Non-empty sets of targets."""
  n = len(TARGETS)
  for k in range(1, n + 1):
    yield from map(list, itertools.combinations(TARGETS, k))


def exact_bound(model, low=0.0, share_at_low=0.0):
  """The bound by enumeration, nats per row.

  With u the mask rate, weight times density of a set of k out of n targets is
  u**(k - 1) (1 - u)**(n - k), whatever the schedule.

  Args:
    model: The denoiser.
    low: The integral over u begins here.
    share_at_low: Weight of the cross-entropy of what is masked at u = low.
  """
  n, total = len(TARGETS), 0.0
  for masked in subsets():
    tokens = X.copy()
    tokens[masked] = V
    nats = -log_probs(model, tokens)[masked, X[masked]].sum()
    k = len(masked)
    integrand = np.polynomial.Polynomial([0, 1]) ** (k - 1) * (
      np.polynomial.Polynomial([1, -1]) ** (n - k)
    )
    whole = integrand.integ()
    weight = whole(1.0) - whole(low)
    weight += share_at_low * low**k * (1 - low) ** (n - k)
    total += weight * nats
  return total


def bound_of_steps(model, alphas):
  """The bound of a process of finitely many steps, nats per row.

  Args:
    model: The denoiser.
    alphas: Probability of clean tokens at times 0, 1/T, ..., 1; what is masked
      at time 0 is not charged.
  """
  n, total = len(TARGETS), 0.0
  alpha_s, alpha_t = np.asarray(alphas[:-1]), np.asarray(alphas[1:])
  reveal = (alpha_s - alpha_t) / (1 - alpha_t)
  for masked in subsets():
    tokens = X.copy()
    tokens[masked] = V
    nats = -log_probs(model, tokens)[masked, X[masked]].sum()
    k = len(masked)
    total += (reveal * (1 - alpha_t) ** k * alpha_t ** (n - k)).sum() * nats
  return total


def mean_over_orders(model):
  """Mean negative log-likelihood over all orders of revealing, nats."""
  total = 0.0
  for order in itertools.permutations(TARGETS):
    tokens = X.copy()
    tokens[list(order)] = V
    for place in order:
      total -= log_probs(model, tokens)[place, X[place]]
      tokens[place] = X[place]
  return total / math.factorial(len(TARGETS))
