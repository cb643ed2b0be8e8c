# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Teaches a policy to do what a selector does: the start of its training.

A policy from random weights rarely finishes a short answer, so that nothing is
rewarded. Here it first learns, by cross-entropy under its action distribution,
the choices of an expert on the expert's own trajectories (as arXiv:2512.21446
does with confidence sampling), until it is nearly as often right.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from jaxtok.config import configclass
from jaxtok.diffusion import policy, rollout

_CHUNK = 100  # Updates per compiled call, after which a clone is judged.


@configclass
class Config:
  """Settings of the cloning."""

  steps: int = 1200  # At most.
  batch_size: int = 256  # Decoding steps per update.
  lr: float = 3e-3  # Highest; it falls to 0 along a cosine.
  smoothing: float = 0.0  # Share of each choice given to its opposite.
  # Ends when the clone is right so often, as a share of the expert's accuracy;
  # 0 takes all steps. More make it surer than reinforcement can use.
  until: float = 0.97

  def __post_init__(self):
    if self.steps < 1 or self.batch_size < 1 or self.lr <= 0:
      raise ValueError(
        f'cloning.steps={self.steps} and batch_size={self.batch_size} must be '
        f'>= 1 and lr={self.lr} > 0.'
      )
    if not 0 <= self.smoothing < 0.5:
      raise ValueError(
        f'cloning.smoothing={self.smoothing} must be in [0, 0.5).'
      )
    if not 0 <= self.until <= 1:
      raise ValueError(
        f'cloning.until={self.until} must be in [0, 1], a share of the '
        "expert's accuracy; 0 takes all steps."
      )


@dataclasses.dataclass(frozen=True)
class Choices:
  """Decoding steps of an expert, without those of finished rows.

  Attributes:
    confidence_btp: See `rollout.Rollout`, as the others.
    is_masked_bt: What was masked.
    progress_b: Calls so far over positions.
    allowed_bt: What could be revealed.
    action_bt: What the expert did, as the action distribution represents it.
  """

  confidence_btp: Any
  is_masked_bt: Any
  progress_b: Any
  allowed_bt: Any
  action_bt: Any


jax.tree_util.register_dataclass(Choices)


def choices(shown: rollout.Rollout) -> Choices:
  """The open steps of rollouts, in any order."""
  is_open = np.asarray(shown.is_open_sb)
  pick = lambda x: jnp.asarray(np.asarray(x)[is_open])
  return Choices(
    pick(shown.confidence_sbtp),
    pick(shown.is_masked_sbt),
    pick(shown.progress_sb),
    pick(shown.allowed_sbt),
    pick(shown.action_sbt),
  )


def loss(
  model: policy.UnmaskingPolicy,
  made: Choices,
  smoothing: float = 0.0,
  actions: Any = None,
) -> Float[Array, '']:
  """Mean cross-entropy in nats per position that could be revealed.

  Args:
    model: The policy.
    made: What the expert did.
    smoothing: Share of each choice given to its opposite. Without it a clone
      becomes so sure that its rollouts do not differ, and nothing is learned
      from them.
    actions: Action distribution of the rollouts; None means
      `policy.Bernoulli()`, the only one whose choices have opposites.

  Raises:
    ValueError: If choices without opposites are to be smoothed.
  """
  actions = actions or policy.Bernoulli()
  if smoothing and not isinstance(actions, policy.Bernoulli):
    raise ValueError(
      f'cloning.smoothing={smoothing} must be 0 for {type(actions).__name__} '
      'actions: an order has no opposite. Set it to 0, or use Bernoulli.'
    )
  logits_bt = model(made.confidence_btp, made.is_masked_bt, made.progress_b)
  nats = lambda action_bt: (
    -actions.log_prob(logits_bt, action_bt, made.allowed_bt).sum()
  )
  nats_of_both = (1 - smoothing) * nats(made.action_bt)
  if smoothing:
    nats_of_both += smoothing * nats(~made.action_bt)
  return nats_of_both / made.allowed_bt.sum()


def clone(
  model: policy.UnmaskingPolicy,
  shown: rollout.Rollout,
  config: Config,
  actions: Any = None,
  share: Callable[[policy.UnmaskingPolicy], float] | None = None,
) -> tuple[policy.UnmaskingPolicy, float, int]:
  """Trains on the steps of an expert's rollouts.

  Args:
    model: The policy at the start.
    shown: Rollouts in which an expert played each row.
    config: Settings.
    actions: Action distribution of the rollouts, see `loss`.
    share: How often a policy is right, as a share of the expert's accuracy;
      asked now and then. None takes all steps.

  Returns:
    The policy, the mean loss of its last updates in nats per position, and its
    updates.
  """
  graphdef, params = policy.structure(model.config), nnx.split(model)[1]
  made, nats, done = choices(shown), np.zeros(0), 0
  opt_state = _optimizer(config).init(params)
  rngs = jax.random.split(jax.random.key(0), config.steps)
  while done < config.steps:
    (params, opt_state), new = _train(
      (params, opt_state),
      made,
      rngs[done : done + _CHUNK],
      graphdef=graphdef,
      config=config,
      actions=actions or policy.Bernoulli(),
    )
    nats, done = np.append(nats, new), done + len(new)
    model = nnx.merge(graphdef, params)
    if config.until and share is not None and share(model) >= config.until:
      break
  return model, float(nats[-20:].mean()), done


def _optimizer(config: Config) -> optax.GradientTransformation:
  return optax.adam(optax.cosine_decay_schedule(config.lr, config.steps))


@functools.partial(jax.jit, static_argnames=('graphdef', 'config', 'actions'))
def _train(state, made, rngs, *, graphdef, config, actions):
  """One update for each key; returns the state and the losses."""
  optimizer = _optimizer(config)
  total = made.progress_b.shape[0]
  size = min(config.batch_size, total)

  def step(state, rng):
    params, opt_state = state
    index_b = jax.random.randint(rng, (size,), 0, total)
    batch = jax.tree.map(lambda x: x[index_b], made)
    nats, grads = jax.value_and_grad(
      lambda p: loss(nnx.merge(graphdef, p), batch, config.smoothing, actions)
    )(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), nats

  return jax.lax.scan(step, state, rngs)
