# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Published models of programs as the start of a run: `--config.init=FOLDER`.

A folder has config.json, model.safetensors and the vocabulary (tokenizer.json,
or vocab.json and merges.txt): CodeBERT, GraphCodeBERT and UniXcoder are of
RoBERTa's family, CodeT5 of T5's.
"""

import dataclasses
import pathlib
from typing import Any

from flax import nnx

from jaxtok.models import code_merge, interop, transformer
from jaxtok.tokenizers import hf


@dataclasses.dataclass(frozen=True)
class Ends:
  """Token ids around a program.

  Attributes:
    prefix: Before what an encoder reads; the first stands for the program.
    suffix: After it.
    start: What a decoder begins with.
    stop: What it ends with.
  """

  prefix: tuple[int, ...]
  suffix: tuple[int, ...]
  start: int = -1
  stop: int = -1


def tokenizer(folder: str) -> Any:
  """The vocabulary of a checkpoint.

  Raises:
    FileNotFoundError: If there is no such folder, or no vocabulary in it.
  """
  if not pathlib.Path(folder).is_dir():
    raise FileNotFoundError(
      f'init={folder} is no folder. Give one with config.json, '
      'model.safetensors and the vocabulary; nothing is downloaded.'
    )
  return hf.Config(path=folder).make()


def ends(folder: str, vocabulary: Any, names: tuple[str, ...] = ()) -> Ends:
  """The token ids that a checkpoint expects around programs.

  Args:
    folder: Of the checkpoint.
    vocabulary: Its tokenizer.
    names: Special tokens that follow the first, e.g. ('<encoder-only>',
      '</s>') for UniXcoder.

  Raises:
    ValueError: If the vocabulary lacks one of them, or has no first token.
  """
  known = {text.decode(): i for i, text in vocabulary.special_text.items()}
  if missing := [name for name in names if name not in known]:
    raise ValueError(
      f'prefix={names}: {missing[0]!r} is no special token of {folder}. It '
      f'has: {", ".join(known) or "none"}.'
    )
  special = vocabulary.special
  if not vocabulary.prefix or special.eos is None:
    raise ValueError(
      f'the vocabulary of {folder} puts no token before a program, or has no '
      'EOS token; a model needs both. Is its tokenizer_config.json missing?'
    )
  return Ends(
    prefix=(*vocabulary.prefix, *(known[name] for name in names)),
    suffix=tuple(vocabulary.suffix),
    start=_start(interop.read_config(folder), vocabulary),
    stop=special.eos,
  )


def _start(raw: dict[str, Any], vocabulary: Any) -> int:
  """What a decoder begins with; T5's begin with padding."""
  if not raw.get('is_encoder_decoder'):
    return vocabulary.prefix[0]
  start = raw.get('decoder_start_token_id')
  return raw.get('pad_token_id', 0) if start is None else start


def load(
  folder: str, *, dropout: float, length: int, vocabulary: Any
) -> nnx.Module:
  """A model of `transformer` or `code_merge`, checked against the run.

  Args:
    folder: Of the checkpoint.
    dropout: Of its layers in this run.
    length: Of the rows of this run.
    vocabulary: Its tokenizer.

  Raises:
    ValueError: If rows or token ids do not fit the model.
  """
  config, model = interop.load(folder)
  is_classifier = isinstance(model, code_merge.CodeMerge)
  encoder = config.encoder if is_classifier else config
  if not isinstance(encoder, transformer.Config):
    raise ValueError(
      f'init={folder} holds a {type(model).__name__}; an encoder of the family '
      'of RoBERTa or BERT, or a T5, is needed.'
    )
  if encoder.max_len and length > encoder.max_len:
    raise ValueError(
      f'length={length} must be <= {encoder.max_len}, the positions of the '
      f'model in init={folder}.'
    )
  if vocabulary.vocab_size > encoder.vocab_size:
    raise ValueError(
      f'init={folder} has {vocabulary.vocab_size} tokens and a model of '
      f'{encoder.vocab_size}; they are not of the same checkpoint.'
    )
  encoder = dataclasses.replace(encoder, dropout=dropout)
  if is_classifier:
    model.config = dataclasses.replace(config, encoder=encoder)
    model.encoder.config = encoder
  else:
    model.config = encoder
  return model
