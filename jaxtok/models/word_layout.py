# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which word each token belongs to, where words end with a mark.

The tokens are those of `tokenizers.word_bytes`. An encoder of words reads
"bytes <word>", a decoder "<word> bytes": the same tokens, cut at other places.

Axes: b rows, s tokens.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxtok.nn import ragged, segmenters


@dataclasses.dataclass(frozen=True)
class Layout:
  """Words of encoder and decoder [b, s], and places in them.

  Attributes:
    encoder_bs: The word of each token, counted from 1; 0 is padding.
    encoder_place_bs: 0 for the mark, 1 for the first byte, and so on.
    decoder_bs: Likewise, with the mark before the bytes.
    decoder_place_bs: Likewise.
  """

  encoder_bs: Any
  encoder_place_bs: Any
  decoder_bs: Any
  decoder_place_bs: Any


def check_tokenizer(config: Any, tokenizer: Any) -> None:
  """Checks that a tokenizer marks words as a model expects.

  Args:
    config: Has `word_id` and `max_word`.
    tokenizer: Marks the ends of words; its `longest` word is not checked if it
      has none.

  Raises:
    ValueError: If it makes no marks, or longer words.
  """
  if config.word_id not in tokenizer.encode(b'a b'):
    raise ValueError(
      f'model.word_id={config.word_id} is no mark of {tokenizer!r}: its ids of '
      "b'a b' do not hold it. Use the tokenizer tokenizers.word_bytes, or set "
      'the id of yours.'
    )
  longest = getattr(tokenizer, 'longest', 0)
  if longest > config.max_word:
    raise ValueError(
      f'model.max_word={config.max_word} is less than tokenizer.longest='
      f'{longest}: longer words would go on without their beginning. Set '
      f'model.max_word={longest}, or tokenizer.longest={config.max_word}.'
    )


def layout(
  tokens_bs: Int[Array, 'b s'],
  documents_bs: Int[Array, '#b s'] | None,
  *,
  word_id: int,
  document_id: int,
  max_word: int,
) -> Layout:
  """The words of rows of tokens.

  Args:
    tokens_bs: Tokens.
    documents_bs: Their documents; 0 is padding.
    word_id: The mark behind a word.
    document_id: What stands before the first word of a document.
    max_word: Bytes after which a word without a mark is cut.
  """
  is_mark_bs = (tokens_bs == word_id) | (tokens_bs == document_id)
  after_bs = jnp.pad(is_mark_bs, ((0, 0), (1, 0)))[:, :-1]
  is_first_bs = segmenters.first(tokens_bs, documents_bs)

  def words(start_bs):
    start_bs = segmenters.limit(start_bs | is_first_bs, max_word + 1)
    number_bs = ragged.segment_ids(start_bs) + 1
    if documents_bs is not None:
      number_bs = jnp.where(documents_bs != 0, number_bs, 0)
    return number_bs, segmenters.place_in_unit(start_bs)

  encoder_bs, place_bs = words(after_bs)
  # The mark comes first for the encoder: <word>, then the bytes.
  place_bs = jnp.where(tokens_bs == word_id, 0, place_bs + 1)
  return Layout(encoder_bs, place_bs, *words(is_mark_bs))
