# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes text with a trained masked diffusion model and says how good it is.

  python -m experiments.diffusion_lm.sample runs/mdlm --steps=64
  python -m experiments.diffusion_lm.sample runs/mdlm --scorer=runs/transformer
  python -m experiments.diffusion_lm.sample runs/mdlm --top_p=0.9

Samplers: ancestral; remask (ReMDM, --remask=cap, rescale, confidence or loop);
first_hitting (one token per call); block for BD3-LM (first-hitting inside
blocks, with a cache), which can write any --length and with --stop ends a
sample at its end of text; rates for GenMD4; analytic for SEDD, which reveals as
much as the scores say; timed for models that are told the time. All draw tokens
at --temperature, from the fewest tokens that have a probability of --top_p.
Printed beside the samples: calls of the denoiser per sample; unigram entropy,
of the samples and of held-out text of the same lengths, row by row; whether
these are near enough (less than 0.1 nats apart) for a comparison of generative
perplexities to be valid, as a low perplexity means nothing where the entropy is
low too; and with --scorer, a run of experiments.byte_lm, the generative
perplexity of both, over all tokens. Samples without text are counted and left
out.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok import runs
from jaxtok.decoding import sampling
from jaxtok.diffusion import (
  ancestral,
  bd3lm,
  block_cache,
  denoisers,
  ending,
  first_hitting,
  genmd4,
  md4,
  remdm,
  samplers,
  schedules,
  sedd,
  selectors,
)
from jaxtok.diffusion import fitting as fitting_lib
from jaxtok.evals import generation
from jaxtok.objectives import next_token

SAMPLERS = (
  *('ancestral', 'remask', 'first_hitting'),
  *('block', 'rates', 'analytic', 'timed'),
)
NEAR = 0.1  # Nats of unigram entropy; perplexities are compared below.


def sample(
  run: runs.Run,
  *,
  num_rows: int,
  steps: int,
  sampler: str,
  seed: int = 0,
  length: int = 0,
  end: ending.Ending | None = None,
  remask: remdm.Config | None = None,
  filters: sampling.Config | None = None,
) -> samplers.Canvas:
  """Writes rows.

  Args:
    run: Of a masked diffusion model.
    num_rows: Samples.
    steps: Of samplers that have a grid of times.
    sampler: One of `SAMPLERS`.
    seed: Of the random choices.
    length: Tokens of a row, of 'block' only; 0 is what the model was trained
      on.
    end: When a row of 'block' ends before that; None: never.
    remask: Rule of 'remask' alone; None is the default one.
    filters: Of tokens: temperature, top-p; None draws from the model's law.

  Raises:
    ValueError: If the sampler does not fit the run's objective or the options.
  """
  check(run, sampler)
  if sampler != 'block' and (length or end):
    raise ValueError(
      f'sampler={sampler!r} writes rows of one length. --length and --stop '
      'need a run of bd3lm and --sampler=block.'
    )
  if sampler != 'remask' and remask is not None:
    raise ValueError(f"remask={remask} needs sampler='remask'.")
  objective = run.config.objective
  length = length or data_of(run).seq_len
  tokens = jnp.zeros((num_rows, length), jnp.int32)
  canvas = samplers.start(
    tokens, jnp.ones(tokens.shape, bool), objective.mask_id
  )
  block = getattr(objective, 'block', 0)
  mask = bd3lm.block_mask(block) if block else None
  is_timed = getattr(objective, 'is_timed', False)
  kind = denoisers.Timed if is_timed else denoisers.OfModel
  denoiser = kind.make(run.model, mask=mask)
  rngs = samplers.row_rngs(jax.random.key(seed), num_rows)
  decode = way(
    run, sampler, rngs, steps, end, remask or remdm.Config(), filters
  )
  return jax.jit(decode)(denoiser, canvas)


def way(
  run: runs.Run,
  sampler: str,
  rngs: jax.Array,
  steps: int,
  end: ending.Ending | None,
  remask: remdm.Config,
  filters: sampling.Config | None,
) -> Callable[[Any, samplers.Canvas], samplers.Canvas]:
  """The sampler as a function of denoiser and canvas; see `sample`."""
  objective = run.config.objective
  is_timed = getattr(objective, 'is_timed', False)
  filters = filters or sampling.Config()
  options = dict(mask_id=objective.mask_id, filters=filters)
  one_by_one = dict(prompt_len=0, **options)
  times = schedules.grid(steps)
  alphas = remask.alphas(steps)  # Linear, but for the kind 'loop'.
  one = selectors.Random(1)
  ways = {
    'ancestral': lambda d, c: ancestral.decode(d, c, alphas, rngs, **options),
    'remask': lambda d, c: ancestral.decode(
      d, c, alphas, rngs, remask=remask.make(), **options
    ),
    'first_hitting': lambda d, c: samplers.decode(
      d, c, one, rngs, **one_by_one
    ),
    'block': lambda d, c: block_cache.decode(
      d,
      c,
      one,
      rngs,
      kind='exact',
      block=objective.block,
      end=end,
      **one_by_one,
    ),
    'timed': lambda d, c: first_hitting.decode(
      told(objective, d), c, rngs, **options
    )[0],
    'analytic': lambda d, c: sedd.decode(
      d if is_timed else lambda tokens_bt, _: d(tokens_bt),
      c,
      times,
      rngs,
      **options,
    ),
    'rates': lambda d, c: genmd4.decode(
      d, run.model.rates(), c, times, rngs, filters=filters
    ),
  }
  return ways[sampler]


def told(objective: Any, denoiser: Any) -> Any:
  """A denoiser that is told shares of masked tokens, as times of training."""
  if not isinstance(objective, md4.Config):
    return denoiser  # The share is the time.
  schedule = schedules.make(
    objective.schedule, power=objective.power, eps=objective.eps
  )
  return lambda tokens_bt, share_b: denoiser(
    tokens_bt, schedules.time_of(schedule, share_b)
  )


def check(run: runs.Run, sampler: str) -> None:
  """Raises ValueError if the sampler does not fit the run's objective."""
  objective = run.config.objective
  try:
    fitting = fitting_lib.samplers_of(objective)
  except ValueError as e:
    raise ValueError(f'{run.workdir} cannot be sampled: {e}') from e
  if sampler not in fitting:
    raise ValueError(
      f'sampler={sampler!r} does not fit {type(objective).__module__}. Use '
      f'--sampler={" or ".join(fitting)}.'
    )


def data_of(run: runs.Run) -> Any:
  """The config of the run's text.

  Raises:
    ValueError: If its rows are no windows of a text.
  """
  data = run.config.data
  if not hasattr(data, 'seq_len'):
    raise ValueError(
      f'{run.workdir} was trained on {type(data).__module__}, which has no '
      'seq_len: its rows are no windows of a text. Use a run on data.text.'
    )
  return data


def held_out(run: runs.Run, num_rows: int, length: int) -> np.ndarray:
  """Rows of validation text without padding.

  Raises:
    ValueError: If there are not so many.
  """
  data = dataclasses.replace(data_of(run), seq_len=length)
  batches = data.make(run.tokenizer).eval_batches(
    'validation', batch_size=num_rows
  )
  batch = next(iter(batches))
  if not np.all(batch['segment_ids_bt']):
    raise ValueError(
      f'validation has fewer than num_rows={num_rows} rows of {length} tokens. '
      'Lower --num_rows or --length.'
    )
  return np.asarray(batch['targets_bt'])


def report(
  run: runs.Run,
  tokens_bt: np.ndarray,
  text_bt: np.ndarray,
  is_text_bt: np.ndarray,
  scorer: runs.Run | None,
) -> list[str]:
  """One line per measure, of samples and of held-out text, cut alike."""
  has_text_b = is_text_bt.any(-1)
  if not has_text_b.any():
    return ['no sample has text, so that there is nothing to measure']
  pair = [jnp.asarray(x)[has_text_b] for x in (tokens_bt, text_bt)]
  is_text_bt = jnp.asarray(is_text_bt)[has_text_b]
  size = run.config.objective.mask_id
  entropy = lambda x_bt: generation.unigram_entropy(
    x_bt, vocab_size=size, is_text_bt=is_text_bt
  ).mean()
  ours, theirs = (float(entropy(x_bt)) for x_bt in pair)
  lines = [
    f'unigram entropy  {ours:.3f} nats; held-out text {theirs:.3f}',
    comparison(ours - theirs),
  ]
  if scorer is None:
    return lines
  nats = lambda x_bt: generation.generative_nats(
    scorer.model,
    x_bt,
    bos=scorer.tokenizer.special.bos,
    is_text_bt=is_text_bt,
  )
  values = [f'{np.exp(nats(x).sum() / is_text_bt.sum()):.2f}' for x in pair]
  return [
    *lines,
    f'gen. perplexity  {values[0]} per token; held-out text {values[1]}',
  ]


def comparison(gap: float) -> str:
  """Whether generative perplexities may be compared, as a line.

  Args:
    gap: Unigram entropy of samples less that of held-out text, nats.
  """
  is_valid = abs(gap) < NEAR
  return (
    f'comparison       {"valid" if is_valid else "not valid"} of generative '
    f'perplexities: entropies differ by {abs(gap):.3f} nats, '
    f'{"less" if is_valid else "not less"} than {NEAR:g}'
  )


def check_scorer(scorer: runs.Run, run: runs.Run, length: int) -> None:
  """Raises ValueError if its model cannot score the samples of a run."""
  kind = type(scorer.config.objective)
  if kind is not next_token.Config:
    raise ValueError(
      f'--scorer={scorer.workdir} was trained with {kind.__module__} and does '
      'not predict the next token. Use a run of experiments.byte_lm with '
      'objectives.next_token, such as transformer.py.'
    )
  if scorer.tokenizer.fingerprint != run.tokenizer.fingerprint:
    raise ValueError(
      f'--scorer={scorer.workdir} has the tokenizer {scorer.tokenizer!r}, but '
      f'samples are ids of {run.tokenizer!r}. Use a scorer that was trained '
      'with the same tokenizer.'
    )
  most = getattr(scorer.model, 'max_len', 0)
  if most and length > most:
    raise ValueError(
      f'--scorer={scorer.workdir} reads at most {most} tokens, but samples '
      f'have {length}. Lower --length, or take a scorer without learned '
      'positions.'
    )


def written(run: runs.Run, args: argparse.Namespace) -> list[str]:
  """Samples as lines of text, and what is said about them.

  Raises:
    ValueError: If an argument is impossible or does not fit the run.
  """
  scorer = runs.load(args.scorer) if args.scorer else None
  if min(args.num_rows, args.steps) < 1 or args.length < 0:
    raise ValueError(
      f'num_rows={args.num_rows} and steps={args.steps} must be >= 1, length='
      f'{args.length} >= 0.'
    )
  end, remask = ending_of(run, args), remask_of(args)
  filters = sampling.Config(temperature=args.temperature, top_p=args.top_p)
  length = args.length or data_of(run).seq_len
  if scorer is not None:
    check_scorer(scorer, run, length)
  text = held_out(run, args.num_rows, length)
  canvas = sample(
    run,
    num_rows=args.num_rows,
    steps=args.steps,
    sampler=args.sampler,
    seed=args.seed,
    length=args.length,
    end=end,
    remask=remask,
    filters=filters,
  )
  tokens = np.asarray(canvas.tokens_bt)
  is_text = np.ones(tokens.shape, bool)
  if end is not None:
    is_text = np.asarray(ending.is_text(canvas.tokens_bt, end.eos))
  lines = [
    f'--- {run.tokenizer.decode(row[keep])!r}'
    for row, keep in zip(tokens[: args.num_shown], is_text, strict=False)
  ]
  calls = np.asarray(canvas.num_calls_b)
  lines.append(
    f'denoiser calls   {calls.mean():.1f} per sample, most {calls.max()}'
  )
  if end is not None:
    sizes = is_text.sum(-1)
    lines.append(
      f'length           {sizes.mean():.1f} tokens per sample; '
      f'{(sizes < tokens.shape[1]).sum()} of {len(sizes)} came to an end, '
      f'{(sizes == 0).sum()} are empty and left out below'
    )
  return lines + report(run, tokens, text, is_text, scorer)


def ending_of(run: runs.Run, args: argparse.Namespace) -> ending.Ending | None:
  """When samples end before their canvas does; None without --stop.

  Raises:
    ValueError: If it cannot be.
  """
  if not args.stop:
    if args.min_entropy:
      raise ValueError(f'min_entropy={args.min_entropy} needs --stop.')
    return None
  eos = run.tokenizer.special.eos
  if eos is None:
    raise ValueError(f'--stop: {run.tokenizer!r} has no eos token.')
  return ending.Ending(eos, args.min_entropy, args.window)


def remask_of(args: argparse.Namespace) -> remdm.Config | None:
  """The rule of --sampler=remask; None with another sampler.

  Raises:
    ValueError: If an option is impossible or would be dropped.
  """
  names = ('remask', 'eta', 'alpha_on', 't_on', 't_off')
  given = {k: getattr(args, k) for k in names if getattr(args, k) is not None}
  shown = ', '.join(f'--{k}={v}' for k, v in given.items())
  if args.sampler != 'remask':
    if given:
      raise ValueError(f'{shown} needs --sampler=remask.')
    return None
  kind = given.pop('remask', remdm.Config().kind)
  if kind != 'loop' and given.keys() - {'eta'}:
    raise ValueError(
      f'{shown}: alpha_on, t_on and t_off need --remask=loop, but the kind is '
      f'{kind!r}.'
    )
  config = remdm.Config(kind=kind, **given)
  config.alphas(args.steps)
  return config


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
  parser.add_argument(
    '--temperature',
    type=float,
    default=1.0,
    help='of tokens; 0: most likely token',
  )
  parser.add_argument(
    '--top_p',
    type=float,
    default=1.0,
    help='draw from the fewest tokens of this probability; 1: all',
  )
  parser.add_argument('--length', type=int, default=0, help='tokens of a row')
  parser.add_argument(
    '--stop', action='store_true', help='end samples at their end of text'
  )
  parser.add_argument(
    '--min_entropy',
    type=float,
    default=0.0,
    help='with --stop: end those whose last tokens have less, in nats',
  )
  parser.add_argument(
    '--window', type=int, default=256, help='tokens that --min_entropy is of'
  )
  _add_remask(parser)
  args = parser.parse_args(argv)
  try:
    print('\n'.join(written(runs.load(args.run), args)))
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def _add_remask(parser: argparse.ArgumentParser) -> None:
  """The options of --sampler=remask; None is the default of `remdm.Config`."""
  etas = ', '.join(f'{k} {v:g}' for k, v in remdm.ETAS.items())
  loop = {
    field.name: field.default for field in dataclasses.fields(remdm.Config)
  }
  add = parser.add_argument
  add(
    '--remask',
    choices=tuple(remdm.ETAS),
    help=f'with --sampler=remask: the rule, {loop["kind"]} by default',
  )
  add(
    '--eta',
    type=float,
    help=f'likewise: how often, at most 1; by default {etas}',
  )
  for name, text in {
    'alpha_on': 'share of clean tokens at which it loops',
    't_on': 'time at which it begins to, from 1 down to 0',
    't_off': 'time at which it ends',
  }.items():
    add(
      f'--{name}',
      type=float,
      help=f'with --remask=loop: {text}; by default {loop[name]:g}',
    )


if __name__ == '__main__':
  sys.exit(main())
