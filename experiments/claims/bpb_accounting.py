# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits per byte do not depend on the tokenizer.

Claim (ours; no paper): a byte model and a BPE model that define the same
distribution over texts score the same bits per byte, to 1e-6, when both go
through the real pipeline: tokenizer, rows of text, objective, eval.

Check. Texts come from a Markov chain over the ASCII bytes, fitted to Python's
standard library, in which a text may end after any byte. The byte model is
that chain. A BPE vocabulary is trained on texts of the chain, and the chain's
distribution is rewritten over its tokens without approximation:

* A byte string has exactly one BPE encoding, and a token sequence is an
  encoding if and only if each pair of neighbours is one (here also at the
  borders of words, because words end where two neighbouring bytes are of
  different classes).
* Let Z(t) be the probability that what follows a text ending in token t leaves
  t as it is. With K(t, u) = [t u is an encoding] P(bytes of u | last byte of t)
  and e(t) = P(end | last byte of t), it solves Z = K Z + e.
* The token model is Q(u | t) = K(t, u) Z(u) / Z(t), Q(end | t) = e(t) / Z(t).
  Over a whole text the Z cancel, and what is left is the chain's probability.

Z of the start must come out as 1: the encodings are then neither too many nor
too few (`start_error`). The models are tables of these logarithms; both, and
the chain evaluated directly in double precision, must agree.

The same effect at full size: whether a comparison of tokenizers in bits per
byte is about the models or about the bookkeeping. Public leaderboards have
been off by 4 to 20 % (architecture.md, section 1).
"""

import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.config import configclass
from jaxtok.data import stdlib, text
from jaxtok.evals import base as evals_base
from jaxtok.evals import bpb
from jaxtok.models import base as models_base
from jaxtok.objectives import next_token
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import hf

TITLE = 'Byte accounting'
PAPER = ''
CLAIM = (
  'A byte model and a BPE model of the same distribution over texts score the '
  'same bits per byte.'
)
THRESHOLD = {
  'bpb_difference': 'every <= 1e-6',  # Between the two models.
  'error_to_exact': 'every <= 1e-6',  # The worse of the two.
  'start_error': 'every <= 1e-9',  # |Z(start) - 1|.
}
SEEDS = (0, 1, 2)

_END = 128  # The state before a text, and the symbol after it.
_WORDS = r'[A-Za-z0-9_]+|[^A-Za-z0-9_]+'
_MEAN_LENGTH = 300
_IMPOSSIBLE = -1e30  # A logit; its probability is exactly 0 in float32.


def fit_chain(num_bytes: int = 1_000_000) -> np.ndarray:
  """Transition probabilities [129, 129]; row and column 128 are the ends."""
  counts = np.zeros((_END + 1, _END + 1))
  for record in stdlib.Stdlib().make('train'):
    data = np.frombuffer(record['data'], np.uint8)
    data = data[data < _END]
    np.add.at(counts, (data[:-1], data[1:]), 1)
    np.add.at(counts, (_END, data), 1)  # Texts begin anywhere.
    if counts[:_END].sum() > num_bytes:
      break
  counts[:, :_END] += 0.01  # Any ASCII text is possible.
  chain = counts / counts.sum(axis=1, keepdims=True)
  chain[:_END] *= 1 - 1 / _MEAN_LENGTH
  chain[:_END, _END] = 1 / _MEAN_LENGTH
  return chain


def draw_texts(chain: np.ndarray, num: int, seed: int) -> list[bytes]:
  """Texts of the chain, and an empty one, so that each end is a target."""
  rng = np.random.default_rng(seed)
  cumulative = np.cumsum(chain, axis=1)
  state = np.full(num, _END)
  columns = []
  is_open = np.ones(num, bool)
  while is_open.any():
    drawn = rng.random(num)[:, None] * cumulative[state][:, -1:]
    state = np.where(is_open, (cumulative[state] < drawn).sum(axis=1), _END)
    is_open &= state != _END
    columns.append(state)
  rows = np.stack(columns, axis=1)
  lengths = (rows == _END).argmax(axis=1)
  texts = [
    bytes(row[:n].tolist()) for row, n in zip(rows, lengths, strict=True)
  ]
  return [*texts, b'']


def bits_of(chain: np.ndarray, texts: list[bytes]) -> float:
  """What the texts cost under the chain, in double precision."""
  bits = []
  for data in texts[:-1]:
    states = np.array([_END, *data, _END])
    bits += [-np.log2(chain[states[:-1], states[1:]]).sum()]
  return math.fsum(bits)


def token_chain(
  chain: np.ndarray, tokenizer: hf.HfTokenizer
) -> tuple[np.ndarray, float]:
  """The same distribution over tokens.

  Returns:
    Transition probabilities [v, v], where BOS stands for start and end; and
    Z of the start.
  """
  v, bos = tokenizer.vocab_size, tokenizer.special.bos
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(v)]
  ids = [i for i, b in enumerate(pieces) if b and max(b) < _END]
  ids = [i for i in ids if tokenizer.encode(pieces[i]).tolist() == [i]]
  first = np.array([pieces[i][0] for i in ids])
  last = np.array([pieces[i][-1] for i in ids])
  inside = np.array(
    [
      math.prod(chain[a, b] for a, b in itertools.pairwise(p))
      for p in (pieces[i] for i in ids)
    ]
  )
  step = chain[last][:, first] * inside * _pairs(tokenizer, pieces, ids)
  end = chain[last, _END]
  z = np.linalg.solve(np.eye(len(ids)) - step, end)
  start = chain[_END, first] * inside * z
  table = np.zeros((v, v))
  table[np.ix_(ids, ids)] = step * z / z[:, None]
  table[ids, bos] = end / z
  table[bos, ids] = start / start.sum()
  return table, float(start.sum())


def _pairs(
  tokenizer: hf.HfTokenizer, pieces: list[bytes], ids: list[int]
) -> np.ndarray:
  """1 where two tokens, joined and encoded again, stay the same two."""
  is_pair = np.zeros((len(ids), len(ids)))
  for i, left in enumerate(ids):
    joined = tokenizer.encode_batch([pieces[left] + pieces[u] for u in ids])
    for j, row in enumerate(joined.rows()):
      is_pair[i, j] = row.tolist() == [left, ids[j]]
  return is_pair


class Table(nnx.Module):
  """A model whose logits are the row of a table for the newest token."""

  def __init__(self, chain: np.ndarray):
    with np.errstate(divide='ignore'):
      logits = np.maximum(np.log(chain), _IMPOSSIBLE)
    self.logits_vv = nnx.Param(jnp.asarray(logits, jnp.float32))

  def __call__(self, tokens_bt, **unused):
    return models_base.Output(hidden_btd=self.logits_vv[tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


@configclass
class Texts:
  """A source of the given texts, the same for every split."""

  texts: tuple[bytes, ...]
  key: str

  def make(self, split: str) -> 'Texts':
    return self

  def __len__(self) -> int:
    return len(self.texts)

  def __getitem__(self, index: int) -> dict[str, bytes | str]:
    return {'data': self.texts[index], 'name': str(index)}


def evaluate(
  chain: np.ndarray, tokenizer, source: Texts, workdir: pathlib.Path
) -> dict[str, float | str]:
  """Puts a table through tokenizer, rows, objective and eval."""
  data = text.Config(source=source, seq_len=64)
  data = data.make(tokenizer, cache_dir=workdir / 'cache')
  context = evals_base.Context(
    tokenizer=tokenizer,
    batches=lambda split, max_bytes: data.eval_batches(
      split, batch_size=64, max_bytes=max_bytes
    ),
    corpus_id=data.corpus_id,
    objective=next_token.Config().make(),
    workdir=workdir,
  )
  return bpb.Config().make(context)(Table(chain), jax.random.key(0))


def measure(
  workdir, *, seed: int, num_texts: int = 1000, vocab_size: int = 512
) -> dict[str, float]:
  """Measures the claim; see the module."""
  workdir = pathlib.Path(workdir)
  chain = fit_chain()
  bpe = hf.train_bpe(
    draw_texts(chain, num_texts, 2 * seed + 1), vocab_size, pattern=_WORDS
  )
  tokens, z_start = token_chain(chain, bpe)
  byte = byte_tokenizer.Config().make()
  padded = np.zeros((byte.vocab_size, byte.vocab_size))
  symbols = [*range(_END), byte.special.bos]
  padded[np.ix_(symbols, symbols)] = chain

  texts = draw_texts(chain, num_texts, 2 * seed)
  num_bytes = sum(map(len, texts))
  source = Texts(texts=tuple(texts), key=f'bpb_accounting:{seed}:{num_texts}')
  exact = bits_of(chain, texts) / num_bytes
  found = {
    'byte': evaluate(padded, byte, source, workdir),
    'bpe': evaluate(tokens, bpe, source, workdir),
  }
  for result in found.values():
    if result['bytes'] != num_bytes:
      raise AssertionError(f'{result["bytes"]} of {num_bytes} bytes charged.')
  scores = {name: result['bpb'] for name, result in found.items()}
  return {
    'bpb_difference': abs(scores['byte'] - scores['bpe']),
    'error_to_exact': max(abs(s - exact) for s in scores.values()),
    'start_error': abs(z_start - 1),
    'bpb': exact,
    'bytes': num_bytes,
    'byte_tokens_per_byte': found['byte']['tokens_per_byte'],
    'bpe_tokens_per_byte': found['bpe']['tokens_per_byte'],
  }
