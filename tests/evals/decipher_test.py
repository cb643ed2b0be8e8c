# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.evals import base, decipher
from jaxtok.models import base as model_base
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import hf

TOKENIZER = byte_tokenizer.Config().make()
# Frequencies tell these letters apart.
TEXT = b'e' * 60 + b't' * 25 + b'A' * 10 + b'.' * 5


class Counter(nnx.Module):
  """States: how often the token has stood in the row so far, and noise."""

  def __init__(self, is_blind=False):
    self.is_blind = is_blind
    self.noise = nnx.Param(jnp.zeros(()))

  def __call__(self, tokens_bt, **kwargs):
    t = tokens_bt.shape[1]
    same_bts = tokens_bt[:, :, None] == tokens_bt[:, None]
    share_bt = (same_bts & jnp.tri(t, dtype=bool)).sum(-1) / (jnp.arange(t) + 1)
    share_bt = share_bt * (not self.is_blind) + self.noise[...]
    return model_base.Output(jnp.stack([share_bt, share_bt**2], -1))


def rows(seed, num=24, t=200):
  rng = np.random.default_rng(seed)
  text = rng.choice(np.frombuffer(TEXT, np.uint8), (num, t))
  tokens = np.stack([TOKENIZER.encode(x.tobytes()) for x in text])
  documents = np.ones((num, t), np.int32)
  documents[:, 190:] = 2
  documents[-1] = 0
  return {
    'tokens_bt': jnp.asarray(tokens, jnp.int32),
    'segment_ids_bt': jnp.asarray(documents),
    'positions_bt': jnp.tile(jnp.arange(t), (num, 1)),
    'num_bytes_bt': jnp.asarray((documents > 0).astype(np.int32)),
  }


def context(**fields):
  parts = {'train': [rows(0), rows(1)], 'validation': [rows(2)]}
  return base.Context(
    **dict(
      tokenizer=TOKENIZER,
      batches=lambda split, max_bytes: iter(parts[split]),
      corpus_id=lambda split, max_bytes: split,
      objective=None,
      workdir=None,
    )
    | fields
  )


def measure(model):
  config = decipher.Config(steps=400)
  return config.make(context())(model, jax.random.key(0))


def test_keys_are_read_off_states_that_tell_letters_apart():
  got = measure(Counter())
  # Only the first few places of a letter are confused with another's; who says
  # the same everywhere has 1/3 of the keys and 0.63 of the letters.
  assert got['key'] > 0.85
  assert got['letters'] > 0.95
  assert got['most_frequent'] < got['letters_alone'] < got['letters']
  # 60 of 95 letters are e; two standard errors of 4,000 draws are 0.015.
  assert got['most_frequent'] == pytest.approx(60 / 95, abs=0.03)
  assert (got['rows'], got['bytes']) == (24, 23 * 200)


def test_states_that_say_nothing_give_the_most_frequent_letter():
  got = measure(Counter(is_blind=True))
  assert got['letters'] == got['letters_alone'] == got['most_frequent']
  assert got['key'] == pytest.approx(1 / 3, abs=0.01)  # Of three letters.


@pytest.mark.parametrize('whole', [False, True])
def test_evidence_equals_a_loop(whole):
  rng = np.random.default_rng(0)
  logprob = rng.normal(size=(2, 7, 3))
  names = rng.integers(-1, 4, (2, 7))
  got = decipher.evidence(logprob, names, whole=whole)
  for b in range(2):
    for t in range(7):
      places = [
        s
        for s in range(7 if whole else t + 1)
        if names[b, s] == names[b, t] and names[b, t] >= 0
      ]
      want = logprob[b, places].sum(0)
      np.testing.assert_allclose(got[b, t], want, atol=1e-12)


def test_tokens_of_several_letters_are_refused():
  bpe = hf.train_bpe([b'abab' * 50], 259 + 4)
  with pytest.raises(ValueError, match='has tokens of 16 bytes, so a row of'):
    decipher.Config().make(context(tokenizer=bpe))
  with pytest.raises(ValueError, match='steps must be >= 1, got 0'):
    decipher.Config(steps=0)
