# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which samplers fit which runs."""

import types

import pytest

from experiments.diffusion_lm import sample
from jaxtok.diffusion import bd3lm, genmd4, mdlm
from jaxtok.objectives import next_token

FITTING = {
  mdlm.Config(mask_id=9): {'ancestral', 'remask', 'first_hitting'},
  mdlm.Config(mask_id=9, is_timed=True): {'timed'},
  bd3lm.Config(mask_id=9): {'block'},
  genmd4.Config(mask_id=9): {'rates'},
}


def run(objective):
  config = types.SimpleNamespace(objective=objective)
  return types.SimpleNamespace(config=config, workdir='runs/x')


@pytest.mark.parametrize('objective', FITTING)
@pytest.mark.parametrize('sampler', sample.SAMPLERS)
def test_samplers_serve_the_models_they_are_for(objective, sampler):
  fitting = FITTING[objective]
  if sampler in fitting:
    sample.check(run(objective), sampler)
    return
  with pytest.raises(ValueError, match=f'--sampler=.*{min(fitting)}'):
    sample.check(run(objective), sampler)


def test_a_run_without_masks_has_no_sampler():
  with pytest.raises(ValueError, match='no mask token'):
    sample.check(run(next_token.Config()), 'ancestral')
