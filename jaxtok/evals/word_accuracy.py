# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How many words of held-out text a model predicts whole.

A word is what ends with white space and is more than that, and counts where
every token of it is the most likely one, its end included: the white space, and
the marks of `tokenizers.word_bytes` too. So the same words are asked of all
models, whatever their tokens.

Three numbers that are not the same (Thawani et al. 2023, arXiv:2310.11628,
report samples):

  teacher_forced  Every token is predicted from the true ones before it: what
                  greedy decoding of one word from the true text gives, too.
  sampled         The chance that a word drawn from the model, from the true
                  text before it, is the true one: the product of the
                  probabilities of its tokens. Rare words are next to never the
                  most likely ones, but have a chance.
  free_running    The first half of a row is given, the rest decoded greedily;
                  words are compared one by one with the true ones, by number.
                  After a mistake the context is the model's own.

`WordAccuracy.teacher_forced` and `free_running` give the same word by word.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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


class Word(NamedTuple):
  """A word of the text, and what a model makes of it."""

  text: bytes
  is_right: bool  # Whether it is predicted whole.
  chance: float  # To be drawn; nan in free_running.


class WordAccuracy:
  """Evaluates a model on one split.

  Returns:
    word_accuracy_teacher_forced, word_accuracy_free_running: Shares of words.
    word_accuracy_sampled: Mean chance of a word.
    words: How many the first and the last are of.
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
    self._judge = jax.jit(self._score, static_argnums=0)

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    del rng  # Decoding is greedy.
    config, context = self._config, self._context
    words = self.teacher_forced(model)
    num = max(len(words), 1)
    num_bytes = sum(
      int(np.asarray(batch['num_bytes_bt']).sum()) for batch in self._batches()
    )
    result = {
      'word_accuracy_teacher_forced': sum(w.is_right for w in words) / num,
      'word_accuracy_sampled': sum(w.chance for w in words) / num,
      'words': len(words),
      'bytes': num_bytes,
      'corpus': context.corpus_id(config.split, config.max_bytes),
    }
    if config.num_continued:
      words = self.free_running(model)
      share = sum(w.is_right for w in words) / len(words) if words else math.nan
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

  def teacher_forced(self, model: Any) -> list[Word]:
    """The words of the text, in order."""
    graph, params = nnx.split(model)
    found = []
    for batch in self._batches():
      is_best_bt, logprob_bt = jax.device_get(self._judge(graph, params, batch))
      batch = jax.device_get(batch)
      for i, targets in enumerate(batch['targets_bt']):
        is_target = batch['loss_mask_bt'][i] > 0
        targets = targets[is_target]
        is_best, logprob = is_best_bt[i][is_target], logprob_bt[i][is_target]
        for start, stop in self.words(targets):
          found.append(
            Word(
              self._text(targets[start:stop]),
              bool(is_best[start:stop].all()),
              float(np.exp(logprob[start:stop].sum())),
            )
          )
    return found

  def free_running(self, model: Any) -> list[Word]:
    """The words of the second halves of the first `num_continued` rows."""
    pairs = (
      pair
      for batch in map(jax.device_get, self._batches())
      for pair in zip(batch['tokens_bt'], batch['segment_ids_bt'], strict=True)
    )
    # Rows of one document, so that the model's positions are those of training.
    rows = [
      tokens
      for tokens, segments in itertools.islice(
        pairs, self._config.num_continued
      )
      if (segments == 1).all()
    ]
    if not rows:
      return []
    half = len(rows[0]) // 2
    prompts = np.stack(rows)[:, :half].astype(np.int32)
    got = autoregressive.generate(
      model, prompts, num_tokens=len(rows[0]) - half
    )
    found = []
    for row, new in zip(rows, np.asarray(got.tokens), strict=True):
      true = row[half:]
      theirs, ours = (
        [self._text(x[a:b]) for a, b in self.words(x)] for x in (true, new)
      )
      for a, b in itertools.zip_longest(theirs, ours[: len(theirs)]):
        found.append(Word(a, a == b, math.nan))
    return found

  def _batches(self) -> Any:
    return self._context.batches(self._config.split, self._config.max_bytes)

  def _text(self, tokens: Int[np.ndarray, 't']) -> bytes:
    return self._context.tokenizer.decode(tokens)

  def _score(self, graph, params, batch) -> Any:
    """Whether each target is the most likely token, and its log-probability."""
    model = nnx.merge(graph, params)
    output = model(
      batch['tokens_bt'],
      positions=batch['positions_bt'],
      segment_ids=batch['segment_ids_bt'],
    )
    logprob_btv = jax.nn.log_softmax(model.logits(output.hidden_btd))
    targets_bt = batch['targets_bt']
    logprob_bt1 = jnp.take_along_axis(logprob_btv, targets_bt[..., None], -1)
    return logprob_btv.argmax(-1) == targets_bt, logprob_bt1[..., 0]
