# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Final answers, and accuracy of models that know or do not know them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.data import answers
from jaxtok.diffusion import bd3lm, exact_match, genmd4, llada, pretrained
from jaxtok.evals import base
from jaxtok.models import base as models
from jaxtok.models import transformer
from jaxtok.tasks import word_problems
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config().make()
MASK, P, L = TOKENIZER.vocab_size, 72, 32


@pytest.mark.parametrize(
  ('text', 'want'),
  [
    (b'3+4=<<3+4=7>>7\n#### 7', b'7'),
    (b'#### $1,234.', b'1234'),
    (b'#### 1\nno, rather\n####  -2 \nthe end', b'-2'),
    (b'7', None),
    (b'####', b''),
  ],
)
def test_the_final_answer_follows_the_last_marker(text, want):
  assert exact_match.final_answer(text) == want


def test_without_a_marker_the_whole_text_counts():
  assert exact_match.final_answer(b' a, b\n', '') == b'a, b'


class Knows(nnx.Module):
  """Writes the answers of given rows, found by their questions."""

  def __init__(self, targets_nt):
    self.targets = nnx.Variable(jnp.asarray(targets_nt))
    self.config = transformer.Config(vocab_size=MASK + 1)

  def __call__(self, tokens_bt, *, segment_ids=None):
    asked = tokens_bt[:, None, :P] == self.targets[...][None, :, :P]
    row_b = (
      jnp.where(segment_ids[:, None, :P] > 0, asked, True).all(-1).argmax(1)
    )
    hidden_btd = jax.nn.one_hot(self.targets[...][row_b], MASK + 1)
    return models.Output(hidden_btd)

  def logits(self, hidden_btd):
    return 9.0 * hidden_btd


def make_eval(objective=None, left_out=0, **fields):
  source = word_problems.WordProblems(max_steps=1, largest=9)
  data = answers.Config(source=source, prompt_len=P, answer_len=L).make(
    TOKENIZER
  )
  context = base.Context(
    tokenizer=TOKENIZER,
    batches=lambda split, max_bytes: data.eval_batches(
      split, batch_size=8, max_bytes=max_bytes
    ),
    corpus_id=data.corpus_id,
    objective=objective,
    workdir=None,
    left_out=lambda split, max_bytes: left_out,
  )
  decoding = pretrained.Config(length=L, steps=4)
  fields = dict(mask_id=MASK, max_bytes=200, decoding=decoding) | fields
  rows = data.rows('validation', fields['max_bytes'])
  return exact_match.Config(**fields).make(context), rows


def test_a_model_that_knows_the_answers_is_always_right():
  run, rows = make_eval()
  targets = rows.batch(range(len(rows)))['targets_bt']
  found = run(Knows(targets), jax.random.key(0))
  assert found['exact_match'] == found['finished'] == 1
  assert found['answers'] == len(rows) > 8  # With a batch that is not full.
  assert found['calls'] == 4
  assert found['bytes'] == sum(rows.num_bytes(i) for i in range(len(rows)))
  question, answer = rows.pair(0)
  assert question.decode() in found['samples']
  assert f'model  {answer.decode()!r}' in found['samples']


def test_only_the_final_answer_has_to_be_right():
  run, rows = make_eval()
  targets = rows.batch(range(len(rows)))['targets_bt']
  steps = targets.copy()
  steps[:, P] = ord('x')  # A wrong step.
  assert run(Knows(steps), jax.random.key(0))['exact_match'] == 1
  wrong = targets.copy()
  ends = [P + rows.num_bytes(i) - 1 for i in range(len(rows))]
  half = np.arange(len(rows)) < len(rows) // 2
  wrong[half, np.array(ends)[half]] = ord('0')  # No result is 0.
  found = run(Knows(wrong), jax.random.key(0))
  assert found['exact_match'] == pytest.approx(1 - half.mean())
  endless = np.where(targets == TOKENIZER.special.eos, ord('5'), targets)
  found = run(Knows(endless), jax.random.key(0))
  assert found['exact_match'] == found['finished'] == 0


def test_questions_that_are_too_long_count_as_wrong():
  run, rows = make_eval(left_out=5)
  targets = rows.batch(range(len(rows)))['targets_bt']
  found = run(Knows(targets), jax.random.key(0))
  assert (found['left_out'], found['answers']) == (5, len(rows) + 5)
  assert found['exact_match'] == pytest.approx(len(rows) / (len(rows) + 5))
  assert (found['finished'], found['calls']) == (1, 4)


def test_impossible_settings_are_refused_at_the_start():
  with pytest.raises(ValueError, match='mask_id=-1 must be the id'):
    make_eval(mask_id=-1)
  with pytest.raises(ValueError, match=r'Use data\.answers with answer_len=16'):
    make_eval(decoding=pretrained.Config(length=16, steps=4))
  make_eval(llada.FineTuning(mask_id=MASK).make())
  for config in (llada.FineTuning, bd3lm.Config, genmd4.Config):
    with pytest.raises(ValueError, match=r'must be that of the objective, 7\.'):
      make_eval(config(mask_id=7).make())
