# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of DNA against loops over strings and recounts of pairs."""

import collections
import itertools
import re

import numpy as np
import pytest

from jaxtok.tokenizers import dna

RNG = np.random.default_rng(0)
SEQUENCE = bytes(RNG.choice(list(b'ACGTACGTACGTACGTNn\n'), 2000).tolist())
GENOME = bytes(RNG.choice(list(b'ACGT'), 4000).tolist()).replace(b'CGC', b'TTT')


def words(tokenizer, data: bytes) -> list[bytes]:
  """What each id stands for, by an encoding of it alone."""
  return [tokenizer.decode([i]) for i in tokenizer.encode(data)]


def by_loop(data: bytes, k: int, step: int) -> list[bytes]:
  """k-mers by a regex for runs and a loop."""
  found = []
  for run in re.findall(rb'[ACGT]+|[^ACGT]', data):
    if len(run) < k or run[0] not in b'ACGT':
      found += [run[i : i + 1] for i in range(len(run))]
      continue
    starts = range(0, len(run) - k + 1, step)
    found += [run[i : i + k] for i in starts]
    if step == k:
      rest = len(run) // k * k
      found += [run[i : i + 1] for i in range(rest, len(run))]
  return found


@pytest.mark.parametrize('k', [1, 2, 3, 6])
def test_kmers_side_by_side_equal_a_loop(k):
  tokenizer = dna.Config(k=k).make()
  assert words(tokenizer, SEQUENCE) == by_loop(SEQUENCE, k, k)


@pytest.mark.parametrize('k', [1, 2, 3, 6])
def test_words_tile_the_text_and_hold_whole_kmers(k):
  tokenizer = dna.Config(k=k).make()
  ranges = tokenizer.split(SEQUENCE)
  np.testing.assert_array_equal(ranges[1:, 0], ranges[:-1, 1])
  assert (ranges[0, 0], ranges[-1, 1]) == (0, len(SEQUENCE))
  pieces = [SEQUENCE[start:stop] for start, stop in ranges]
  rows = [tokenizer.encode(piece) for piece in pieces]
  np.testing.assert_array_equal(
    np.concatenate(rows), tokenizer.encode(SEQUENCE)
  )
  assert all(len(row) < max(k, 2) for row in rows)
  assert tokenizer.split(b'').shape == (0, 2)


@pytest.mark.parametrize('k', [2, 3, 6])
def test_overlapping_kmers_equal_a_loop(k):
  tokenizer = dna.Config(k=k, overlapping=True).make()
  assert words(tokenizer, SEQUENCE) == by_loop(SEQUENCE, k, 1)
  assert tokenizer.decode(tokenizer.encode(SEQUENCE)) == SEQUENCE


def test_each_letter_is_charged_to_the_kmer_that_adds_it():
  tokenizer = dna.Config(k=3, overlapping=True).make()
  _, offsets = tokenizer.encode_with_offsets(b'ACGTNAC', add_special=True)
  want = [(0, 0), (0, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 7)]
  assert [tuple(x) for x in offsets.tolist()] == want


def test_a_special_token_ends_a_run_of_overlapping_kmers():
  tokenizer = dna.Config(k=3, overlapping=True).make()
  first, second = tokenizer.encode(b'ACGT'), tokenizer.encode(b'TTT')
  sep = tokenizer.special.sep
  assert tokenizer.decode([*first, sep, *second]) == b'ACGTTTT'
  assert tokenizer.decode([*first, *second]) == b'ACGTT'


def test_without_fallback_what_is_no_base_becomes_n():
  tokenizer = dna.Config(k=3, fallback=False).make()
  assert tokenizer.vocab_size == 5 + 5 + 64
  assert tokenizer.kind == 'lossy'
  assert tokenizer.decode(tokenizer.encode(b'ACGTxN')) == b'ACGTNN'


@pytest.mark.parametrize('fallback', [True, False])
def test_ids_from_first_base_on_stand_for_dna(fallback):
  first = dna.first_base(fallback)
  for k in (1, 2):
    tokenizer = dna.Config(k=k, fallback=fallback).make()
    letters = [tokenizer.decode([first + i]) for i in range(5)]
    assert letters == [b'A', b'C', b'G', b'T', b'N']
    assert set(tokenizer.decode(range(first, tokenizer.vocab_size))) <= set(
      b'ACGTN'
    )
  bpe = dna.TrainBpe(vocab_size=30).make(lambda: [GENOME])
  assert bpe.decode([dna.first_base()]) == b'A'
  assert bpe.vocab_size == 30 + 251
  assert bpe.special == dna.Config().make().special


def merges_by_recount(pieces: list[bytes], num: int) -> list[bytes]:
  """BPE by counting all pairs anew for each merge."""
  rows = [[bytes([b]) for b in piece] for piece in pieces]
  made = []
  for _ in range(num):
    count = collections.Counter()
    for row in rows:
      count.update(itertools.pairwise(row))
    most = max(count.values())
    best = [a + b for (a, b), n in count.items() if n == most]
    assert len(best) == 1, 'a tie: take another text'
    made += best
    for row in rows:
      i = 0
      while i < len(row) - 1:
        if row[i] + row[i + 1] == best[0]:
          row[i : i + 2] = best
        i += 1
  return made


def test_bpe_merges_equal_a_recount_of_all_pairs():
  train = dna.TrainBpe(vocab_size=22, piece=100)
  tokenizer = train.make(lambda: [GENOME])
  assert tokenizer.fast
  pieces = [GENOME[i : i + 100] for i in range(0, len(GENOME), 100)]
  # Counts of pairs as text: `AA` in `AAA` is counted twice by both.
  first = dna.first_base() + 5
  got = [tokenizer.token_bytes(first + i) for i in range(12)]
  assert got == merges_by_recount(pieces, 12)


def test_bpe_does_not_cut_sequences():
  tokenizer = dna.TrainBpe(vocab_size=400, piece=64).make(
    lambda: [b'ACGTTGCA' * 400]
  )
  assert len(tokenizer.encode(b'ACGTTGCA' * 8)) <= 2


def test_reverse_complement_reads_the_other_strand():
  assert dna.reverse_complement(b'AACGTNn') == b'nNACGTT'
  assert dna.reverse_complement(b'RYKMBVDHSW') == b'WSDHBVKMRY'
  whole = b'ACGTNRYSWKMBDHV'
  twice = dna.reverse_complement(dna.reverse_complement(whole))
  assert twice == whole
  with pytest.raises(ValueError, match=r"b'\\n' at position 2 is no base"):
    dna.reverse_complement(b'AC\nGT')


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: dna.Config(k=0), 'k=0 must be in 1..10'),
    (lambda: dna.Config(k=1, overlapping=True), 'k=1 cannot overlap'),
    (lambda: dna.TrainBpe(vocab_size=10), 'vocab_size=10 is too small'),
    (lambda: dna.TrainBpe(piece=1), 'piece=1 must be >= 2'),
    (lambda: dna.TrainBpe().make(), 'TrainBpe trains on text'),
    (lambda: dna.TrainBpe().make(lambda: [b'']), 'no pair of bases'),
  ],
)
def test_impossible_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
