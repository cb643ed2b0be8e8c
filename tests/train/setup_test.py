# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models and tokenizers that mean different things by the same ids."""

import dataclasses

import pytest

from jaxtok.diffusion import mdlm
from jaxtok.models import (
  blt,
  hat,
  hat2,
  mrt5,
  patcher,
  spacebyte,
  transformer,
  word_pooled,
)
from jaxtok.nn import segmenters, shorteners
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import word_bytes
from jaxtok.train import errors, setup

BYT5 = byte_tokenizer.Config(map='byt5')
WORDS = word_bytes.Config(longest=32)


def fixed(offset):
  rule = segmenters.Whitespace(offset=offset)
  return mrt5.Config.byt5(
    dim=16,
    num_encoder_layers=4,
    num_layers=1,
    num_heads=2,
    shortener=shorteners.Fixed(segmenter=rule),
  )


def spacelike(offset):
  return segmenters.Spacelike(offset=offset)


@pytest.mark.parametrize(
  'field, make',
  [
    ('segmenter', lambda i: spacebyte.Config(segmenter=spacelike(i))),
    ('segmenter', lambda i: hat2.Config(segmenter=segmenters.Words(offset=i))),
    ('patcher', lambda i: blt.Config(patcher=spacelike(i))),
    ('shortener.segmenter', fixed),
  ],
)
@pytest.mark.parametrize('map, right', [('default', 0), ('byt5', 3)])
def test_a_rule_that_reads_other_bytes_is_refused(
  make_config, field, make, map, right
):
  tokenizer = byte_tokenizer.Config(map=map)
  resolve = lambda model: setup.resolve_model(
    make_config(model=model, tokenizer=tokenizer), tokenizer.make()
  )
  want = tokenizer.make().vocab_size
  assert resolve(make(right)).vocab_size == want
  wrong = 3 - right
  with pytest.raises(
    errors.ConfigError,
    match=rf'model\.{field}\.offset={wrong}: .* byte 0 at id {right}\. '
    rf'Set model\.{field}\.offset={right}',
  ):
    resolve(make(wrong))


@pytest.mark.parametrize(
  'model',
  [
    transformer.Config(),
    blt.Config(patcher=segmenters.Stride(size=4)),
    blt.Config(patcher=patcher.Entropy()),
    mrt5.Config.byt5(dim=16, num_encoder_layers=4, num_heads=2),
    mrt5.Config.byt5(dim=16, num_encoder_layers=4, num_heads=2, shortener=None),
  ],
  ids=lambda model: type(model).__module__,
)
def test_what_reads_no_bytes_takes_any_map(make_config, model):
  config = make_config(model=model, tokenizer=BYT5)
  assert setup.resolve_model(config, BYT5.make()).vocab_size == 384


@pytest.mark.parametrize('model', [hat.Config, word_pooled.Config])
def test_words_longer_than_the_model_sees_are_refused(make_config, model):
  resolve = lambda tokenizer, **fields: setup.resolve_model(
    make_config(model=model(**fields), tokenizer=tokenizer), tokenizer.make()
  )
  for max_word in (32, 40):
    assert resolve(WORDS, max_word=max_word).max_word == max_word
  with pytest.raises(
    errors.ConfigError,
    match=r'model\.max_word=31 is less than tokenizer\.longest=32: .* Set '
    r'model\.max_word=32, or tokenizer\.longest=31',
  ):
    resolve(WORDS, max_word=31)
  with pytest.raises(errors.ConfigError, match='word_id=259 is no mark of Byt'):
    resolve(BYT5, max_word=32)
  other = dataclasses.replace(WORDS, rule='uax29')
  with pytest.raises(errors.ConfigError, match='word_id=258 is no mark of Wor'):
    resolve(other, max_word=32, word_id=258)


def test_a_run_that_misreads_its_tokens_does_not_begin(make_config, tmp_path):
  config = make_config(model=spacebyte.Config(), tokenizer=BYT5)
  with pytest.raises(errors.ConfigError, match=r'segmenter\.offset=0'):
    setup.prepare(config, tmp_path / 'run')


@pytest.mark.parametrize(
  'mask_id, changes, message',
  [
    (5000, {}, r'mask_id=5000 must be an id of the model, in \[0, 260\)'),
    (-1, {}, 'mask_id=-1 must be an id of the model'),
    (65, {}, "mask_id=65 stands for b'A' in a text"),
    (259, {'is_causal': True}, r'model\.is_causal=True with an objective that'),
  ],
)
def test_a_mask_that_cannot_be_learned_is_refused(
  make_config, mask_id, changes, message
):
  tokenizer = byte_tokenizer.Config()
  num_ids = tokenizer.make().vocab_size
  assert num_ids == 259
  fields = dict(dim=16, num_layers=1, num_heads=2, vocab_size=num_ids + 1)
  resolve = lambda mask_id, **changes: setup.resolve_model(
    make_config(
      model=transformer.Config(**(fields | {'is_causal': False} | changes)),
      objective=mdlm.Config(mask_id=mask_id),
    ),
    tokenizer.make(),
  )
  assert resolve(num_ids).vocab_size == num_ids + 1
  with pytest.raises(errors.ConfigError, match=message):
    resolve(mask_id, **changes)
