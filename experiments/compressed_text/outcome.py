# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The table and the picture that the suite ends with."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.compressed_text import methods
from jaxtok import runs
from jaxtok.analysis import trivial
from jaxtok.data import source
from jaxtok.runs import compare, curves, files, groups, plots, table

_Y = 'eval/val/bpb'
_HEADER = (
  *('method', 'bytes/token', 'uniform', 'unigram', 'nats/token'),
  *('bpb, equal tokens', 'bpb, equal FLOPs', 'M1 FLOPs/byte', 'FLOPs/byte'),
)
_NOTES = (
  'bpb: bits per byte of held-out text after training, ± the standard error '
  'over seeds. An upper bound: other token strings decode to the same text.',
  'uniform, unigram: bits per byte of trivial models of the tokens.',
  'nats/token: after training on equally many tokens.',
  'FLOPs/byte: 2 weights(M2) / (bytes per token) + M1, as in arXiv:2404.03626; '
  'embeddings not counted. Tables of counts have no FLOPs.',
)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Runs by match ('tokens', 'flops') and method, one per seed.

  Attributes:
    found: See `suite.train_all`.
  """

  found: dict[str, dict[str, list[runs.Run]]]

  def __post_init__(self):
    for match in self.found:  # Refuses runs that saw different text.
      of_match = [run for some in self.found[match].values() for run in some]
      compare.compare(of_match, x='step', y=_Y)

  @property
  def names(self) -> list[str]:
    """The methods, in order."""
    return list(next(iter(self.found.values())))

  def final(self, match: str, name: str, y: str = _Y) -> tuple[float, float]:
    """Mean of the last value over seeds and its standard error."""
    members = self.found.get(match, {}).get(name, [])
    if not members:
      return math.nan, math.nan
    return groups.Group(
      name, [curves.load(r, 'step', y) for r in members]
    ).final()

  def m1_flops(self, name: str) -> float:
    """FLOPs of M1 per byte."""
    return methods.m1_flops_per_byte(self._run(name).tokenizer)

  def trivial(self, name: str) -> trivial.Trivial:
    """Trivial models of the text that was evaluated."""
    run = self._run(name)
    its = run.config.evals['val']
    text = run.config.data.source.make(its.split)
    documents = source.documents(source.head(text, its.max_bytes))
    return trivial.measure(run.tokenizer, documents)

  def rows(self) -> list[list[str]]:
    """The table, a row per method."""
    return [self._row(name) for name in self.names]

  def markdown(self) -> str:
    """The table with its notes."""
    notes = '\n'.join(f'- {note}' for note in _NOTES)
    return f'{table.markdown(_HEADER, self.rows())}\n{notes}\n'

  def picture(self) -> plots.Picture:
    """Bits per byte against tokens and against FLOPs."""
    with plots.style():
      axes = plots.panels(len(self.found), height=4.0)
      for axis, (match, by_name) in zip(axes, self.found.items(), strict=True):
        for name, members in by_name.items():
          x, y = self._mean_curve(match, name, members)
          axis.plot(x, y, marker='o', label=name)
        axis.set_xscale('log')
        axis.set_xlabel(
          'training tokens'
          if match == 'tokens'
          else 'training FLOPs, with those of M1'
        )
        axis.set_ylabel('bits per byte (held-out text)')
      axes[-1].legend(loc='center left', bbox_to_anchor=(1.0, 0.5), fontsize=8)
      return plots.Picture(axes[0].figure)

  def save(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes suite.md, .svg and .png; returns their paths."""
    path = pathlib.Path(folder) / 'suite.md'
    files.write_atomic(path, self.markdown())
    return [path, *self.picture().save(pathlib.Path(folder) / 'suite')]

  def __str__(self) -> str:
    return table.plain(_HEADER, self.rows())

  def _run(self, name: str) -> runs.Run:
    return next(iter(self.found.values()))[name][0]

  def _row(self, name: str) -> list[str]:
    its, run = self.trivial(name), self._run(name)
    m1 = self.m1_flops(name)
    model = dataclasses.replace(
      run.config.model, vocab_size=run.tokenizer.vocab_size
    )
    weights = run.num_parameters - model.vocab_rows * model.dim
    cost = methods.paper_flops_per_byte(weights, its.bytes_per_token, m1)
    nats, _ = self.final('tokens', name, 'eval/val/nats')
    return [
      name,
      f'{its.bytes_per_token:.2f}',
      f'{its.uniform_bpb:.3f}',
      f'{its.unigram_bpb:.3f}',
      _number(nats, math.nan),
      _number(*self.final('tokens', name)),
      _number(*self.final('flops', name)),
      f'{m1:.3g}',
      f'{cost:.3g}',
    ]

  def _mean_curve(
    self, match: str, name: str, members: Sequence[runs.Run]
  ) -> tuple[np.ndarray, np.ndarray]:
    x_key = 'tokens' if match == 'tokens' else 'flops'
    points = [curves.load(run, x_key, _Y) for run in members]
    x = points[0].x
    if match == 'flops':
      x = x + self.m1_flops(name) * curves.load(members[0], 'bytes', _Y).x
    return x, np.mean([p.y for p in points], axis=0)


def _number(mean: float, error: float) -> str:
  if math.isnan(mean):
    return '-'
  return f'{mean:.3f}' if math.isnan(error) else f'{mean:.3f} ± {error:.3f}'
