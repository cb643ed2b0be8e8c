# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes tokenizer.json files of SentencePiece's kind, in their spellings."""

import json
from typing import Any

import tokenizers

MARK = '▁'
BYTES = [f'<0x{b:02X}>' for b in range(256)]
SPECIAL = ['<unk>', '<s>', '</s>']
REPLACE = tokenizers.normalizers.Replace(' ', MARK)
PREPEND = tokenizers.normalizers.Prepend(MARK)
_METASPACE = tokenizers.pre_tokenizers.Metaspace

# Normalizer and pre-tokenizer; and whether a space is put before a text.
KINDS: dict[str, tuple[Any, Any, bool]] = {
  'llama': (tokenizers.normalizers.Sequence([PREPEND, REPLACE]), None, True),
  'gemma': (
    REPLACE,
    tokenizers.pre_tokenizers.Split(' ', 'merged_with_previous'),
    False,
  ),
  'metaspace': (None, _METASPACE(prepend_scheme='always'), True),
  'metaspace-whole': (
    None,
    _METASPACE(prepend_scheme='first', split=False),
    True,
  ),
  'metaspace-never': (None, _METASPACE(prepend_scheme='never'), False),
}


def train(kind: str, text: str, num_merges: int) -> dict[str, Any]:
  """The content of a tokenizer.json: special tokens, bytes, then merges.

  Words are those of Metaspace in training, as in SentencePiece, but for
  'metaspace-whole': its tokens may hold spaces inside.
  """
  normalizer, pre_tokenizer, _ = KINDS[kind]
  model = tokenizers.models.BPE(
    unk_token='<unk>', byte_fallback=True, fuse_unk=True
  )
  made = tokenizers.Tokenizer(model)
  made.pre_tokenizer = _METASPACE(split=kind != 'metaspace-whole')
  letters = sorted({MARK, *text.replace(' ', MARK)})
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=len(SPECIAL) + 256 + len(letters) + num_merges,
    special_tokens=SPECIAL + BYTES,
    initial_alphabet=letters,
    show_progress=False,
  )
  made.train_from_iterator([text], trainer)
  if normalizer is not None:
    made.normalizer = normalizer
  made.pre_tokenizer = pre_tokenizer
  decoders = tokenizers.decoders
  made.decoder = decoders.Sequence(
    [
      decoders.Replace(MARK, ' '),
      decoders.ByteFallback(),
      decoders.Fuse(),
      *([decoders.Strip(' ', 1, 0)] if KINDS[kind][2] else []),
    ]
  )
  spec = json.loads(made.to_str())
  # As in published files, where tokens of bytes are none of the special ones.
  spec['added_tokens'] = spec['added_tokens'][: len(SPECIAL)]
  return spec
