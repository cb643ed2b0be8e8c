# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a byte model and a BPE model at equal FLOPs and compares them.

  python -m experiments.quickstart --workdir=runs/quickstart

Text: the standard library of the running Python, split by file. Both models
are evaluated in bits per byte on the same held-out files. A second call reuses
the finished runs; an interrupted one goes on where it stopped.
"""

import pathlib
import sys
import time

from absl import app, flags

from experiments import cli
from experiments.byte_lm.configs import bpe, transformer
from jaxtok import runs, train
from jaxtok.data import source
from jaxtok.runs import compare

FLAGS = flags.FLAGS

PROMPT = b'def get_path(self, name):\n'
_CONFIGS = {'bytes': transformer, 'bpe': bpe}


def main(argv: list[str]) -> None:
  """Runs what is missing, then shows the comparison."""
  if len(argv) > 1:
    sys.exit(f'error: {argv[1]!r} is not a flag. See --help.')
  cli.quiet_libraries()
  start = time.perf_counter()
  root = pathlib.Path(FLAGS.workdir)
  with cli.run_errors():
    finished = [_train(name, root / name) for name in _CONFIGS]
    for run in finished:
      _show_sample(run)
    print('\n== Comparison on held-out files\n')
    compare.main(
      [*map(str, (root / name for name in _CONFIGS)), f'--out={root}']
    )
  _show_next(root, time.perf_counter() - start)


def _train(name: str, workdir: pathlib.Path) -> runs.Run:
  """Trains one model, or loads the run if it is finished."""
  config = _CONFIGS[name].get_config('quickstart')
  if FLAGS.data is not None:
    config.data.source = source.from_spec(FLAGS.data)
  if FLAGS.train_flops:
    config.train_flops = FLAGS.train_flops
  print(f'\n== {name}: {_CONFIGS[name].__doc__.splitlines()[0]}\n', flush=True)
  return train.run(config, workdir)


def _show_sample(run: runs.Run) -> None:
  print(f'\n== Sample of {run.workdir} (temperature 0.7)\n')
  text = run.generate(PROMPT, num_bytes=160, temperature=0.7, seed=0)
  print((PROMPT + text).decode('utf-8', errors='replace'))


def _show_next(root: pathlib.Path, seconds: float) -> None:
  print(f"""
Done in {seconds:.0f} s. Next:
  {root}/compare.png                     the picture
  python -m jaxtok.runs.generate --workdir={root}/bytes \\
      --prompt='class ' --num_bytes=300
  python -m experiments.byte_lm --list   all configs
  python -m experiments.byte_lm --data=YOUR_TEXT --workdir=runs/mine \\
      --config=experiments/byte_lm/configs/transformer.py:small""")


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/quickstart', 'Where the runs go.')
  flags.DEFINE_string('data', None, 'Own text: file, folder, glob, tfds:NAME.')
  flags.DEFINE_float('train_flops', 0.0, 'Budget of each run; 0: the default.')
  app.run(main)
