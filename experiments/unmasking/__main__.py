# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains unmasking policies and compares them with every heuristic.

  python -m experiments.unmasking --workdir=runs/u \\
      --config=experiments/unmasking/configs/dice.py:tiny

Trains a denoiser, then policies at several speed pressures, then decodes the
same prompts with dense settings of every rule. Writes accuracy against denoiser
calls to frontier.md and frontier.png. A second call goes on where the first
stopped.
"""

import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from experiments import cli
from experiments.unmasking import experiment
from jaxtok import config as config_lib

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
  """Runs what is missing, then shows the table."""
  folder = pathlib.Path(__file__).parent
  if len(argv) > 1:
    sys.exit(f'error: {argv[1]!r} is not a flag. See --help.')
  if FLAGS.list or FLAGS.config is None:
    print(cli.list_configs(folder))
    sys.exit(0 if FLAGS.list else 2)
  cli.quiet_libraries()
  try:
    config_lib.check(FLAGS.config)
    if not FLAGS.workdir:
      raise ValueError('--workdir is missing, e.g. --workdir=runs/unmasking.')
    outcome = experiment.Experiment(FLAGS.config, FLAGS.workdir).run()
  except (ValueError, OSError) as error:
    if FLAGS.debug:
      raise
    sys.exit(f'error: {error}')
  print('\n' + outcome.table())
  name, volume = outcome.best_rule()
  print(f'best rule by hypervolume: {name}, {volume:.3f}')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'FILE.py:SIZE.')
  flags.DEFINE_string('workdir', None, 'Run directory; resumed if it exists.')
  flags.DEFINE_bool('list', False, 'List the configs of this experiment.')
  flags.DEFINE_bool('debug', False, 'Show tracebacks.')
  app.run(main)
