# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""AdamW with a learning-rate schedule, built from optax.

Loshchilov and Hutter 2019, arXiv:1711.05101 (decoupled weight decay); WSD
(warm up, stay, decay) is Hu et al. 2024, arXiv:2404.06395, section 4.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtok.config import configclass


class Schedule(enum.Enum):
  """How the learning rate falls after the warm-up."""

  CONSTANT = 'constant'
  LINEAR = 'linear'
  COSINE = 'cosine'
  WSD = 'wsd'  # Constant, then linear over the last `decay_fraction`.


@configclass
class Config:
  """Hyper-parameters of the optimizer."""

  lr: float = 1e-3  # Highest learning rate.
  schedule: Schedule = Schedule.COSINE
  warmup_steps: int = 50  # Linear from lr / warmup_steps to lr.
  final_ratio: float = 0.1  # Learning rate at the end, relative to lr.
  decay_fraction: float = 0.2  # WSD: share of the steps that decay.
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.1  # Of matrices; see `decay_mask`.
  decay_embeddings: bool = False  # Whether embedding tables decay too.
  clip_norm: float = 1.0  # Global gradient norm; 0 turns clipping off.
  # Factors of `lr` by the beginning of a parameter's name; see `lr_scale_tree`.
  lr_scales: dict[str, float] = dataclasses.field(
    default_factory=dict, hash=False
  )

  def __post_init__(self):
    ranges = {
      'lr': (self.lr > 0, '> 0'),
      'warmup_steps': (self.warmup_steps >= 0, '>= 0'),
      'final_ratio': (0 <= self.final_ratio <= 1, 'in [0, 1]'),
      'decay_fraction': (0 < self.decay_fraction <= 1, 'in (0, 1]'),
      'b1': (0 <= self.b1 < 1, 'in [0, 1)'),
      'b2': (0 <= self.b2 < 1, 'in [0, 1)'),
      'eps': (self.eps > 0, '> 0'),
      'weight_decay': (self.weight_decay >= 0, '>= 0'),
      'clip_norm': (self.clip_norm >= 0, '>= 0 (0 turns clipping off)'),
    }
    for name, (ok, rule) in ranges.items():
      if not ok:
        raise ValueError(
          f'optim.{name} must be {rule}, got {getattr(self, name)}.'
        )
    for prefix, scale in self.lr_scales.items():
      if not scale >= 0:
        raise ValueError(
          f'optim.lr_scales[{prefix!r}] must be >= 0, got {scale}.'
        )

  def learning_rate(self, steps: int) -> Callable[[Any], Any]:
    """Step number (from 0) to learning rate, for a run of `steps` steps.

    A run that is shorter than its warm-up ends during the warm-up.
    """
    warmup, length = self.warmup_steps, max(steps - self.warmup_steps, 1)

    def fall(done):
      match self.schedule:
        case Schedule.CONSTANT:
          return jnp.ones_like(done)
        case Schedule.LINEAR:
          share = 1 - done
        case Schedule.COSINE:
          share = 0.5 * (1 + jnp.cos(jnp.pi * done))
        case Schedule.WSD:
          share = jnp.minimum((1 - done) / self.decay_fraction, 1.0)
      return self.final_ratio + (1 - self.final_ratio) * share

    def learning_rate(step):
      step = jnp.asarray(step, jnp.float32)
      rise = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
      return self.lr * rise * fall(jnp.clip((step - warmup) / length, 0.0, 1.0))

    return learning_rate

  def make(
    self, steps: int, mask: Any = None, scales: Any = None
  ) -> optax.GradientTransformation:
    """Builds the optimizer.

    Args:
      steps: Length of the run, which sets the length of the schedule.
      mask: Tree of booleans like the parameters: which ones decay; None means
        all of them. See `decay_mask`.
      scales: Tree of numbers like the parameters, which multiply the learning
        rate, also of the decay; None means 1. See `lr_scale_tree`.
    """
    adamw = optax.adamw(
      self.learning_rate(steps),
      b1=self.b1,
      b2=self.b2,
      eps=self.eps,
      weight_decay=self.weight_decay,
      mask=mask,
    )
    parts = [adamw]
    if self.clip_norm:
      parts.insert(0, optax.clip_by_global_norm(self.clip_norm))
    if scales is not None:
      parts.append(_scaled(scales))
    return optax.chain(*parts) if len(parts) > 1 else adamw

  def make_for(
    self, steps: int, params: Any, axes: Any
  ) -> optax.GradientTransformation:
    """Builds the optimizer of a model: `make` with all that the config says.

    Args:
      steps: See `make`.
      params: Tree of parameters or of their shapes.
      axes: See `decay_mask`.

    Raises:
      ValueError: See `lr_scale_tree`.
    """
    mask = decay_mask(params, axes, embeddings=self.decay_embeddings)
    return self.make(steps, mask, lr_scale_tree(params, self.lr_scales))


def _scaled(scales: Any) -> optax.GradientTransformation:
  """Multiplies each update by a number."""

  def update(updates, params):
    del params
    return jax.tree.map(lambda x, scale: x * scale, updates, scales)

  return optax.stateless(update)


def lr_scale_tree(params: Any, scales: dict[str, float]) -> Any:
  """The factor of each parameter's learning rate.

  The longest prefix that a parameter's dotted name begins with counts, in whole
  parts: 'stage.in' is no prefix of 'stage.inner'; '' is one of all. Parameters
  without one have 1.

  Args:
    params: Tree of parameters or of their shapes.
    scales: Prefix to factor.

  Returns:
    A tree of floats; None if there are no scales.

  Raises:
    ValueError: If no parameter's name begins with one of the prefixes.
  """
  if not scales:
    return None
  leaves, treedef = jax.tree.flatten_with_path(params)
  names = [
    jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in leaves
  ]
  begins = lambda name, prefix: f'{name}.'.startswith(
    prefix + '.' * (prefix > '')
  )
  factors = [1.0] * len(names)
  for prefix in sorted(scales, key=len):
    found = [i for i, name in enumerate(names) if begins(name, prefix)]
    if not found:
      parts = sorted({name.split('.')[0] for name in names})
      raise ValueError(
        f'optim.lr_scales has {prefix!r}, with which no parameter begins. '
        f'Parts of this model: {", ".join(parts)}.'
      )
    for i in found:
      factors[i] = float(scales[prefix])
  return jax.tree.unflatten(treedef, factors)


def decay_mask(params: Any, axes: Any, *, embeddings: bool = False) -> Any:
  """Which parameters weight decay applies to: matrices only.

  Parameters with one axis (stacked layers not counted), those called `bias`,
  and tables of positions or distances never decay; token tables, whose first
  axis is the vocabulary, only if `embeddings` is true.

  Args:
    params: Tree of parameters or of their shapes.
    axes: Tree of the same structure with a tuple of logical axis names, or
      None for a parameter without them, which then counts by its rank.
    embeddings: Whether token tables decay.

  Returns:
    A tree of booleans.
  """
  tables = _TABLES if embeddings else (*_TABLES, 'vocab')

  def decays(path, param, names):
    names = [n for n in names or (None,) * param.ndim if n != 'layers']
    is_bias = jax.tree_util.keystr(path[-1:], simple=True) == 'bias'
    return len(names) >= 2 and names[0] not in tables and not is_bias

  leaves, treedef = jax.tree.flatten_with_path(params)
  flags = [
    decays(path, leaf, names)
    for (path, leaf), names in zip(
      leaves, treedef.flatten_up_to(axes), strict=True
    )
  ]
  return jax.tree.unflatten(treedef, flags)


# First axes of look-up tables other than the vocabulary's.
_TABLES = ('position', 'phase', 'type', 'buckets')
