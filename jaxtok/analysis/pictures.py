# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of the analyses of compressed text."""

from collections.abc import Mapping

import numpy as np

from jaxtok.analysis import (
  bit_ngrams,
  places,
  probes,
  resets,
  spelling,
  stability,
  trivial,
  window_texts,
)
from jaxtok.runs import plots


def draw_trivial(found: Mapping[str, trivial.Trivial]) -> plots.Picture:
  """Bits per byte of trivial models, and how far tokens compress."""
  names, where = list(found), np.arange(len(found))
  with plots.style():
    left, right = plots.panels(2)
    for i, kind in enumerate(('uniform', 'unigram')):
      values = [getattr(x, f'{kind}_bpb') for x in found.values()]
      left.barh(where + 0.4 * i - 0.2, values, height=0.38, label=kind)
    left.set_xlabel('bits per byte')
    left.legend(fontsize=8)
    right.barh(where, [x.bytes_per_token for x in found.values()], color='C2')
    right.set_xlabel('bytes per token')
    for axis in (left, right):
      axis.set_yticks(where, names if axis is left else [''] * len(names))
      axis.invert_yaxis()
      axis.grid(axis='y', visible=False)
    return plots.Picture(left.figure)


def draw_divergence(
  overlapping: Mapping[str, bit_ngrams.Divergence],
  tokens: Mapping[str, bit_ngrams.Divergence],
) -> plots.Picture:
  """KL from uniform of overlapping bit n-grams, and of n-bit tokens."""
  with plots.style():
    axes = plots.panels(2, height=3.6)
    titles = 'overlapping n-grams', 'tokens of n bits'
    for axis, title, found in zip(
      axes, titles, (overlapping, tokens), strict=True
    ):
      for name, its in found.items():
        low, middle, high = its.percentiles().T
        is_control = name == 'coin tosses'
        (line,) = axis.plot(
          its.sizes,
          middle,
          marker='o',
          label=name,
          color='#777777' if is_control else None,
          linestyle=':' if is_control else '-',
        )
        axis.fill_between(
          its.sizes, low, high, color=line.get_color(), alpha=0.2, linewidth=0
        )
      axis.set_yscale('symlog', linthresh=1e-3)
      axis.set_title(title, loc='left')
      axis.set_xlabel('n (bits)')
    axes[0].set_ylabel('KL from uniform (bits)')
    axes[1].legend(fontsize=8)
    return plots.Picture(axes[0].figure)


def draw_stability(found: Mapping[str, stability.Stability]) -> plots.Picture:
  """Histograms of relative edit distances."""
  with plots.style():
    (axis,) = plots.panels(1, height=3.6)
    axis.figure.set_figwidth(7.6)
    bins = np.linspace(0, 1.2, 49)
    for name, its in found.items():
      share = np.ones(len(its.distances)) / len(its.distances)
      axis.hist(
        its.relative,
        bins,
        weights=share,
        histtype='step',
        linewidth=1.6,
        label=name,
      )
    axis.set_xlabel('edit distance / tokens')
    axis.set_ylabel('share of pairs of words')
    axis.legend(loc='center left', bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return plots.Picture(axis.figure)


def draw_window_texts(
  found: window_texts.WindowTexts, num_bytes: int = 1
) -> plots.Picture:
  """How well a token tells the beginning of its window's text, by place."""
  agreement, counts = found.agreement(num_bytes), found.counts()
  with plots.style():
    left, right = plots.panels(2, height=3.4)
    for place in range(found.places):
      shown = np.sort(agreement[place][counts[place] > 0])[::-1]
      rank = np.linspace(0, 1, len(shown))
      left.plot(rank, shown, label=f'token {place}')
    left.set_xlabel('share of the token values')
    left.set_ylabel('windows with the same beginning')
    left.legend(fontsize=8)
    for place in range(found.places):
      ratio = found.num_texts()[place] / np.maximum(counts[place], 1)
      right.hist(
        ratio[counts[place] > 0],
        np.linspace(0, 1, 31),
        histtype='step',
        label=f'token {place}',
      )
    right.set_xlabel('different texts / windows')
    right.set_ylabel('token values')
    return plots.Picture(left.figure)


def draw_places(found: places.Places, of: str = 'accuracy') -> plots.Picture:
  """A metric by place in the window over training, and what it gained."""
  with plots.style():
    left, right = plots.panels(2)
    for place in range(found.values.shape[1]):
      left.plot(found.step, found.values[:, place], label=f'token {place}')
      right.plot(found.step, found.gain[:, place])
    left.set_ylabel(of)
    left.legend(fontsize=8)
    right.set_ylabel('gain over the beginning')
    for axis in (left, right):
      axis.set_xlabel('optimizer steps')
    return plots.Picture(left.figure)


def draw_resets(found: resets.Resets) -> plots.Picture:
  """What memory gains in compression, and leaves to be learned."""
  names = [
    'never' if every == 0 else f'every {every}' for every in found.reset_every
  ]
  with plots.style():
    left, right = plots.panels(2)
    left.bar(names, found.bytes_per_token, color='C2')
    left.set_ylabel('bytes per token')
    right.bar(names, found.uniform_bpb - found.unigram_bpb, color='C0')
    right.set_ylabel('uniform less unigram (bits per byte)')
    for axis in (left, right):
      axis.set_xlabel('windows between resets of M1')
      axis.grid(axis='x', visible=False)
    return plots.Picture(left.figure)


def draw_probes(found: Mapping[str, probes.Result]) -> plots.Picture:
  """Training of seq2seq probes, and their accuracy on held-out texts."""
  with plots.style():
    left, right = plots.panels(2)
    for result in found.values():
      width = max(1, len(result.nats) // 50)
      smooth = np.convolve(result.nats, np.ones(width) / width, 'valid')
      left.plot(np.arange(len(smooth)) + width, smooth)
    left.set_xlabel('optimizer steps')
    left.set_ylabel('nats per target')
    names, where = list(found), np.arange(len(found))
    values = [result.score.accuracy for result in found.values()]
    right.barh(where, values, color=[f'C{i % 7}' for i in where])
    right.set_yticks(where, names)
    right.invert_yaxis()
    right.grid(axis='y', visible=False)
    right.set_xlabel('accuracy on held-out texts')
    return plots.Picture(left.figure)


def draw_spelling(found: Mapping[str, spelling.Spelling]) -> plots.Picture:
  """Fine-tuning on spelling, and the share of new words spelled right."""
  with plots.style():
    left, right = plots.panels(2)
    names, where = list(found), np.arange(len(found))
    for name, its in found.items():
      left.plot(np.arange(1, len(its.nats) + 1), its.nats, label=name)
    left.set_xlabel('steps of fine-tuning')
    left.set_ylabel('nats per target')
    left.legend(fontsize=8)
    for i, kind in enumerate(('accuracy', 'exact')):
      values = [getattr(its.after, kind) for its in found.values()]
      label = 'tokens right' if kind == 'accuracy' else 'words right'
      right.barh(where + 0.4 * i - 0.2, values, height=0.38, label=label)
    right.set_yticks(where, names)
    right.invert_yaxis()
    right.grid(axis='y', visible=False)
    right.set_xlabel('share right, new words')
    right.legend(fontsize=8)
    return plots.Picture(left.figure)
