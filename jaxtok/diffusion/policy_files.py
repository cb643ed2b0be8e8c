# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trained unmasking policies as files that need nothing else to be used.

A file holds the parameters and, as JSON, the size of the network, its action
distribution and how it decodes: temperature, scale, blocks, candidates. What
`load` gives goes into `samplers.decode` and `pretrained.generate` like any
selector.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.diffusion import policy, rollout

_FORMAT = 'jaxtok unmasking policy, version 1'
_ACTIONS = {
  cls.__name__: cls
  for cls in (policy.Bernoulli, policy.PlackettLuce, policy.OneToken)
}
Selector = policy.Policy | rollout.InBlocks | rollout.OfMostConfident


def save(path: str | os.PathLike, selector: Selector, **numbers: float) -> None:
  """Writes a policy to one .npz file.

  Args:
    path: Of the file; folders are made.
    selector: A policy, also inside `rollout.OfMostConfident` and that inside
      `rollout.InBlocks`.
    **numbers: Anything worth knowing, e.g. its accuracy; see `numbers_of`.

  Raises:
    ValueError: If the selector is no policy.
  """
  path, outer = pathlib.Path(path), selector
  block = num_candidates = 0
  if isinstance(selector, rollout.InBlocks):
    block, selector = selector.block, selector.selector
  if isinstance(selector, rollout.OfMostConfident):
    num_candidates, selector = selector.num, selector.selector
  if not isinstance(selector, policy.Policy):
    raise ValueError(
      f'selector={type(outer).__name__} must be a policy.Policy, alone or '
      'inside rollout.OfMostConfident or rollout.InBlocks.'
    )
  about = {
    'format': _FORMAT,
    'model': dataclasses.asdict(selector.model.config)
    | {'zeroed': selector.model.config.zeroed.value},
    'actions': type(selector.actions).__name__,
    'temperature': float(selector.temperature),
    'scale': float(selector.scale),
    'block': block,
    'num_candidates': num_candidates,
    'numbers': {key: float(x) for key, x in numbers.items()},
  }
  arrays = _arrays(nnx.state(selector.model, nnx.Param))
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  with open(partial, 'wb') as file:
    np.savez(file, about=np.asarray(json.dumps(about)), **arrays)
  partial.replace(path)


def load(path: str | os.PathLike) -> Selector:
  """The policy that `save` wrote, as a selector.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged or something else.
  """
  about, arrays = _read(pathlib.Path(path))
  zeroed = about['model'].pop('zeroed', policy.Zeroed.NOTHING.value)
  config = policy.Config(**about['model'], zeroed=policy.Zeroed(zeroed))
  graph = policy.structure(config)
  blank = nnx.state(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))), nnx.Param)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(blank)
  want = {jax.tree_util.keystr(k): x for k, x in leaves}
  found = {k: x for k, x in arrays.items() if k in want}
  wrong = [
    k for k, x in want.items() if k not in found or found[k].shape != x.shape
  ]
  if wrong or len(found) != len(arrays):
    raise ValueError(
      f'{path} does not hold the parameters of its own config: '
      f'{", ".join(wrong or sorted(set(arrays) - set(want)))}. It was written '
      'by another version, or changed.'
    )
  params = jax.tree.unflatten(treedef, [jnp.asarray(found[k]) for k in want])
  selector: Selector = policy.Policy(
    nnx.merge(graph, params),
    about['temperature'],
    about['scale'],
    _ACTIONS[about['actions']](),
  )
  if about['num_candidates']:
    selector = rollout.OfMostConfident(selector, about['num_candidates'])
  if about['block']:
    selector = rollout.InBlocks(selector, about['block'])
  return selector


def numbers_of(path: str | os.PathLike) -> dict[str, float]:
  """The numbers that `save` was given.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged or something else.
  """
  return _read(pathlib.Path(path))[0]['numbers']


def _arrays(state: Any) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_flatten_with_path(state)[0]
  return {jax.tree_util.keystr(k): np.asarray(x) for k, x in leaves}


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What is in a file: what it says about itself, and its other arrays."""
  try:
    with zipfile.ZipFile(path) as archive:
      is_whole = archive.testzip() is None
  except (zipfile.BadZipFile, zlib.error, EOFError):
    is_whole = False
  if not is_whole:
    raise ValueError(
      f'{path} is empty or damaged: it is no whole .npz file. Copy it again, '
      'or save the policy again.'
    )
  try:
    with np.load(path) as stored:
      arrays = {key: stored[key] for key in stored.files}
    about = json.loads(str(arrays.pop('about')))
    is_ours = about['format'] == _FORMAT
  except (KeyError, TypeError, ValueError):
    is_ours = False
  if not is_ours:
    raise ValueError(
      f'{path} is no policy that policy_files.save wrote (format {_FORMAT!r}). '
      'Files policy_seed*_best*.npz of a run are for its own use: take those '
      'in its folder policies.'
    )
  known = {field.name for field in dataclasses.fields(policy.Config)}
  unknown = set(about['model']) - known
  if unknown or about['actions'] not in _ACTIONS:
    raise ValueError(
      f'{path} is of another version: it has the unknown '
      f'{", ".join(sorted(unknown)) or about["actions"]}. Update jaxtok.'
    )
  return about, arrays
