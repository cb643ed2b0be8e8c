# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is measured of a trained language model, whatever its units."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxtok import runs
from jaxtok.decoding import text as text_decoding
from jaxtok.evals import base, bpb
from jaxtok.models import base as models

_PROMPTS, _PROMPT_BYTES = 8, 32


def context(run: runs.Run, data: Callable[[], Any]) -> base.Context:
  """What evals of a trained model need.

  Args:
    run: Gives tokenizer, objective and rows.
    data: Returns the text, a `data.text.Text`; asked for in each evaluation.
  """
  size = run.config.batch_size
  return base.Context(
    tokenizer=run.tokenizer,
    batches=lambda split, max_bytes: data().eval_batches(
      split, batch_size=size, max_bytes=max_bytes
    ),
    corpus_id=lambda split, max_bytes: data().corpus_id(split, max_bytes),
    objective=run.config.objective.make(),
    workdir=run.workdir,
  )


class Judge:
  """Bits per byte of any text with the models of one run's architecture.

  Compiles once for all texts and all weights.
  """

  def __init__(self, run: runs.Run, max_bytes: int):
    """Prepares the evaluation.

    Args:
      run: Gives tokenizer, objective and rows.
      max_bytes: Of each text's validation split; 0: all.
    """
    self._run = run
    self._data: Any = None
    config = bpb.Config(max_bytes=max_bytes)
    self._evaluate = config.make(context(run, lambda: self._data))

  def __call__(self, model: Any, source: Any) -> float:
    """Bits per byte of a source's validation split, per byte of that text.

    Args:
      model: Of the run, or with other weights.
      source: The config of a text.
    """
    data = dataclasses.replace(self._run.config.data, source=source)
    self._data = data.make(self._run.tokenizer)
    return float(self._evaluate(model, jax.random.key(0))['bpb'])


def bytes_per_position(run: runs.Run) -> float:
  """Bytes of held-out text per position of the trunk, the innermost stage.

  A model whose trunk has several positions for a unit has
  `positions_per_unit`.
  """
  row, units = run.metrics('eval/val')[-1], _units_per_token(run)
  each = getattr(run.model, 'positions_per_unit', 1)
  return 1 / (row['tokens_per_byte'] * (units or [1.0])[-1] * each)


def kept(run: runs.Run) -> float:
  """Share of an encoder's positions that are left behind its shortener."""
  return 1 - run.metrics('eval/val')[-1].get('deleted', 0.0)


def reads_spans(run: runs.Run) -> bool:
  """Whether the model fills spans: an encoder-decoder."""
  return bool(getattr(run.config.model, 'is_encoder_decoder', False))


def flops_per_byte(run: runs.Run, *, is_used: bool = False) -> float:
  """FLOPs of a forward pass, per byte of training text (or of its spans).

  Args:
    run: The run.
    is_used: Whether a model with units counts as many as held-out text has,
      not the room that it has for them in training, and an encoder the
      positions that it keeps.
  """
  row, config = run.metrics('train')[-1], run.config
  shape = models.Shape(b=config.batch_size, t=config.data.seq_len)
  units = _units_per_token(run)
  if reads_spans(run):
    its = config.data.lengths
    shape = models.Shape(b=config.batch_size, t=its.target, s=its.source)
    has_shortener = getattr(config.model, 'shortener', None) is not None
    units = [kept(run)] if has_shortener else []
  if not is_used or not units:
    parts = run.model.flops(shape)
  else:
    parts = run.model.flops(shape, kept=units[0] if len(units) == 1 else units)
  return row['step'] * sum(parts.values()) / row['bytes']


def _units_per_token(run: runs.Run) -> list[float]:
  """Of held-out text, by stage; [] for a model without units."""
  row, name = run.metrics('eval/val')[-1], 'units_per_token'
  names = [name, *(f'{name}_{stage}' for stage in range(2, len(row)))]
  return [row[name] for name in names if name in row]


def bytes_per_second(run: runs.Run, source: Any, num_bytes: int) -> float:
  """Speed of greedy generation for 8 prompts at once, compilation not counted.

  Args:
    run: The run.
    source: A text, whose validation split gives the prompts.
    num_bytes: To generate for each prompt.
  """
  documents = source.make('validation')
  data = documents[0]['data']
  step = max(1, (len(data) - _PROMPT_BYTES) // _PROMPTS)
  starts = range(0, _PROMPTS * step, step)
  prompts = [data[i : i + _PROMPT_BYTES] for i in starts]

  def generate() -> int:
    texts = text_decoding.complete(
      run.model, run.tokenizer, prompts, num_bytes=num_bytes
    )
    return sum(map(len, texts))

  generate()
  begin = time.perf_counter()
  made = generate()
  return made / (time.perf_counter() - begin)
