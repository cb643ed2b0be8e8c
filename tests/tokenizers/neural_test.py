# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows as units of tokens; `coded_tokenizers_test` has the rest."""

import numpy as np
import pytest

from jaxtok.entropy import table
from jaxtok.tokenizers import arithmetic, neural

DOCUMENTS = [b'she sells sea shells by the sea shore; ' * 9, b'', b'\xff\x00']


@pytest.mark.parametrize(
  'window_bits, token_bits', [(16, 8), (16, 16), (64, 8)]
)
def test_documents_are_whole_windows(window_bits, token_bits):
  config = neural.Train(order=1, window_bits=window_bits, token_bits=token_bits)
  tokenizer = config.make(lambda: DOCUMENTS)
  places = tokenizer.tokens_per_window
  assert places == window_bits // token_bits
  for ids, offsets in tokenizer.encode_batch_with_offsets(DOCUMENTS):
    assert len(ids) % places == 0
    charged = np.diff(offsets, axis=1)[:, 0].reshape(-1, places)
    assert not charged[:, 1:].any()  # The first token has the window's bytes.


def test_arithmetic_train_counts_the_same_model():
  got = arithmetic.Train(order=1, num_rows=300).make(lambda: DOCUMENTS)
  model = table.fit(DOCUMENTS, order=1, num_rows=300)
  assert got.fingerprint == arithmetic.ArithmeticTokenizer(model).fingerprint
  with pytest.raises(ValueError, match=r'make\(documents\)'):
    arithmetic.Train().make()
