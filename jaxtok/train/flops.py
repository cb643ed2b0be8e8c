# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training FLOPs, counted from the model's own formula for a forward pass.

Each matmul of the forward pass needs two of the same size in the backward
pass, so a step costs three forward passes; recomputing the blocks (remat) adds
the forward pass of everything but the output head. What no gradient flows
through costs one. The optimizer, norms and other element-wise work count
nothing. FLOPs are those of matmuls, 2 per multiply-add, so that machines and
implementations do not matter.
"""

from collections.abc import Mapping
from typing import Any

from jaxtok.models.base import Shape

# Parts without a backward pass: what an objective tries out, and a frozen model
# that says where patches end.
FORWARD_ONLY = ('search', 'patcher')


def batch_shape(batch: Mapping[str, Any]) -> Shape:
  """Sizes of the model call that a batch (or its shapes) leads to."""
  b, t = batch['tokens_bt'].shape
  context = batch.get('context_bs')
  return Shape(b=b, t=t, s=0 if context is None else context.shape[1])


def per_step(
  model: Any, shape: Shape, *, remat: bool = False, objective: Any = None
) -> float:
  """FLOPs of one optimizer step.

  Args:
    model: Has `flops(shape) -> dict`, FLOPs of a forward pass by part; the
      part called 'head' is not recomputed, those of `FORWARD_ONLY` have no
      backward pass.
    shape: Of the whole batch.
    remat: Whether the backward pass recomputes the blocks.
    objective: One that does not call the model once on the batch's tokens has
      `flops(model, shape) -> dict`, likewise; else it is not looked at.
  """
  count = getattr(objective, 'flops', lambda model, shape: model.flops(shape))
  parts = dict(count(model, shape))
  once = sum(parts.pop(name, 0.0) for name in FORWARD_ONLY)
  forward = sum(parts.values())
  recomputed = forward - parts.get('head', 0.0) if remat else 0.0
  return float(3 * forward + recomputed + once)


def steps_within(budget: float | int, flops_per_step: float) -> int:
  """The number of steps that a budget of FLOPs pays for.

  Raises:
    ValueError: If it does not pay for one.
  """
  steps = int(budget // flops_per_step)
  if steps < 1:
    raise ValueError(
      f'train_flops={budget:.3g} is less than one step costs '
      f'({flops_per_step:.3g}). Raise it, or make the model or batch smaller.'
    )
  return steps
