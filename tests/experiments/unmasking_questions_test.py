# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions in words as a task of the unmasking experiment."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.diffusion_lm.configs import llada_sft, mdlm
from experiments.unmasking import experiment, questions, training
from experiments.unmasking.configs import questions as config_file
from jaxtok import train
from jaxtok.data import answers, jsonl
from jaxtok.diffusion import denoisers
from jaxtok.models import transformer
from jaxtok.tasks import base
from jaxtok.tokenizers import bytes as byte_tokenizer

DATA = llada_sft.get_config('tiny').data


def language_model(data=DATA):
  tokenizer = byte_tokenizer.Config().make()
  mask_id = tokenizer.vocab_size
  model = transformer.Config(
    vocab_size=mask_id + 1, dim=16, num_layers=1, num_heads=2, is_causal=False
  ).make(nnx.Rngs(0))
  return questions.LanguageModel(
    model, tokenizer, mask_id, (tokenizer.special.eos,), data, 'made up'
  )


def test_padding_before_a_prompt_changes_nothing():
  model = language_model().model
  rng = np.random.default_rng(0)
  row_1t = jnp.asarray(rng.integers(0, 256, (1, 12)))
  padded_1t = jnp.pad(row_1t, ((0, 0), (5, 0)), constant_values=259)
  # Inside the prompt and in the answer the token is no padding.
  row_1t, padded_1t = row_1t.at[:, 4].set(259), padded_1t.at[:, 9].set(259)
  row_1t, padded_1t = row_1t.at[:, 9].set(259), padded_1t.at[:, 14].set(259)
  plain = model.logits(model(row_1t).hidden_btd)
  denoiser = denoisers.BehindPadding(model, prompt_len=13, pad_id=259)
  # Sums of 12 numbers in another order; logits are below 10.
  np.testing.assert_allclose(denoiser(padded_1t)[:, 5:], plain, atol=1e-5)
  shown = denoisers.BehindPadding(model, prompt_len=13, pad_id=258)
  assert np.abs(shown(padded_1t)[:, 5:] - plain).max() > 1e-3


def test_rows_are_those_of_the_data():
  found = language_model()
  task = questions.Config().make(found)
  assert isinstance(task, base.Stored)
  rows = answers.Rows(DATA, found.tokenizer, 'test', 0)
  want = rows.batch(range(6))
  got_bt = base.batch(task, training.TEST, 0, 6)
  seen_bt = want['segment_ids_bt'] > 0
  np.testing.assert_array_equal(got_bt[seen_bt], want['targets_bt'][seen_bt])
  assert (got_bt[~seen_bt] == task.mask_id).all()
  # A question of training depends on the seed, those of a split do not repeat.
  streams = (training.TEST, training.VALIDATION, 7, 8)
  firsts = [base.record(task, seed, 0).tobytes() for seed in streams]
  assert len(set(firsts)) == 4
  assert base.record(task, 7, 0).tobytes() == firsts[2]


def test_an_answer_is_right_if_it_ends_as_that_of_the_data():
  found = language_model()
  task = questions.Config().make(found)
  row_t = base.record(task, training.TEST, 3)
  answer_t = row_t[task.prompt_len :]
  text = found.tokenizer.decode(answer_t[answer_t < 256]).decode()
  number = text.rpartition('#### ')[2]

  def judge(new: str, rest: int = task._eos_ids[0]) -> bool:
    changed_t = row_t.copy()
    changed_t[task.prompt_len :] = rest
    ids = found.tokenizer.encode(new)
    changed_t[task.prompt_len : task.prompt_len + len(ids)] = ids
    return bool(task.is_correct(changed_t[None])[0])

  assert judge(text)
  assert judge(f'no idea\n#### {number}')
  assert not judge(f'#### {number}0')
  assert not judge(number)  # Without the mark.
  assert not judge(f'#### {number}', rest=task.mask_id)  # Not done.
  with pytest.raises(ValueError, match='none of those that were drawn'):
    task.is_correct(np.zeros_like(row_t)[None])


def test_what_is_around_a_question_may_be_special_tokens(tmp_path):
  lines = [{'question': f'{i} eggs?', 'answer': f'#### {i}'} for i in range(40)]
  path = tmp_path / 'train.jsonl'
  path.write_text('\n'.join(map(json.dumps, lines)))
  found = language_model(None)
  data = answers.Config(
    source=jsonl.Jsonl(path=str(path), validation=str(path), test=str(path)),
    before='<bos>Q: ',
    behind='\nA: ',
    prompt_len=24,
    answer_len=12,
  )
  with pytest.raises(ValueError, match=r'task\.data is missing'):
    questions.Config().make(found)
  task = questions.Config(data=data).make(found)
  row_t = base.record(task, training.TEST, 7)
  want = [found.tokenizer.special.bos, *b'Q: 7 eggs?\nA: ']
  np.testing.assert_array_equal(
    row_t[: task.prompt_len], [task.mask_id] * (24 - len(want)) + want
  )
  assert task.is_correct(row_t[None]).all()
  with pytest.raises(ValueError, match=r'40 questions.*config\.num_test=40'):
    base.record(task, training.TEST, 40)
  with pytest.raises(ValueError, match=r'config\.policy\.num_validation='):
    base.record(task, training.VALIDATION, 40)
  # Training goes round, in another order.
  firsts = [base.record(task, 9, i)[24:].tobytes() for i in range(80)]
  assert len(set(firsts[:40])) == len(set(firsts)) == 40
  assert firsts[:40] != firsts[40:]


def test_task_and_denoiser_must_fit():
  with pytest.raises(ValueError, match=r'task=Config and .* do not fit'):
    experiment.Config(task=questions.Config())
  with pytest.raises(ValueError, match=r'denoiser=OfRun do not fit'):
    experiment.Config(denoiser=questions.OfRun(path='runs/a'))


@pytest.mark.parametrize(
  'size', ['tiny', 'small', 'llada', 'llada_blocks', 'llada_steered']
)
def test_configs_can_be_built(size):
  config = config_file.get_config(size)
  assert hash(config) == hash(config_file.get_config(size))
  assert config.policy.learn.block == (32 if size == 'llada_blocks' else 0)
  assert config.policy.learn.num_experts == (size == 'llada_steered')


@pytest.mark.slow
def test_a_run_of_a_language_model_is_unmasked_to_the_picture(tmp_path):
  source = llada_sft.get_config('tiny')
  source.steps, source.evals = 2, {}
  source.model = dataclasses.replace(
    source.model, dim=16, num_layers=1, num_heads=2, mlp_dim=16
  )
  train.run(source, tmp_path / 'sft')
  config = config_file.get_config('tiny')
  config.denoiser.path = str(tmp_path / 'sft')
  config.num_test = config.policy.num_validation = 8
  config.policy = dataclasses.replace(config.policy, alphas=(1.0,))
  config.policy.learn = dataclasses.replace(
    config.policy.learn, steps=1, warmup_steps=0, num_prompts=1, group=2
  )
  config.policy.temperatures = config.temperatures = (1.0,)
  job = experiment.Experiment(config, tmp_path / 'unmasking')
  outcome = job.run()
  assert (job.workdir / 'frontier.png').exists()
  assert len(outcome.learned[0]) == 1
  # Beside a folder that holds the picture, nothing is trained again.
  again = experiment.Experiment(config, tmp_path / 'unmasking')
  assert again.run().table() == outcome.table()


@pytest.mark.slow
def test_a_run_that_is_no_denoiser_is_refused(tmp_path):
  source = mdlm.get_config('tiny')
  source.steps, source.evals = 1, {}
  source.objective.is_timed = True
  from jaxtok import runs

  runs.start(tmp_path / 'timed', source)
  with pytest.raises(ValueError, match='without being told a time'):
    questions.OfRun(path=str(tmp_path / 'timed')).load()
