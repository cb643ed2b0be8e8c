# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Continues a prompt with a trained model and shows the text as it comes.

  python -m jaxtok.runs.generate --workdir=runs/a --prompt='def main' \\
      --num_bytes=200 --temperature=0.8

Any bytes are a valid prompt. In --prompt, `\\xff`, `\\n`, `\\r`, `\\t` and
`\\0` stand for bytes and `\\\\` for a backslash; other backslashes stand for
themselves. --prompt_file reads the bytes from a file, or from standard input if
it is `-`. What is printed is safe for a terminal: bytes that are no printable
UTF-8 are shown as `\\xff`. With --raw the bytes themselves go to standard
output.
"""

import argparse
import functools
import logging
import pathlib
import re
import sys
import time
from collections.abc import Callable, Sequence

from absl import logging as absl_logging

from jaxtok.runs import display, logs
from jaxtok.runs import run as run_lib


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  return exit_code(lambda: _main(args), args.debug)


def _main(args: argparse.Namespace) -> None:
  prompt = _prompt(args)
  run = run_lib.load(args.workdir)
  run.check_continues()
  options = _options(args)
  note_length(run, prompt, args.num_bytes)
  if args.batch == 1:
    _stream(run, prompt, options, args.raw)
  else:
    _batch(run, prompt, options, args.batch)


def exit_code(work: Callable[[], None], is_debug: bool) -> int:
  """Does the work of a command that writes text; its exit code.

  Warnings of libraries are not shown, and of errors that a user can mend, such
  as those of a damaged run, only the message, unless `is_debug`.
  """
  absl_logging.get_absl_logger().addFilter(
    functools.partial(logs.is_shown, least=logging.ERROR)
  )
  try:
    work()
  except Exception as error:
    # Errors of runs, as of a damaged checkpoint, have an exit code.
    is_for_user = isinstance(error, (ValueError, OSError))
    if is_debug or not (is_for_user or hasattr(error, 'exit_code')):
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print(file=sys.stderr)
    return 130
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.runs.generate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--workdir', required=True, help='run directory')
  add('--prompt', default='', help='beginning of the text')
  add('--prompt_file', help='file with the beginning of the text')
  add('--num_bytes', type=int, default=200, help='most bytes to generate')
  add('--temperature', type=float, default=0.8, help='0: most likely token')
  add('--top_k', type=int, default=0, help='keep so many tokens; 0: all')
  add('--top_p', type=float, default=1.0, help='keep so much probability')
  add('--min_p', type=float, default=0.0, help='keep tokens this near the best')
  add('--seed', type=int, default=0, help='of the random choices')
  add('--batch', type=int, default=1, help='number of samples')
  add('--raw', action='store_true', help='write the bytes as they are')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


_ESCAPE = re.compile(rb'\\(x[0-9a-fA-F]{0,2}|[ntr0\\])')
_MEANINGS = {b'n': b'\n', b't': b'\t', b'r': b'\r', b'0': b'\0', b'\\': b'\\'}


def parse_prompt(text: str, flag: str = '--prompt') -> bytes:
  """Bytes of a command-line prompt with escapes such as `\\xff` and `\\n`.

  Args:
    text: Of the command line.
    flag: Where it was given, for messages.

  Raises:
    ValueError: If an escape is not complete.
  """

  def meaning(match: re.Match) -> bytes:
    name = match.group(1)
    if name in _MEANINGS:
      return _MEANINGS[name]
    if len(name) < 3:
      raise ValueError(
        f'{flag}={text!r} has a broken escape: \\x needs two hexadecimal '
        'digits. Write \\\\ for a backslash, or put the text into a file and '
        f'use {"--prompt_file" if flag == "--prompt" else "--file"}.'
      )
    return bytes.fromhex(name[1:].decode())

  return _ESCAPE.sub(meaning, text.encode('utf-8', 'surrogateescape'))


def _prompt(args: argparse.Namespace) -> bytes:
  if args.prompt_file is None:
    return parse_prompt(args.prompt)
  if args.prompt:
    raise ValueError('--prompt and --prompt_file were both given; choose one.')
  if args.prompt_file == '-':
    return sys.stdin.buffer.read()
  return pathlib.Path(args.prompt_file).read_bytes()


def note_length(run: run_lib.Run, prompt: bytes, num_bytes: int) -> None:
  """Says so if the text grows longer than the rows of the training."""
  trained = run.raw_config.get('data', {}).get('seq_len', 0)
  length = len(run.tokenizer.encode(prompt)) + num_bytes
  if trained and length > trained:
    print(
      f'note: the model was trained on rows of {trained} tokens; this text may '
      f'reach {length}, where it can be worse.',
      file=sys.stderr,
    )


def _options(args: argparse.Namespace) -> dict:
  import jax

  from jaxtok.decoding import sampling

  if args.batch < 1:
    raise ValueError(f'--batch={args.batch} must be >= 1.')
  if args.raw and args.batch > 1:
    raise ValueError('--raw writes one text; use --batch=1.')
  if args.num_bytes < 1:
    raise ValueError(f'num_bytes={args.num_bytes} must be >= 1.')
  config = sampling.Config(
    temperature=args.temperature,
    top_k=args.top_k,
    top_p=args.top_p,
    min_p=args.min_p,
  )
  rng = jax.random.key(args.seed)
  return {'num_bytes': args.num_bytes, 'rng': rng, 'sampling': config}


def _stream(run: run_lib.Run, prompt: bytes, options: dict, raw: bool) -> None:
  from jaxtok.decoding import text

  printer = display.StreamPrinter()
  model = run.model
  _write(prompt if raw else printer.push(prompt))
  start, num_bytes = time.perf_counter(), 0
  for piece in text.stream(model, run.tokenizer, prompt, **options):
    _write(piece if raw else printer.push(piece))
    num_bytes += len(piece)
  if not raw:
    _write(printer.push(b'', final=True) + '\n')
  _report(num_bytes, time.perf_counter() - start)


def _batch(run: run_lib.Run, prompt: bytes, options: dict, count: int) -> None:
  from jaxtok.decoding import text

  model, prompts = run.model, [prompt] * count
  start = time.perf_counter()
  texts = text.complete(model, run.tokenizer, prompts, **options)
  for i, continuation in enumerate(texts, start=1):
    print(f'--- sample {i} of {count}')
    print(display.printable(prompt + continuation))
  _report(sum(map(len, texts)), time.perf_counter() - start)


def _write(text: str | bytes) -> None:
  if isinstance(text, bytes):
    sys.stdout.buffer.write(text)
  else:
    print(text, end='')
  sys.stdout.flush()


def _report(num_bytes: int, seconds: float) -> None:
  rate = num_bytes / seconds
  print(
    f'[{num_bytes} bytes in {seconds:.1f} s with compilation, {rate:.0f} '
    'bytes/s]',
    file=sys.stderr,
  )


if __name__ == '__main__':
  sys.exit(main())
