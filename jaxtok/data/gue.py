# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUE: classification of genome sequences, in 28 data sets.

Zhou et al. 2023, arXiv:2306.15006, section 4.2. A data set is a folder with
train.csv, dev.csv and test.csv; each has the header `sequence,label`.
"""

import csv
import io
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import archives, files, labelled
from jaxtok.data.fasta import expand
from jaxtok.data.source import check_split

_FILES = {'train': 'train.csv', 'validation': 'dev.csv', 'test': 'test.csv'}


@configclass
class Gue:
  """One data set of GUE."""

  path: str = '$JAXTOK_DATA/dna/gue.zip'  # A .zip or a folder.
  task: str = ''  # E.g. 'prom/prom_core_all'.
  num_classes: int = 2
  max_rows: int = 0  # Of the training split, the first ones; 0: all.

  def read(self, split: str) -> labelled.Labelled:
    """The sequences of a split, upper case.

    Raises:
      FileNotFoundError: If there is no such data set or split.
      ValueError: If a file is not of that form.
    """
    check_split(split)
    name = f'{self.task}/{_FILES[split]}'
    found = {file.name: file for file in files.find(expand(self.path))}
    # Names begin with that of the archive, or with parts of the folder.
    matches = [n for n in found if f'/{n}'.endswith(f'/{name}')]
    if len(matches) != 1 or not self.task:
      ends = {f'/{end}' for end in _FILES.values()}
      have = sorted(n for n in found if n[n.rindex('/') :] in ends)
      raise FileNotFoundError(
        f'task={self.task!r} has {len(matches)} files for {split} in '
        f'{self.path}, not one ({name}). There are: {", ".join(have)}.'
      )
    file = found[matches[0]]
    data = b''.join(archives.read(file.path, file.member))
    return self._parse(data.decode(), file.name, split)

  def _parse(self, text: str, name: str, split: str) -> labelled.Labelled:
    rows = csv.DictReader(io.StringIO(text))
    if not {'sequence', 'label'} <= set(rows.fieldnames or ()):
      raise ValueError(
        f'{name} must have the header sequence,label; it has {rows.fieldnames}.'
      )
    limit = self.max_rows if split == 'train' else 0
    sequences, labels = [], []
    for row in rows:
      sequences.append(row['sequence'].upper().encode())
      labels.append(_label(row['label'], self.num_classes, name))
      if len(labels) == limit:
        break
    return labelled.Labelled(sequences, np.array(labels, np.int32))


def _label(text: Any, num_classes: int, name: str) -> int:
  if not str(text).isdigit() or int(text) >= num_classes:
    raise ValueError(
      f'{name} has label {text!r}; labels must be 0..{num_classes - 1}. Is '
      f'num_classes={num_classes} right?'
    )
  return int(text)
