# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures claims.

  python -m experiments.claims --list
  python -m experiments.claims NAME... | --all
  python -m experiments.claims --write_docs

Prints claim, threshold, numbers and verdict, and writes the numbers to
docs/claims/NAME.json. Claims are measured on the CPU; with --device on the
accelerator that JAX finds, as entries of their own.

A call that was interrupted goes on with --resume, if the code is the same:
seeds that had ended are not measured again, and runs go on.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from experiments.ledger import claim as claim_lib
from experiments.ledger import docs
from experiments.ledger import measure as measure_lib


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    chosen = claim_lib.names() if args.all else args.names
    claims = [claim_lib.load(name) for name in chosen]
    if args.list:
      print(_list())
    elif not claims and not args.write_docs:
      raise ValueError('name a claim, or pass --all or --list.')
    _choose_device(args.device)
    for claim in claims:
      if args.all and not _fits(claim, args.device):
        print(f'{claim.name}: skipped, measured on {", ".join(claim.devices)}')
      else:
        _measure(claim, pathlib.Path(args.workdir), args.resume)
    if args.write_docs:
      print(f'wrote {os.path.relpath(docs.write())}')
    elif claims:
      print(
        'To update docs/methods.md: python -m experiments.claims --write_docs'
      )
  except (ValueError, OSError) as error:
    if args.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def _choose_device(is_accelerator: bool) -> None:
  """Also for processes that a claim starts."""
  import jax

  if not is_accelerator:
    os.environ['JAX_PLATFORMS'] = 'cpu'
    jax.config.update('jax_platforms', 'cpu')
  elif jax.default_backend() == 'cpu':
    raise ValueError('--device needs an accelerator, but JAX has only the CPU.')


def _fits(claim: claim_lib.Claim, is_accelerator: bool) -> bool:
  if not is_accelerator:
    return 'cpu' in claim.devices
  return bool({'gpu', 'tpu'} & set(claim.devices))


def _measure(
  claim: claim_lib.Claim, workdir: pathlib.Path, resume: bool
) -> None:
  print(f'{claim.name}: {claim.title}')
  print(f'  claim      {claim.claim}')
  for metric, rule in claim.threshold.items():
    print(f'  threshold  {metric} {rule}')
  print(f'  measuring, seeds {list(claim.seeds)} ...', flush=True)
  device, entry = measure_lib.measure(claim, workdir, resume=resume)
  measure_lib.record(claim, device, entry)
  for metric, values in entry['measured'].items():
    print(f'  measured   {metric} {claim_lib.summary(values)}')
  if reused := entry['reused_files']:
    print(f'  reused     {len(reused)} files of earlier calls, as {reused[0]}')
  if resumed := entry['resumed_seeds']:
    print(f'  resumed    seeds {resumed}, whose earlier time is not counted')
  print(
    f'  verdict    {claim.verdict(entry)} on {device} ({entry["seconds"]} s)'
  )
  print(f'  wrote      {os.path.relpath(claim.record_path)}\n', flush=True)


def _list() -> str:
  lines = []
  for name in claim_lib.names():
    claim = claim_lib.load(name)
    verdicts = [
      f'{claim.verdict(record)} on {device}'
      for device, record in claim.records().items()
    ]
    shown = ', '.join(verdicts) or claim_lib.NOT_MEASURED
    lines.append(f'{name:<24} {shown:<24} {claim.title}')
  return '\n'.join(lines)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.claims',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('names', nargs='*', metavar='NAME', help='claims to measure')
  add('--all', action='store_true', help='measure every claim')
  add('--list', action='store_true', help='list claims and verdicts')
  add('--write_docs', action='store_true', help='write docs/methods.md')
  add('--device', action='store_true', help='measure on the accelerator')
  add('--workdir', default='runs/claims', help='where runs go')
  add('--resume', action='store_true', help='go on with an interrupted call')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


if __name__ == '__main__':
  sys.exit(main())
