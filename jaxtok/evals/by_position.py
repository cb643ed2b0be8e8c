# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss of targets by how much of the row was read before them.

Huang et al. 2023, arXiv:2305.16349, section 4.2: a model that deciphers text in
context has the same curve on text in a substitution cipher, another one for
each row, as on plain text; where the key is changed in the middle of a row the
loss jumps, and falls again.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.config import configclass
from jaxtok.data import cipher
from jaxtok.evals import base


@configclass
class Config:
  """What to measure, and how often."""

  every_steps: int = 0  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 0  # Of source text from the split's start; 0: all.
  # Windows of places in a row begin here; the last one ends with the row. At
  # place p, p + 1 tokens have been read.
  edges: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 256, 512)
  # 0: plain text. 1: each row in a cipher of its own. 2: targets of its second
  # half under another key.
  num_keys: int = 0
  seed: int = 0  # Of the keys.

  def __post_init__(self):
    for name in ('every_steps', 'max_bytes', 'seed'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be >= 0, got {getattr(self, name)}.')
    if not 0 <= self.num_keys <= 2:
      raise ValueError(f'num_keys={self.num_keys} must be 0, 1 or 2.')
    is_ascending = list(self.edges) == sorted(set(self.edges))
    if not self.edges or self.edges[0] < 0 or not is_ascending:
      raise ValueError(
        f'edges={self.edges} must be places >= 0, each beyond the one before.'
      )

  def make(self, context: base.Context) -> 'ByPosition':
    """Builds the eval.

    Raises:
      TypeError: If the objective has no `per_target`.
      ValueError: If there are keys, and letters are no tokens.
    """
    return ByPosition(self, context)


class ByPosition:
  """Mean loss of the targets in each window of places.

  Only the first document of a row counts, and what is left of a longer one at
  its beginning: there, a place says how much has been read.

  Returns:
    nats_<first place>: Nats per target of a window; left out where it has none.
    targets: How many there were in all.
    bytes, corpus: On what text.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config, self._context = config, context
    if not hasattr(context.objective, 'per_target'):
      raise TypeError(
        f'{type(context.objective).__name__} has no per_target (see '
        'objectives.next_token), which the loss by position needs.'
      )
    if config.num_keys:
      cipher.letter_ids(context.tokenizer)
    self._sums = jax.jit(self._batch_sums, static_argnums=0)

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    del rng  # The likelihood is exact, and the keys are the same each time.
    config, context = self._config, self._context
    graph, params = nnx.split(model)
    parts = []
    for batch in context.batches(config.split, config.max_bytes):
      tables = self._tables(len(parts), len(batch['tokens_bt']))
      parts.append(
        jax.device_get(self._sums(graph, params, dict(batch), tables))
      )
    if not parts:
      raise ValueError(f'the {config.split} split has no text to evaluate on.')
    total = lambda name: np.sum([x[name] for x in parts], 0, dtype=np.float64)
    nats, targets = total('nats'), total('targets')
    return {
      f'nats_{edge}': float(nats[i] / targets[i])
      for i, edge in enumerate(config.edges)
      if targets[i]
    } | {
      'targets': int(targets.sum()),
      'bytes': int(total('bytes')),
      'corpus': context.corpus_id(config.split, config.max_bytes),
    }

  def _tables(self, number: int, num_rows: int) -> Any:
    """Keys of a batch [b, k, v], the same each time; None for plain text."""
    if not self._config.num_keys:
      return None
    return cipher.token_tables(
      self._context.tokenizer,
      np.random.default_rng((self._config.seed, number)),
      num_rows,
      self._config.num_keys,
    )

  def _batch_sums(self, graph, params, batch, tables):
    """Sums over the rows of a batch, by window."""
    model = nnx.merge(graph, params)
    if tables is not None:
      batch = batch | _encipher(batch, tables)
    nats_bt = self._context.objective.per_target(model, batch)
    mask_bt = batch['loss_mask_bt'] * (batch['segment_ids_bt'] == 1)
    t, edges = mask_bt.shape[1], self._config.edges
    place_t, stops = jnp.arange(t), (*edges[1:], math.inf)
    over = lambda x_t: jnp.stack(
      [
        jnp.where((place_t >= low) & (place_t < high), x_t, 0.0).sum()
        for low, high in zip(edges, stops, strict=True)
      ]
    )
    return {
      'nats': over((nats_bt * mask_bt).sum(axis=0)),
      'targets': over(mask_bt.sum(axis=0)),
      'bytes': batch['num_bytes_bt'].sum(),
    }


def _encipher(batch: dict[str, Any], tables_bkv: Any) -> dict[str, Any]:
  """Tokens and targets; the last key is that of targets of the second half."""
  b, t = batch['tokens_bt'].shape
  rows_b1, half = jnp.arange(b)[:, None], t // 2
  tables_bkv = jnp.asarray(tables_bkv)
  # The target at a place is the token at the next one.
  find = lambda ids_bt, is_late_t: tables_bkv[
    rows_b1, jnp.where(is_late_t, tables_bkv.shape[1] - 1, 0), ids_bt
  ]
  return {
    'tokens_bt': find(batch['tokens_bt'], jnp.arange(t) > half),
    'targets_bt': find(batch['targets_bt'], jnp.arange(t) >= half),
  }
