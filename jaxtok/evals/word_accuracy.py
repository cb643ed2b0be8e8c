# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How many words of held-out text a model predicts whole.

A word is what ends with white space and is more than that, and counts where
every token of it is the most likely one, its end included: the white space, and
the marks of `tokenizers.word_bytes` too. So the same words are asked of all
models, whatever their tokens.

Two numbers that are not the same (Thawani et al. 2023, arXiv:2310.11628, report
one of the second kind, from samples):

  teacher_forced  Every token is predicted from the true ones before it: what
                  greedy decoding of one word from the true text gives, too.
  free_running    The first half of a row is given, the rest decoded greedily;
                  words are compared one by one with the true ones, by number.
                  After a mistake the context is the model's own.
"""

import itertools
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int

from jaxtok.config import configclass
from jaxtok.decoding import autoregressive
from jaxtok.evals import base

_SPACES = frozenset(b' \t\n\v\f\r')


@configclass
class Config:
  """What to measure, and how often."""

  every_steps: int = 0  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 20_000  # Of source text from the split's start; 0: all.
  num_continued: int = 8  # Rows that are decoded; 0: no free_running.

  def __post_init__(self):
    for name in ('every_steps', 'max_bytes', 'num_continued'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be >= 0, got {getattr(self, name)}.')

  def make(self, context: base.Context) -> 'WordAccuracy':
    """Builds the eval.

    Raises:
      ValueError: If the tokenizer's tokens have no bytes of their own.
    """
    return WordAccuracy(self, context)


class WordAccuracy:
  """Evaluates a model on one split.

  Returns:
    word_accuracy_teacher_forced, word_accuracy_free_running: Shares of words.
    words: How many the first is of.
    bytes, corpus: What they are of.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config, self._context = config, context
    tokenizer = context.tokenizer
    if getattr(tokenizer, 'kind', None) != 'concat':
      raise ValueError(
        f'{tokenizer!r} is not of kind concat: its tokens have no bytes of '
        'their own, so words cannot be told. Remove this eval.'
      )
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    self._is_mark = np.array([not text for text in texts])
    self._is_space = np.array(
      [bool(text) and text[-1] in _SPACES for text in texts]
    )
    self._best = jax.jit(self._most_likely, static_argnums=0)

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    del rng  # Decoding is greedy.
    config, context = self._config, self._context
    graph, params = nnx.split(model)
    right, words, num_bytes, rows = 0, 0, 0, []
    for batch in context.batches(config.split, config.max_bytes):
      best = np.asarray(self._best(graph, params, batch))
      batch = jax.device_get(batch)
      num_bytes += int(batch['num_bytes_bt'].sum())
      rows += list(
        zip(batch['tokens_bt'], batch['segment_ids_bt'], strict=True)
      )
      for i, targets in enumerate(batch['targets_bt']):
        is_target = batch['loss_mask_bt'][i] > 0
        hits = best[i][is_target] == targets[is_target]
        for start, stop in self.words(targets[is_target]):
          words, right = words + 1, right + hits[start:stop].all()
    result = {
      'word_accuracy_teacher_forced': float(right / max(words, 1)),
      'words': words,
      'bytes': num_bytes,
      'corpus': context.corpus_id(config.split, config.max_bytes),
    }
    if config.num_continued:
      share = self._free_running(model, rows[: config.num_continued])
      result['word_accuracy_free_running'] = share
    return result

  def words(self, tokens: Int[np.ndarray, 't']) -> list[tuple[int, int]]:
    """Where the whole words of a row begin and end.

    A mark belongs to the word before it. What stands before the first white
    space may have begun earlier, what comes after the last may go on.
    """
    is_space = self._is_space[tokens]
    is_mark = self._is_mark[tokens]
    # Behind the white space, or behind the marks that follow it.
    is_closed = np.zeros(len(tokens) + 1, bool)
    for i in range(len(tokens)):
      is_closed[i + 1] = is_space[i] or (is_mark[i] and is_closed[i])
    is_edge = is_closed.copy()
    is_edge[:-1] &= ~is_mark
    edges = np.flatnonzero(is_edge).tolist()
    is_blank = is_space | is_mark
    return [
      (start, stop)
      for start, stop in itertools.pairwise(edges)
      if not is_blank[start:stop].all()
    ]

  def _most_likely(self, graph, params, batch) -> Any:
    model = nnx.merge(graph, params)
    output = model(
      batch['tokens_bt'],
      positions=batch['positions_bt'],
      segment_ids=batch['segment_ids_bt'],
    )
    return model.logits(output.hidden_btd).argmax(-1)

  def _free_running(self, model, rows) -> float:
    """Share of words of greedy continuations that are the true ones."""
    # Rows of one document, so that the model's positions are those of training.
    rows = [tokens for tokens, segments in rows if (segments == 1).all()]
    if not rows:
      return float('nan')
    half = len(rows[0]) // 2
    prompts = np.stack(rows)[:, :half].astype(np.int32)
    got = autoregressive.generate(
      model, prompts, num_tokens=len(rows[0]) - half
    )
    right = words = 0
    for row, new in zip(rows, np.asarray(got.tokens), strict=True):
      true = row[half:]
      theirs, ours = (
        [self._context.tokenizer.decode(x[a:b]) for a, b in self.words(x)]
        for x in (true, new)
      )
      words += len(theirs)
      right += sum(a == b for a, b in zip(theirs, ours, strict=False))
    return right / max(words, 1)
