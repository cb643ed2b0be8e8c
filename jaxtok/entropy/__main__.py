# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compresses files with a byte model, exactly.

  python -m jaxtok.entropy compress FILE -o FILE.jtz
  python -m jaxtok.entropy decompress FILE.jtz -o FILE
  python -m jaxtok.entropy info FILE.jtz
  python -m jaxtok.entropy fit TEXT... -o MODEL.npz --order=2

Files may be larger than memory and hold any bytes. They are coded with the
model that comes with the package, for English prose, or with --model=MODEL.npz.
The model is not stored in the compressed file, only its SHA-256: decompressing
needs the same model, on any machine. An output file appears only when it is
complete; a damaged input is named as such and leaves nothing behind.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tqdm


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    args.run(args)
  except (ValueError, OSError, RuntimeError) as error:
    if args.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('interrupted; nothing was written.', file=sys.stderr)
    return 130
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.entropy',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(name, run, text, writes=True):
    sub = commands.add_parser(name, help=text, allow_abbrev=False)
    sub.set_defaults(run=run)
    sub.add_argument('--debug', action='store_true', help='show tracebacks')
    if writes:
      sub.add_argument('-o', '--output', required=True, help='file to write')
      sub.add_argument(
        '--force', action='store_true', help='replace an existing output'
      )
      sub.add_argument('--quiet', action='store_true', help='print nothing')
    return sub

  for name, run in (('compress', _compress), ('decompress', _decompress)):
    sub = command(name, run, f'{name} a file')
    sub.add_argument('input', metavar='FILE')
    sub.add_argument(
      '--model', help='model file (npz); by default that of the package'
    )
    if name == 'compress':
      sub.add_argument(
        '--no_verify',
        action='store_true',
        help='do not decompress at once to compare: twice as fast',
      )
  sub = command('info', _info, 'show what a file is', writes=False)
  sub.add_argument('input', metavar='FILE', help='compressed file or model')
  sub = command('fit', _fit, 'count a table model')
  sub.add_argument('input', metavar='TEXT', nargs='+')
  sub.add_argument('--order', type=int, default=2, help='bytes of context')
  sub.add_argument(
    '--num_rows', type=int, default=1 << 15, help='most rows of the table'
  )
  return parser


@contextlib.contextmanager
def _written(output: str, force: bool) -> Iterator[Any]:
  """A file that appears under its name only if the block succeeds."""
  path = pathlib.Path(output)
  if path.exists() and not force:
    raise FileExistsError(f'{path} exists. Use --force to replace it.')
  if not path.parent.is_dir():
    raise FileNotFoundError(f'there is no folder {path.parent} to write to.')
  handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
  temporary = pathlib.Path(name)
  try:
    with os.fdopen(handle, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(total: int, quiet: bool, text: str) -> Iterator[Any]:
  """A bar on a terminal; nothing in a log."""
  hidden = True if quiet else None  # None: hidden unless on a terminal.
  options = dict(unit='B', unit_scale=True, desc=text, disable=hidden)
  with tqdm.tqdm(total=total, **options) as bar:
    yield bar.update


def _model(args: argparse.Namespace) -> Any:
  from jaxtok.entropy import model_file, shipped

  return model_file.load_model(args.model) if args.model else shipped.model()


def _compress(args: argparse.Namespace) -> None:
  from jaxtok.entropy import container

  model = _model(args)
  size = pathlib.Path(args.input).stat().st_size
  with (
    pathlib.Path(args.input).open('rb') as source,
    _written(args.output, args.force) as target,
    _progress(size, args.quiet, 'compress') as update,
  ):
    container.compress(
      source, target, model, verify=not args.no_verify, progress=update
    )
    num_raw, num_coded = source.tell(), target.tell()
  if not args.quiet:
    print(f'{num_raw} -> {num_coded} bytes, {_rate(num_coded, num_raw)}')


def _rate(num_coded: int, num_raw: int) -> str:
  if not num_raw:
    return 'nothing to compress'
  return f'{8 * num_coded / num_raw:.4f} bits per byte'


def _decompress(args: argparse.Namespace) -> None:
  from jaxtok.entropy import container

  model = _model(args)
  size = _info_of(args.input)['raw bytes']
  with (
    pathlib.Path(args.input).open('rb') as source,
    _written(args.output, args.force) as target,
    _progress(size, args.quiet, 'decompress') as update,
  ):
    container.decompress(source, target, model, progress=update)
    num_raw = target.tell()
  if not args.quiet:
    print(f'{num_raw} bytes, SHA-256 as when compressed')


def _info_of(path: str) -> dict[str, Any]:
  """Facts about a compressed file, each chunk's checksum included."""
  from jaxtok.entropy import container
  from jaxtok.entropy.header import StreamHeader

  with pathlib.Path(path).open('rb') as file:
    header = StreamHeader.read(file)
    chunks = [
      (chunk.kind.name, chunk.raw_bytes)
      for chunk in container.read_chunks(file)
    ]
    size = file.tell()
  raw = sum(num for _, num in chunks)
  return {
    'format': 'jtz 1, coder ' + header.coder,
    'model SHA-256': header.model_fingerprint + '...',
    'determinism': header.level.name,
    'raw bytes': raw,
    'compressed bytes': size,
    'rate': _rate(size, raw),
    'chunks': len(chunks) - 1,
    'stored chunks': sum(kind == 'STORED' for kind, _ in chunks),
    'checksums': 'right',
  }


def _info(args: argparse.Namespace) -> None:
  from jaxtok.entropy import model_file

  if args.input.endswith('.npz'):
    model = model_file.load_model(args.input)
    facts = {
      'model': type(model).__name__,
      'SHA-256': model.fingerprint(),
      'determinism': model.level.name,
      'file bytes': pathlib.Path(args.input).stat().st_size,
    }
  else:
    facts = _info_of(args.input)
  for name, value in facts.items():
    print(f'{name:18}{value}')


def _fit(args: argparse.Namespace) -> None:
  from jaxtok.entropy import model_file, table

  documents = (pathlib.Path(name).read_bytes() for name in args.input)
  model = table.fit(documents, order=args.order, num_rows=args.num_rows)
  with _written(args.output, args.force) as target:
    model_file.save_model(model, target)
  if not args.quiet:
    print(f'order {args.order}, {len(model.cdf_rv)} rows: {args.output}')


if __name__ == '__main__':
  sys.exit(main())
