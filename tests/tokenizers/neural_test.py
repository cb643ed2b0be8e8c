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
