# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Middles of several texts at once, and the three ways to cut a prefix.

The law of covers is enumerated in `byte_probs_test.py`.
"""

import numpy as np
import pytest

from jaxtok.decoding import byte_infill, byte_probs
from jaxtok.tokenizers import hf
from tests.decoding import byte_probs_test as oracle

_TEXT = b"we'll hell\n\nell'el   le\n \n'lle ee ll  \n\n" * 40
_PREFIXES = [b"el'l", b"we'll hell\n\nel", b'']
_SUFFIXES = [b'le', b'', b" hell ell'el"]


@pytest.fixture(scope='module')
def model():
  tokenizer = hf.train_bpe([_TEXT], 259 + 20)
  return byte_probs.ByteModel(oracle.random_lm(tokenizer), tokenizer)


def make_config(**fields):
  return byte_infill.Config(prefix=1, suffix=2, middle=3, **fields)


@pytest.mark.parametrize('cut', byte_infill.CUTS)
@pytest.mark.parametrize('order', byte_infill.ORDERS)
def test_texts_together_have_the_laws_that_they_have_alone(model, order, cut):
  config = make_config(order=order, cut=cut, max_covers=5)
  start = lambda p, s: byte_infill.start(
    model, p, s, num_bytes=3, config=config
  )
  together = start(_PREFIXES, _SUFFIXES)
  alone = [start(*texts) for texts in zip(_PREFIXES, _SUFFIXES, strict=True)]
  for byte in (*b'l ', None):
    laws = together.logprobs(normalise=False)
    assert laws.shape == (3, 257)
    for i, one in enumerate(alone):
      # Sums of about 20 float32 logarithms.
      np.testing.assert_allclose(
        laws[i], one.logprobs(normalise=False)[0], atol=1e-4
      )
      np.testing.assert_allclose(
        together.dropped_b[i], one.dropped_b[0], atol=1e-5
      )
    if byte is not None:
      together.append([byte] * 3)
      for one in alone:
        one.append([byte])
  # The laws are not those of one text three times.
  assert np.abs(laws[0] - laws[1])[list(b'el ')].max() > 1e-2


@pytest.mark.parametrize('order', byte_infill.ORDERS)
def test_other_cuts_equal_their_definitions(model, order):
  prefix, suffix, tokenizer = b"we'l", b'le', model.tokenizer
  uncached = oracle.Uncached(model.model, 24)
  keep = oracle.has_a_continuation(tokenizer, b"el' \n", 2)
  ids = tokenizer.encode(suffix).tolist()
  head = tokenizer.encode(prefix).tolist()
  piece = tokenizer.token_bytes(head[-1])
  for cut, kept, forced in (
    ('tokens', head, b''),
    ('healed', head[:-1], piece),
  ):
    if order == 'spm':
      row = [model.bos, 1, 2, *ids, 3, *kept]
    else:
      row = [model.bos, 1, *kept, 2, *ids, 3]
    want = []
    for byte in b"el' ":
      found = oracle.all_covers(tokenizer, forced + bytes([byte]), keep)
      want.append(
        np.logaddexp.reduce([uncached.score(row, tokens) for tokens in found])
      )
    state = byte_infill.start(
      model,
      [prefix],
      [suffix],
      num_bytes=1,
      config=make_config(order=order, cut=cut),
    )
    got = state.logprobs(normalise=False)[0][list(b"el' ")]
    want = np.array(want)
    # Of sequences; the state's are given that the bytes taken back come again.
    np.testing.assert_allclose(got - got[0], want - want[0], atol=1e-4)


def test_mistakes_are_named(model):
  config = make_config()
  start = lambda p, s, config=config: byte_infill.start(
    model, p, s, num_bytes=1, config=config
  )
  with pytest.raises(TypeError, match='of type list and suffixes of type byte'):
    start([b'e'], b'l')
  # Checks of argument types, which look at one random item, may come first.
  with pytest.raises(TypeError, match='suffixes'):
    start([b'e', b'e'], [b'l', 3])
  with pytest.raises(
    ValueError, match='2 prefixes and 1 suffixes: give one of'
  ):
    start([b'e', b'e'], [b'l'])
  with pytest.raises(ValueError, match='0 prefixes and 0 suffixes'):
    start([], [])
  with pytest.raises(ValueError, match="cut='mid' must be one of covers, heal"):
    make_config(cut='mid')
  with pytest.raises(ValueError, match='max_covers=0 must be >= 1'):
    make_config(max_covers=0)
  with pytest.raises(ValueError, match='before has 1 lists of ids for 2 prom'):
    model.start([b'e', b'l'], 1, before=[(257,)])
  with pytest.raises(ValueError, match=r'before=\(\) must be one id or more'):
    model.start([b'e', b'l'], 1, before=[(257,), ()])
