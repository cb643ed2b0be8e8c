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

The model of the package is a neural network: prose like novels gets a tenth
smaller than with xz -9e, markup and text without case get larger than with it,
and the speed is kilobytes per second, not megabytes. `fit` counts tables, which
are a hundred times as fast.
"""

import argparse
import contextlib
import difflib
import os
import pathlib
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tqdm


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = _parser()
  args, unknown = parser.parse_known_args(argv)
  if unknown:
    parser.error(_unknown(unknown[0], args))
  try:
    with _ending_cleanly():
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


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
  """Signals that end a process become exceptions, so that files are removed."""

  def end(number, frame):
    raise SystemExit(128 + number)

  numbers = (signal.SIGTERM, signal.SIGHUP)
  before = [signal.signal(number, end) for number in numbers]
  try:
    yield
  finally:
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler)


def _unknown(word: str, args: argparse.Namespace) -> str:
  """What to say about a word that is no argument of the command."""
  options = [f'--{x}' for x in vars(args) if x not in ('run', 'input')]
  near = difflib.get_close_matches(word.split('=')[0], options, n=1)
  fix = f'Did you mean {near[0]}?' if near else 'See COMMAND --help.'
  return f'{word} is no argument of this command. {fix}'


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
    sub.add_argument('input', metavar='FILE', help='any file; no pipe')
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


def _open(name: str, path: str) -> Any:
  """Opens an input file.

  Args:
    name: Of the argument, for errors.
    path: Its value.

  Raises:
    OSError: If it is no file that can be read; says what to do.
  """
  try:
    # Not opened before it is looked at: opening a pipe waits for a writer.
    mode = pathlib.Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
      raise OSError(
        f'{name}={path} is a pipe or a device; it must be a file. Write what '
        'comes from it to a file first.'
      )
    return pathlib.Path(path).open('rb')
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{name}={path} does not exist; it must be a file. Check the path.'
    ) from None
  except IsADirectoryError:
    raise IsADirectoryError(
      f'{name}={path} is a folder; it must be a file. Pack the folder into one '
      'first, for example with tar.'
    ) from None
  except PermissionError:
    raise PermissionError(
      f'{name}={path} must be a file that you may read. Change its permissions '
      'or copy it.'
    ) from None


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
  """Errors about what FILE holds say which file that is."""
  from jaxtok.entropy.determinism import NotDecodableError
  from jaxtok.entropy.header import FormatError

  try:
    yield
  except (FormatError, NotDecodableError) as error:
    raise type(error)(f'FILE={path}: {error}') from error


@contextlib.contextmanager
def _written(
  output: str, force: bool, inputs: Sequence[str] = ()
) -> Iterator[Any]:
  """A file that appears under its name only if the block succeeds.

  Args:
    output: Its name; what a symbolic link points to is written, not the link.
    force: Whether it may replace a file.
    inputs: Files that it may not replace.
  """
  path = pathlib.Path(output).resolve()
  if output == '-' or (path.exists() and not (path.is_file() or path.is_dir())):
    raise OSError(
      f'--output={output} is no file, and an output appears only when it is '
      'complete. Name a file.'
    )
  if path.exists() and any(path.samefile(x) for x in inputs):
    raise ValueError(f'--output={output} is the input. Name another file.')
  if path.is_dir():
    raise IsADirectoryError(
      f'--output={path} is a folder; it must be a file. Name a file in it.'
    )
  if path.exists() and not force:
    raise FileExistsError(
      f'--output={path} exists. Name another file or use --force to replace it.'
    )
  if not path.parent.is_dir():
    raise FileNotFoundError(
      f'--output={path} must be in a folder that exists; {path.parent} does '
      'not. Make it first.'
    )
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

  if not args.model:
    return shipped.model()
  _open('--model', args.model).close()
  return model_file.load_model(args.model)


def _compress(args: argparse.Namespace) -> None:
  from jaxtok.entropy import container

  with (
    _open('FILE', args.input) as source,
    _written(args.output, args.force, [args.input]) as target,
    _progress(
      os.fstat(source.fileno()).st_size, args.quiet, 'compress'
    ) as update,
  ):
    model = _model(args)
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

  size = _info_of(args.input)['raw bytes']
  model = _model(args)
  with (
    _naming(args.input),
    _open('FILE', args.input) as source,
    _written(args.output, args.force, [args.input]) as target,
    _progress(size, args.quiet, 'decompress') as update,
  ):
    container.decompress(source, target, model, progress=update)
    num_raw = target.tell()
  if not args.quiet:
    print(f'{num_raw} bytes, SHA-256 as when compressed')


def _info_of(path: str) -> dict[str, Any]:
  """Facts about a compressed file, each chunk's checksum included."""
  from jaxtok.entropy import container

  with _naming(path), _open('FILE', path) as file:
    header = container.read_header(file)
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

  with _open('FILE', args.input) as file:
    is_model = file.read(4) == b'PK\x03\x04'  # Models are zip files.
  if is_model:
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

  for name in args.input:
    _open('TEXT', name).close()
  if not any(pathlib.Path(name).stat().st_size for name in args.input):
    raise ValueError(
      f'TEXT={" ".join(args.input)} must hold at least one byte to count.'
    )
  documents = (pathlib.Path(name).read_bytes() for name in args.input)
  with _written(args.output, args.force, args.input) as target:
    model = table.fit(documents, order=args.order, num_rows=args.num_rows)
    model_file.save_model(model, target)
  if not args.quiet:
    print(f'order {args.order}, {len(model.cdf_rv)} rows: {args.output}')


if __name__ == '__main__':
  sys.exit(main())
