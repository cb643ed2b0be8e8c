# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The Python of the page on masked diffusion runs as it stands there."""

import pathlib
import re
import types

import pytest
from flax import nnx

from jaxtok import runs
from jaxtok.diffusion import mdlm
from jaxtok.models import transformer
from jaxtok.tokenizers import bytes as byte_tokenizer

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'diffusion.md'
SHOWN = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)


def untrained(workdir):
  """What `runs.load` gives for a run of `mdlm`, with random weights."""
  assert workdir == 'runs/mdlm'
  tokenizer = byte_tokenizer.Config().make()
  mask_id = tokenizer.vocab_size
  model = transformer.Config(
    vocab_size=mask_id + 1, dim=8, num_layers=1, num_heads=1, is_causal=False
  )
  config = types.SimpleNamespace(
    objective=mdlm.Config(mask_id=mask_id),
    data=types.SimpleNamespace(seq_len=64),
  )
  return types.SimpleNamespace(
    model=model.make(nnx.Rngs(0)), config=config, tokenizer=tokenizer
  )


def test_the_page_has_four_blocks():
  assert len(SHOWN) == 4


def test_the_first_blocks_decode(monkeypatch):
  monkeypatch.setattr(runs, 'load', untrained)
  names, written = {}, []
  for block in SHOWN[:2]:
    exec(compile(block, str(PAGE), 'exec'), names)
    assert not names['canvas'].is_masked_bt.any()
    written.append(names['canvas'].tokens_bt)
  assert (written[0] != written[1]).any()
  assert (names['canvas'].num_calls_b <= 64).all()
  assert names['start'].is_masked_bt.all()


@pytest.mark.slow
def test_the_third_block_trains():
  names = {}
  exec(compile(SHOWN[2], str(PAGE), 'exec'), names)
  assert 0 <= names['numbers']['reward'] <= 1
  assert names['trainer'].step == 1


def test_the_last_block_bounds_a_likelihood(monkeypatch):
  monkeypatch.setattr(runs, 'load', untrained)
  names = {}
  exec(compile(SHOWN[3], str(PAGE), 'exec'), names)
  bound = names['bound']
  assert bound.num_tokens_b.tolist() == [6]
  # An untrained model knows little of 257 tokens: between ln 100 and ln 700.
  assert -6 * 6.6 < bound.lower_bound_b[0] < -6 * 4.6
  assert bound.standard_error_b[0] > 0
