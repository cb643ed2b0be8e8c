# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line that all training experiments share.

An experiment's `__main__.py` calls `cli.main(__file__, __doc__)`. Errors of
the user come out as one paragraph and exit code 1 (run) or 2 (command line);
`--debug` shows the traceback.
"""

import argparse
import ast
import contextlib
import importlib.util
import logging as std_logging
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jaxtyping
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import config_path
from jaxtok import config as config_lib
from jaxtok.runs import logs

FLAGS = flags.FLAGS

# Errors whose message is meant for the user; anything else is our bug and
# keeps its traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, ImportError, LookupError)


def define_flags(*, is_training: bool = True) -> None:
  """Defines the flags of an experiment; call once per process.

  Args:
    is_training: Whether it is one training run; others have no use for most.
  """
  config_flags.DEFINE_config_file(
    'config', None, 'Config file, e.g. configs/transformer.py:tiny.'
  )
  flags.DEFINE_string('workdir', None, 'Run directory; resumed if it exists.')
  flags.DEFINE_bool('list', False, 'List the configs of this experiment.')
  if not is_training:
    flags.DEFINE_bool('debug', False, 'Shapes are checked; full tracebacks.')
    return
  flags.DEFINE_string(
    'data',
    None,
    'Own text instead of the config\'s: a file, folder, glob or "tfds:NAME".',
  )
  flags.DEFINE_string(
    'init_from',
    None,
    'Start from these weights: RUN, RUN@STEP or a folder of safetensors files.',
  )
  flags.DEFINE_bool(
    'allow_config_change', False, 'Resume although the config has changed.'
  )
  flags.DEFINE_bool('eval_only', False, 'Restore, evaluate, and stop.')
  flags.DEFINE_bool(
    'dry_run', False, 'Print the plan, compile, estimate memory, and stop.'
  )
  flags.DEFINE_string(
    'topology',
    None,
    'With --dry_run: compile for this machine, e.g. v5e:16x16 or h200.',
  )
  flags.DEFINE_list(
    'profile', [], 'Trace these steps to <workdir>/profile, e.g. 20,30.'
  )
  flags.DEFINE_bool(
    'debug_nans', False, 'Stop at the operation that makes NaN.'
  )
  flags.DEFINE_bool(
    'debug', False, 'No jit; shapes are checked; full tracebacks.'
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'Several processes started by hand: HOST:PORT,COUNT,INDEX.',
  )


def main(
  file: str, doc: str | None, run: Callable[[Any, str], None] | None = None
) -> None:
  """Runs an experiment from the command line.

  Args:
    file: `__file__` of the experiment's `__main__.py`.
    doc: Its docstring, shown by `--help`.
    run: Takes the config and the workdir; None trains one model.
  """
  folder = pathlib.Path(file).parent
  module = sys.modules['__main__']
  module.__doc__ = doc
  define_flags(is_training=run is None)
  if {'--help', '-help', '-h'} & set(sys.argv[1:]):
    print(_help(doc))
    sys.exit(0)
  quiet_libraries()
  if '--debug' in sys.argv[1:]:
    print(check_shapes())
  sys.argv[:] = config_path.config_first(sys.argv)
  action = _train if run is None else lambda: run(FLAGS.config, FLAGS.workdir)
  app.run(
    lambda argv: _guarded(action, folder),
    flags_parser=lambda argv: _parse(argv, folder),
  )


def check_shapes() -> str:
  """Checks shapes and types of all calls of jaxtok from now on.

  Modules that are imported already are left alone.

  Returns:
    Whether it does, in words: `beartype` may be missing.
  """
  if importlib.util.find_spec('beartype') is None:
    return 'debug: shapes are not checked; that needs `pip install beartype`.'
  jaxtyping.install_import_hook('jaxtok', 'beartype.beartype')
  return 'debug: no jit; shapes and types of every call are checked.'


def _help(doc: str | None) -> str:
  """The experiment's docstring and its flags."""
  own = FLAGS.flags_by_module_dict()[__name__]
  lines = [doc.strip() if doc else '', '', 'Flags:']
  for flag in sorted(own, key=lambda flag: flag.name):
    if flag.name != 'config':
      name = flag.name if flag.boolean else f'{flag.name}=...'
      lines.append(f'  --{name:<22} {flag.help}')
  lines += [
    f'  --{"config=FILE[:SIZE]":<22} Config file, see --list.',
    f'  --{"config.FIELD=VALUE":<22} Changes a field, e.g. --config.steps=200.',
  ]
  return '\n'.join(lines)


def quiet_libraries() -> None:
  """Shows our own log lines, and of other libraries only warnings.

  Orbax and grain log through absl too, a page per checkpoint.
  """
  handler = logging.get_absl_handler()
  handler.addFilter(logs.is_shown)
  handler.setFormatter(std_logging.Formatter('%(message)s'))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
  """Ends the program with one line if the user can mend what is wrong.

  For the `main` of commands without a config; also a decorator.
  """
  try:
    yield
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


def no_arguments(doc: str | None) -> None:
  """Shows `--help` of a command without arguments, and refuses any other."""
  argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  ).parse_args()


@contextlib.contextmanager
def run_errors() -> Iterator[None]:
  """As `one_line_errors`, for commands that train runs of their own."""
  from jaxtok.train import errors

  try:
    with one_line_errors():
      yield
  except errors.Preempted as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
  except errors.RunError as error:
    sys.exit(f'error: {error}')


def whole_numbers(flag: str, words: Sequence[str]) -> list[int]:
  """The value of a list flag as numbers.

  Raises:
    ValueError: If one is no whole number, or there is none.
  """
  if not words or not all(word.isdecimal() for word in words):
    raise ValueError(
      f'--{flag}={",".join(words)} must be whole numbers, e.g. 0,1,2.'
    )
  return [int(word) for word in words]


def list_configs(folder: pathlib.Path) -> str:
  """The config files of an experiment with the first line of each."""
  lines = [f'Configs of experiments.{folder.name}:']
  for path in sorted((folder / 'configs').glob('*.py')):
    if path.name == '__init__.py':
      continue
    doc = ast.get_docstring(ast.parse(path.read_text())) or ''
    shown = path.relative_to(folder.parent.parent)
    lines.append(f'  {shown!s:<48} {doc.splitlines()[0] if doc else ""}')
  lines.append('')
  lines.append(
    'Add :tiny for a smoke run on a laptop, e.g. '
    f'python -m experiments.{folder.name} --config=FILE:tiny --workdir=runs/a'
  )
  return '\n'.join(lines)


def _parse(argv: list[str], folder: pathlib.Path) -> list[str]:
  try:
    config_path.check(argv)
    rest = FLAGS(argv)
    if FLAGS.config is not None:
      config_lib.check(FLAGS.config)
  except flags.Error as error:
    _fail(config_path.explain_whole(argv, error), 2)
  except (KeyError, AttributeError) as error:
    # config_flags reports a misspelt field in these ways.
    _fail(config_path.explain_field(argv, error), 2)
  except _USER_ERRORS as error:
    _fail(error, 2)
  if len(rest) > 1:
    _fail(
      f'{rest[1]!r} is not a flag. Flags look like --config.steps=200; a '
      'lone word is usually a space too many.',
      2,
    )
  if FLAGS.list or FLAGS.config is None:
    print(list_configs(folder))
    sys.exit(0 if FLAGS.list else 2)
  return rest


def _fail(error: Any, code: int, hint: str = '') -> None:
  if '--debug' in sys.argv[1:] and isinstance(error, BaseException):
    traceback.print_exception(error)
  # A KeyError's own words are the key alone.
  text = repr(error) if isinstance(error, KeyError) else str(error)
  print(f'error: {text}{hint}', file=sys.stderr)
  sys.exit(code)


def _guarded(action: Callable[[], None], folder: pathlib.Path) -> None:
  """Turns errors into a paragraph and an exit code."""
  from jaxtok.train import errors

  try:
    needs_workdir = 'dry_run' not in FLAGS or not FLAGS.dry_run
    if needs_workdir and not FLAGS.workdir:
      raise ValueError(
        '--workdir is missing: where should the run be written? E.g. '
        f'--workdir=runs/{folder.name}.'
      )
    action()
  except errors.Preempted as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
  except KeyboardInterrupt:
    print('stopped.', file=sys.stderr)
    sys.exit(130)
  except errors.RunError as error:
    _fail(error, error.exit_code)
  except _USER_ERRORS as error:
    # Perhaps our own mistake after all.
    hint = '' if FLAGS.debug else ' (--debug shows where this was found.)'
    _fail(error, 1, hint)


def _train() -> None:
  from jaxtok import train
  from jaxtok.train import distributed

  config = FLAGS.config
  if FLAGS.coordinator is not None:
    distributed.set_coordinator(FLAGS.coordinator)
  if FLAGS.data is not None:
    _replace_source(config, FLAGS.data)
  if FLAGS.topology is not None:
    _report_topology(config)
    return
  train.run(
    config,
    FLAGS.workdir,
    init_from=FLAGS.init_from,
    allow_config_change=FLAGS.allow_config_change,
    eval_only=FLAGS.eval_only,
    dry_run=FLAGS.dry_run,
    profile=_profile_steps(),
    debug_nans=FLAGS.debug_nans,
    debug=FLAGS.debug,
  )


def _profile_steps() -> tuple[int, ...]:
  if not all(step.isdigit() for step in FLAGS.profile):
    raise ValueError(
      f'--profile={",".join(FLAGS.profile)} must be the first and the last '
      'step to trace, e.g. --profile=20,30.'
    )
  return tuple(map(int, FLAGS.profile))


def _replace_source(config: Any, spec: str) -> None:
  from jaxtok.data import source

  if not hasattr(config.data, 'source'):
    raise ValueError(
      f'--data={spec} does not fit: the data of this config is '
      f'{config_lib.type_name(type(config.data))}, which is not text.'
    )
  config.data.source = source.from_spec(spec)


def _report_topology(config: Any) -> None:
  from jaxtok.train import topology

  if not FLAGS.dry_run:
    raise ValueError(
      f'--topology={FLAGS.topology} compiles for a machine that is not here; '
      'it needs --dry_run.'
    )
  print(topology.report(config, FLAGS.topology))
