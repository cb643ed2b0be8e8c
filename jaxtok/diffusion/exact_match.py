# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The share of questions that a masked diffusion model answers right.

Answers are generated as LLaDA does (`pretrained.generate`) and end at the first
end of text. What is compared with the answer of the data is what stands behind
the last '####', as GSM8K's evaluation does (Cobbe et al. 2021,
arXiv:2110.14168); the whole text where the data's answer has no such mark.

Rows are those of `data.answers`: all answers begin at one column. Questions
that are too long for a row count as answered wrong.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxtok.config import configclass
from jaxtok.diffusion import pretrained
from jaxtok.evals import base


@configclass
class Config:
  """What to measure, and how answers are generated."""

  every_steps: int = 0  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 10_000  # Of answers from the split's start; 0: all.
  marker: str = '####'  # The final answer follows it; '' compares all.
  mask_id: int = -1  # Of the objective.
  num_shown: int = 4  # Questions and answers kept as samples.
  decoding: pretrained.Config = dataclasses.field(
    default_factory=pretrained.Config
  )

  def __post_init__(self):
    for name in ('every_steps', 'max_bytes', 'num_shown'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be >= 0, got {getattr(self, name)}.')

  def make(self, context: base.Context) -> 'ExactMatch':
    """Builds the eval.

    Raises:
      ValueError: If there is no mask or end of text, or the mask is not that of
        the objective, or the answers of the data are of another length.
    """
    return ExactMatch(self, context)


def final_answer(text: bytes, marker: str = '####') -> bytes | None:
  """What follows the last marker on its line; None if there is no marker.

  Commas inside numbers, a dollar sign and a full stop are left out. With
  marker '' the whole text, without white space around it.
  """
  if not marker:
    return text.strip()
  _, found, rest = text.rpartition(marker.encode())
  if not found:
    return None
  line = (rest.strip().splitlines() or [b''])[0].strip()
  return line.replace(b',', b'').removeprefix(b'$').removesuffix(b'.')


class ExactMatch:
  """Evaluates a model on one split.

  Returns:
    exact_match: Share of right answers; exact_match_se: its standard error.
    left_out: Questions that are too long and therefore wrong.
    finished: Share of answers with an end of text, left_out aside.
    calls: Calls of the denoiser per answer, likewise.
    answers, bytes, corpus: What they are of; answers include left_out.
    samples: Some questions and answers.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config, self._context = config, context
    self._eos = context.tokenizer.special.eos
    if self._eos is None:
      raise ValueError(f'{context.tokenizer!r} has no eos token.')
    if config.mask_id < 0:
      raise ValueError(
        f'mask_id={config.mask_id} must be the id of the mask token, that of '
        'the objective.'
      )
    theirs = getattr(context.objective, 'mask_id', config.mask_id)
    if theirs != config.mask_id:
      raise ValueError(
        f'mask_id={config.mask_id} must be that of the objective, {theirs}.'
      )
    for batch in context.batches(config.split, config.max_bytes):
      answer_column(jax.device_get(batch), config.decoding.length)
      break  # All rows are laid out alike.
    self._run = jax.jit(self._generate, static_argnums=(0, 1))

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    config, context = self._config, self._context
    graph, params = nnx.split(model)
    right, finished, calls, num_bytes, shown = [], 0, 0, 0, []
    for batch in context.batches(config.split, config.max_bytes):
      begin = answer_column(jax.device_get(batch), config.decoding.length)
      key = jax.random.fold_in(rng, len(right))
      tokens_bt, calls_b = jax.device_get(
        self._run(graph, begin, params, batch, key)
      )
      batch = jax.device_get(batch)
      for i in np.flatnonzero(batch['loss_mask_bt'].any(1)):
        want = self._text(batch['targets_bt'][i, begin:])[0]
        got, has_end = self._text(tokens_bt[i, begin:])
        right.append(self._is_right(got, want))
        finished, calls = finished + has_end, calls + int(calls_b[i])
        num_bytes += int(batch['num_bytes_bt'][i].sum())
        if len(right) <= config.num_shown:
          is_prompt = batch['segment_ids_bt'][i, :begin] > 0
          question = batch['targets_bt'][i, :begin][is_prompt]
          shown += _sample(context.tokenizer.decode(question), want, got)
    if not right:
      raise ValueError(f'the {config.split} split has no questions.')
    left_out = context.left_out(config.split, config.max_bytes)
    num = len(right) + left_out
    share = sum(right) / num
    return {
      'exact_match': share,
      'exact_match_se': float(np.sqrt(share * (1 - share) / num)),
      'left_out': left_out,
      'finished': finished / len(right),
      'calls': calls / len(right),
      'answers': num,
      'bytes': num_bytes,
      'corpus': context.corpus_id(config.split, config.max_bytes),
      'samples': '\n'.join([*shown, '']),
    }

  def _generate(self, graph, begin, params, batch, rng):
    prompt_bt = batch['targets_bt'][:, :begin]
    canvas = pretrained.generate(
      nnx.merge(graph, params),
      prompt_bt,
      self._config.decoding,
      mask_id=self._config.mask_id,
      eos_ids=(self._eos,),
      is_prompt_bt=batch['segment_ids_bt'][:, :begin] > 0,
      rng=rng,
    )
    return canvas.tokens_bt, canvas.num_calls_b

  def _text(self, tokens_t: np.ndarray) -> tuple[bytes, bool]:
    """The text before the first end, and whether there is one."""
    ends = np.flatnonzero(tokens_t == self._eos)
    tokens_t = tokens_t[: ends[0]] if ends.size else tokens_t
    return self._context.tokenizer.decode(tokens_t), bool(ends.size)

  def _is_right(self, got: bytes, want: bytes) -> bool:
    marker = self._config.marker
    if final_answer(want, marker) is None:
      marker = ''
    return final_answer(got, marker) == final_answer(want, marker)


def answer_column(batch: dict[str, np.ndarray], length: int) -> int:
  """The column at which all answers begin.

  Raises:
    ValueError: If they do not, or are not of this length.
  """
  is_answer_bt = batch['loss_mask_bt'] > 0
  t = is_answer_bt.shape[1]
  begin = t - length
  rows = is_answer_bt[is_answer_bt.any(1)]
  if begin < 0 or (rows != (np.arange(t) >= begin)).any():
    raise ValueError(
      f'decoding.length={length}, but the answers of the data are not the last '
      f'{length} of {t} positions. Use data.answers with answer_len={length}.'
    )
  return begin


def _sample(question: bytes, want: bytes, got: bytes) -> list[str]:
  show = lambda text: repr(text.decode('utf-8', 'replace'))
  return [
    f'--- {show(question)}',
    f'right  {show(want)}',
    f'model  {show(got)}',
  ]
