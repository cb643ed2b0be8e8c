# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Why some compressed text can be learned: the analyses of Lester et al. 2024.

  python -m jaxtok.analysis.compressed_text --out=runs/analysis
  python -m jaxtok.analysis.compressed_text --out=runs/analysis \\
      --only=places,spelling --runs runs/equalinfo runs/bytes

arXiv:2404.03626. Draws one picture per analysis and writes the numbers beside
it. Without runs:

  trivial    bits per byte of uniform and unigram models, by tokenizer
  bits       KL of bit n-grams and tokens from uniform, with a control
  stability  edit distances of one sentence's tokens behind 500 words
  texts      which texts a token stands for, by place in the window
  resets     compression by how often M1 is reset
  probes     can a model learn to compress or decompress? (minutes)

From runs of `experiments.compressed_text`, given by --runs:

  places     accuracy by place in the window over training
  vocabulary bits per byte against tokens and against bytes seen
  spelling   fine-tuning on the letters of words
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtok.analysis import (
  bit_ngrams,
  pictures,
  places,
  probes,
  resets,
  spelling,
  stability,
  trivial,
  window_texts,
)
from jaxtok.data import source as source_lib
from jaxtok.entropy import model_file, table
from jaxtok.entropy.base import NextByteModel
from jaxtok.entropy.formats import WindowFormat
from jaxtok.runs import compare, files, plots
from jaxtok.runs import run as run_lib
from jaxtok.tokenizers import arithmetic, gzip, neural
from jaxtok.tokenizers import bytes as byte_tokenizer

EXAMPLE_BYTES = 10_240  # Of each text, as in the paper.

SENTENCE = (
  b'the quick brown fox jumps over the lazy dog, and nobody who saw it that '
  b'morning could say afterwards which of them had been more surprised.'
)


def make_tokenizers(
  model: NextByteModel,
  documents: Sequence[bytes],
  *,
  token_bits: int = 8,
  window_bits: Sequence[int] = (16, 32, 64, 128),
) -> dict[str, Any]:
  """The tokenizers of the paper, over one M1.

  Args:
    model: M1.
    documents: Text whose byte frequencies `StaticAC` uses.
    token_bits: 8 or 16.
    window_bits: Of Equal-Info Windows.
  """
  found = {
    f'EqualInfo b={b}': neural.NeuralCompressionTokenizer(
      model, WindowFormat(window_bits=b), token_bits=token_bits
    )
    for b in window_bits
  }
  static = table.fit(documents, order=0)
  return found | {
    'AC': arithmetic.ArithmeticTokenizer(model, token_bits=token_bits),
    'StaticAC': arithmetic.ArithmeticTokenizer(static, token_bits=token_bits),
    'GZip': gzip.GzipTokenizer(token_bits=token_bits),
  }


@dataclasses.dataclass
class Inputs:
  """What the analyses work on; tokenizers are made when they are first used.

  Attributes:
    learn: Documents that M1 and StaticAC know.
    test: Held-out documents.
    model: M1.
    runs: Of `experiments.compressed_text`.
    steps: Of probes.
  """

  learn: list[bytes]
  test: list[bytes]
  model: NextByteModel
  runs: list[run_lib.Run]
  steps: int

  def __post_init__(self):
    self._tokenizers = {}

  @property
  def tokenizers(self) -> Mapping[str, Any]:
    """See `make_tokenizers`."""
    if not self._tokenizers:
      self._tokenizers = make_tokenizers(self.model, self.learn)
    return self._tokenizers

  def require_runs(self, name: str) -> list[run_lib.Run]:
    """The runs, or ValueError if there are none."""
    if not self.runs:
      raise ValueError(f'{name} reads runs; name their folders with --runs.')
    return self.runs


def bits(
  tokenizers: Mapping[str, Any],
  documents: Sequence[bytes],
  *,
  num_parts: int = 100,
) -> tuple[dict[str, bit_ngrams.Divergence], ...]:
  """KL of overlapping n-grams, and of tokens, by name; with coin tosses.

  Args:
    tokenizers: Of compressed text.
    documents: Texts.
    num_parts: Disjoint parts; see `bit_ngrams.divergence`.
  """
  rows = {
    name: bit_ngrams.text_bits(tokenizer, documents)
    for name, tokenizer in tokenizers.items()
  }
  shortest = min(map(len, rows.values()))
  rows['coin tosses'] = bit_ngrams.random_bits(shortest)
  # Equal lengths, so that what is left of the bias is the same for all.
  rows = {name: row[:shortest] for name, row in rows.items()}
  return tuple(
    {
      name: bit_ngrams.divergence(
        row, sizes, num_parts=num_parts, overlapping=overlapping
      )
      for name, row in rows.items()
    }
    for sizes, overlapping in ((range(1, 17), True), ((1, 2, 4, 8, 16), False))
  )


def _trivial(its: Inputs) -> tuple[plots.Picture, Any]:
  tokenizers = {'bytes': byte_tokenizer.Config().make(), **its.tokenizers}
  found = {k: trivial.measure(t, its.test) for k, t in tokenizers.items()}
  numbers = {
    name: {
      'bytes_per_token': x.bytes_per_token,
      'uniform_bpb': x.uniform_bpb,
      'unigram_bpb': x.unigram_bpb,
    }
    for name, x in found.items()
  }
  return pictures.draw_trivial(found), numbers


def _bits(its: Inputs) -> tuple[plots.Picture, Any]:
  overlapping, tokens = bits(its.tokenizers, its.test)
  numbers = {
    kind: {
      name: dict(zip(x.sizes.tolist(), x.percentiles().tolist(), strict=True))
      for name, x in found.items()
    }
    for kind, found in (('overlapping', overlapping), ('tokens', tokens))
  }
  return pictures.draw_divergence(overlapping, tokens), numbers


def _stability(its: Inputs) -> tuple[plots.Picture, Any]:
  words = stability.common_words(its.learn)
  found = {
    name: stability.measure(tokenizer, SENTENCE, words)
    for name, tokenizer in its.tokenizers.items()
  }
  numbers = {
    name: {
      'tokens': float(x.lengths.mean()),
      'distance': float(x.distances.mean()),
      'relative': float(x.relative.mean()),
    }
    for name, x in found.items()
  }
  return pictures.draw_stability(found), numbers


def _texts(its: Inputs) -> tuple[plots.Picture, Any]:
  found = window_texts.collect(its.tokenizers['EqualInfo b=16'], its.test)
  counts, agreement = found.counts(), found.agreement()
  numbers = {
    f'token {place}': {
      'values': int((counts[place] > 0).sum()),
      'same_first_byte': float(
        np.nansum(counts[place] * agreement[place]) / counts[place].sum()
      ),
      'most_frequent': {
        str(token): [repr(x) for x in found.common(place, token)]
        for token in np.argsort(-counts[place])[:8].tolist()
      },
    }
    for place in range(found.places)
  }
  return pictures.draw_window_texts(found), numbers


def _resets(its: Inputs) -> tuple[plots.Picture, Any]:
  found = resets.measure(its.model, its.test)
  numbers = {k: v.tolist() for k, v in dataclasses.asdict(found).items()}
  return pictures.draw_resets(found), numbers


def _probes(its: Inputs) -> tuple[plots.Picture, Any]:
  config = probes.Config(steps=its.steps)
  texts = probes.pieces(its.learn, config.num_bytes, 20_000)
  test = probes.pieces(its.test, config.num_bytes, 500)
  jobs = [
    (f'{task} {name}', name, task)
    for name in ('AC', 'EqualInfo b=16')
    for task in ('compress', 'decompress')
  ]
  found = {}
  for title, name, task in [*jobs, ('control', 'AC', 'control')]:
    print(f'probe {len(found) + 1}/{len(jobs) + 1}: {title}', flush=True)
    found[title] = probes.run(its.tokenizers[name], texts, test, task, config)
    print(f'  held out: {found[title].score}', flush=True)
  numbers = {k: dataclasses.asdict(x.score) for k, x in found.items()}
  return pictures.draw_probes(found), numbers


def _places(its: Inputs) -> tuple[plots.Picture, Any]:
  run = its.require_runs('places')[0]
  found = places.accuracy(run)
  numbers = {'run': str(run.workdir), 'gain': found.gain[-1].tolist()}
  return pictures.draw_places(found), numbers


def _vocabulary(its: Inputs) -> tuple[plots.Picture, Any]:
  some = its.require_runs('vocabulary')
  by_tokens, by_bytes = (
    compare.compare(some, x=x) for x in ('tokens', 'bytes')
  )
  numbers = {
    group.name: {
      'tokens': group.high,
      'bytes': other.high,
      'bpb': group.final()[0],
    }
    for group, other in zip(by_tokens.methods, by_bytes.methods, strict=True)
  }
  return by_bytes.picture(), numbers


def _spelling(its: Inputs) -> tuple[plots.Picture, Any]:
  words = stability.common_words(its.learn, 2000)
  words = [word for word in words if len(word) >= 3]
  found = {
    run.name: spelling.measure(run.model, run.tokenizer, words)
    for run in its.require_runs('spelling')
  }
  numbers = {
    name: {
      'before': dataclasses.asdict(x.before),
      'after': dataclasses.asdict(x.after),
    }
    for name, x in found.items()
  }
  return pictures.draw_spelling(found), numbers


ANALYSES: dict[str, Callable[[Inputs], tuple[plots.Picture, Any]]] = {
  'trivial': _trivial,
  'bits': _bits,
  'stability': _stability,
  'texts': _texts,
  'resets': _resets,
  'probes': _probes,
  'places': _places,
  'vocabulary': _vocabulary,
  'spelling': _spelling,
}
_DEFAULT = 'trivial,bits,stability,texts,resets'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    chosen = args.only.split(',')
    if unknown := [name for name in chosen if name not in ANALYSES]:
      raise ValueError(
        f'--only={unknown[0]} must be some of {", ".join(ANALYSES)}.'
      )
    its = _inputs(args)
    for number, name in enumerate(chosen, start=1):
      print(f'[{number}/{len(chosen)}] {name}', flush=True)
      picture, numbers = ANALYSES[name](its)
      paths = picture.save(pathlib.Path(args.out) / name)
      paths.append(pathlib.Path(args.out) / f'{name}.json')
      files.write_json(paths[-1], numbers)
      print(json.dumps(numbers, indent=1)[:600])
      print(*(f'wrote {path}' for path in paths), sep='\n', flush=True)
  except (ValueError, OSError, ImportError) as error:
    if args.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def examples(
  documents: Iterable[bytes], num_bytes: int = EXAMPLE_BYTES
) -> list[bytes]:
  """Joins documents and cuts them into texts of one length.

  As in the paper; also, coders are then compiled for one shape. Text of less
  than `num_bytes` stays as it is; otherwise the rest is left out.
  """
  data = b''.join(documents)
  last = max(1, len(data) - num_bytes + 1)
  return [data[at : at + num_bytes] for at in range(0, last, num_bytes)]


def _inputs(args: argparse.Namespace) -> Inputs:
  text = source_lib.from_spec(args.data)
  head = lambda split: list(
    source_lib.documents(source_lib.head(text.make(split), args.max_bytes))
  )
  learn = head('train')
  model = (
    model_file.load_model(args.model)
    if args.model
    else table.fit(learn, order=3, num_rows=1 << 15)
  )
  loaded = [run_lib.load(folder) for folder in args.runs]
  test = examples(head('validation'))
  return Inputs(examples(learn), test, model, loaded, args.steps)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.analysis.compressed_text',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--out', required=True, help='folder for pictures and numbers')
  add('--only', default=_DEFAULT, help=f'some of {",".join(ANALYSES)}')
  add('--data', default='stdlib', help='file, folder, glob, tfds:NAME, stdlib')
  add('--max_bytes', type=int, default=4_000_000, help='of each split')
  add('--model', help='M1, written by entropy.save_model; default: counted')
  add('--runs', nargs='+', default=[], help='run directories')
  add('--steps', type=int, default=1000, help='of each probe')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


if __name__ == '__main__':
  sys.exit(main())
