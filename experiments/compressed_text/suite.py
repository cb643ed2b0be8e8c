# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains M2 on the tokens of several methods and compares bits per byte.

  python -m experiments.compressed_text.suite --workdir=runs/compressed \\
      --size=tiny [--methods=bytes,bpe,...] [--seeds=0,1,2]

Each method is trained twice: for the same number of tokens, and for as many
FLOPs as the first method needs for those, M1's included. Ends with one table
and one picture, `suite.md` and `suite.png` in the workdir. A second call reuses
the runs that are finished and goes on with the one that was interrupted; runs
of another text or config in the workdir are refused.
"""

import pathlib
import sys

from absl import app, flags

from experiments import cli, finished
from experiments.compressed_text import m2, methods, outcome
from jaxtok import runs, train
from jaxtok.data import source
from jaxtok.train import setup

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
  """Trains what is missing, then shows the comparison."""
  if len(argv) > 1:
    sys.exit(f'error: {argv[1]!r} is not a flag. See --help.')
  cli.quiet_libraries()
  with cli.run_errors():
    root = pathlib.Path(FLAGS.workdir)
    names = FLAGS.methods
    seeds = cli.whole_numbers('seeds', FLAGS.seeds)
    for name in names:  # Before anything is trained.
      methods.get_config(name, FLAGS.size)
    result = outcome.Outcome(train_all(root, names, seeds, FLAGS.match))
    print(f'\n{result}')
    for path in result.save(root):
      print(f'wrote {path}')


def train_all(
  root: pathlib.Path, names: list[str], seeds: list[int], matches: list[str]
) -> dict[str, dict[str, list[runs.Run]]]:
  """The runs of each match ('tokens', 'flops') and method, one per seed."""
  if unknown := set(matches) - {'tokens', 'flops'}:
    raise ValueError(f'match={unknown} must be tokens, flops or both.')
  found: dict[str, dict[str, list[runs.Run]]] = {}
  jobs = [
    (match, name, seed) for match in matches for seed in seeds for name in names
  ]
  budget = 0.0
  for number, (match, name, seed) in enumerate(jobs, start=1):
    print(f'\n== [{number}/{len(jobs)}] equal {match}: {name}, seed {seed}\n')
    sys.stdout.flush()
    config = make_config(name)
    config.seed, folder = seed, 'tokens'
    if match == 'flops':
      first = make_config(names[0])
      budget = budget or step_flops(first) * first.steps
      steps = max(1, int(budget // step_flops(config)))
      # As many steps for as many tokens are one and the same run.
      folder = 'tokens' if steps == config.steps else 'flops'
      m2.set_steps(config, steps)
    run = finished.train_once(config, root / folder / f'{name}-{seed}')
    found.setdefault(match, {}).setdefault(name, []).append(run)
  return found


def make_config(name: str) -> train.Config:
  """The config of a method with the flags applied."""
  config = methods.get_config(name, FLAGS.size)
  if FLAGS.data:
    config.data.source = source.from_spec(FLAGS.data)
  if FLAGS.steps:
    m2.set_steps(config, FLAGS.steps)
  return config


def step_flops(config: train.Config) -> float:
  """FLOPs of one step: of M2, and of M1 for the text that it tokenizes."""
  job = setup.prepare(config, None)
  m1 = methods.m1_flops_per_byte(job.tokenizer)
  rows = len(job.text.rows('train'))
  step_bytes = job.text.num_bytes('train') / rows * config.batch_size
  return job.flops_per_step + m1 * step_bytes


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_string('workdir', 'runs/compressed_text', 'Where the runs go.')
  flags.DEFINE_string('size', 'tiny', 'Of all models; see m2.py.')
  flags.DEFINE_list(
    'methods', list(methods.DEFAULT), f'Some of {", ".join(methods.METHODS)}.'
  )
  flags.DEFINE_list('seeds', ['0'], 'Seeds of the runs.')
  flags.DEFINE_list('match', ['tokens', 'flops'], 'What is held equal.')
  flags.DEFINE_string('data', None, 'Own text: file, folder, glob, tfds:NAME.')
  flags.DEFINE_integer('steps', 0, 'Length of the runs; 0: the size decides.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
