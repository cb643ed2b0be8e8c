# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills the gap in a text with a model that was trained on gaps.

  python -m jaxtok.runs.infill --workdir=runs/a --prefix='import nu' \\
      --suffix=' as np\\n' --num_bytes=16 --temperature=0
  python -m jaxtok.runs.infill --workdir=runs/a --file=a.py --gap='<FILL_ME>'

The run is one on `data.fim`, e.g. of
experiments/byte_lm/configs/byte_infill.py. The prefix may end anywhere, also
inside a token. In --prefix and --suffix, `\\xff`, `\\n`, `\\r`, `\\t` and `\\0`
stand for bytes and `\\\\` for a backslash. --file reads a text in which the
bytes of --gap occur once, where the gap is; `-` is standard input. The whole
text is printed, safe for a terminal; with --middle what was filled in only,
with --raw the bytes as they are.

How the prompt is made follows from what the run was trained on: SPM order and
the sum over all covers of the prefix, if it has seen prefix and middle encoded
as one text; else the encoding of the prefix as it is. --order and --cut choose
otherwise; see `decoding.byte_infill`.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxtok.runs import display, generate
from jaxtok.runs import run as run_lib


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  return generate.exit_code(lambda: _main(args), args.debug)


def _main(args: argparse.Namespace) -> None:
  prefix, suffix = _texts(args)
  _check(args)
  run = run_lib.load(args.workdir)
  run.check_continues()
  generate.note_length(run, prefix + suffix, args.num_bytes)
  middles = _fill(run, prefix, suffix, args)
  for i, middle in enumerate(middles, start=1):
    if len(middles) > 1:
      print(f'--- sample {i} of {len(middles)}')
    _write(middle if args.middle else prefix + middle + suffix, args.raw)


def _parser() -> argparse.ArgumentParser:
  from jaxtok.decoding import byte_infill

  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.runs.infill',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--workdir', required=True, help='run directory')
  add('--prefix', help='text before the gap')
  add('--suffix', help='text behind the gap')
  add('--file', help='file with the text and a gap, instead')
  add('--gap', default='<FILL_ME>', help='what marks the gap in the file')
  add('--num_bytes', type=int, default=64, help='most bytes to fill in')
  add('--temperature', type=float, default=0.0, help='0: most likely byte')
  add('--top_p', type=float, default=1.0, help='keep so much probability')
  add('--seed', type=int, default=0, help='of the random choices')
  add('--batch', type=int, default=1, help='number of samples')
  add('--order', choices=byte_infill.ORDERS, help='of the prompt')
  add('--cut', choices=byte_infill.CUTS, help='how the end of the prefix is')
  add('--middle', action='store_true', help='print only what was filled in')
  add('--raw', action='store_true', help='write the bytes as they are')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


def _texts(args: argparse.Namespace) -> tuple[bytes, bytes]:
  """Prefix and suffix, from either kind of flags."""
  if args.file is None:
    if args.prefix is None and args.suffix is None:
      raise ValueError(
        'there is no text. Give --prefix and --suffix, or --file with a gap.'
      )
    return (
      generate.parse_prompt(args.prefix or '', '--prefix'),
      generate.parse_prompt(args.suffix or '', '--suffix'),
    )
  if args.prefix is not None or args.suffix is not None:
    raise ValueError(
      '--file was given together with --prefix or --suffix; choose one.'
    )
  if args.file == '-':
    data = sys.stdin.buffer.read()
  else:
    try:
      data = pathlib.Path(args.file).read_bytes()
    except OSError as error:
      raise ValueError(
        f'--file={args.file} cannot be read: {error.strerror}.'
      ) from error
  gap = args.gap.encode('utf-8', 'surrogateescape')
  count = data.count(gap) if gap else 0
  if count != 1:
    raise ValueError(
      f'--gap={args.gap!r} occurs {count} times in the {len(data)} bytes of '
      f'{args.file}; it must mark one gap. Write it where the gap is, or give '
      'another --gap.'
    )
  prefix, suffix = data.split(gap)
  return prefix, suffix


def _check(args: argparse.Namespace) -> None:
  for name in ('batch', 'num_bytes'):
    if getattr(args, name) < 1:
      raise ValueError(f'--{name}={getattr(args, name)} must be >= 1.')
  if args.raw and args.batch > 1:
    raise ValueError('--raw writes one text; use --batch=1.')
  if args.batch > 1 and args.temperature == 0:
    raise ValueError(
      f'--batch={args.batch} samples would be the same with --temperature=0. '
      'Give a temperature, e.g. 0.8.'
    )


def prompts(run: run_lib.Run, order: str | None, cut: str | None) -> Any:
  """How a run's prompts are made: a `decoding.byte_infill.Config`.

  Args:
    run: Trained on `data.fim`.
    order: Of the prompt; None means one that the run was trained on.
    cut: How the prefix ends; None means what is exact for the run.

  Raises:
    ValueError: If the run was not trained on gaps.
  """
  from jaxtok.decoding import byte_infill

  data = run.config.data
  if not hasattr(data, 'spm_rate') or data.rate == 0:
    raise ValueError(
      f'{run.workdir} was not trained on text with gaps (data.fim), so it does '
      'not know what a suffix is. Train one with '
      '--config=experiments/byte_lm/configs/byte_infill.py, or continue a text '
      f'with python -m jaxtok.runs.generate --workdir={run.workdir}.'
    )
  order = order or ('spm' if data.spm_rate > 0 else 'psm')
  is_trained = data.spm_rate > 0 if order == 'spm' else data.spm_rate < 1
  if not is_trained:
    raise ValueError(
      f'order={order} is none that {run.workdir} was trained on: its '
      f'spm_rate is {data.spm_rate:g}.'
    )
  is_joined = order == 'spm' and data.spm == 'joined'
  ids = run.tokenizer.special.by_name()
  prefix, suffix, middle = (ids[name] for name in data.names)
  return byte_infill.Config(
    prefix=prefix,
    suffix=suffix,
    middle=middle,
    order=order,
    cut=cut or ('covers' if is_joined else 'tokens'),
  )


def _fill(
  run: run_lib.Run, prefix: bytes, suffix: bytes, args: argparse.Namespace
) -> list[bytes]:
  import jax

  from jaxtok.decoding import byte_infill, byte_probs, sampling

  config = prompts(run, args.order, args.cut)
  choice = sampling.Config(temperature=args.temperature, top_p=args.top_p)
  state = byte_infill.start(
    byte_probs.ByteModel(run.model, run.tokenizer),
    [prefix] * args.batch,
    [suffix] * args.batch,
    num_bytes=args.num_bytes,
    config=config,
  )
  print(f'[{config.order} order, cut: {config.cut}]', file=sys.stderr)
  return byte_probs.continue_bytes(
    state,
    num_bytes=args.num_bytes,
    rng=jax.random.key(args.seed),
    sampling=choice,
  )


def _write(data: bytes, is_raw: bool) -> None:
  if is_raw:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
  else:
    print(display.printable(data))


if __name__ == '__main__':
  sys.exit(main())
