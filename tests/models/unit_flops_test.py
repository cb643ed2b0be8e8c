# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""FLOPs of models with units: the room for them, or those of the text."""

import dataclasses

import pytest
from flax import nnx

from experiments import config_path
from experiments.ledger import claim
from jaxtok.models import base
from jaxtok.nn import ragged

SHAPE = base.Shape(b=2, t=64)
FILES = ('blt', 'hat', 'hat2', 'hnet', 'spacebyte', 'word_pooled')


def build(file, ratio, size='tiny'):
  path = claim.ROOT / f'experiments/byte_lm/configs/{file}.py'
  config = dataclasses.replace(
    config_path.load(f'{path}:{size}').model,
    vocab_size=260,
    capacity=ragged.Capacity(policy='ratio', ratio=ratio),
  )
  return nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('shape', [SHAPE, base.Shape(b=2, t=1, kv=64)])
def test_units_that_are_there_count_as_so_much_room(file, shape):
  want = build(file, 1 / 8).flops(shape)
  model = build(file, 1 / 2)
  assert model.flops(shape, kept=1 / 8) == want
  assert model.flops(shape, kept=1 / 2) == model.flops(shape)
  if shape is SHAPE:
    assert sum(want.values()) < sum(model.flops(shape).values())


def test_each_stage_has_units_of_its_own():
  model = build('hnet', 1 / 2, 'two_stage')
  # Per token: a half, and a half of them.
  assert model.flops(SHAPE, kept=(1 / 2, 1 / 4)) == model.flops(SHAPE)
  fewer = model.flops(SHAPE, kept=(1 / 2, 1 / 8))
  assert fewer['stage_1'] == model.flops(SHAPE)['stage_1']
  assert fewer['main'] < model.flops(SHAPE)['main'] / 2
  with pytest.raises(ValueError, match='a number for each of 2 stages'):
    model.flops(SHAPE, kept=0.5)


def test_more_units_than_positions_are_refused():
  with pytest.raises(ValueError, match=r'kept=1\.5 units per position must be'):
    build('hat', 1 / 2).flops(SHAPE, kept=1.5)
