# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Can a language model learn to compress, or to decompress?

Lester et al. 2024, arXiv:2404.03626: rows `[text ; tokens]` (compress) and
`[tokens ; text]` (decompress), the loss on the second part only, whose ids come
after those of the first. A language model of the text alone is the control: a
decompressor that is no better has learned nothing about the code.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from jaxtok.analysis import fit
from jaxtok.config import configclass
from jaxtok.models import transformer

TASKS = ('compress', 'decompress', 'control')
_NUM_BYTES = 256


@configclass
class Config:
  """The model of a probe and its training."""

  dim: int = 128
  num_layers: int = 2
  num_heads: int = 4
  num_bytes: int = 32  # Of each text.
  steps: int = 1000
  batch_size: int = 32
  lr: float = 2e-3


@dataclasses.dataclass(frozen=True)
class Probe:
  """Rows of one task.

  Attributes:
    rows: See `fit.Rows`.
    vocab_size: Of the model.
  """

  rows: fit.Rows
  vocab_size: int


def pieces(
  documents: Sequence[bytes], num_bytes: int, num: int, seed: int = 0
) -> list[bytes]:
  """Texts of `num_bytes` from random places of documents.

  Raises:
    ValueError: If no document is long enough.
  """
  long = [x for x in documents if len(x) >= num_bytes]
  if not long:
    raise ValueError(f'no document has num_bytes={num_bytes} bytes.')
  rng = np.random.default_rng(seed)
  sizes = np.array([len(x) - num_bytes + 1 for x in long])
  chosen = rng.choice(len(long), num, p=sizes / sizes.sum())
  starts = rng.integers(0, sizes[chosen])
  return [
    long[i][at : at + num_bytes] for i, at in zip(chosen, starts, strict=True)
  ]


def make(
  tokenizer: Any, texts: Sequence[bytes], task: str, length: int = 0
) -> Probe:
  """Builds the rows of a task.

  Args:
    tokenizer: A tokenizer of compressed text.
    texts: Texts.
    task: One of `TASKS`.
    length: Of the rows; 0 means that of the longest one.

  Raises:
    ValueError: If the task does not exist, or `length` is too short.
  """
  if task not in TASKS:
    raise ValueError(f'task={task!r} must be one of {", ".join(TASKS)}.')
  num_codes = tokenizer.vocab_size
  start = _NUM_BYTES + num_codes
  data = [np.frombuffer(text, np.uint8).astype(np.int32) for text in texts]
  codes = list(tokenizer.encode_batch(texts).rows())
  match task:
    case 'compress':
      pairs = [(x, y + _NUM_BYTES) for x, y in zip(data, codes, strict=True)]
    case 'decompress':
      pairs = [(y, x + num_codes) for x, y in zip(data, codes, strict=True)]
    case _:
      pairs = [(x[:0], x + num_codes) for x in data]
  parts = [(np.concatenate([[start], x, [start + 1]]), y) for x, y in pairs]
  longest = max(len(x) + len(y) for x, y in parts)
  return Probe(fit.make_rows(parts, length or longest), start + 2)


@dataclasses.dataclass(frozen=True)
class Result:
  """What a probe has learned.

  Attributes:
    nats: Of each training step [steps], per target.
    score: On held-out texts.
  """

  nats: np.ndarray
  score: fit.Score


def run(
  tokenizer: Any,
  texts: Sequence[bytes],
  held_out: Sequence[bytes],
  task: str,
  config: Config | None = None,
  seed: int = 0,
) -> Result:
  """Trains and evaluates one probe.

  Args:
    tokenizer: A tokenizer of compressed text.
    texts: To train on.
    held_out: To evaluate on.
    task: One of `TASKS`.
    config: The model and its training.
    seed: Of parameters and batches.
  """
  config = config or Config()
  probes = [make(tokenizer, some, task) for some in (texts, held_out)]
  length = max(probe.rows.ids.shape[1] for probe in probes)
  learn, test = (
    make(tokenizer, some, task, length) for some in (texts, held_out)
  )
  model = transformer.Config(
    vocab_size=learn.vocab_size,
    dim=config.dim,
    num_layers=config.num_layers,
    num_heads=config.num_heads,
    activation='relu',
  ).make(nnx.Rngs(seed))
  nats = fit.train(
    model,
    learn.rows,
    steps=config.steps,
    batch_size=config.batch_size,
    lr=config.lr,
    seed=seed,
  )
  return Result(nats, fit.score(model, test.rows))
