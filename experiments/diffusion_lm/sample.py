# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes text with a trained masked diffusion model and says how good it is.

  python -m experiments.diffusion_lm.sample runs/mdlm --steps=64
  python -m experiments.diffusion_lm.sample runs/mdlm --scorer=runs/transformer

Samplers: ancestral, remask (ReMDM, rescaled), first_hitting (one token per
call); block for BD3-LM (first-hitting inside blocks, with a cache); rates for
GenMD4; timed for models that are told the time. Printed beside the samples:
calls of the denoiser per sample; unigram entropy, of the samples and of
held-out text of the same length; and with --scorer, a run of
experiments.byte_lm, the generative perplexity of both. A low perplexity means
nothing where the entropy is low too.
"""

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok import runs
from jaxtok.diffusion import (
  ancestral,
  bd3lm,
  block_cache,
  denoisers,
  first_hitting,
  genmd4,
  remasking,
  samplers,
  schedules,
  selectors,
)
from jaxtok.evals import generation

SAMPLERS = ('ancestral', 'remask', 'first_hitting', 'block', 'rates', 'timed')


def sample(
  run: runs.Run, *, num_rows: int, steps: int, sampler: str, seed: int = 0
) -> samplers.Canvas:
  """Rows of the length the model was trained on.

  Raises:
    ValueError: If the sampler does not fit the run's objective.
  """
  check(run, sampler)
  objective, length = run.config.objective, run.config.data.seq_len
  tokens = jnp.zeros((num_rows, length), jnp.int32)
  canvas = samplers.start(
    tokens, jnp.ones(tokens.shape, bool), objective.mask_id
  )
  block = getattr(objective, 'block', 0)
  mask = bd3lm.block_mask(block) if block else None
  kind = denoisers.Timed if sampler == 'timed' else denoisers.OfModel
  denoiser = kind.make(run.model, mask=mask)
  rngs = samplers.row_rngs(jax.random.key(seed), num_rows)
  times = schedules.grid(steps)
  alphas = schedules.Linear().alpha(times)
  options = dict(mask_id=objective.mask_id)
  one_by_one = dict(prompt_len=0, temperature=1.0, **options)
  ways = {
    'ancestral': lambda d, c: ancestral.decode(d, c, alphas, rngs, **options),
    'remask': lambda d, c: ancestral.decode(
      d, c, alphas, rngs, remask=remasking.Rescale(0.015), **options
    ),
    'first_hitting': lambda d, c: samplers.decode(
      d, c, selectors.Random(1), rngs, **one_by_one
    ),
    'block': lambda d, c: block_cache.decode(
      d, c, selectors.Random(1), rngs, kind='exact', block=block, **one_by_one
    ),
    'timed': lambda d, c: first_hitting.decode(d, c, rngs, **options)[0],
    'rates': lambda d, c: genmd4.decode(d, run.model.rates(), c, times, rngs),
  }
  return jax.jit(ways[sampler])(denoiser, canvas)


def check(run: runs.Run, sampler: str) -> None:
  """Raises ValueError if the sampler does not fit the run's objective."""
  objective = run.config.objective
  name = type(objective).__module__
  if not hasattr(objective, 'mask_id'):
    raise ValueError(
      f'{run.workdir} was trained with {name}, which has no mask token. Use a '
      'run of experiments.diffusion_lm.'
    )
  special = {bd3lm.Config: 'block', genmd4.Config: 'rates'}
  want = special.get(type(objective))
  if getattr(objective, 'is_timed', False):
    want = 'timed'
  general = [s for s in SAMPLERS if s not in (*special.values(), 'timed')]
  fitting = [want] if want else general
  if sampler not in fitting:
    raise ValueError(
      f'sampler={sampler!r} does not fit {name}. Use --sampler='
      f'{" or ".join(fitting)}.'
    )


def held_out(run: runs.Run, num_rows: int) -> np.ndarray:
  """Rows of validation text without padding."""
  config = run.config
  batches = config.data.make(run.tokenizer).eval_batches(
    'validation', batch_size=num_rows
  )
  rows = np.asarray(next(iter(batches))['targets_bt'])
  if len(rows) < num_rows:
    raise ValueError(f'validation has fewer than num_rows={num_rows} rows.')
  return rows


def report(
  run: runs.Run, tokens: jax.Array, text: np.ndarray, scorer: runs.Run | None
) -> list[str]:
  """One line per measure, of samples and of held-out text."""
  size = run.config.objective.mask_id
  pair = [jnp.asarray(tokens), jnp.asarray(text)]
  entropy = lambda x: generation.unigram_entropy(x, vocab_size=size).mean()
  values = [f'{entropy(x):.3f}' for x in pair]
  lines = [f'unigram entropy  {values[0]} nats; held-out text {values[1]}']
  if scorer is not None:
    bos = scorer.tokenizer.special.bos
    nats = lambda x: generation.generative_nats(scorer.model, x, bos=bos).mean()
    values = [f'{np.exp(nats(x)):.2f}' for x in pair]
    lines += [
      f'gen. perplexity  {values[0]} per token; held-out text {values[1]}'
    ]
  return lines


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.diffusion_lm.sample',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('run', help='workdir of a masked diffusion run')
  parser.add_argument('--scorer', default='', help='autoregressive run')
  parser.add_argument('--sampler', default='ancestral', choices=SAMPLERS)
  parser.add_argument('--steps', type=int, default=64)
  parser.add_argument('--num_rows', type=int, default=16)
  parser.add_argument('--num_shown', type=int, default=2)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args(argv)
  try:
    run = runs.load(args.run)
    scorer = runs.load(args.scorer) if args.scorer else None
    if args.num_rows < 1 or args.steps < 1:
      raise ValueError(
        f'num_rows={args.num_rows} and steps={args.steps} must be >= 1.'
      )
    canvas = sample(
      run,
      num_rows=args.num_rows,
      steps=args.steps,
      sampler=args.sampler,
      seed=args.seed,
    )
    lines = report(run, canvas.tokens_bt, held_out(run, args.num_rows), scorer)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  for row in np.asarray(canvas.tokens_bt)[: args.num_shown]:
    print(f'--- {run.tokenizer.decode(row)!r}')
  calls = np.asarray(canvas.num_calls_b)
  print(f'denoiser calls   {calls.mean():.1f} per sample, most {calls.max()}')
  print('\n'.join(lines))
  return 0


if __name__ == '__main__':
  sys.exit(main())
