# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows as units of tokens; `coded_tokenizers_test` has the rest."""

import numpy as np
import pytest

from jaxtok.entropy import table
from jaxtok.tokenizers import arithmetic, neural

DOCUMENTS = [b'she sells sea shells by the sea shore; ' * 9, b'', b'\xff\x00']


@pytest.mark.parametrize('token_bits', [8, 16])
def test_documents_are_whole_windows(token_bits):
  config = neural.Train(order=1, token_bits=token_bits)
  tokenizer = config.make(lambda: DOCUMENTS)
  places = tokenizer.tokens_per_window
  assert places == 16 // token_bits
  for ids, offsets in tokenizer.encode_batch_with_offsets(DOCUMENTS):
    assert len(ids) % places == 0
    charged = np.diff(offsets, axis=1)[:, 0].reshape(-1, places)
    assert not charged[:, 1:].any()  # The first token has the window's bytes.


def test_tokens_per_window_are_its_bits_over_theirs():
  for window_bits, token_bits, want in ((64, 8, 8), (128, 16, 8), (32, 16, 2)):
    config = neural.Config(window_bits=window_bits, token_bits=token_bits)
    assert config.make().tokens_per_window == want


def test_arithmetic_train_counts_the_same_model():
  got = arithmetic.Train(order=1, num_rows=300).make(lambda: DOCUMENTS)
  model = table.fit(DOCUMENTS, order=1, num_rows=300)
  assert got.fingerprint == arithmetic.ArithmeticTokenizer(model).fingerprint
  with pytest.raises(ValueError, match=r'make\(documents\)'):
    arithmetic.Train().make()


@pytest.mark.parametrize(
  'settings', [{}, {'token_bits': 8}, {'dense_ids': True}]
)
def test_prompts_leave_out_what_depends_on_the_rest(settings):
  tokenizer = neural.Train(order=1, **settings).make(lambda: DOCUMENTS)
  cuts = (DOCUMENTS[0][:length] for length in range(40, 60))
  prompt = next(x for x in cuts if len(tokenizer.encode_prompt(x)[1]) > 1)
  ids, rest = tokenizer.encode_prompt(prompt)
  assert tokenizer.decode(ids) + rest == prompt
  assert tokenizer.encode_prompt(b'')[0].size == 0
  window, texts = [], []
  for _ in range(tokenizer.tokens_per_window):
    allowed = tokenizer.allowed(rest, window)
    assert len(allowed) == tokenizer.vocab_size
    texts = [
      tokenizer.decode([*window, i])
      for i in np.flatnonzero(allowed).tolist()
      if len(window) + 1 == tokenizer.tokens_per_window
    ]
    window.append(int(np.flatnonzero(allowed)[-1]))
  assert tokenizer.window_text(window) in texts
  for text in texts:
    assert text.startswith(rest) or rest.startswith(text)
  # The right continuation is among them.
  canonical = tokenizer.encode(DOCUMENTS[0])
  at = len(ids)
  step = tokenizer.tokens_per_window
  if (canonical[:at] == ids).all():
    assert tokenizer.allowed(rest, canonical[at : at + step - 1].tolist())[
      canonical[at + step - 1]
    ]


def test_prompts_of_long_windows_are_refused():
  tokenizer = neural.Config(window_bits=64).make()
  with pytest.raises(ValueError, match='cannot continue a prompt of 3 bytes'):
    tokenizer.encode_prompt(b'abc')
