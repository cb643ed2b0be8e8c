# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Subword vocabularies: read from a file, or trained on a run's own text.

  hf.Config(path='gpt2/tokenizer.json').make()
  hf.Train(vocab_size=4096).make(documents)
  hf.train_bpe(documents, 4096)

Files are those of the `tokenizers` library (tokenizer.json, or vocab.json and
merges.txt in one folder) and of `tiktoken` (.tiktoken). See
`subword.HfTokenizer` for how text is encoded, and `metaspace` for files that
write spaces as ▁, as SentencePiece does.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from etils import epath

from jaxtok.config import configclass, to_dict
from jaxtok.tokenizers import (
  base,
  bytelevel,
  files,
  libraries,
  metaspace,
  saved,
  training,
)
from jaxtok.tokenizers import spec as spec_lib
from jaxtok.tokenizers.lossy import LossyHfTokenizer
from jaxtok.tokenizers.subword import HfTokenizer

__all__ = ['Config', 'HfTokenizer', 'LossyHfTokenizer', 'Train', 'train_bpe']

_SPECIAL_NAMES = ('<pad>', '<bos>', '<eos>')


@configclass
class Config:
  """Reads a subword vocabulary from a file."""

  path: str = ''  # tokenizer.json, a folder with one, or a .tiktoken file.
  pattern: str = ''  # For .tiktoken: 'gpt2', 'cl100k', 'o200k' or a regex.
  new_special_tokens: tuple[str, ...] = ()  # New ones, at the end.
  pad: str = ''  # Names of special tokens, where the file does not tell.
  bos: str = ''
  eos: str = ''
  drop_normalizer: bool = False  # Encode the bytes as they are.
  allow_lossy: bool = False  # Accept what changes bytes; forbids bpb.

  def make(
    self, documents: Callable[[], training.Documents] | None = None
  ) -> base.Tokenizer:
    """Reads the file; `documents` are not used.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it cannot be read, or is lossy and that is not allowed.
    """
    del documents
    spec, roles = files.read(self.path, self.pattern)
    spec = spec_lib.append_special(spec, self.new_special_tokens)
    if self.drop_normalizer:
      spec = spec | {'normalizer': None}
    chosen = {'pad': self.pad, 'bos': self.bos, 'eos': self.eos}
    roles = roles | {role: name for role, name in chosen.items() if name}
    try:
      if metaspace.is_marked(spec):
        return metaspace.make(spec, roles)
      tokenizer = HfTokenizer(spec, roles)
    except spec_lib.LossyError as e:
      if self.allow_lossy:
        return LossyHfTokenizer(spec, roles)
      raise ValueError(f'{self.path}: {e}') from e
    if self.path.endswith('.tiktoken') and not tokenizer.fast:
      raise ValueError(
        f'pattern={self.pattern!r} with {self.path}: {tokenizer.slow_reason}. '
        'Write the regex so that `tokenizers` and `tiktoken` agree, e.g. '
        'without possessive quantifiers such as {1,3}+.'
      )
    return tokenizer


@configclass
class Train:
  """Trains byte-level BPE on the training split of a run.

  Ids 0..255 are the bytes, pad 256, bos 257, eos 258, as in the byte
  tokenizer; then new special tokens, in order, which no text is ever encoded
  to; then merges, so that a smaller vocabulary is a prefix of a larger one.
  """

  vocab_size: int = 4096  # All ids, special tokens included.
  new_special_tokens: tuple[str, ...] = ()  # E.g. `data.fim.NAMES`.
  pattern: str = 'gpt2'  # How text is cut into words; see `PATTERNS`.
  min_frequency: int = 2  # Pairs seen less often are not merged.
  max_bytes: int = 64_000_000  # Reads only the first so many; 0 reads all.
  max_token_bytes: int = 0  # Longest token; 0 sets no limit.

  def __post_init__(self):
    self._check_special()
    fixed = 256 + len(self._special)
    if self.vocab_size < fixed:
      raise ValueError(
        f'vocab_size={self.vocab_size} is too small: the 256 bytes and '
        f'{len(self._special)} special tokens (pad, bos, eos'
        f'{"".join(f", {name}" for name in self.new_special_tokens)}) take '
        f'{fixed} ids. Use at least {fixed + 1}.'
      )
    self._check_limits()

  @property
  def _special(self) -> tuple[str, ...]:
    return (*_SPECIAL_NAMES, *self.new_special_tokens)

  def _check_special(self) -> None:
    for name in self.new_special_tokens:
      if len(name) < 2:
        raise ValueError(
          f'new_special_tokens={self.new_special_tokens}: {name!r} has fewer '
          'than two characters, and could be the name of a byte.'
        )
      if self._special.count(name) > 1:
        raise ValueError(
          f'new_special_tokens={self.new_special_tokens}: {name!r} is given '
          f'twice, or is one of those that there are always: '
          f'{", ".join(_SPECIAL_NAMES)}.'
        )

  def _check_limits(self) -> None:
    for name in ('min_frequency', 'max_bytes', 'max_token_bytes'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be >= 0, got {getattr(self, name)}.')

  def make(
    self,
    documents: Callable[[], training.Documents] | None = None,
    cache_dir: Any = None,
  ) -> HfTokenizer:
    """Trains, or reads what was trained on the same text before.

    Args:
      documents: Gives the documents of the training split, anew per call.
      cache_dir: Folder for trained vocabularies, by text and settings.
    """
    self.__post_init__()  # Fields may have been set since.
    if documents is None:
      raise ValueError(
        f'{type(self).__name__} trains on text: call make(documents), with a '
        'function that returns the documents. To read a trained vocabulary, '
        'use jaxtok.tokenizers.load(folder).'
      )
    if cache_dir is None:
      return self._train(documents())
    folder = epath.Path(cache_dir) / f'bpe-{self._cache_key(documents())}'
    if (folder / saved.FILE_NAME).exists():
      return HfTokenizer.load(folder)
    tokenizer = self._train(documents())
    tokenizer.save(folder)
    return tokenizer

  def _train(self, documents: training.Documents) -> HfTokenizer:
    spec = training.train_spec(
      documents,
      self.vocab_size,
      bytelevel.split_on(self.pattern),
      self._special,
      min_frequency=self.min_frequency,
      max_bytes=self.max_bytes,
      max_token_bytes=self.max_token_bytes,
    )
    return HfTokenizer(spec)

  def _cache_key(self, documents: training.Documents) -> str:
    settings = json.dumps([to_dict(self), libraries.VERSIONS])
    digest = hashlib.sha256(settings.encode())
    for data in training.limited(documents, self.max_bytes):
      digest.update(len(data).to_bytes(8, 'little') + data)
    return digest.hexdigest()[:16]


def train_bpe(
  documents: training.Documents,
  vocab_size: int = 4096,
  *,
  pattern: str = 'gpt2',
  min_frequency: int = 2,
  max_bytes: int = 0,
  max_token_bytes: int = 0,
) -> HfTokenizer:
  """Trains byte-level BPE; see `Train` for the arguments and the ids.

  The result depends on nothing but the arguments. It is smaller than
  `vocab_size` if the text has too few frequent pairs.

  Raises:
    ValueError: If there is no text, or `vocab_size` is too small.
  """
  config = Train(
    vocab_size=vocab_size,
    pattern=pattern,
    min_frequency=min_frequency,
    max_bytes=max_bytes,
    max_token_bytes=max_token_bytes,
  )
  return config.make(lambda: documents)
