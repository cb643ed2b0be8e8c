# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models that are no plain denoisers are refused wherever one is needed."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxtok.diffusion import (
  any_order,
  bd3lm,
  fitting,
  genmd4,
  likelihood,
  llada,
  md4,
  mdlm,
  pretrained,
  sedd,
)
from jaxtok.models import transformer
from jaxtok.objectives import next_token

PLAIN = [
  module.Config(mask_id=4) for module in (mdlm, md4, any_order, sedd, llada)
]
OTHERS = [
  bd3lm.Config(mask_id=4),
  genmd4.Config(mask_id=4),
  mdlm.Config(mask_id=4, is_timed=True),
  md4.Config(mask_id=4, is_timed=True),
  sedd.Config(mask_id=4, is_timed=True),
]


def test_objectives_without_time_block_or_rates_are_plain():
  for objective in [*PLAIN, llada.FineTuning(mask_id=4)]:
    fitting.check_plain(objective)
  for objective in OTHERS:
    with pytest.raises(ValueError, match='does not fill in masks without'):
      fitting.check_plain(objective)
  with pytest.raises(ValueError, match='next_token has no mask token'):
    fitting.check_plain(next_token.Config())


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda x: genmd4.Model(inner=x, num_tokens=4), 'trained with genmd4'),
    (lambda x: bd3lm.Model(inner=x), 'trained with bd3lm'),
  ],
)
def test_models_that_show_it_are_refused(make, message):
  inner = transformer.Config(
    vocab_size=5, dim=4, num_layers=1, num_heads=1, is_causal=False
  )
  model = nnx.eval_shape(lambda: make(inner).make(nnx.Rngs(0)))
  tokens = jnp.zeros((1, 2), jnp.int32)
  options = dict(mask_id=4, rng=jax.random.key(0))
  generate = functools.partial(
    pretrained.generate, config=pretrained.Config(length=2)
  )
  for call in (
    functools.partial(likelihood.log_likelihood, answer_bt=tokens),
    functools.partial(likelihood.log_likelihood_by_orders, answer_bt=tokens),
    generate,
  ):
    with pytest.raises(ValueError, match=message):
      call(model, tokens, **options)
