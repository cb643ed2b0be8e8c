# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The promises of all models, kept by each family of transformers."""

from jaxtok.models import transformer
from tests.conformance import model_suite

SMALL = dict(vocab_size=model_suite.VOCAB, dim=16, num_layers=2, num_heads=4)
Case, Config = model_suite.Case, transformer.Config


class TestDecoder(model_suite.CausalSuite):
  case = Case(Config(num_kv_heads=2, gated=True, qk_norm=True, **SMALL))


class TestGpt2(model_suite.CausalSuite):
  case = Case(Config.gpt2(max_len=16, **SMALL))


class TestBert(model_suite.ModelSuite):
  case = Case(Config.bert(max_len=16, **SMALL), is_causal=False)


class TestT5(model_suite.CausalSuite):
  case = Case(
    Config.t5(num_buckets=8, max_distance=9, **SMALL), has_context=True
  )
