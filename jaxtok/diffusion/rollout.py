# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Plays a policy against a frozen denoiser and records what it saw and did.

arXiv:2512.09106, section 3. In training nothing is revealed by force: an empty
action is legal, changes nothing and costs a call.

Axes: s steps, b rows, t positions of the answer, p largest probabilities.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.diffusion import policy, samplers, selectors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollout:
  """The record of a batch of rollouts.

  Attributes:
    confidence_sbtp: What the policy read; see `policy.UnmaskingPolicy`.
    is_masked_sbt: Likewise.
    progress_sb: Likewise.
    allowed_sbt: Positions that it could reveal.
    action_sbt: What was done, as the action distribution represents it.
    log_prob_sb: Of the action under the policy that played, also in rows that
      an expert played; 0 in finished rows.
    is_open_sb: Steps at which the row had something masked.
    num_steps: Steps taken; what is stored after them is zero.
    canvas: The rows at the end.
  """

  confidence_sbtp: Float[Array, 's b t p']
  is_masked_sbt: Bool[Array, 's b t']
  progress_sb: Float[Array, 's b']
  allowed_sbt: Bool[Array, 's b t']
  action_sbt: Any
  log_prob_sb: Float[Array, 's b']
  is_open_sb: Bool[Array, 's b']
  num_steps: Int[Array, '']
  canvas: samplers.Canvas


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InBlocks:
  """A selector that may look no further than the first unfinished block."""

  selector: Any
  block: int = dataclasses.field(metadata=dict(static=True))

  def __call__(self, view: selectors.View) -> Bool[Array, 'b t']:
    inside_bt = samplers.block_of(view.is_masked_bt, 0, self.block)
    return self.selector(
      dataclasses.replace(view, allowed_bt=inside_bt & view.allowed_bt)
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OfMostConfident:
  """A selector that may choose among the `num` most confident positions."""

  selector: Any
  num: int = dataclasses.field(metadata=dict(static=True))

  def __call__(self, view: selectors.View) -> Bool[Array, 'b t']:
    return self.selector(candidates(view, self.num))


def candidates(view: selectors.View, num: int) -> selectors.View:
  """Allows the `num` most confident of the allowed positions; 0: all."""
  if not num:
    return view
  rank_bt = selectors.ranks(view.confidence_bt, view.allowed_bt)
  allowed_bt = view.allowed_bt & (rank_bt < num)
  return dataclasses.replace(view, allowed_bt=allowed_bt)


def play(
  denoiser: samplers.Denoiser,
  canvas: samplers.Canvas,
  model: policy.UnmaskingPolicy,
  rngs_b: Any,
  *,
  prompt_len: int,
  mask_id: int,
  block: int = 0,
  max_steps: int = 0,
  actions: Any = None,
  num_candidates: int = 0,
  expert: selectors.Selector | None = None,
  is_expert_b: Bool[Array, 'b'] | None = None,
) -> Rollout:
  """Plays every row until nothing is masked or the steps are over.

  Tokens are the most probable ones: what differs between rollouts of a prompt
  is the policy's doing.

  Args:
    denoiser: See `samplers.decode`, also for the arguments not named here.
    canvas: The rows at the start.
    model: The policy.
    rngs_b: Keys of the rows.
    prompt_len: Static.
    mask_id: Static.
    block: Static.
    max_steps: Static; 0 means the number of answer positions.
    actions: Action distribution; None means `policy.Bernoulli()`. Static.
    num_candidates: See `candidates`; static.
    expert: Decides instead of the policy in the rows of `is_expert_b`.
    is_expert_b: See `expert`; None means no row.

  Returns:
    The record.
  """
  actions = actions or policy.Bernoulli()
  num = max_steps or canvas.tokens_bt.shape[1] - prompt_len
  see = lambda canvas, step: samplers.look(
    denoiser,
    canvas,
    rngs_b,
    step,
    prompt_len=prompt_len,
    mask_id=mask_id,
    block=block,
  )

  def observe(canvas, step):
    view = candidates(see(canvas, step), num_candidates)
    confidence_btp = model.config.read(view.probs_btv)
    logits_bt = model(confidence_btp, view.is_masked_bt, view.progress_b)
    action_bt = actions.sample(logits_bt, view.allowed_bt, view.rngs_b)
    if expert is not None and is_expert_b is not None:
      shown_bt = actions.from_set(expert(view), view.confidence_bt)
      action_bt = jnp.where(is_expert_b[:, None], shown_bt, action_bt)
    seen = dict(
      confidence_sbtp=confidence_btp,
      is_masked_sbt=view.is_masked_bt,
      progress_sb=view.progress_b,
      allowed_sbt=view.allowed_bt,
      action_sbt=action_bt,
      log_prob_sb=actions.log_prob(logits_bt, action_bt, view.allowed_bt),
      is_open_sb=view.is_masked_bt.any(-1),
    )
    return view, seen

  shapes = jax.eval_shape(lambda c: observe(c, jnp.int32(0))[1], canvas)
  stored = jax.tree.map(lambda x: jnp.zeros((num, *x.shape), x.dtype), shapes)

  def body(state):
    canvas, step, stored = state
    view, seen = observe(canvas, step)
    stored = jax.tree.map(lambda all, x: all.at[step].set(x), stored, seen)
    select_bt = actions.to_set(seen['action_sbt']) & view.allowed_bt
    return samplers.commit(canvas, view, select_bt, step), step + 1, stored

  is_open = lambda state: state[0].is_masked_bt.any() & (state[1] < num)
  start = (canvas, jnp.int32(0), stored)
  canvas, num_steps, stored = jax.lax.while_loop(is_open, body, start)
  return Rollout(**stored, num_steps=num_steps, canvas=canvas)


def log_probs(
  model: policy.UnmaskingPolicy, played: Rollout, step: Any, actions: Any
) -> tuple[Float[Array, 'b'], Float[Array, 'b t']]:
  """Log-probabilities of a step's actions under a policy, and its logits."""
  at = lambda x: x[step]
  logits_bt = model(
    at(played.confidence_sbtp), at(played.is_masked_sbt), at(played.progress_sb)
  )
  log_prob_b = actions.log_prob(
    logits_bt, at(played.action_sbt), at(played.allowed_sbt)
  )
  return log_prob_b, logits_bt


def packed(played: Rollout, *more_sb: Array) -> tuple[Rollout, tuple]:
  """Moves what unfinished rows did to the front, so that less is replayed.

  Which row and which step an entry belongs to is lost.

  Args:
    played: A record.
    *more_sb: Arrays [s, b, ...] to be moved in the same way.

  Returns:
    The record, of as many steps as are needed to hold the entries of
    unfinished rows, and the other arrays.
  """
  num_rows = played.is_open_sb.shape[1]
  order = jnp.argsort(~played.is_open_sb.reshape(-1), stable=True)

  def move(x):
    return x.reshape(-1, *x.shape[2:])[order].reshape(x.shape)

  moved = {
    field.name: move(getattr(played, field.name))
    for field in dataclasses.fields(played)
    if field.name not in ('num_steps', 'canvas')
  }
  num_steps = -(-played.is_open_sb.sum() // num_rows)
  record = dataclasses.replace(played, **moved, num_steps=num_steps)
  return record, tuple(move(x) for x in more_sb)
