# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes a fixed set of prompts with a selector: the points of the figure.

Selectors without chance decode equal prompts equally, so each distinct prompt
is decoded once. Others decode each distinct prompt several times, so that what
is known of a prompt is the mean of as many draws.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.diffusion import (
  policy,
  remdm,
  rl,
  rollout,
  samplers,
  selectors,
)
from jaxtok.evals import pareto
from jaxtok.tasks import base

NUM_SEEDS = 3  # Of selectors with chance, if no prompt occurs twice.
MAX_DRAWS = 12  # Of a prompt that occurs often.
ORACLE = 'oracle margin'

decode_rows = functools.partial(
  jax.jit,
  static_argnames=('prompt_len', 'mask_id', 'block', 'max_steps'),
)(samplers.decode)


@dataclasses.dataclass
class Judge:
  """A denoiser, a task and prompts on which selectors are compared.

  Attributes:
    task: The task.
    denoiser: The frozen denoiser.
    rows_nt: Records whose prompts are used; their answers are not.
    block: Length of blocks decoded left to right; 0 decodes all at once.
    num_draws: Of each distinct prompt, by a selector with chance; 0: so that
      the prompts are decoded `NUM_SEEDS` times in all, at most `MAX_DRAWS`.
    seed: Of the draws.
    weights: Share of the prompts that each distinct prompt has, float [p].
    remask: Masks again after each call, see `samplers.decode`; None: none.
    rows_per_call: Rows decoded at once; 0: as many as `samplers.rows_that_fit`
      says. Rows come out alike in any number.
  """

  task: base.Verifiable
  denoiser: Any
  rows_nt: np.ndarray
  block: int = 0
  num_draws: int = 0
  seed: int = 0
  remask: Any = None
  rows_per_call: int = 0

  def __post_init__(self):
    prompts = self.rows_nt[:, : self.task.prompt_len]
    _, first, count_p = np.unique(
      prompts, axis=0, return_index=True, return_counts=True
    )
    self._distinct = self.rows_nt[first]
    self._count_p = count_p
    self.weights = count_p / len(self.rows_nt)
    if not self.num_draws:
      often = -(-NUM_SEEDS * len(self.rows_nt) // len(self._distinct))
      self.num_draws = min(often, MAX_DRAWS)
    if not self.rows_per_call:
      self.rows_per_call = samplers.rows_that_fit(
        self.task.answer_len, self.task.vocab_size
      )

  def canvas(self, rows_bt: np.ndarray) -> samplers.Canvas:
    """All answers masked."""
    is_answer_t = base.answer_positions(self.task)
    masked_bt = jnp.broadcast_to(is_answer_t, rows_bt.shape)
    return samplers.start(jnp.asarray(rows_bt), masked_bt, self.task.mask_id)

  def decode(self, selector: Any, rows_bt: np.ndarray, seed: int = 0) -> Any:
    """The decoded canvas of some rows."""
    num = len(rows_bt)
    rngs_b = samplers.row_rngs(jax.random.key(seed), num)
    parts = samplers.chunks(num, self.rows_per_call)
    found = [
      decode_rows(
        self.denoiser,
        self.canvas(rows_bt[rows]),
        _of_rows(selector, rows) if len(parts) > 1 else selector,
        rngs_b[rows],
        prompt_len=self.task.prompt_len,
        mask_id=self.task.mask_id,
        block=self.block,
        remask=self.remask,
      )
      for rows in parts
    ]
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:num], *found)

  def judged(
    self, selector: Any, rows_bt: np.ndarray, seed: int = 0
  ) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row came out right, and its calls, floats [b]."""
    out = self.decode(selector, rows_bt, seed)
    right_b = self.task.is_correct(np.asarray(out.tokens_bt))
    return right_b.astype(float), np.asarray(out.num_calls_b, float)

  def point(self, name: str, selector: Any) -> pareto.Point:
    """Accuracy and calls of a selector."""
    if isinstance(_inner(selector), selectors.OracleMargin):
      return pareto.Point(name, *self.judged(selector, self.rows_nt))
    return pareto.Point(name, *self.drawn(selector), self._count_p)

  def drawn(self, selector: Any) -> tuple[np.ndarray, np.ndarray]:
    """`judged` of each distinct prompt, floats [p, draws].

    One draw of a selector without chance.
    """
    with_chance = (selectors.Random, policy.Policy)
    is_random = isinstance(_inner(selector), with_chance)
    num = self.num_draws if is_random else 1
    rows = np.repeat(self._distinct, num, axis=0)
    right, calls = self.judged(selector, rows, self.seed)
    return right.reshape(-1, num), calls.reshape(-1, num)

  def sweep(self, named: Iterable[tuple[str, Any]]) -> list[pareto.Point]:
    return [self.point(name, selector) for name, selector in named]


def _inner(selector: Any) -> Any:
  """What decides inside the blocks."""
  while isinstance(selector, rollout.InBlocks | rollout.OfMostConfident):
    selector = selector.selector
  return selector


def _of_rows(selector: Any, rows: np.ndarray) -> Any:
  """The selector for these rows alone; only the oracle knows rows."""
  if isinstance(selector, rollout.InBlocks | rollout.OfMostConfident):
    inner = _of_rows(selector.selector, rows)
    return dataclasses.replace(selector, selector=inner)
  if isinstance(selector, selectors.OracleMargin):
    answers_bt = selector.answers_bt[rows]
    return dataclasses.replace(selector, answers_bt=answers_bt)
  return selector


def heuristics(
  task: base.Verifiable, rows_nt: np.ndarray
) -> dict[str, list[tuple[str, Any]]]:
  """Dense settings of every rule, by name of the rule.

  Numbers are arrays, so that each rule is compiled once. The last one, `oracle
  margin`, knows the answers of the rows, of which others may be right too.
  """
  num = lambda x: jnp.asarray(x)
  thresholds = np.arange(15, 100) / 100
  answers_bt = jnp.asarray(rows_nt[:, task.prompt_len :])
  by_k = functools.partial(_by_k, task)
  return {
    'threshold': [
      (f'threshold={x:.2f}', selectors.Threshold(num(float(x))))
      for x in thresholds
    ],
    'entropy bound': [
      (f'gamma={x:g}', selectors.EntropyBound(num(float(x))))
      for x in np.geomspace(0.02, 8, 24).round(3)
    ],
    'top-k': by_k(selectors.TopK),
    'margin': by_k(selectors.Margin),
    'entropy': by_k(selectors.Entropy),
    'factor': [
      (f'factor={x:g}', selectors.Factor(num(float(x))))
      for x in np.geomspace(0.1, 4, 16).round(3)
    ],
    'random': by_k(selectors.Random),
    ORACLE: by_k(lambda k: selectors.OracleMargin(answers_bt, k)),
  }


def _by_k(task: base.Task, make: Any, least: int = 1) -> list[tuple[str, Any]]:
  ks = [k for k in (1, 2, 3, 4, 6, 8) if least <= k <= task.answer_len]
  return [(f'k={k}', make(jnp.asarray(k))) for k in ks]


def remasked(judge: Judge, num: int) -> dict[str, list[pareto.Point]]:
  """Points of rules that mask the `num` least probable tokens again per call.

  Those that reveal more than that.
  """
  remask = remdm.Lowest(jnp.asarray(num))
  judge = dataclasses.replace(judge, remask=remask)
  rules = {
    'top-k': selectors.TopK,
    'margin': selectors.Margin,
    'random': selectors.Random,
  }
  return {
    f'{name}, {num} masked again': judge.sweep(_by_k(judge.task, make, num + 1))
    for name, make in rules.items()
  }


def policies(
  model: policy.UnmaskingPolicy,
  learn: rl.Config,
  temperatures: Iterable[float] = (0.1, 0.25, 0.5, 1.0),
  scales: Iterable[float] = (1.0,),
) -> list[tuple[str, Any]]:
  """A policy, as it was trained, at several temperatures and scales."""
  num = lambda x: jnp.asarray(float(x))
  return [
    (f'tau={t:g}, scale={s:g}', learn.selector(model, num(t), num(s)))
    for t in temperatures
    for s in scales
  ]
