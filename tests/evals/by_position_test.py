# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.data import cipher
from jaxtok.evals import base, by_position
from jaxtok.models import base as model_base
from jaxtok.objectives import next_token
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config().make()
V, B, T = TOKENIZER.vocab_size, 3, 10


class Table(nnx.Module):
  """A table of next-token logits."""

  def __init__(self):
    logits = np.random.default_rng(0).normal(size=(V, V)).astype('float32')
    self.table = nnx.Param(jnp.asarray(logits))

  def __call__(self, tokens_bt, **kwargs):
    return model_base.Output(hidden_btd=self.table[...][tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


def rows():
  """Text of letters; row 1 ends with another document, row 2 with padding."""
  rng = np.random.default_rng(1)
  ids = np.concatenate([TOKENIZER.encode(x) for x in (b'abcxyz', b'ABC .')])
  stream = rng.choice(ids, (B, T + 1)).astype(np.int32)
  documents = np.ones((B, T), np.int32)
  documents[1, 7:], documents[2, 4:] = 2, 0
  return {
    'tokens_bt': stream[:, :-1],
    'targets_bt': stream[:, 1:],
    'loss_mask_bt': (documents > 0).astype(np.float32),
    'segment_ids_bt': documents,
    'positions_bt': np.tile(np.arange(T, dtype=np.int32), (B, 1)),
    'num_bytes_bt': (documents > 0).astype(np.int32),
  }


def context(**fields):
  data = jax.tree.map(jnp.asarray, rows())
  return base.Context(
    **dict(
      tokenizer=TOKENIZER,
      batches=lambda split, max_bytes: iter([data, data]),
      corpus_id=lambda split, max_bytes: split,
      objective=next_token.Config().make(),
      workdir=None,
    )
    | fields
  )


def measure(**fields):
  config = by_position.Config(edges=(0, 2, 5), **fields)
  return config.make(context())(Table(), jax.random.key(0))


def nats(logits, tokens, targets):
  logits = np.asarray(logits, np.float64)[tokens]
  picked = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  return np.log(np.exp(logits).sum(-1)) - picked


@pytest.mark.parametrize('num_keys', [0, 1, 2])
def test_windows_equal_a_loop_over_rows_in_their_ciphers(num_keys):
  data, table = rows(), Table().table[...]
  sums, counts = np.zeros(3), np.zeros(3)
  for number in range(2):  # The same rows twice, under other keys.
    rng = np.random.default_rng((5, number))
    keys = cipher.token_tables(TOKENIZER, rng, B, max(num_keys, 1))
    for b in range(B):
      stream = [*data['tokens_bt'][b], data['targets_bt'][b, -1]]
      if num_keys:  # The target at place 5, token 6, is the second half's.
        stream = [
          keys[b, num_keys - 1 if j > 5 else 0, x] for j, x in enumerate(stream)
        ]
      cost = nats(table, np.array(stream[:-1]), np.array(stream[1:]))
      for t in np.flatnonzero(data['segment_ids_bt'][b] == 1):
        window = sum(t >= edge for edge in (2, 5))
        sums[window] += cost[t]
        counts[window] += 1
  got = measure(num_keys=num_keys, seed=5)
  for i, edge in enumerate((0, 2, 5)):
    # Sums of 30 float32 terms of order 5.
    assert got[f'nats_{edge}'] == pytest.approx(sums[i] / counts[i], rel=1e-5)
  assert got['targets'] == counts.sum()
  assert got['corpus'] == 'validation'


def test_a_window_without_targets_is_left_out():
  config = by_position.Config(edges=(8, 10, 500))
  got = config.make(context())(Table(), jax.random.key(0))
  assert {name for name in got if 'nats' in name} == {'nats_8'}


def test_what_cannot_be_measured_is_refused():
  with pytest.raises(ValueError, match='num_keys=3 must be 0, 1 or 2'):
    by_position.Config(num_keys=3)
  with pytest.raises(ValueError, match=r'edges=\(4, 4\) must be places >= 0'):
    by_position.Config(edges=(4, 4))
  with pytest.raises(TypeError, match='object has no per_target'):
    by_position.Config().make(context(objective=object()))
