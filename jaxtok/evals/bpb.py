# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of held-out text, with a standard error.

Sums are taken on the devices batch by batch and added in double precision on
the host; the one division is at the end.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtok.config import configclass
from jaxtok.evals import base

# Batches that may wait for the devices; more would only fill their memory.
_MAX_LAG = 8


@configclass
class Config:
  """What to measure, and how often."""

  every_steps: int = 500  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 0  # Of source text from the split's start; 0: all.

  def __post_init__(self):
    for name in ('every_steps', 'max_bytes'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be >= 0, got {getattr(self, name)}.')

  def make(self, context: base.Context) -> 'BitsPerByte':
    """Builds the eval.

    Raises:
      ValueError: If the tokenizer loses bytes.
      TypeError: If the objective has no `per_row`.
    """
    return BitsPerByte(self, context)


class BitsPerByte:
  """Evaluates a model on one split.

  Returns all metrics of the objective by name, and:
    bpb: Bits per source byte; `bpb_bound` if the objective gives a bound.
    bpb_se: Its standard error, rows of the text taken as independent draws.
      Rows of one document are alike, so on few long documents it is too small.
    bytes, tokens, rows: How much was measured; rows of padding not counted.
    corpus: Identifies the text.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config = config
    self._context = context
    if getattr(context.tokenizer, 'kind', None) == 'lossy':
      raise ValueError(
        f'{context.tokenizer!r} does not keep all bytes, so bits per byte of '
        'it mean nothing. Remove this eval, or use a tokenizer without loss.'
      )
    if not hasattr(context.objective, 'per_row'):
      raise TypeError(
        f'{type(context.objective).__name__} has no per_row (see '
        'objectives.base.RowObjective), which the standard error needs.'
      )
    self._sums = jax.jit(self._batch_sums, static_argnums=0)

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    config, context = self._config, self._context
    graph, params = nnx.split(model)
    parts = []
    for batch in context.batches(config.split, config.max_bytes):
      key = jax.random.fold_in(rng, len(parts))
      parts.append(self._sums(graph, params, batch, key))
      if len(parts) > _MAX_LAG:
        jax.block_until_ready(parts[-_MAX_LAG])
    if not parts:
      raise ValueError(f'the {config.split} split has no text to evaluate on.')
    parts = jax.device_get(parts)
    total = jax.tree.map(lambda *x: math.fsum(float(v) for v in x), *parts)
    corpus = context.corpus_id(config.split, config.max_bytes)
    return _report(total) | {'corpus': corpus}

  def _batch_sums(self, graph, params, batch, rng):
    """Sums over rows, of metrics and of what their variances need."""
    model = nnx.merge(graph, params)
    rows = self._context.objective.per_row(model, batch, rng)
    sums = {
      name: {
        'n': (mean.weight > 0).sum(),
        'x': mean.total.sum(),
        'w': mean.weight.sum(),
        'xx': (mean.total**2).sum(),
        'xw': (mean.total * mean.weight).sum(),
        'ww': (mean.weight**2).sum(),
      }
      for name, mean in rows.items()
    }
    is_padding_b = (batch['loss_mask_bt'] == 0).all(axis=1)
    counts = {
      'bytes': batch['num_bytes_bt'].sum(),
      'tokens': batch['loss_mask_bt'].sum(),
      'rows': jnp.sum(~is_padding_b),
    }
    return {'metrics': sums, 'counts': counts}


def _report(total: dict[str, Any]) -> dict[str, float | str]:
  values = {}
  for name, sums in total['metrics'].items():
    values[name] = sums['x'] / sums['w'] if sums['w'] else 0.0
    if name.startswith('bpb'):
      values[f'{name}_se'] = ratio_error(**sums)
  return values | {name: int(x) for name, x in total['counts'].items()}


def ratio_error(
  *, n: float, x: float, w: float, xx: float, xw: float, ww: float
) -> float:
  """Standard error of `sum(x_i) / sum(w_i)` over n independent pairs.

  The linearised (delta method) estimate of Cochran 1977, "Sampling
  Techniques", section 2.11: the residuals are `x_i - (x/w) w_i`.

  Args:
    n: Number of pairs.
    x: Sum of x_i.
    w: Sum of w_i.
    xx: Sum of x_i**2.
    xw: Sum of x_i w_i.
    ww: Sum of w_i**2.

  Returns:
    The error, or nan for fewer than two pairs.
  """
  if n < 2 or w == 0:
    return math.nan
  ratio = x / w
  squares = max(xx - 2 * ratio * xw + ratio**2 * ww, 0.0)
  return math.sqrt(n / (n - 1) * squares) / w
