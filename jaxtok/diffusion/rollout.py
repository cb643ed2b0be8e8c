# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Plays a policy against a frozen denoiser and records what it saw and did.

arXiv:2512.09106, section 3. In training nothing is revealed by force: an empty
action is legal, changes nothing and costs a call. A rollout ends after as many
calls as the answer has tokens; in blocks, when one block has taken as many
calls as it has tokens and is not done. Masks that are left make it a failure.

Differs from the official code: that leaves the masks of such a block behind and
goes on with the next block. Both are wrong in the end.

Axes: s steps, b rows, t positions of the answer, p largest probabilities.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    is_open_sb: Steps at which the row had something masked and had not ended.
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shown:
  """A selector as `play` shows it to a policy: what its actions can say of it.

  Attributes:
    selector: E.g. an expert.
    actions: Action distribution of the policy. Static.
    num_candidates: See `candidates`; static.
  """

  selector: Any
  actions: Any = dataclasses.field(metadata=dict(static=True))
  num_candidates: int = dataclasses.field(default=0, metadata=dict(static=True))

  def __call__(self, view: selectors.View) -> Bool[Array, 'b t']:
    view = candidates(view, self.num_candidates)
    shown_bt = self.actions.from_set(self.selector(view), view.confidence_bt)
    return self.actions.to_set(shown_bt)


def candidates(view: selectors.View, num: int) -> selectors.View:
  """Allows the `num` most confident of the allowed positions; 0: all."""
  if not num:
    return view
  rank_bt = selectors.ranks(view.confidence_bt, view.allowed_bt)
  allowed_bt = view.allowed_bt & (rank_bt < num)
  return dataclasses.replace(view, allowed_bt=allowed_bt)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Spent:
  """Calls that each row has spent on its first unfinished block.

  Attributes:
    block_b: Index of the block; negative if the row is done.
    calls_b: Calls since the block before was done.
    prompt_len: Static.
    block: Length of a block, and the calls that it may take; 0: no bound.
      Static.
  """

  block_b: Int[Array, 'b']
  calls_b: Int[Array, 'b']
  prompt_len: int = dataclasses.field(metadata=dict(static=True))
  block: int = dataclasses.field(metadata=dict(static=True))

  @classmethod
  def at_start(cls, canvas: samplers.Canvas, prompt_len: int, block: int):
    zero_b = jnp.zeros(canvas.tokens_bt.shape[0], jnp.int32)
    start = cls(zero_b - 2, zero_b, prompt_len, block)
    return start.after(canvas)

  def is_open_b(self, canvas: samplers.Canvas) -> Bool[Array, 'b']:
    """Rows with masks whose block may take another call."""
    is_open_b = canvas.is_masked_bt.any(-1)
    return is_open_b & (self.calls_b < self.block) if self.block else is_open_b

  def closed(self, view: selectors.View) -> selectors.View:
    """Allows nothing in rows whose block may not take another call."""
    if not self.block:
      return view
    may_b1 = (self.calls_b < self.block)[:, None]
    return dataclasses.replace(view, allowed_bt=view.allowed_bt & may_b1)

  def after(self, canvas: samplers.Canvas) -> '_Spent':
    """What is spent after one more call, that led to `canvas`."""
    first_b = canvas.is_masked_bt.argmax(-1) - self.prompt_len
    block_b = jnp.where(
      canvas.is_masked_bt.any(-1), first_b // max(self.block, 1), -1
    )
    calls_b = jnp.where(block_b == self.block_b, self.calls_b + 1, 0)
    return dataclasses.replace(self, block_b=block_b, calls_b=calls_b)


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
  """Plays every row until nothing is masked or its calls are over.

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
    max_steps: Calls of a row over all blocks, however they are shared out;
      static. 0 means the number of answer positions, of which a block may take
      as many as it has itself.
    actions: Action distribution; None means `policy.Bernoulli()`. Static.
    num_candidates: See `candidates`; static.
    expert: Decides instead of the policy in the rows of `is_expert_b`.
    is_expert_b: See `expert`; None means no row.

  Returns:
    The record.
  """
  actions = actions or policy.Bernoulli()
  num = max_steps or canvas.tokens_bt.shape[1] - prompt_len
  fixed = dict(prompt_len=prompt_len, mask_id=mask_id, block=block)

  def observe(canvas, step, spent):
    view = samplers.look(denoiser, canvas, rngs_b, step, **fixed)
    view = spent.closed(candidates(view, num_candidates))
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
      is_open_sb=spent.is_open_b(canvas),
    )
    return view, seen

  spent = _Spent.at_start(canvas, prompt_len, 0 if max_steps else block)
  shapes = jax.eval_shape(lambda c: observe(c, jnp.int32(0), spent)[1], canvas)
  stored = jax.tree.map(lambda x: jnp.zeros((num, *x.shape), x.dtype), shapes)

  def body(state):
    canvas, step, stored, spent = state
    view, seen = observe(canvas, step, spent)
    stored = jax.tree.map(lambda all, x: all.at[step].set(x), stored, seen)
    select_bt = actions.to_set(seen['action_sbt']) & view.allowed_bt
    num_calls_b = canvas.num_calls_b + spent.is_open_b(canvas)
    canvas = samplers.commit(canvas, view, select_bt, step)
    canvas = dataclasses.replace(canvas, num_calls_b=num_calls_b)
    return canvas, step + 1, stored, spent.after(canvas)

  is_open = lambda state: state[3].is_open_b(state[0]).any() & (state[1] < num)
  start = (canvas, jnp.int32(0), stored, spent)
  canvas, num_steps, stored, _ = jax.lax.while_loop(is_open, body, start)
  return Rollout(**stored, num_steps=num_steps, canvas=canvas)


def play_chunks(
  play_rows: Callable[[np.ndarray], Rollout],
  num_rows: int,
  rows_per_call: int,
) -> Rollout:
  """Plays rows in parts, and puts their records together.

  Rows do not depend on each other: with the keys of their own they do the same
  in any part.

  Args:
    play_rows: Plays the rows of these indices; all parts have one length.
    num_rows: Of the batch.
    rows_per_call: See `samplers.chunks`.
  """
  parts = [play_rows(i) for i in samplers.chunks(num_rows, rows_per_call)]
  if len(parts) == 1:
    return parts[0]

  def joined(axis, *each):
    whole = jnp.concatenate(each, axis=axis)
    return jax.lax.slice_in_dim(whole, 0, num_rows, axis=axis)

  join = lambda axis, name: jax.tree.map(
    functools.partial(joined, axis), *(getattr(part, name) for part in parts)
  )
  steps = {
    field.name: join(1, field.name)
    for field in dataclasses.fields(Rollout)
    if field.name not in ('num_steps', 'canvas')
  }
  num_steps = jnp.stack([part.num_steps for part in parts]).max()
  return Rollout(**steps, num_steps=num_steps, canvas=join(0, 'canvas'))


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
