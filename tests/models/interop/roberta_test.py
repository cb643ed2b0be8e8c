# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""RoBERTa's positions, its classifiers, and merging inside them.

`parity_test` compares states and logits of tokens. Here too both sides are
float32 with widths up to 64 and states of size about 1: sums in another order
differ by about 1e-6, and 1e-4 is the bound of the issue.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import code_merge, interop, transformer

pytestmark = pytest.mark.torch

VOCAB, T, ATOL = 50, 12, 1e-4
SIZES = dict(
  vocab_size=VOCAB,
  hidden_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=64,
  max_position_embeddings=20,
  type_vocab_size=1,
  num_labels=3,
)
KEEP = np.arange(T) < np.array([[T], [7]])
UNITS = np.where(KEEP, np.arange(T), -1)


@pytest.fixture(scope='module')
def torch():
  torch = pytest.importorskip('torch')
  torch.set_num_threads(1)
  return torch


@pytest.fixture(scope='module')
def checkpoint(torch, tmp_path_factory):
  """Their classifier, and its folder."""
  transformers = pytest.importorskip('transformers')
  torch.manual_seed(0)
  config = transformers.RobertaConfig(**SIZES)
  theirs = transformers.RobertaForSequenceClassification(config).eval()
  with torch.no_grad():
    for param in theirs.parameters():  # Biases and norms are constant.
      param += 0.1 * torch.randn_like(param)
  folder = tmp_path_factory.mktemp('roberta')
  theirs.save_pretrained(folder)
  return theirs, folder


def tokens(seed, *shape):
  return np.random.default_rng(seed).integers(2, VOCAB, size=shape)


@nnx.jit
def call(model, ids, units, positions=None, visible=None):
  output = model(ids, units, positions=positions, visible_bts=visible)
  return output.hidden_btd, model.logits(output.hidden_btd)


def run(model, ids, units=UNITS, positions=None, visible=None):
  as_int = lambda x: None if x is None else jnp.asarray(x, jnp.int32)
  visible = None if visible is None else jnp.asarray(visible)
  return call(model, *map(as_int, (ids, units, positions)), visible)


def test_a_classifier_loads_as_one_that_merges_nothing(torch, checkpoint):
  theirs, folder = checkpoint
  config, ours = interop.load(folder)
  assert (config.num_classes, config.how) == (3, code_merge.How.NONE)
  assert (config.encoder.max_len, config.encoder.first_position) == (18, 2)
  ids = tokens(0, 2, T)
  with torch.no_grad():
    want = theirs(
      torch.tensor(ids), attention_mask=torch.tensor(KEEP.astype(int))
    ).logits.numpy()
  np.testing.assert_allclose(run(ours, ids)[1], want, atol=ATOL)


@pytest.mark.parametrize('how', ['AVERAGE', 'LEARNED'])
def test_units_of_one_in_a_loaded_classifier_change_nothing(checkpoint, how):
  _, plain = interop.load(checkpoint[1])
  merging = code_merge.adopt(
    plain, rngs=nnx.Rngs(0), how=code_merge.How[how], layer=1
  )
  ids = tokens(1, 2, T)
  np.testing.assert_array_equal(run(merging, ids)[1], run(plain, ids)[1])
  pairs = np.where(KEEP, np.arange(T) // 2, -1)
  merged = run(merging, ids, pairs)[1]
  assert np.isfinite(merged).all()
  assert np.abs(merged - run(plain, ids)[1]).max() > 1e-3


def test_adopting_keeps_the_encoder_and_draws_the_rest_anew(checkpoint):
  _, plain = interop.load(checkpoint[1])
  for source in (plain, plain.encoder):
    adopted = code_merge.adopt(source, rngs=nnx.Rngs(7), num_classes=5)
    params = dict(nnx.to_flat_state(nnx.state(adopted.encoder)))
    for path, want in nnx.to_flat_state(nnx.state(plain.encoder)):
      np.testing.assert_array_equal(params[path][...], want[...])
    assert adopted.out.kernel.shape == (48, 5)
    is_same = np.array_equal(adopted.dense.kernel[...], plain.dense.kernel[...])
    assert is_same == (source is plain)


def test_padding_in_front_and_nodes_of_data_flow_take_their_positions(
  torch, checkpoint
):
  """GraphCodeBERT: nodes have row 0 of the table, and see only their code."""
  theirs, folder = checkpoint
  _, ours = interop.load(folder)
  ids = tokens(2, 2, T)
  rows = np.array(
    [[*range(2, 11), 0, 0, 0], [1, 1, *range(2, 10), 0, 0]]  # 1 is padding.
  )
  is_code, is_node = rows > 1, rows == 0
  visible = is_code[:, :, None] & is_code[:, None, :]
  visible |= is_node[:, :, None] & np.eye(T, dtype=bool)
  visible[:, 9:, 4] = visible[:, 4, 9:] = True
  visible[1, :2] = visible[1, :, :2] = False
  visible |= (rows == 1)[:, :, None] & np.eye(T, dtype=bool)
  with torch.no_grad():
    want = theirs.roberta(
      torch.tensor(ids),
      # Of four axes, it is added to the scores.
      attention_mask=torch.tensor(np.where(visible, 0, -1e9)[:, None]).float(),
      position_ids=torch.tensor(rows),
    ).last_hidden_state.numpy()
  units = np.where(rows == 1, -1, np.arange(T))
  hidden = run(ours, ids, units, rows - 2, visible)[0]
  real = rows != 1
  np.testing.assert_allclose(hidden[real], want[real], atol=ATOL)


def test_settings_that_we_do_not_have_are_refused(checkpoint, tmp_path):
  raw = json.loads((checkpoint[1] / 'config.json').read_text())
  weights = (checkpoint[1] / 'model.safetensors').read_bytes()
  (tmp_path / 'model.safetensors').write_bytes(weights)
  for changes, message in (
    ({'is_decoder': True}, 'is_decoder=True'),
    ({'pad_token_id': 19}, 'pad_token_id=19 and max_position_embeddings=20'),
  ):
    (tmp_path / 'config.json').write_text(json.dumps(raw | changes))
    with pytest.raises(interop.Unsupported, match=message):
      interop.load(tmp_path)


def test_a_row_may_be_as_long_as_the_positions_that_are_left(checkpoint):
  config, ours = interop.load(checkpoint[1])
  assert isinstance(config.encoder, transformer.Config)
  longest = config.encoder.max_len
  for length in (longest, longest + 1):
    ids = np.full((1, length), 5)
    if length == longest:
      assert np.isfinite(run(ours, ids, np.arange(length)[None])[1]).all()
      continue
    with pytest.raises(ValueError, match='exceed the 18 learned positions'):
      run(ours, ids, np.arange(length)[None])
