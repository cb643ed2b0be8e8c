# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows, probes and spelling: layout, scores by hand, and that they learn."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.analysis import fit, places, probes, spelling
from jaxtok.models import base
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import gzip


class Bigram(nnx.Module):
  """Logits are the row of a table for the newest token."""

  def __init__(self, table):
    self.logits_vv = nnx.Param(jnp.asarray(table, jnp.float32))

  def __call__(self, tokens_bt, **unused):
    return base.Output(hidden_btd=self.logits_vv[tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


def test_rows_have_inputs_targets_and_places_in_windows():
  parts = [([9, 1, 2, 9], [3, 4, 9]), ([9, 9], [5])]
  rows = fit.make_rows(parts, 8, tokens_per_window=2)
  assert rows.ids.tolist() == [[9, 1, 2, 9, 3, 4, 9, 0], [9, 9, 5] + [0] * 5]
  assert rows.is_target.sum(axis=1).tolist() == [3, 1]
  # The second part begins at an even position.
  assert rows.positions[0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
  assert rows.positions[1].tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
  batch = rows.batch(np.array([1, 0]))
  assert batch['targets_bt'][1].tolist() == [1, 2, 9, 3, 4, 9, 0]
  assert batch['loss_mask_bt'][1].tolist() == [0, 0, 0, 1, 1, 1, 0]
  with pytest.raises(ValueError, match='row 0 has 7 ids'):
    fit.make_rows(parts, 6)


def test_scores_equal_a_loop_over_targets():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(6, 6))
  parts = [
    (rng.integers(0, 6, n), rng.integers(0, 6, m)) for n, m in [(2, 3), (1, 4)]
  ] + [([0, 1], [table[1].argmax()])]
  found = fit.score(Bigram(table), fit.make_rows(parts, 5), batch_size=2)
  nats, hits, exact = [], [], []
  for inputs, targets in parts:
    ids = [*inputs, *targets]
    right = []
    for i in range(len(inputs), len(ids)):
      row = table[ids[i - 1]]
      nats.append(np.log(np.exp(row).sum()) - row[ids[i]])
      right.append(row.argmax() == ids[i])
    hits += right
    exact.append(all(right))
  assert found.nats == pytest.approx(np.mean(nats), rel=1e-5)
  assert found.accuracy == pytest.approx(np.mean(hits))
  assert found.exact == pytest.approx(np.mean(exact))


def test_training_reaches_the_entropy_of_the_data():
  # After 0 comes 1 or 2, equally often; after those, 0.
  rng = np.random.default_rng(0)
  draws = rng.integers(1, 3, (64, 4))
  ids = np.stack([np.zeros_like(draws), draws], axis=2).reshape(64, 8)
  rows = fit.make_rows([(row[:1], row[1:]) for row in ids], 8)
  model = Bigram(np.zeros((3, 3)))
  nats = fit.train(model, rows, steps=120, batch_size=64, lr=0.3)
  assert nats[0] == pytest.approx(np.log(3), rel=1e-5)
  want = np.log(2) * 4 / 7  # 4 of 7 targets are coin tosses.
  assert fit.score(model, rows).nats == pytest.approx(want, abs=0.01)


def test_probes_shift_targets_and_score_them_alone():
  tokenizer = gzip.GzipTokenizer(token_bits=8)
  texts = [b'abcabc', b'hello!']
  codes = tokenizer.encode(texts[0])
  data = np.array(list(texts[0]))
  for task, inputs, targets in (
    ('compress', data, codes + 256),
    ('decompress', codes, data + 259),
    ('control', [], data + 259),
  ):
    found = probes.make(tokenizer, texts, task)
    start = found.vocab_size - 2
    assert start == 256 + tokenizer.vocab_size
    row, is_target = found.rows.ids[0], found.rows.is_target[0]
    assert row[is_target].tolist() == list(targets)
    head = [start, *inputs, start + 1]
    assert row[: len(head)].tolist() == head
  with pytest.raises(ValueError, match="task='translate' must be one of"):
    probes.make(tokenizer, texts, 'translate')


def test_pieces_are_parts_of_documents():
  documents = [b'short', bytes(range(60))]
  found = probes.pieces(documents, 10, 20, seed=1)
  assert all(len(x) == 10 and x in documents[1] for x in found)
  assert len(set(found)) > 1
  with pytest.raises(ValueError, match='num_bytes=61'):
    probes.pieces(documents, 61, 1)


@pytest.mark.slow
def test_a_probe_of_a_constant_text_is_solved():
  config = probes.Config(dim=16, num_layers=1, num_heads=2, steps=40, lr=0.03)
  tokenizer = gzip.GzipTokenizer(token_bits=8)
  found = probes.run(tokenizer, [b'abcd'] * 8, [b'abcd'], 'control', config)
  assert found.nats[0] > 3
  assert found.score.exact == 1


def test_spelling_is_trained_on_other_words_than_it_is_tested_on():
  tokenizer = byte_tokenizer.Config().make()
  words = [bytes([a, b]) for a in b'abcd' for b in b'abcdefgh']
  held_out = [word for word in words if spelling.is_held_out(word)]
  assert 0 < len(held_out) < len(words)
  rows = spelling.make_rows(tokenizer, [b'ab'])
  bos = tokenizer.special.bos
  assert rows.ids[0].tolist() == [bos, *b'ab', bos, *b'a b', bos]
  assert rows.ids[0][rows.is_target[0]].tolist() == [*b'a b', bos]
  model = Bigram(np.zeros((tokenizer.vocab_size,) * 2))
  found = spelling.measure(model, tokenizer, words, steps=60, lr=0.3)
  assert found.before.exact == 0
  assert found.before.nats == pytest.approx(np.log(tokenizer.vocab_size))
  assert found.after.nats < found.before.nats / 2
  with pytest.raises(ValueError, match='Give more'):
    spelling.measure(model, tokenizer, held_out, steps=1)


def test_places_are_read_from_the_log_and_compared_with_the_beginning():
  log = [
    {'step': s, 'split': 'train', 'accuracy_0': a, 'accuracy_1': b}
    for s, a, b in [(10, 0.1, 0.3), (20, 0.2, 0.2), (30, 0.5, 0.6)]
  ]
  run = types.SimpleNamespace(
    workdir='runs/a',
    metrics=lambda split: [row for row in log if row['split'] == split],
  )
  found = places.accuracy(run, first_steps=20)
  assert found.step.tolist() == [10, 20, 30]
  np.testing.assert_allclose(found.gain[-1], [0.3, 0.3])
  np.testing.assert_allclose(found.gain[0], [-0.1, 0.0])
  # A run of 30 steps begins with its first entry; one of 300 with three.
  short = places.accuracy(run)
  np.testing.assert_allclose(short.gain[-1], [0.4, 0.3])
  log.append({**log[-1], 'step': 300})
  np.testing.assert_allclose(places.accuracy(run).gain[-1], [0.0, 0.0])
  del log[-1]
  with pytest.raises(ValueError, match='logged no accuracy_0 in eval/val'):
    places.accuracy(run, split='eval/val')
  with pytest.raises(ValueError, match='first_steps=5'):
    places.accuracy(run, first_steps=5)
