# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLT equals that of `transformers` with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import interop, patcher

pytestmark = pytest.mark.torch

VOCAB, T = 60, 40
# Logits of order 1 (at most 5) after up to 7 layers of float32, in which the
# residual is doubled four times: some tens of roundings of 3e-7.
ATOL = 2e-5


def settings(dim=32, **fields):
  byte = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    hidden_size_global=dim,
    intermediate_size=24,
  )
  sizes = dict(
    vocab_size=VOCAB,
    encoder_config=byte,
    decoder_config=byte,
    global_config=dict(
      hidden_size=dim,
      num_attention_heads=4,
      num_hidden_layers=2,
      intermediate_size=40,
    ),
    patcher_config=dict(
      vocab_size=VOCAB,
      hidden_size=16,
      num_attention_heads=2,
      num_hidden_layers=1,
      intermediate_size=24,
      sliding_window=7,
    ),
    local_attention_window_len=9,
    encoder_hash_byte_group_vocab=101,
    # Entropies of the patchers below lie between 0 and 2 nats.
    patching_threshold=0.75,
  )
  return sizes | fields


CASES = {
  'entropy': settings(),
  'narrow_global': settings(
    dim=24,
    encoder_hash_byte_group_nb_functions=2,
    local_attention_window_len=None,
  ),
  'no_patcher': settings(patch_in_forward=False),
}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  torch.set_num_threads(1)
  made = {}

  def make(name):
    if name not in made:
      torch.manual_seed(len(made))
      config = transformers.BltConfig(**CASES[name])
      theirs = transformers.BltForCausalLM(config).eval()
      with torch.no_grad():
        for path, param in theirs.named_parameters():
          param += 0.1 * torch.randn_like(param)
          if path == 'model.patcher.lm_head.weight':
            param *= 6  # So that entropies differ.
      folder = tmp_path_factory.mktemp(name)
      theirs.save_pretrained(folder)
      made[name] = theirs, interop.load(folder)[1]
    return made[name]

  return make


def run_theirs(model, tokens, **inputs):
  import torch

  tensors = {k: torch.tensor(v) for k, v in inputs.items()}
  with torch.no_grad():
    # Their cache asks the config for layers that it does not have.
    output = model(input_ids=torch.tensor(tokens), use_cache=False, **tensors)
  return output.logits.numpy()


def run_ours(model, tokens, ends=None):
  graph, params = nnx.split(model)

  @jax.jit
  def call(params):
    ours = nnx.merge(graph, params)
    return ours.logits(
      ours(jnp.asarray(tokens, jnp.int32), context=ends).hidden_btd
    )

  return np.asarray(call(params))


def draw_lengths(seed, total):
  rng, rows = np.random.default_rng(seed), []
  for _ in range(2):
    row = [1]
    while sum(row) < total:
      row.append(min(int(rng.integers(1, 9)), total - sum(row)))
    rows.append(row)
  width = max(map(len, rows))
  return np.asarray([row + [0] * (width - len(row)) for row in rows])


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('total', [T, T + 1])
def test_logits_match_for_given_patch_lengths(checkpoint, name, total):
  theirs, ours = checkpoint(name)
  tokens = np.random.default_rng(0).integers(0, VOCAB, (2, T))
  lengths = draw_lengths(1, total)
  want = run_theirs(theirs, tokens, patch_lengths=lengths)
  ends = patcher.ends_of_lengths(jnp.asarray(lengths, jnp.int32), T)
  got = run_ours(ours, tokens, ends)
  assert want.std() > 0.5
  np.testing.assert_allclose(got, want, atol=ATOL)


@pytest.mark.parametrize('name', ['entropy', 'narrow_global'])
def test_logits_match_for_patches_by_entropy(checkpoint, name):
  """One row: `transformers` fills up shorter rows with lengths of -1."""
  theirs, ours = checkpoint(name)
  tokens = np.random.default_rng(2).integers(0, VOCAB, (1, T))
  ends, _ = ours.patcher(
    jnp.asarray(tokens, jnp.int32), jnp.ones((1, T), jnp.int32), None, None
  )
  assert 4 < ends.sum() < T - 4
  want = run_theirs(theirs, tokens)
  np.testing.assert_allclose(run_ours(ours, tokens), want, atol=ATOL)


def test_logits_match_without_a_patcher(checkpoint):
  """Each byte is a patch then."""
  theirs, ours = checkpoint('no_patcher')
  tokens = np.random.default_rng(3).integers(0, VOCAB, (2, T))
  want = run_theirs(theirs, tokens)
  np.testing.assert_allclose(run_ours(ours, tokens), want, atol=ATOL)


def test_settings_that_we_do_not_have_are_refused(checkpoint, tmp_path):
  import json

  import transformers

  config = transformers.BltConfig(**CASES['no_patcher'])
  transformers.BltForCausalLM(config).save_pretrained(tmp_path)
  raw = json.loads((tmp_path / 'config.json').read_text())
  raw['decoder_config']['cross_attn_all_layers'] = False
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  with pytest.raises(interop.Unsupported, match='cross_attn_all_layers=False'):
    interop.load(tmp_path)


def test_checkpoints_are_read_not_written(checkpoint, tmp_path):
  _, ours = checkpoint('entropy')
  with pytest.raises(interop.Unsupported, match='blt:Config can be read'):
    interop.save(ours, tmp_path / 'saved')
