# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions in words as a task of the unmasking experiment."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.diffusion_lm.configs import llada_sft
from experiments.unmasking import experiment, questions, training
from experiments.unmasking.configs import questions as config_file
from jaxtok import runs, train
from jaxtok.data import answers, jsonl
from jaxtok.diffusion import (
  bd3lm,
  denoisers,
  genmd4,
  mdlm,
  pretrained,
  samplers,
  selectors,
)
from jaxtok.models import interop, transformer
from jaxtok.tasks import base
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import hf

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


MASK, EOS, TURN = 259, 258, 257
MAKE = {'llada': transformer.Config.llama, 'Dream': transformer.Config.qwen2}


def checkpoint(folder, kind, **extra):
  """A random LLaDA or Dream that reads bytes; its model."""
  sizes = dict(vocab_size=260, dim=16, num_layers=1, num_heads=2)
  config = MAKE[kind](**sizes, is_tied=False, is_causal=False)
  graph, params = nnx.split(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))))
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)
  model = nnx.merge(graph, jax.tree.map(draw, params))
  interop.save(model, folder, model_type=kind, extra=extra)
  hf.train_bpe(['ab'], 259).to_hf().save(str(folder / 'tokenizer.json'))
  return model


@pytest.mark.parametrize('kind', ['llada', 'Dream'])
def test_a_checkpoint_says_its_ids_and_whether_it_is_shifted(tmp_path, kind):
  """Decoded by `samplers.decode` as by `pretrained.generate`."""
  folder = tmp_path / 'model'
  model = checkpoint(folder, kind, mask_token_id=MASK, eos_token_id=[EOS, TURN])
  found = questions.Published(path=str(folder), dtype='float32').load()
  assert (found.mask_id, found.eos_ids) == (MASK, (EOS, TURN))
  path = tmp_path / 'q.jsonl'
  lines = [{'question': f'{10**i} eggs?', 'answer': '3'} for i in range(2)]
  path.write_text('\n'.join(map(json.dumps, lines)))
  source = jsonl.Jsonl(path=str(path), validation=str(path), test=str(path))
  data = answers.Config(source=source, prompt_len=10, answer_len=4)
  task = questions.Config(data=data).make(found)
  assert task.vocab_size == 260
  rows = jnp.asarray(base.batch(task, training.TEST, 0, 2))
  p = task.prompt_len
  is_masked = jnp.broadcast_to(jnp.arange(rows.shape[1]) >= p, rows.shape)
  rng = jax.random.key(0)
  canvas = jax.jit(
    lambda denoiser: samplers.decode(
      denoiser,
      samplers.start(rows, is_masked, task.mask_id),
      selectors.TopK(1),
      samplers.row_rngs(rng, len(rows)),
      prompt_len=p,
      mask_id=task.mask_id,
    )
  )(task.denoiser(found.model))
  for shift in (False, True):
    want = nnx.jit(
      lambda model, shift=shift: pretrained.generate(
        model,
        rows[:, :p],
        pretrained.Config(length=task.answer_len, shift=shift),
        mask_id=MASK,
        is_prompt_bt=rows[:, :p] != MASK,
        selector=selectors.TopK(1),
        rng=rng,
      )
    )(model)
    is_same = np.asarray(canvas.tokens_bt == want.tokens_bt)[:, p:].all()
    assert is_same == (shift == (kind == 'Dream'))


def test_ids_that_are_not_the_checkpoints_are_refused(tmp_path):
  named, silent = tmp_path / 'named', tmp_path / 'silent'
  checkpoint(named, 'Dream', mask_token_id=MASK, eos_token_id=EOS)
  checkpoint(silent, 'Dream')
  for path, fields, message in (
    (named, dict(mask_id=7), r'denoiser\.mask_id=7, but 259 is that of the'),
    (named, dict(eos_ids=(7,)), r'denoiser\.eos_ids=\(7,\), but 258 is that'),
    (named, dict(eos_ids=(TURN, EOS)), r', 258\), but 258 is that of the'),
    (silent, {}, r'mask_id=151666 must be in \[0, 260\)'),
    (silent, dict(mask_id=MASK), r'eos_ids=\(151643, 151645\) must be in'),
  ):
    with pytest.raises(ValueError, match=message):
      questions.Published(path=str(path), **fields).load()
  given = dict(mask_id=MASK, eos_ids=(EOS, TURN))
  found = questions.Published(path=str(silent), **given).load()
  assert (found.mask_id, found.eos_ids) == (MASK, (EOS, TURN))
  # Published ids are no contradiction, if the vocabulary has them or not.
  own = questions.Published(path='x', mask_id=126_400, eos_ids=(126_348,))
  own._check_named({}, interop.conventions({'model_type': 'llada'}))
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'llama'}))
  with pytest.raises(ValueError, match=r"denoiser\.path=.*model_type='llama'"):
    questions.Published(path=str(tmp_path)).load()


def test_the_published_ids_are_those_of_the_type():
  dream = interop.conventions({'model_type': 'Dream', 'eos_token_id': 151_643})
  assert dream == interop.Conventions(151_666, (151_643, 151_645), True)
  llada = interop.conventions({'model_type': 'llada', 'mask_token_id': 126_336})
  assert llada == interop.Conventions(126_336, (126_081, 126_348), False)


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


@pytest.mark.parametrize(
  'objective',
  [
    mdlm.Config(mask_id=9, is_timed=True),
    genmd4.Config(mask_id=9),
    bd3lm.Config(mask_id=9),
  ],
)
def test_a_run_that_is_no_denoiser_is_refused(monkeypatch, objective):
  config = types.SimpleNamespace(objective=objective, data=DATA)
  run = types.SimpleNamespace(
    config=config,
    model=language_model().model,
    tokenizer=byte_tokenizer.Config().make(),
    num_parameters=1,
  )
  monkeypatch.setattr(runs, 'load', lambda path: run)
  source = questions.OfRun(path='runs/a')
  with pytest.raises(ValueError, match=r'denoiser\.path=runs/a: .*being told'):
    source.load()
  config.objective = mdlm.Config(mask_id=9)
  assert source.load().mask_id == 9
