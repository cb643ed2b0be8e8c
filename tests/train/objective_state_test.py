# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""State of an objective is part of the training state, and may begin anew."""

import pytest

from jaxtok import runs, train
from jaxtok.diffusion import bd3lm, mdlm
from jaxtok.models import transformer

VOCAB = 260  # Bytes, three special tokens, the mask.


def test_a_range_of_times_is_chosen_while_an_mdlm_is_trained_on(
  make_config, tmp_path
):
  inner = transformer.Config(
    vocab_size=VOCAB, dim=16, num_layers=1, num_heads=2, is_causal=False
  )
  config = make_config(
    model=inner, objective=mdlm.Config(mask_id=VOCAB - 1), steps=2
  )
  train.run(config, tmp_path / 'mdlm')
  clipped = bd3lm.Config(
    mask_id=VOCAB - 1, block=4, search_every=2, search_widths=(0.5,)
  )
  config = make_config(
    model=bd3lm.Model(inner=inner),
    objective=clipped,
    steps=5,
    log_every=1,
    num_microbatches=2,
  )
  # The parameters have the same names, and the range begins anew.
  run = train.run(config, tmp_path / 'run', init_from=str(tmp_path / 'mdlm'))
  rows = run.metrics('train')
  assert [row['low'] for row in rows[:2]] == [0, 0]
  assert [row['high'] for row in rows[:2]] == [1, 1]
  low, high = rows[2]['low'], rows[2]['high']
  assert high - low == pytest.approx(0.5)
  assert (rows[3]['low'], rows[3]['high']) == (low, high)
  assert not [name for name in rows[0] if 'bound' in name or name[0] == '_']
  assert 'bpb_bound' in run.metrics('eval/val')[-1]
  state = runs.load(tmp_path / 'run').model.time_range
  assert int(state.steps[...]) == 5
  assert float(state.low[...]) == rows[4]['low']
