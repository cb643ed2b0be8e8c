# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which modules are methods, and what each of them must come with.

A module in one of the folders below is a method unless it is named there as
infrastructure. A method has a config, a test and a claim of its own name.
"""

import pathlib

from experiments.ledger import claim

# Folder of methods to what in it is shared machinery or a baseline.
FOLDERS: dict[str, frozenset[str]] = {
  'jaxtok/cache': frozenset({'kv', 'nested', 'overwrite', 'slots'}),
  'jaxtok/context': frozenset(),
  'jaxtok/decoding': frozenset(
    {
      *('autoregressive', 'byte_baselines', 'cover_pool'),
      *('cover_state', 'covers', 'fill_spans', 'open_prompt', 'sampling'),
      'text',
    }
  ),
  'jaxtok/decoding/drafters': frozenset({'base'}),
  # No claim measures LLaDA yet; its budgets, likelihood and Dream's weights
  # (cart) are parts of it. Cloning, returns, rl and rollout train the policy,
  # which is the method.
  'jaxtok/diffusion': frozenset(
    {
      *(
        'ancestral',
        'block_cache',
        'budgets',
        'cart',
        'cloning',
        'denoisers',
        'ending',
        'estimates',
        'exact_match',
        'first_hitting',
        'fitting',
        'likelihood',
        'llada',
        'losses',
      ),
      *(
        'policy_files',
        'pretrained',
        'returns',
        'rl',
        'rollout',
        'samplers',
        'schedules',
      ),
      'selectors',
    }
  ),
  'jaxtok/models': frozenset(
    {
      *('adoption', 'base', 'classifier', 'dit'),
      *('hnet_stage', 'int_byte_lm', 'level'),
      *('mamba_level', 'merge_layer', 'patcher', 'transformer', 'word_layout'),
    }
  ),
  'jaxtok/objectives': frozenset(
    {
      *('base', 'classification', 'cross_entropy', 'masked_lm'),
      *('merged_tokens', 'next_token'),
    }
  ),
  'jaxtok/tokenizers': frozenset(
    {
      *('arithmetic', 'base', 'bytelevel', 'bytes', 'c_family', 'code_units'),
      *('coded', 'concat', 'dna'),
      *('files', 'gzip', 'hf', 'libraries', 'lossy', 'metaspace', 'parallel'),
      *('ragged', 'saved', 'spec', 'speed', 'stream', 'subword', 'training'),
      *('utf8', 'word_bytes', 'words'),
    }
  ),
  'jaxtok/transfer': frozenset(),
}


def find(root: pathlib.Path = claim.ROOT) -> dict[str, pathlib.Path]:
  """Name of each method to its module, sorted by folder and name."""
  found = {}
  for folder, infrastructure in FOLDERS.items():
    for path in sorted((root / folder).glob('*.py')):
      if path.stem not in infrastructure | {'__init__'}:
        found[path.stem] = path.relative_to(root)
  return found


def config_of(
  name: str, root: pathlib.Path = claim.ROOT
) -> pathlib.Path | None:
  """The config file of a method; None if there is none."""
  paths = sorted(root.glob(f'experiments/*/configs/{name}.py'))
  return paths[0].relative_to(root) if paths else None


def missing(root: pathlib.Path = claim.ROOT) -> list[str]:
  """What methods lack, one sentence each."""
  problems = []
  for name, module in find(root).items():
    test = pathlib.Path('tests') / module.parent.relative_to('jaxtok')
    needed = {
      'config': f'experiments/*/configs/{name}.py',
      'test': f'{test}/{name}_test.py',
      'claim': f'experiments/claims/{name}.py',
    }
    problems += [
      f'{module} has no {kind}: expected {pattern}. If it is no method, name '
      'it in experiments/ledger/methods.py.'
      for kind, pattern in needed.items()
      if not list(root.glob(pattern))
    ]
  return problems
