# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The next byte of prompts that end inside a token, by three methods.

Prompts are held-out texts, cut at random inside tokens of two bytes or more.
"""

import math
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.decoding import byte_baselines, byte_probs
from jaxtok.evals import base


@configclass
class Config:
  """What to measure, and how often."""

  every_steps: int = 0  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 0  # Of source text from the split's start; 0: all.
  num_prompts: int = 200
  batch_size: int = 16  # Prompts at once.

  def __post_init__(self):
    for name, least in (
      *(('every_steps', 0), ('max_bytes', 0)),
      *(('num_prompts', 1), ('batch_size', 1)),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f'{name} must be >= {least}, got {getattr(self, name)}.'
        )

  def make(self, context: base.Context) -> 'CutPrompts':
    """Builds the eval."""
    return CutPrompts(self, context)


class CutPrompts:
  """Mean cost of the byte behind each cut.

  Returns:
    bpb: Bits of the next byte by `decoding.byte_probs`; bpb_se its standard
      error.
    naive_bpb, healed_bpb: By `decoding.byte_baselines`.
    missing: Largest share of a law that went to what is no encoding.
    rows_per_byte: Rows of the model per byte that was summed over.
    prompts, bytes, corpus: How much was measured, and on what text.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config, self._context = config, context

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    del rng  # The cuts are the same each time.
    config, context = self._config, self._context
    byte_model = byte_probs.ByteModel(model, context.tokenizer)
    cuts = self._cuts()
    groups = [
      cuts[low : low + config.batch_size]
      for low in range(0, len(cuts), config.batch_size)
    ]
    found = [_measure(byte_model, group) for group in groups]
    total = lambda name: sum(each[name] for each in found)
    bits = np.concatenate([each['bits'] for each in found])
    exact, naive, healed = bits.mean(axis=0)
    error = (
      bits[:, 0].std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else 0
    )
    return {
      'bpb': float(exact),
      'bpb_se': float(error),
      'naive_bpb': float(naive),
      'healed_bpb': float(healed),
      'missing': max(each['missing'] for each in found),
      'rows_per_byte': total('rows') / max(total('read'), 1),
      'prompts': len(cuts),
      'bytes': sum(len(prompt) + 1 for prompt, _ in cuts),
      'corpus': context.corpus_id(config.split, config.max_bytes),
    }

  def _cuts(self) -> list[tuple[bytes, int]]:
    """Prompts and the bytes that follow them.

    Raises:
      ValueError: If no token can be cut.
    """
    config, tokenizer = self._config, self._context.tokenizer
    rng, cuts = np.random.default_rng(0), []
    for ids in self._context.first_documents(config.split, config.max_bytes):
      lengths = tokenizer.token_byte_lengths[ids]
      choice = np.flatnonzero(lengths >= 2)
      if choice.size:
        chosen = int(rng.choice(choice))
        at = int(lengths[:chosen].sum() + rng.integers(1, lengths[chosen]))
        text = tokenizer.decode(ids)
        cuts.append((text[:at], text[at]))
      if len(cuts) == config.num_prompts:
        return cuts
    if not cuts:
      raise ValueError(
        f'no token of the {config.split} split has two bytes or more, so none '
        'can be cut. Use a tokenizer with longer tokens.'
      )
    return cuts


def _measure(
  model: byte_probs.ByteModel, cuts: list[tuple[bytes, int]]
) -> dict[str, Any]:
  """Bits of each next byte by the three methods [b, 3], and counts."""
  prompts = [prompt for prompt, _ in cuts]
  state = model.start(prompts, 1)
  laws = np.exp(state.logprobs()), *byte_baselines.laws(model, prompts)
  picked = np.stack(
    [law[range(len(cuts)), [b for _, b in cuts]] for law in laws]
  )
  with np.errstate(divide='ignore'):
    bits = -np.log2(picked.T)
  return {
    'bits': bits,
    'missing': float(state.missing_b.max()),
    'rows': state.stats['model_rows'],
    'read': int(state.num_bytes_b.sum()),
  }
