# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Teaches a policy to do what a selector does: the start of its training.

A policy from random weights rarely finishes a short answer, so that nothing is
rewarded. Here it first learns, by binary cross-entropy on the positions it may
reveal, the choices of an expert on the expert's own trajectories (as
arXiv:2512.21446 does with confidence sampling).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxtok.config import configclass
from jaxtok.diffusion import policy, rollout


@configclass
class Config:
  """Settings of the cloning."""

  steps: int = 1200
  lr: float = 3e-3  # Highest; it falls to 0 along a cosine.

  def __post_init__(self):
    if self.steps < 1 or self.lr <= 0:
      raise ValueError(
        f'cloning.steps={self.steps} must be >= 1 and lr={self.lr} > 0.'
      )


def loss(model: policy.UnmaskingPolicy, shown: rollout.Rollout) -> Any:
  """Mean cross-entropy in nats per position that could be revealed."""
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  allowed = flat(shown.allowed_sbt)
  logits = model(
    flat(shown.confidence_sbtp),
    flat(shown.is_masked_sbt),
    flat(shown.progress_sb),
  )
  signed = jnp.where(flat(shown.action_sbt), logits, -logits)
  nats = jnp.where(allowed, -jax.nn.log_sigmoid(signed), 0).sum()
  return nats / jnp.maximum(allowed.sum(), 1)


def clone(
  model: policy.UnmaskingPolicy, shown: rollout.Rollout, config: Config
) -> tuple[policy.UnmaskingPolicy, float]:
  """Trains on all steps of an expert's rollouts at once.

  Args:
    model: The policy at the start.
    shown: Rollouts with Bernoulli actions in which an expert played each row.
    config: Settings.

  Returns:
    The policy and its last loss, nats per position.
  """
  graphdef, params = nnx.split(model)
  optimizer = optax.adam(optax.cosine_decay_schedule(config.lr, config.steps))

  @jax.jit
  def train(params, shown):
    value_and_grad = jax.value_and_grad(
      lambda params: loss(nnx.merge(graphdef, params), shown)
    )

    def step(state, _):
      params, opt_state = state
      nats, grads = value_and_grad(params)
      updates, opt_state = optimizer.update(grads, opt_state)
      return (optax.apply_updates(params, updates), opt_state), nats

    start = (params, optimizer.init(params))
    (params, _), nats = jax.lax.scan(step, start, length=config.steps)
    return params, nats[-1]

  params, nats = train(params, shown)
  return nnx.merge(graphdef, params), float(nats)
