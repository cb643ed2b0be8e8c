# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gaps begin inside tokens, and are scored by the laws of the library."""

import numpy as np
import pytest

from jaxtok.data import fim
from jaxtok.decoding import byte_infill, byte_probs
from jaxtok.evals import base, gaps
from jaxtok.tokenizers import hf
from tests.decoding import byte_probs_test as oracle

_TEXT = b'import numpy as np\nfrom numpy import random\n' * 3


@pytest.fixture(scope='module')
def tokenizer():
  config = hf.Train(vocab_size=300, new_special_tokens=fim.NAMES)
  return config.make(lambda: [_TEXT * 9])


def test_texts_are_the_first_documents_of_rows(tokenizer):
  special = tokenizer.special
  first, second = tokenizer.encode(_TEXT[:40]), tokenizer.encode(b'no')
  row = [special.bos, *first, special.eos, *second]
  ids = [1] * (len(first) + 2) + [2] * len(second)
  batch = {
    'tokens_bt': [row, row[::-1]],
    'segment_ids_bt': [ids, [0] * len(ids)],
  }
  context = base.Context(
    tokenizer=tokenizer,
    batches=lambda split, max_bytes: iter([batch]),
    corpus_id=lambda split, max_bytes: 'text',
    objective=None,
    workdir=None,
  )
  config = gaps.Config(text_bytes=30, gap_bytes=4)
  texts = gaps.Gaps(config, context)._texts()
  assert list(texts) == [_TEXT[:30], b'']


def test_a_tokenizer_needs_the_marks():
  plain = hf.Train(vocab_size=300).make(lambda: [_TEXT * 9])
  model = byte_probs.ByteModel(oracle.random_lm(plain), plain)
  with pytest.raises(ValueError, match='no special token <PRE>, <SUF>, <MID>'):
    gaps.measure(model, [gaps.Gap(b'a', b'b', b'c')], gaps.Config())


def test_gaps_begin_inside_tokens_of_the_text(tokenizer):
  config = gaps.Config(num_gaps=50, gap_bytes=9, match_bytes=3)
  texts = [_TEXT[i : i + 60] for i in range(60)]
  found = gaps.cut(texts, tokenizer, config, [20] * 60)
  assert len(found) == 50
  for gap, text in zip(found, texts, strict=False):
    assert gap.prefix + gap.middle + gap.suffix == text
    assert 3 <= len(gap.middle) <= 9
    assert len(gap.prefix) >= 20
    ends = np.cumsum(tokenizer.token_byte_lengths[tokenizer.encode(text)])
    assert len(gap.prefix) not in ends
  assert len({len(gap.prefix) for gap in found}) > 5
  assert {len(gap.middle) for gap in found} == set(range(3, 10))


def test_scores_are_those_of_each_text_alone(tokenizer):
  model = byte_probs.ByteModel(oracle.random_lm(tokenizer), tokenizer)
  config = gaps.Config(
    num_gaps=3, gap_bytes=4, match_bytes=2, text_bytes=30, batch_size=2
  )
  texts = [_TEXT[i : i + 25] for i in range(3)]
  found = gaps.cut(texts, tokenizer, config)
  ids = [tokenizer.special.extra[name] for name in fim.NAMES]
  prompts = byte_infill.Config(prefix=ids[0], suffix=ids[1], middle=ids[2])
  # A gap that is filled in as it was.
  state = byte_infill.start(
    model, b'import nu', b' as', num_bytes=4, config=prompts
  )
  (middle,) = byte_probs.continue_bytes(state, num_bytes=4)
  found.append(gaps.Gap(b'import nu', middle, b' as'))
  got = gaps.measure(model, found, config)
  assert got['match'] >= 0.25
  for name, (order, ending) in gaps.WAYS.items():
    bits, first, match = [], [], []
    for gap in found:
      prompts = byte_infill.Config(
        prefix=ids[0], suffix=ids[1], middle=ids[2], order=order, cut=ending
      )
      state = byte_infill.start(
        model, gap.prefix, gap.suffix, num_bytes=4, config=prompts
      )
      # The most likely bytes, one after the other.
      best = byte_probs.continue_bytes(
        byte_infill.start(
          model, gap.prefix, gap.suffix, num_bytes=2, config=prompts
        ),
        num_bytes=2,
      )
      match.append(best == [gap.middle[:2]])
      first.append(-state.logprobs()[0, gap.middle[0]] / np.log(2))
      for byte in gap.middle:
        bits.append(-state.logprobs()[0, byte] / np.log(2))
        state.append([byte])
    np.testing.assert_allclose(got[f'{name}bpb'], np.mean(bits), atol=1e-4)
    np.testing.assert_allclose(
      got[f'{name}first_bits'], np.mean(first), atol=1e-4
    )
    assert got[f'{name}match'] == pytest.approx(np.mean(match))
  assert got['bytes'] == sum(len(gap.middle) for gap in found)


def test_mistakes_are_named(tokenizer):
  with pytest.raises(ValueError, match='gap_bytes must be >= 4, got 3'):
    gaps.Config(gap_bytes=3)
  with pytest.raises(ValueError, match='text_bytes must be >= 18, got 17'):
    gaps.Config(text_bytes=17)
  with pytest.raises(ValueError, match='must be three special tokens'):
    gaps.Config(names=())
  with pytest.raises(ValueError, match='no gap can begin inside'):
    gaps.cut([b'xyz'], tokenizer, gaps.Config())
