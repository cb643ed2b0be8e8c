# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions in words, and the language model that answers them.

The other tasks of this experiment have a vocabulary of their own and a small
denoiser that is trained first. Here a masked diffusion model is there already:
a run of `experiments.diffusion_lm`, or a published LLaDA or Dream. It stays
frozen; only the unmasking policy learns (arXiv:2512.09106).

A row is a question behind padding (the mask token) and an answer of fixed
length. An answer is right if what follows its last '####' is what follows that
of the data's answer, as GSM8K is scored; see `diffusion.exact_match`.
"""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from experiments.unmasking import denoiser as denoiser_lib
from experiments.unmasking import training
from jaxtok import runs
from jaxtok.config import configclass
from jaxtok.data import answers
from jaxtok.diffusion import denoisers, exact_match, fitting, pretrained
from jaxtok.models import interop
from jaxtok.tokenizers import hf

_SPLITS = {training.TEST: 'test', training.VALIDATION: 'validation'}


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """What answers.

  Attributes:
    model: A bidirectional `SequenceModel` whose logits are of their position.
    tokenizer: Of questions and answers.
    mask_id: The mask token.
    eos_ids: Tokens that end an answer.
    data: The questions that it was trained on, or None.
    name: For the log.
  """

  model: Any
  tokenizer: Any
  mask_id: int
  eos_ids: tuple[int, ...]
  data: answers.Config | None
  name: str


@configclass
class OfRun(denoiser_lib.Source):
  """The newest checkpoint of a run of `experiments.diffusion_lm`."""

  path: str  # E.g. a run of configs/llada_sft.py.

  def load(self) -> LanguageModel:
    """Reads it.

    Raises:
      FileNotFoundError: If there is no such run, or no checkpoint.
      ValueError: If its model is no plain denoiser, see `fitting`.
    """
    run = runs.load(self.path)
    objective = run.config.objective
    try:
      fitting.check_plain(objective)
    except ValueError as e:
      raise ValueError(f'denoiser.path={self.path}: {e}') from e
    data = run.config.data
    return LanguageModel(
      model=run.model,
      tokenizer=run.tokenizer,
      mask_id=objective.mask_id,
      eos_ids=(run.tokenizer.special.eos,),
      data=data if isinstance(data, answers.Config) else None,
      name=f'{self.path}, {run.num_parameters:,} parameters',
    )


@configclass
class Published(denoiser_lib.Source):
  """A checkpoint of LLaDA or Dream: a folder with tokenizer.json too."""

  path: str
  # Ids that its config.json does not name; -1 and () take its own, or those of
  # the published vocabulary. Whether logits are shifted, its type says.
  mask_id: int = -1
  eos_ids: tuple[int, ...] = ()
  dtype: str = 'bfloat16'  # Of the parameters.

  def load(self) -> LanguageModel:
    """Reads it.

    Raises:
      FileNotFoundError: If there is no such folder.
      ValueError: If it is no LLaDA or Dream, or the ids are not its own.
    """
    raw = interop.read_config(self.path)
    try:
      found = interop.conventions(raw)
    except interop.Unsupported as e:
      raise ValueError(f'denoiser.path={self.path}: {e}') from e
    self._check_named(raw, found)
    mask_id = found.mask_id if self.mask_id < 0 else self.mask_id
    eos_ids = self.eos_ids or found.eos_ids
    config, model = interop.load(self.path, dtype=self.dtype)
    try:
      pretrained.check_ids(config.vocab_size, mask_id=mask_id, eos_ids=eos_ids)
    except ValueError as e:
      raise ValueError(f'denoiser.path={self.path}: {e}') from e
    tokenizer = hf.Config(path=os.fspath(self.path), allow_lossy=True).make()
    return LanguageModel(
      model=pretrained.Aligned(model) if found.is_shifted else model,
      tokenizer=tokenizer,
      mask_id=mask_id,
      eos_ids=eos_ids,
      data=None,
      name=os.fspath(self.path),
    )

  def _check_named(
    self, raw: dict[str, Any], found: interop.Conventions
  ) -> None:
    """Refuses ids that contradict those which config.json names."""
    for key, name, given, its in (
      ('mask_token_id', 'mask_id', self.mask_id, found.mask_id),
      # The first end of text is the one that pads answers.
      ('eos_token_id', 'eos_ids', self.eos_ids, found.eos_ids[0]),
    ):
      is_given = given not in (-1, ())
      first = given[0] if given and isinstance(given, tuple) else given
      if is_given and raw.get(key) is not None and first != its:
        raise ValueError(
          f'denoiser.{name}={given}, but {its} is that of the checkpoint '
          f'{self.path}. Leave denoiser.{name} out.'
        )


@configclass
class Config:
  """The task of answering questions."""

  data: answers.Config | None = None  # None: what the model was trained on.
  marker: str = '####'  # The final answer follows it; '' compares all.

  def make(self, found: LanguageModel) -> 'Questions':
    """The task for a model.

    Raises:
      ValueError: If there is no data.
    """
    data = self.data or found.data
    if data is None:
      raise ValueError(
        f'task.data is missing, and {found.name} was not trained on questions. '
        'Set task.data to an answers.Config in the config file.'
      )
    return Questions(self, data, found)


class Questions:
  """See `tasks.base.Task`; records are those of the data's splits.

  Test and validation are its held-out splits, everything else is drawn from
  that of training, which goes round in a new order.

  Attributes:
    config: What decides the records.
    mask_id: No answer contains it; before a prompt it is padding.
  """

  def __init__(self, config: Config, data: answers.Config, found: Any):
    self.config = dataclasses.replace(config, data=data)
    self.prompt_len, self.answer_len = data.prompt_len, data.answer_len
    self.mask_id = found.mask_id
    self.vocab_size = found.model.config.vocab_size
    self._tokenizer, self._eos_ids = found.tokenizer, found.eos_ids
    self._rows = functools.cache(
      functools.partial(answers.Rows, data, found.tokenizer)
    )
    # Prompt to the marker of its answer and what follows it.
    self._known: dict[bytes, tuple[str, bytes | None]] = {}

  def denoiser(self, model: Any) -> denoisers.BehindPadding:
    """The model on rows of this task."""
    return denoisers.BehindPadding(model, self.prompt_len, self.mask_id)

  def record(self, seed: int, index: int) -> np.ndarray:
    """One row, int32 [t].

    Raises:
      ValueError: If a held-out split has fewer questions, or the question has
        no room.
    """
    split = _SPLITS.get(seed, 'train')
    rows = self._rows(split, seed if split == 'train' else 0)
    if split != 'train' and index >= len(rows):
      name = 'num_test' if split == 'test' else 'policy.num_validation'
      raise ValueError(
        f'the {split} split has {len(rows)} questions that fit, but question '
        f'{index + 1} was asked for. Set config.{name}={len(rows)}.'
      )
    prompt, answer = rows.ids(index)
    row_t = np.full(self.prompt_len + self.answer_len, self.mask_id, np.int32)
    row_t[self.prompt_len - len(prompt) : self.prompt_len] = prompt
    row_t[self.prompt_len :] = self._eos_ids[0]
    row_t[self.prompt_len : self.prompt_len + len(answer)] = answer
    text, marker = rows.pair(index)[1], self.config.marker
    if exact_match.final_answer(text, marker) is None:
      marker = ''
    want = marker, exact_match.final_answer(text, marker)
    self._known[row_t[: self.prompt_len].tobytes()] = want
    return row_t

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """Whether answers end as those of the data do, bool [b]."""
    tokens_bt = np.asarray(tokens_bt, np.int32)
    return np.array([self._is_right(row_t) for row_t in tokens_bt], bool)

  def _is_right(self, row_t: np.ndarray) -> bool:
    key, answer = row_t[: self.prompt_len].tobytes(), row_t[self.prompt_len :]
    if key not in self._known:
      raise ValueError('a prompt is none of those that were drawn.')
    ends = np.flatnonzero(np.isin(answer, self._eos_ids))
    answer = answer[: ends[0]] if ends.size else answer
    if np.isin(self.mask_id, answer):
      return False
    marker, want = self._known[key]
    got = self._tokenizer.decode(answer)
    return exact_match.final_answer(got, marker) == want
