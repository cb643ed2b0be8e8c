# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLT with patches by entropy, whose small language model is trained first.

What `experiments/byte_lm/configs/blt.py` describes as three commands, as one
model of the suite: a language model over bytes, its weights in a folder, the
threshold of its entropies that makes patches as long as wanted, and the config
of the BLT that reads them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import finished
from experiments.byte_lm.configs import blt
from jaxtok import runs, train
from jaxtok.models import interop, patcher
from jaxtok.nn import segmenters
from jaxtok.runs import files

PATCHER_SHARE = 0.25  # Of the budget: what the language model costs.
LENGTH = 4.5  # Bytes per patch, as in the paper's main comparison.
_ROWS = 64  # Of training text, on which the threshold is found.


def get_config(size: str) -> train.Config:
  """BLT of a size; its patcher has random weights until `add_patcher`."""
  config = blt.get_config(f'{size}_entropy')
  config.model.patcher.path = ''
  return config


def patcher_config(size: str) -> train.Config:
  """The run of the language model."""
  return blt.get_config(f'{size}_patcher')


def add_patcher(
  config: train.Config, its: train.Config, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains the language model once, and makes it the patcher of a BLT.

  Args:
    config: Of the BLT; gets the weights' folder and the threshold.
    its: Of the language model's run.
    workdir: Of that run.

  Returns:
    Bits per byte of the language model, its training FLOPs, the threshold.
  """
  run = finished.train_once(its, workdir)
  weights, path = workdir / 'weights', workdir / 'patches.json'
  made = files.read_json(path) if path.exists() else {}
  if made.get('length') != LENGTH:
    interop.save(run.model, str(weights), model_type='llama')
    made = {'length': LENGTH, 'threshold': threshold(run, LENGTH)}
    files.write_json(path, made)
  limit = made['threshold']
  config.model.patcher.path = str(weights)
  config.model.patcher.rule = segmenters.Entropy(threshold=limit)
  return {
    'bpb': run.metrics('eval/val')[-1]['bpb'],
    'flops': run.metrics('train')[-1]['flops'],
    'threshold': limit,
  }


def threshold(run: runs.Run, length: float) -> float:
  """The entropy in nats above which patches end, for their mean length.

  Args:
    run: Of a language model over bytes.
    length: Wanted bytes per patch of its training text.
  """
  rows = run.config.data.make(run.tokenizer).rows('train')
  batch = rows.batch(np.linspace(0, len(rows) - 1, _ROWS).astype(int))
  tokens, documents = (
    jnp.asarray(batch[key]) for key in ('tokens_bt', 'segment_ids_bt')
  )
  graph, params = nnx.split(run.model)

  @jax.jit
  def entropies(params):
    model = nnx.merge(graph, params)
    return segmenters.entropies(model, tokens, segment_ids=documents)

  return patcher.threshold(entropies(params), length)
