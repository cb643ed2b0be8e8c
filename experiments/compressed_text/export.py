# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a trained M1 into integers, with the dictionary of its windows.

  python -m experiments.compressed_text.export --workdir=runs/m1 \\
      --output=jaxtok/entropy/weights

Writes `m1.npz` and `m1_windows16.npz`, and prints what a model card needs:
hashes of the data, and bits per byte of the integers beside the model that was
trained, on the validation text, cut into pieces that both start anew in. With
`--float_twin=RUN`, also those of a model trained without any rounding:

  python -m experiments.compressed_text --workdir=runs/m1_float \\
      --config=experiments/compressed_text/configs/m1.py \\
      --config.model.is_quantized=False
"""

import argparse
import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import cli
from jaxtok.entropy import (
  dictionary,
  integer_model,
  model_file,
  shipped,
  stream,
)
from jaxtok.models import int_byte_lm
from jaxtok.runs import run as run_lib
from jaxtok.train import checkpoint

_PIECE, _ROWS = 4096, 16  # Bytes of a piece, pieces of a call.


@cli.one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
  """Exports a run."""
  args = _parser().parse_args(argv)
  run = run_lib.load(args.workdir)
  unrounded = _unrounded(args.float_twin) if args.float_twin else None
  twin = _twin(run, args.step)
  model = twin.export()
  words = dictionary.compile_window_dictionary(model)
  folder = pathlib.Path(args.output)
  folder.mkdir(parents=True, exist_ok=True)
  model_file.save_model(model, folder / shipped.MODEL)
  words.save(folder / shipped.DICTIONARY)
  facts = {
    'model SHA-256': model.fingerprint(),
    'dictionary SHA-256': words.fingerprint(),
    'parameters': model.num_params,
    'strings in the dictionary': len(words.used_words),
    'longest string': words.max_symbols,
    'bytes of both files': sum(x.stat().st_size for x in folder.glob('m1*')),
    **_data(run),
  }
  text = _validation(run, args.max_bytes)
  facts |= compare({'on the grid': twin, 'unrounded': unrounded}, model, text)
  for name, value in facts.items():
    print(f'{name:28}{value}', flush=True)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--workdir', required=True, help='run of configs/m1.py')
  add('--step', type=int, help='checkpoint; by default the newest')
  add('--output', required=True, help='folder to write to')
  add('--float_twin', help='run with is_quantized=False, to compare with')
  add('--max_bytes', type=int, default=400_000, help='of validation text')
  return parser


def _twin(run: run_lib.Run, step: int | None) -> int_byte_lm.ByteTwin:
  """The model of a checkpoint."""
  if step is None:
    return run.model
  model = nnx.eval_shape(lambda: run.config.model.make(nnx.Rngs(0)))
  params = checkpoint.restore_params(run.workdir, step)
  nnx.update(model, jax.tree.map(jnp.asarray, params))
  return model


def _unrounded(workdir: str) -> int_byte_lm.ByteTwin:
  """The model of a run that does not round.

  Raises:
    ValueError: If it does.
  """
  run = run_lib.load(workdir)
  if run.config.model.is_quantized:
    raise ValueError(
      f'--float_twin={workdir} must be a run without rounding. Train it with '
      '--config.model.is_quantized=False.'
    )
  return run.model


def _data(run: run_lib.Run) -> dict[str, Any]:
  """Hashes of the files that the run read, and of all training bytes."""
  text = run.config.data.make(run.tokenizer)
  facts = {
    f'{split} bytes, BLAKE2': f'{text.num_bytes(split)} {text.corpus_id(split)}'
    for split in ('train', 'validation')
  }
  for source in run.config.data.source.sources:
    if hasattr(source, 'path'):
      path = pathlib.Path(source.path)
      digest = hashlib.sha256(path.read_bytes()).hexdigest()
      facts[f'SHA-256 of {path.name}'] = digest
  return facts


def _validation(run: run_lib.Run, max_bytes: int) -> bytes:
  text = run.config.data.make(run.tokenizer)
  return b''.join(text.documents('validation', max_bytes))


def compare(
  twins: Mapping[str, int_byte_lm.ByteTwin | None],
  model: integer_model.IntByteLM,
  text: bytes,
) -> dict[str, Any]:
  """Bits per byte of trained models and of the integers on a text.

  Args:
    twins: Trained models by name; those that are None are left out.
    model: The integers.
    text: At least `_PIECE * _ROWS` bytes; the rest of it is left out.
  """
  num = len(text) // (_PIECE * _ROWS) * _ROWS
  symbols = np.frombuffer(text, np.uint8, num * _PIECE).astype(np.int32)
  symbols = symbols.reshape(-1, _ROWS, _PIECE)
  lengths = np.full(_ROWS, _PIECE)
  total = sum(stream.code_length(x, lengths, model).sum() for x in symbols)
  bits = float(total / symbols.size)
  found: dict[str, Any] = {'bits per byte, integers': round(bits, 5)}
  for name, twin in twins.items():
    if twin is not None:
      nats = nnx.jit(_nats)
      its = sum(float(nats(twin, jnp.asarray(x))) for x in symbols)
      its /= symbols.size * math.log(2)
      found[f'... {name}'] = round(its, 5)
      found[f'integers / {name}'] = f'{100 * (bits / its - 1):+.3f} %'
  return found


def _nats(model: int_byte_lm.ByteTwin, symbols_bt: Any) -> Any:
  inputs_bt = jnp.pad(symbols_bt, ((0, 0), (1, 0)), constant_values=257)
  logits = model.logits(model(inputs_bt[:, :-1]).hidden_btd)
  logprobs = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(logprobs, symbols_bt[..., None], axis=2).sum()


if __name__ == '__main__':
  main()
