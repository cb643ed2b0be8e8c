# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Words pooled into vectors are predicted whole more often than by bytes.

Thawani et al. 2023, arXiv:2310.11628: at equal size, next-word accuracy more
than three times that of models over subwords, characters or bytes, on text of
several languages (the table by data set was not at hand).

Check: Python's standard library, 400 steps of 8 rows of 256 tokens, one layer
to read words, two over their four vectors each, one to spell, all of width 64;
against a flat transformer of two layers of that width over the same bytes,
with the same steps. Held-out files: the share of words, ending with white
space, all of whose tokens are the most likely ones, teacher-forced; and of
words of greedy continuations (`jaxtok/evals/word_accuracy.py`). The authors
report samples, in a setting in which padding counts as the end of a word; both
make their numbers other than these. Ratios are of the means over seeds: in one
of them the flat model gets next to no word right. flops_ratio says what a step
costs, pooled over flat.
"""

import pathlib

import jax

from experiments.byte_lm import measures
from experiments.byte_lm.configs import transformer, word_pooled
from experiments.claims import spacebyte
from jaxtok import train
from jaxtok.evals import word_accuracy
from jaxtok.models import base as model_base

TITLE = 'Learn Your Tokens'
PAPER = 'Thawani et al. 2023, arXiv:2310.11628'
CLAIM = (
  'With words pooled into four vectors a model predicts the next word whole at '
  'least 1.3 times as often as a flat one over bytes after the same steps, at '
  'twice the FLOPs per step.'
)
THRESHOLD = {
  f'{kind}_pooled / {kind}_flat': 'every >= 1.3'
  for kind in ('teacher_forced', 'free_running')
}
SEEDS = (0, 1, 2)


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 400
) -> dict[str, float]:
  """Trains the two models; see the module."""
  configs = {
    'pooled': word_pooled.get_config('tiny'),
    'flat': transformer.get_config('tiny'),
  }
  numbers, flops = {}, {}
  for name, config in configs.items():
    config = spacebyte.prepare(config, seed, 0.0)
    config.steps = steps
    run = train.run(config, pathlib.Path(workdir) / name)
    numbers[f'bpb_{name}'] = run.metrics('eval/val')[-1]['bpb']
    for key, value in words(run, config).items():
      numbers[f'{key}_{name}'] = value
    shape = model_base.Shape(b=1, t=config.data.seq_len)
    flops[name] = sum(run.model.flops(shape).values())
  return numbers | {'flops_ratio': flops['pooled'] / flops['flat']}


def words(run, config) -> dict[str, float]:
  """Word accuracy of a trained model on held-out files."""
  data = config.data.make(run.tokenizer)
  context = measures.context(run, lambda: data)
  measured = word_accuracy.Config(max_bytes=60_000, num_continued=64)
  values = measured.make(context)(run.model, jax.random.key(0))
  return {
    key: values[f'word_accuracy_{key}']
    for key in ('teacher_forced', 'free_running')
  }
