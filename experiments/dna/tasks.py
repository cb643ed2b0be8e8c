# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tasks of GUE with the settings of DNABERT-2's fine-tuning script."""

from experiments.dna import finetune
from jaxtok.data import gue

# Epochs, most tokens, warm-up steps, most steps (0: no limit). Lengths fit BPE
# tokens of about five bases; some sequences are cut, as there.
_FAMILIES = {
  'EMP': (3, 128, 50, 0),
  'mouse': (5, 30, 30, 1000),
  'prom/prom_300': (4, 70, 50, 0),
  'prom/prom_300_tata': (10, 70, 50, 0),
  'prom/prom_core': (4, 20, 50, 0),
  'prom/prom_core_tata': (10, 20, 50, 0),
  'splice': (5, 80, 50, 0),
  'tf': (3, 30, 30, 0),
  'virus': (8, 256, 50, 0),
}
_CLASSES = {'splice': 3, 'virus': 9}


def published(name: str, *, max_rows: int = 0) -> finetune.Task:
  """A data set of GUE, e.g. 'prom/prom_core_tata'.

  Raises:
    ValueError: If it is of no family of GUE.
  """
  families = [key for key in _FAMILIES if name.startswith(key)]
  if not families:
    raise ValueError(
      f'{name!r} is no data set of GUE; they begin with {", ".join(_FAMILIES)}.'
    )
  epochs, max_tokens, warmup, max_steps = _FAMILIES[max(families, key=len)]
  kind = name.split('/')[0]
  return finetune.Task(
    data=gue.Gue(
      task=name, num_classes=_CLASSES.get(kind, 2), max_rows=max_rows
    ),
    epochs=epochs,
    max_tokens=max_tokens,
    warmup_steps=warmup,
    max_steps=max_steps,
    metric='macro_f1' if kind == 'virus' else 'mcc',
  )
