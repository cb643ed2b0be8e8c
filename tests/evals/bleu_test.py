# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLEU by hand: clipped counts, lengths, pooled over the corpus."""

import math

import pytest

from jaxtok.evals import bleu


def split(*texts):
  return [text.split() for text in texts]


def test_the_same_texts_score_one_and_others_zero():
  texts = split('int f ( ) { }', 'return a + b ;')
  assert bleu.corpus_bleu(texts, texts) == 1
  assert bleu.exact_match(texts, texts) == 1
  assert bleu.corpus_bleu(split('a b c d e'), split('f g h i j')) == 0
  assert bleu.corpus_bleu(split(''), split('a')) == 0


def test_a_word_counts_no_more_often_than_in_the_reference():
  """The example of the paper, section 2.1: 2 of 7; long enough, so no more."""
  found, wanted = split('the ' * 7), split('the cat is on the mat')
  assert bleu.corpus_bleu(found, wanted, max_order=1) == pytest.approx(2 / 7)


def test_precisions_and_lengths_are_those_of_the_whole_corpus():
  """Orders 1 and 2: matches 3 + 1 and 2 + 0, of 4 + 2 and 3 + 1; 6 to 8 words.

  The mean over texts would be another number, as the second has no pair.
  """
  found = split('a b c d', 'x z')
  wanted = split('a b c e f', 'x y w')
  want = math.exp(1 - 8 / 6) * math.sqrt(4 / 6 * 2 / 4)
  got = bleu.corpus_bleu(found, wanted, max_order=2)
  assert got == pytest.approx(want, rel=1e-12)
  assert bleu.exact_match(found, wanted) == 0


def test_four_orders_by_hand():
  """One wrong word of eight, the fifth: 7/8, 5/7, 3/6 and 1/5."""
  found, wanted = split('a b c d X f g h'), split('a b c d e f g h')
  want = (7 / 8 * 5 / 7 * 3 / 6 * 1 / 5) ** (1 / 4)
  assert bleu.corpus_bleu(found, wanted) == pytest.approx(want, rel=1e-12)


def test_exact_match_is_a_share():
  assert bleu.exact_match(split('a b', 'a'), split('a b', 'b')) == 0.5


@pytest.mark.parametrize('score', [bleu.corpus_bleu, bleu.exact_match])
def test_each_text_needs_a_reference(score):
  with pytest.raises(ValueError, match='found has 2 texts and wanted 1'):
    score(split('a', 'b'), split('a'))
  with pytest.raises(ValueError, match='at least one'):
    score([], [])
