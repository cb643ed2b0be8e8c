# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import types

import jax
import pytest

from jaxtok.decoding import text
from jaxtok.evals import base, samples


def test_each_prompt_is_shown_with_its_continuation(monkeypatch):
  def complete(model, tokenizer, prompts, *, num_bytes, rng, sampling):
    assert (num_bytes, sampling.temperature) == (7, 0.8)
    return [prompt + b'\x1b\xff!\n' for prompt in prompts]

  monkeypatch.setattr(text, 'complete', complete)
  context = base.Context(
    tokenizer=types.SimpleNamespace(),
    batches=lambda split, max_bytes: iter(()),
    corpus_id=lambda split, max_bytes: '',
    objective=None,
    workdir=None,
  )
  config = samples.Config(prompts=('', 'é'), num_bytes=7)
  result = config.make(context)('model', jax.random.key(0))
  assert result == {
    'samples': "--- ''\n\\x1b\\xff!\n\n--- 'é'\néé\\x1b\\xff!\n\n"
  }


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match='prompts must not be empty'):
    samples.Config(prompts=())
  with pytest.raises(ValueError, match='num_bytes must be >= 1, got 0'):
    samples.Config(num_bytes=0)
