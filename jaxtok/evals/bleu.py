# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLEU of a corpus and exact match: generated texts beside one reference each.

Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine
translation", sections 2.1 to 2.3, without smoothing.
"""

import collections
import math
from collections.abc import Sequence


def corpus_bleu(
  found: Sequence[Sequence[str]],
  wanted: Sequence[Sequence[str]],
  *,
  max_order: int = 4,
) -> float:
  """BLEU of the whole corpus, in [0, 1].

  With sums over all texts, m_n the n-grams of a found text that are in its
  reference, each at most as often as there, and t_n all its n-grams:

    BLEU = min(1, exp(1 - r / c)) * (prod_n m_n / t_n) ** (1 / max_order)

  where c and r are the lengths of all found texts and of all references. It is
  0 if some m_n is 0, as for texts shorter than `max_order`.

  Args:
    found: Generated texts, as words.
    wanted: The reference of each.
    max_order: Longest n-grams.

  Raises:
    ValueError: If there are not as many references as texts, or none.
  """
  if len(found) != len(wanted) or not found:
    raise ValueError(
      f'found has {len(found)} texts and wanted {len(wanted)}; there must be '
      'one reference for each text, and at least one.'
    )
  if max_order < 1:
    raise ValueError(f'max_order={max_order} must be >= 1.')
  length, reference = sum(map(len, found)), sum(map(len, wanted))
  logs = []
  for n in range(1, max_order + 1):
    same = total = 0
    for text, other in zip(found, wanted, strict=True):
      ours, theirs = _grams(text, n), _grams(other, n)
      same += (ours & theirs).total()
      total += ours.total()
    if not same:
      return 0.0
    logs.append(math.log(same / total))
  penalty = min(0.0, 1 - reference / length)
  return math.exp(penalty + sum(logs) / max_order)


def exact_match(
  found: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]
) -> float:
  """Share of texts whose words are those of the reference.

  Raises:
    ValueError: As in `corpus_bleu`.
  """
  if len(found) != len(wanted) or not found:
    raise ValueError(
      f'found has {len(found)} texts and wanted {len(wanted)}; there must be '
      'one reference for each text, and at least one.'
    )
  pairs = zip(found, wanted, strict=True)
  return sum(list(a) == list(b) for a, b in pairs) / len(found)


def _grams(text: Sequence[str], n: int) -> collections.Counter:
  return collections.Counter(
    tuple(text[i : i + n]) for i in range(len(text) - n + 1)
  )
