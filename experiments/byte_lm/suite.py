# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""All models on the same text for the same FLOPs, in one table and picture.

  python -m experiments.byte_lm.suite --workdir=runs/suite \\
      [--budget=4e12] [--models=bytes,bpe,hat] [--seeds=0,1,2]

Each model is trained on English novels until the budget is spent, then asked
for bits per byte of a novel it has not seen, as it is and with random case
flips, wrong letters and dropped spaces; for the speed at which it writes; and,
trained further on German novels for a quarter of the budget, for bits per byte
of both languages. Texts: `$JAXTOK_DATA/english_text/novels_en.zip` and
`german_text/novels_de.zip`, or --data and --second (any text). Without a second
language (`--second=`, or --data alone) that part is left out.

`blt_entropy` spends a quarter of its budget on the language model that says
where patches end.

`--models=spans` stands for the encoder-decoders (ByT5, MrT5, and what that is
compared with), whose bits per byte are of spans given the rest of the text:
they have a workdir and a table of their own, without a speed.

Ends with `suite.md`, `suite.json` and `suite.png` in the workdir. A second call
measures only what is missing, and goes on with a run that was interrupted. It
refuses numbers of another size, budget, text or --max_bytes in the workdir.
"""

import copy
import math
import os
import pathlib
import sys
import time
from typing import Any

from absl import app, flags

from experiments import cli, finished
from experiments.byte_lm import measures, models, outcome, scores
from experiments.byte_lm import plan as plan_lib
from jaxtok import runs
from jaxtok.data import noise, source
from jaxtok.runs import files
from jaxtok.tokenizers import saved
from jaxtok.train import setup

FLAGS = flags.FLAGS

MODELS = models.find() | models.find_spans()
SPANS = 'spans'  # In --models: all encoder-decoders.
NOISE = ('case', 'typo', 'spaces')
_RATE = 0.1  # Of each kind of noise.
_ADAPTED = 0.25  # Share of the budget that the second language gets.
_WRITTEN = 128  # Bytes per prompt when speed is measured.
_NO_LIMIT = 10_000_000  # Steps; the budget ends a run.


def main(argv: list[str]) -> None:
  """Trains and measures what is missing, then shows the comparison."""
  if len(argv) > 1:
    sys.exit(f'error: {argv[1]!r} is not a flag. See --help.')
  cli.quiet_libraries()
  with cli.run_errors():
    root = pathlib.Path(FLAGS.workdir)
    seeds = cli.whole_numbers('seeds', FLAGS.seeds)
    plan = _plan()
    rows = measure_all(root, plan, _names(FLAGS.models), seeds)
    result = outcome.Outcome(rows, plan.facts)
    print(f'\n{result}')
    for path in result.save(root):
      print(f'wrote {path}')


def measure_all(
  root: pathlib.Path, plan: plan_lib.Plan, names: list[str], seeds: list[int]
) -> list[outcome.Row]:
  """One row for each model and seed.

  Raises:
    ConfigChangedError: If there are numbers of another plan.
    ValueError: If a model or a text does not exist, or models of both sorts
      are to be compared.
  """
  if unknown := [name for name in names if name not in MODELS]:
    raise ValueError(
      f'model {unknown[0]!r} does not exist. Use some of: {", ".join(MODELS)}; '
      f'or {SPANS}.'
    )
  if len({name in models.find_spans() for name in names}) > 1:
    raise ValueError(
      f'--models={",".join(names)} has encoder-decoders, whose bits per byte '
      'are of spans given the rest of a text, beside models that read it from '
      'left to right. Measure them in two calls.'
    )
  jobs = [(name, seed) for name in names for seed in seeds]
  for name, seed in jobs:  # Before anything is trained.
    plan.open(_path(root, name, seed))
  for name in names:
    check_budget(name, plan)
  rows = []
  for number, (name, seed) in enumerate(jobs, start=1):
    print(f'\n== [{number}/{len(jobs)}] {name}, seed {seed}\n', flush=True)
    rows.append(_measure(_path(root, name, seed), plan, name, seed))
  return rows


def _path(root: pathlib.Path, name: str, seed: int) -> pathlib.Path:
  """Where the numbers of a model are, in the workdir of its run."""
  return root / f'{name}-{seed}' / 'suite.json'


def _measure(
  path: pathlib.Path, plan: plan_lib.Plan, name: str, seed: int
) -> outcome.Row:
  """Trains a model and measures it; each stage leaves its numbers."""
  found = plan.open(path)
  begin = time.perf_counter() - found.get('seconds', 0.0)
  files.write_json(path, found)  # The plan, before anything is done by it.
  run, numbers = _train(path.parent, plan, name, seed)
  judge = measures.Judge(run, plan.max_bytes)
  stages = {
    'model': lambda: _facts(run),
    'noise': lambda: _noise(run, judge, plan),
  }
  if not measures.reads_spans(run):
    stages['speed'] = lambda: {
      'bytes_per_second': measures.bytes_per_second(run, plan.first, _WRITTEN)
    }
  if plan.second is not None:
    stages['adapted'] = lambda: _adapted(run, judge, plan)
  for stage, measure in stages.items():
    if stage not in found:
      found[stage] = measure()
      found['seconds'] = time.perf_counter() - begin
      files.write_json(path, found)
      print(f'{stage:11} {scores.line(found[stage])}', flush=True)
    numbers[stage] = found[stage]
  return outcome.Row(name, seed, numbers, found['seconds'], run)


def _train(
  workdir: pathlib.Path, plan: plan_lib.Plan, name: str, seed: int
) -> tuple[runs.Run, dict[str, dict[str, float]]]:
  """The run on the first text; numbers of the patcher that came before."""
  config, numbers = make_config(name, plan, seed), {}
  if hasattr(MODELS[name], 'add_patcher'):
    its = patcher_config(name, plan, seed)
    add_patcher = MODELS[name].add_patcher
    numbers['patcher'] = add_patcher(config, its, workdir / 'patcher')
  return finished.train_once(config, workdir), numbers


def make_config(name: str, plan: plan_lib.Plan, seed: int) -> Any:
  """The run of a model on the first text, within its part of the budget."""
  model = MODELS[name]
  budget = plan.budget * (1 - getattr(model, 'PATCHER_SHARE', 0))
  return within(_on_first(model.get_config(plan.size), plan, seed), budget)


def patcher_config(name: str, plan: plan_lib.Plan, seed: int) -> Any:
  """The run before it, of a model whose patcher is trained: the other part."""
  model = MODELS[name]
  config = _on_first(model.patcher_config(plan.size), plan, seed)
  return within(config, plan.budget * model.PATCHER_SHARE)


def _on_first(config: Any, plan: plan_lib.Plan, seed: int) -> Any:
  config.data.source, config.seed = plan.first, seed
  config.evals['val'].max_bytes = plan.max_bytes
  return config


def check_budget(name: str, plan: plan_lib.Plan) -> None:
  """Raises ValueError if some run of a model would not get a step."""
  try:
    steps = make_config(name, plan, 0).steps
  except ValueError as error:
    raise ValueError(f'model {name}: {error}') from error
  least = 1
  if plan.second is not None:  # Its budget has no part for a patcher.
    share = 1 - getattr(MODELS[name], 'PATCHER_SHARE', 0)
    least = math.ceil(share / _ADAPTED)
  if steps < least:
    raise ValueError(
      f'--budget={plan.budget:g} pays for {steps} steps of {name}; it must pay '
      f'for {least}, as {_ADAPTED:.0%} of it go to the second language. '
      'Raise it, or pass --second= to leave that out.'
    )
  if hasattr(MODELS[name], 'add_patcher'):
    patcher_config(name, plan, 0)


def within(config: Any, budget: float) -> Any:
  """Sets the length of a run by its FLOPs, with four evaluations."""
  before = config.steps
  config.steps, config.train_flops = _NO_LIMIT, budget
  config.steps = steps = setup.prepare(config, None).steps
  every = max(1, -(-steps // 4))
  config.evals['val'].every_steps = config.checkpoint_every = every
  config.log_every = max(1, every // 5)
  config.optim.warmup_steps = max(1, min(config.optim.warmup_steps, steps // 5))
  rate = getattr(getattr(config.model, 'shortener', None), 'rate', None)
  if hasattr(rate, 'delay'):  # At the same share of the run.
    rate.delay = rate.delay * steps // before
  return config


def _facts(run: runs.Run) -> dict[str, float]:
  return {
    'parameters': run.num_parameters,
    'bpb': run.metrics('eval/val')[-1]['bpb'],
    'bpb_se': run.metrics('eval/val')[-1]['bpb_se'],
    **(
      {'kept': measures.kept(run)}
      if measures.reads_spans(run)
      else {'bytes_per_position': measures.bytes_per_position(run)}
    ),
    'flops_per_byte': measures.flops_per_byte(run),
    'flops_per_byte_used': measures.flops_per_byte(run, is_used=True),
  }


def _noise(
  run: runs.Run, judge: measures.Judge, plan: plan_lib.Plan
) -> dict[str, float]:
  return {
    kind: judge(
      run.model, noise.Noisy(source=plan.first, kind=kind, rate=_RATE)
    )
    for kind in NOISE
  }


def _adapted(
  run: runs.Run, judge: measures.Judge, plan: plan_lib.Plan
) -> dict[str, float]:
  """Both languages after further training on the second, and before."""
  config = copy.deepcopy(run.config)
  config.data.source = plan.second
  config.tokenizer = saved.Config(path=str(run.workdir / 'tokenizer'))
  config = within(config, _ADAPTED * plan.budget)
  workdir = pathlib.Path(run.workdir) / 'adapted'
  after = finished.train_once(config, workdir, init_from=run.workdir)
  return {
    'second_before': judge(run.model, plan.second),
    'second_after': judge(after.model, plan.second),
    'first_after': judge(after.model, plan.first),
  }


def _names(given: list[str]) -> list[str]:
  """Models with `SPANS` spelt out."""
  spans = list(models.find_spans())
  return [name for x in given for name in (spans if x == SPANS else [x])]


def _plan() -> plan_lib.Plan:
  """What the flags say."""
  if FLAGS.budget <= 0:
    raise ValueError(f'--budget={FLAGS.budget} must be > 0 FLOPs.')
  first = FLAGS.data or _default('data', 'english_text/novels_en.zip')
  second = FLAGS.second
  if second is None and FLAGS.data is None:
    second = _default('second', 'german_text/novels_de.zip')
  return plan_lib.Plan(
    size=FLAGS.size,
    budget=FLAGS.budget,
    first=source.from_spec(first),
    second=source.from_spec(second) if second else None,
    max_bytes=FLAGS.max_bytes,
  )


def _default(flag: str, path: str) -> str:
  folder = os.environ.get('JAXTOK_DATA', '')
  whole = pathlib.Path(folder, path)
  if not folder or not whole.exists():
    raise ValueError(
      f'--{flag} is not given, and JAXTOK_DATA={folder!r} names no folder with '
      f'{path}. Give --{flag}: a file, folder, glob or tfds:NAME.'
    )
  return str(whole)


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_string('workdir', 'runs/byte_lm', 'Where the runs go.')
  flags.DEFINE_float('budget', 4e12, 'Training FLOPs of each model.')
  flags.DEFINE_string('size', 'quickstart', 'Of all models.')
  flags.DEFINE_list(
    'models',
    list(models.find()),
    f'Some of {", ".join(models.find())}; or {SPANS}, which is '
    f'{", ".join(models.find_spans())}.',
  )
  flags.DEFINE_list('seeds', ['0'], 'Seeds of the runs.')
  flags.DEFINE_string('data', None, 'Own text: file, folder, glob, tfds:NAME.')
  flags.DEFINE_string('second', None, 'Text in a second language, with --data.')
  flags.DEFINE_integer(
    'max_bytes', 50_000, 'Of each text that is evaluated; 0: all.'
  )


if __name__ == '__main__':
  define_flags()
  app.run(main)
