# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Samplers that must be wrong are wrong, and those beside them are not.

With an exact denoiser a sampler shows its own error only (arXiv:2602.19619). It
has none if it draws one token at a time at a position that is chosen by what is
revealed. Rules in use differ from this in three ways: LLaDA (arXiv:2502.09992)
and Dream above temperature 0 choose the position whose drawn token is the most
probable; several tokens are drawn per call as if independent; tokens are
greedy.

Check: rows of 4 of a Markov chain of 3 symbols (`jaxtok/tasks/markov_chain`),
20,000 samples of each sampler, chi-square against the chain's law. smallest_p
is the smallest of the p-values, times their number (Bonferroni), of one token
at a time, from left to right or at the position with the largest probability of
any token, and of 250 steps of SEDD's analytic sampler. p_candidate is of the
position whose drawn token is the most probable, which prefers likely tokens:
candidate_likelier, by how many nats rows are more probable than those of the
chain. tv_k is the total variation with k tokens per call at random positions;
by chance 20,000 exact rows have 0.02. growth is the lesser of tv_2 - tv_1 and
tv_4 - tv_2. Greedy tokens at random positions: greedy_tv, and greedy_rows, how
many of the 81 rows come out.

Measured: greedy_tv is missed on the third chain, although all samples are one
row. That row has a probability of 0.54, and the total variation of a row alone
is what it lacks to 1.

More samplers that are exact are in `diffusion_exactness`.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims import diffusion_exactness
from jaxtok.diffusion import samplers, schedules, sedd, selectors
from jaxtok.tasks import markov_chain

TITLE = 'Bias of masked diffusion samplers'
PAPER = ''
CLAIM = (
  'One token at a time is exact from left to right and by the largest '
  'probability; choosing by the drawn token prefers likely rows, the error of '
  'drawing tokens together grows with their number, and greedy tokens collapse.'
)
THRESHOLD = {
  'smallest_p': 'every >= 0.01',
  'p_candidate': 'every <= 1e-3',
  'growth': 'every >= 0.02',
  'greedy_tv': 'every >= 0.5',
}
SEEDS = (0, 1, 2)
_ROWS, _STEPS = 20_000, 250


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  del workdir
  task = markov_chain.MarkovChain(
    num_symbols=3, length=4, seed=seed, num_forbidden=0
  )
  _, law = diffusion_exactness.joint(task)
  share = {name: shares(task, way, seed) for name, way in ways(task).items()}
  p = {
    name: diffusion_exactness.p_value(_ROWS * share[name], _ROWS * law)
    for name in ('left_to_right', 'largest', 'analytic', 'candidate')
  }
  off = {name: float(0.5 * np.abs(x - law).sum()) for name, x in share.items()}
  numbers = {f'p_{name}': value for name, value in p.items()}
  numbers |= {f'tv_{k}': off[f'together_{k}'] for k in (1, 2, 4)}
  exact = [value for name, value in p.items() if name != 'candidate']
  return {
    'smallest_p': min(1.0, len(exact) * min(exact)),
    'growth': min(
      numbers['tv_2'] - numbers['tv_1'], numbers['tv_4'] - numbers['tv_2']
    ),
    'candidate_tv': off['candidate'],
    'candidate_likelier': float((share['candidate'] - law) @ np.log(law)),
    'greedy_tv': off['greedy'],
    'greedy_rows': float((share['greedy'] > 0).sum()),
  } | numbers


def left_to_right(view: selectors.View) -> jax.Array:
  """Selects the first masked position."""
  is_first_bt = jnp.cumsum(view.allowed_bt, axis=1) == 1
  return is_first_bt & view.allowed_bt


def ways(task):
  """Name -> function of a canvas and keys."""
  loop = functools.partial(
    samplers.decode, task.exact_denoiser, prompt_len=0, mask_id=task.mask_id
  )
  chosen = lambda rule, temperature=1.0: (
    lambda canvas, rngs: loop(canvas, rule, rngs, temperature=temperature)
  )
  together = {f'together_{k}': chosen(selectors.Random(k)) for k in (1, 2, 4)}
  scores = lambda tokens, times: (
    task.exact_denoiser(tokens) + np.log(task.num_symbols)
  )
  return together | {
    'left_to_right': chosen(left_to_right),
    # No probability reaches 2, so that the largest one chooses.
    'largest': chosen(selectors.Threshold(2.0)),
    'analytic': lambda canvas, rngs: sedd.decode(
      scores, canvas, schedules.grid(_STEPS), rngs, mask_id=task.mask_id
    ),
    'candidate': chosen(selectors.TopK(1)),
    'greedy': chosen(selectors.Random(1), temperature=0.0),
  }


def shares(task, way, seed: int, num_rows: int = _ROWS) -> np.ndarray:
  """Share of each row, in the order of `diffusion_exactness.joint`."""
  shape = (num_rows, task.length)
  canvas = samplers.start(
    jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), task.mask_id
  )
  rngs_b = samplers.row_rngs(jax.random.key(seed), num_rows)
  tokens = np.asarray(jax.jit(way)(canvas, rngs_b).tokens_bt)
  place = task.num_symbols ** np.arange(task.length - 1, -1, -1)
  num = task.num_symbols**task.length
  return np.bincount(tokens @ place, minlength=num) / num_rows
