# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The models of the suite.

`find` has all configs that read a text from left to right, `find_spans` the
encoder-decoders that fill spans: ByT5, MrT5 and what that is compared with.
"""

import dataclasses
import functools
import importlib
import pathlib
from typing import Any

from experiments.byte_lm import configs, entropy_patches
from experiments.byte_lm.configs import byt5, mrt5
from jaxtok.data import fim
from jaxtok.objectives import next_token

_BASELINES = {'bytes': 'transformer', 'bpe': 'bpe'}  # Name, config file.
# Of a config in more than one way; each has `get_config` too.
_VARIANTS = {'blt_entropy': entropy_patches}


@functools.cache
def find() -> dict[str, Any]:
  """Modules with `get_config(size)` by name; baselines first, then by name.

  They are the files of experiments/byte_lm/configs whose model is a decoder
  that is trained to predict the next token of text as it is, without gaps. Of
  files that differ neither in model nor in tokens, such as `byte_probs` and
  `bpe`, there is the first.
  """
  (folder,) = map(pathlib.Path, configs.__path__)
  stems = sorted(path.stem for path in folder.glob('[!_]*.py'))
  load = lambda stem: importlib.import_module(f'{configs.__name__}.{stem}')
  others = {stem: load(stem) for stem in stems} | _VARIANTS
  ordered = {name: load(stem) for name, stem in _BASELINES.items()}
  ordered |= {name: others[name] for name in sorted(others)}
  found, seen = {}, []
  for name, module in ordered.items():
    config = module.get_config('tiny')
    its = config.model, config.tokenizer, config.data
    if _is_causal(config) and its not in seen:
      found[name] = module
      seen.append(its)
  return found


@dataclasses.dataclass(frozen=True)
class Kind:
  """A config file with something behind each size.

  Attributes:
    module: Of the file.
    kind: What stands behind the size.
  """

  module: Any
  kind: str

  def get_config(self, size: str) -> Any:
    """As that of the file."""
    return self.module.get_config(f'{size}_{self.kind}')


@functools.cache
def find_spans() -> dict[str, Any]:
  """As `find`: ByT5, MrT5, and MrT5's baselines in the place of its gate."""
  others = {f'mrt5_{kind}': Kind(mrt5, kind) for kind in mrt5.BASELINES}
  return {'byt5': byt5, 'mrt5': mrt5} | others


def _is_causal(config: Any) -> bool:
  is_next_token = isinstance(config.objective, next_token.Config)
  has_gaps = isinstance(config.data, fim.Config)
  return (
    is_next_token
    and not has_gaps
    and not getattr(config.model, 'is_encoder_decoder', False)
  )
