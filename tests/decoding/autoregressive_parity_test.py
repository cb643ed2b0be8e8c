# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding gives the tokens that `generate` of transformers gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.decoding import autoregressive
from jaxtok.models import interop

pytestmark = pytest.mark.torch

VOCAB, NUM_TOKENS = 61, 24
SMALL = dict(vocab_size=VOCAB, bos_token_id=None, eos_token_id=None)
DECODERS = {
  'GPT2LMHeadModel': dict(n_positions=64, n_embd=32, n_layer=2, n_head=4),
  'LlamaForCausalLM': dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
  ),
}


def sharpen(torch, model):
  """Random weights with clear arg-maxes: float32 rounding decides no tie."""
  with torch.no_grad():
    for param in model.parameters():
      param.copy_(0.3 * torch.randn_like(param))
  return model.eval()


@pytest.mark.parametrize('name', DECODERS)
def test_greedy_tokens_of_ragged_prompts_match(name, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  torch.manual_seed(0)
  cls = getattr(transformers, name)
  theirs = sharpen(torch, cls(cls.config_class(**SMALL, **DECODERS[name])))
  theirs.save_pretrained(tmp_path)
  _, ours = interop.load(tmp_path)
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, VOCAB, size=n) for n in (2, 16, 7)]
  got = autoregressive.generate(
    ours, *autoregressive.pad_prompts(rows), num_tokens=NUM_TOKENS
  )
  for row, tokens in zip(rows, got.tokens, strict=True):
    want = theirs.generate(
      torch.tensor(row)[None],
      attention_mask=torch.ones((1, len(row)), dtype=int),
      max_new_tokens=NUM_TOKENS,
      do_sample=False,
      pad_token_id=0,
    )
    np.testing.assert_array_equal(tokens, want[0, len(row) :].numpy())


def test_greedy_tokens_of_an_encoder_decoder_match(tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  torch.manual_seed(0)
  config = transformers.T5Config(
    vocab_size=VOCAB,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_heads=4,
    num_layers=2,
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    eos_token_id=None,
  )
  theirs = sharpen(torch, transformers.T5ForConditionalGeneration(config))
  theirs.save_pretrained(tmp_path)
  _, ours = interop.load(tmp_path)
  source = np.random.default_rng(1).integers(2, VOCAB, size=(2, 30))
  keep = (np.arange(30) < np.asarray([[30], [11]])).astype(np.int32)
  want = theirs.generate(
    torch.tensor(source),
    attention_mask=torch.tensor(keep),
    max_new_tokens=NUM_TOKENS,
    do_sample=False,
  ).numpy()
  context = ours.encode(
    jnp.asarray(source, jnp.int32), segment_ids=jnp.asarray(keep)
  )
  start = np.zeros((2, 1), np.int32)
  got = autoregressive.generate(
    ours, start, num_tokens=NUM_TOKENS, context=context
  )
  np.testing.assert_array_equal(want, np.concatenate([start, got.tokens], 1))
