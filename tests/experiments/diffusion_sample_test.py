# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which samplers fit which runs, and what is said of samples."""

import argparse
import dataclasses
import re
import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.diffusion_lm import sample
from jaxtok.data import answers, text
from jaxtok.decoding import sampling
from jaxtok.diffusion import (
  ancestral,
  bd3lm,
  block_cache,
  first_hitting,
  genmd4,
  md4,
  mdlm,
  remdm,
  samplers,
  schedules,
  sedd,
)
from jaxtok.models import base, transformer
from jaxtok.objectives import next_token
from jaxtok.tasks import word_problems
from jaxtok.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.Config().make()
MASK = TOKENIZER.vocab_size

FITTING = {
  mdlm.Config(mask_id=9): {'ancestral', 'remask', 'first_hitting'},
  mdlm.Config(mask_id=9, is_timed=True): {'timed'},
  bd3lm.Config(mask_id=9): {'block'},
  genmd4.Config(mask_id=9): {'rates'},
  sedd.Config(mask_id=9): {'ancestral', 'remask', 'first_hitting', 'analytic'},
  sedd.Config(mask_id=9, is_timed=True): {'timed', 'analytic'},
}


def run(objective):
  config = types.SimpleNamespace(objective=objective)
  return types.SimpleNamespace(config=config, workdir='runs/x')


@pytest.mark.parametrize('objective', FITTING)
@pytest.mark.parametrize('sampler', sample.SAMPLERS)
def test_samplers_serve_the_models_they_are_for(objective, sampler):
  fitting = FITTING[objective]
  if sampler in fitting:
    sample.check(run(objective), sampler)
    return
  with pytest.raises(ValueError, match=f'--sampler=.*{min(fitting)}'):
    sample.check(run(objective), sampler)


def test_a_run_without_masks_has_no_sampler():
  with pytest.raises(ValueError, match='no mask token'):
    sample.check(run(next_token.Config()), 'ancestral')


def text_run(tmp_path, num_bytes=400, seq_len=16):
  path = tmp_path / 'text.txt'
  letters = np.random.default_rng(0).integers(97, 123, num_bytes, np.uint8)
  path.write_bytes(letters.tobytes())
  source = text.Files(path=str(path), validation=str(path))
  found = run(mdlm.Config(mask_id=MASK))
  found.config.data = text.Config(source=source, seq_len=seq_len)
  found.tokenizer = TOKENIZER
  return found


class Bigram:
  """An autoregressive model that is a table; reads at most `max_len` tokens."""

  max_len = 24

  def __init__(self):
    table = np.random.default_rng(1).normal(size=(MASK, MASK))
    self.log_probs = table - np.logaddexp.reduce(table, -1, keepdims=True)

  def __call__(self, tokens_bt):
    return base.Output(jnp.asarray(self.log_probs, jnp.float32)[tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


SCORER = types.SimpleNamespace(
  model=Bigram(),
  tokenizer=TOKENIZER,
  workdir='runs/scorer',
  config=types.SimpleNamespace(objective=next_token.Config()),
)


def perplexity(rows):
  """Of rows of different lengths, none of which is empty."""
  nats = 0.0
  for row in rows:
    before = [TOKENIZER.special.bos, *row[:-1]]
    nats -= SCORER.model.log_probs[before, row].sum()
  return np.exp(nats / sum(map(len, rows)))


def entropy(row):
  share = np.bincount(row) / len(row)
  share = share[share > 0]
  return -(share * np.log(share)).sum()


def test_measures_are_over_tokens_and_leave_empty_samples_out(tmp_path):
  found, sizes = text_run(tmp_path), [8, 3, 0, 1]
  held_out = sample.held_out(found, 4, 8)
  tokens = np.random.default_rng(2).integers(0, 256, (4, 8))
  is_text = np.arange(8) < np.array(sizes)[:, None]
  lines = sample.report(found, tokens, held_out, is_text, SCORER)
  both = [
    [x[:n] for x, n in zip(rows, sizes, strict=True) if n]
    for rows in (tokens, held_out)
  ]
  means = [np.mean([entropy(x) for x in rows]) for rows in both]
  want = [f'{mean:.3f}' for mean in means]
  assert lines[0] == f'unigram entropy  {want[0]} nats; held-out text {want[1]}'
  assert lines[1] == sample.comparison(means[0] - means[1])
  want = [f'{perplexity(rows):.2f}' for rows in both]
  assert lines[2] == (
    f'gen. perplexity  {want[0]} per token; held-out text {want[1]}'
  )
  nothing = sample.report(found, tokens, held_out, is_text & False, SCORER)
  assert nothing == ['no sample has text, so that there is nothing to measure']


@pytest.mark.parametrize(
  'gap, line',
  [
    (0.02, 'valid of generative perplexities: .* 0.020 nats, less than 0.1'),
    (-0.0999, 'valid of generative perplexities: .* 0.100 nats, less than'),
    (-0.1, 'not valid of generative perplexities: .* 0.100 nats, not less'),
    (0.3, 'not valid of generative perplexities: .* 0.300 nats, not less'),
  ],
)
def test_perplexities_are_comparable_where_entropies_are_near(gap, line):
  assert re.match(rf'comparison       {line}', sample.comparison(gap))


def test_held_out_rows_are_as_long_as_samples(tmp_path):
  found = text_run(tmp_path)
  rows = sample.held_out(found, 3, 40)
  assert rows.shape == (3, 40)
  whole = TOKENIZER.encode((tmp_path / 'text.txt').read_bytes())
  np.testing.assert_array_equal(rows.reshape(-1), whole[:120])
  with pytest.raises(ValueError, match='num_rows=11 rows of 40'):
    sample.held_out(found, 11, 40)
  found.config.data = answers.Config(source=word_problems.WordProblems())
  with pytest.raises(ValueError, match=r'data\.answers, which has no seq_len'):
    sample.held_out(found, 3, 40)


def test_a_scorer_predicts_the_next_of_the_same_tokens(tmp_path):
  found = text_run(tmp_path)
  sample.check_scorer(SCORER, found, 24)
  with pytest.raises(ValueError, match=r'at most 24 tokens, but .* 25'):
    sample.check_scorer(SCORER, found, 25)
  with pytest.raises(ValueError, match=r'mdlm and does not predict the next'):
    sample.check_scorer(found, found, 24)
  scorer = types.SimpleNamespace(**vars(SCORER))
  scorer.tokenizer = byte_tokenizer.Config(map='byt5').make()
  with pytest.raises(ValueError, match='same tokenizer'):
    sample.check_scorer(scorer, found, 24)


@pytest.mark.parametrize(
  'schedule', [schedules.Polynomial(power=2.0), schedules.Cosine()]
)
def test_timed_models_are_told_the_times_of_their_training(schedule):
  name = type(schedule).__name__.lower()
  objective = md4.Config(
    mask_id=9, schedule=name, power=2.0, is_timed=True, eps=schedule.eps
  )
  time_b = jnp.array([0.1, 0.5, 0.9])
  share_b = 1 - schedule.alpha(time_b)
  denoiser = sample.told(objective, lambda tokens_bt, time_b: time_b)
  # Between two of 4,097 times.
  np.testing.assert_allclose(denoiser(None, share_b), time_b, atol=1 / 4096)
  linear = sample.told(mdlm.Config(mask_id=9, is_timed=True), denoiser)
  assert linear is denoiser


def test_options_of_the_end_are_not_dropped(tmp_path):
  found = text_run(tmp_path)
  args = argparse.Namespace(stop=False, min_entropy=1.5, window=64)
  with pytest.raises(ValueError, match=r'min_entropy=1\.5 needs --stop'):
    sample.ending_of(found, args)
  args.stop = True
  end = sample.ending_of(found, args)
  assert (end.eos, end.min_entropy, end.window) == (
    TOKENIZER.special.eos,
    1.5,
    64,
  )
  args = argparse.Namespace(stop=False, min_entropy=0.0, window=64)
  assert sample.ending_of(found, args) is None


def untrained_run(tmp_path):
  found = text_run(tmp_path)
  model = transformer.Config(
    vocab_size=MASK + 1, dim=4, num_layers=1, num_heads=1, is_causal=False
  )
  found.model = model.make(nnx.Rngs(0))
  return found


@pytest.fixture
def called(tmp_path, monkeypatch):
  """Calls the command line; returns its exit code and what its sampler gets."""
  found = untrained_run(tmp_path)
  monkeypatch.setattr(sample.runs, 'load', lambda workdir: found)
  given = {}

  def decode(denoiser, canvas, alphas, rngs, *, mask_id, filters, remask=None):
    given.update(alphas=np.asarray(alphas), remask=remask, filters=filters)
    return dataclasses.replace(
      canvas, tokens_bt=jnp.full_like(canvas.tokens_bt, 97)
    )

  monkeypatch.setattr(ancestral, 'decode', decode)

  def call(line):
    given.clear()
    code = sample.main(['runs/x', '--num_rows=2', '--steps=10', *line.split()])
    return code, dict(given)

  return call


@pytest.mark.parametrize(
  'line, rule',
  [
    ('', remdm.Rescale(0.015)),
    ('--eta=0.5', remdm.Rescale(0.5)),
    ('--remask=cap', remdm.Cap(0.008)),
    ('--remask=cap --eta=0', remdm.Cap(0.0)),
    ('--remask=confidence', remdm.Confidence(1.0)),
    ('--remask=loop --eta=0.1', remdm.Loop(0.1)),
  ],
)
def test_remasking_is_done_as_the_options_say(line, rule, called):
  code, given = called(f'--sampler=remask {line}')
  assert code == 0
  assert given['remask'] == rule
  loop = remdm.loop_alphas(10) if 'loop' in line else np.arange(11) / 10
  np.testing.assert_allclose(given['alphas'], loop, atol=1e-6)


def test_the_times_of_the_loop_are_options(called):
  line = '--sampler=remask --remask=loop --alpha_on=0.5 --t_on=0.8 --t_off=0.2'
  _, given = called(line)
  want = [0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75, 1]
  np.testing.assert_allclose(given['alphas'], want, atol=1e-5)
  _, given = called('')  # The ancestral sampler.
  assert given['remask'] is None
  np.testing.assert_allclose(given['alphas'], np.arange(11) / 10, atol=1e-6)


@pytest.mark.parametrize(
  'line, message',
  [
    ('--remask=cap', '--remask=cap needs --sampler=remask'),
    ('--eta=0.1 --t_on=0.5', '--eta=0.1, --t_on=0.5 needs --sampler=remask'),
    (
      '--sampler=remask --remask=cap --t_off=0.1',
      "need --remask=loop, but the kind is 'cap'",
    ),
    ('--sampler=remask --eta=1.5', 'eta=1.5 must be in [0, 1]'),
    (
      '--sampler=remask --remask=loop --t_on=0.04',
      't_off=0.05 < t_on=0.04 < 1',
    ),
    (
      '--sampler=remask --remask=loop --steps=2',
      'num_steps=2 has no step between t_on=0.55 and t_off=0.05',
    ),
  ],
)
def test_options_of_remasking_that_do_not_fit_are_refused(
  line, message, called, capsys
):
  code, given = called(line)
  assert (code, given) == (1, {})
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  'line, want',
  [
    ('', sampling.Config()),
    ('--top_p=0.9', sampling.Config(top_p=0.9)),
    ('--temperature=0', sampling.Config(temperature=0.0)),
    (
      '--sampler=remask --temperature=0.7 --top_p=0.98',
      sampling.Config(temperature=0.7, top_p=0.98),
    ),
  ],
)
def test_tokens_are_drawn_as_the_options_say(line, want, called):
  code, given = called(line)
  assert code == 0
  assert given['filters'] == want


@pytest.mark.parametrize(
  'line, message',
  [
    ('--temperature=-1', 'temperature=-1.0 must be finite and >= 0'),
    ('--top_p=0', 'top_p=0.0 must be in (0, 1]'),
  ],
)
def test_laws_that_cannot_be_are_refused(line, message, called, capsys):
  code, given = called(line)
  assert (code, given) == (1, {})
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  'sampler, objective',
  [
    ('ancestral', mdlm.Config(mask_id=MASK)),
    ('remask', mdlm.Config(mask_id=MASK)),
    ('first_hitting', mdlm.Config(mask_id=MASK)),
    ('block', bd3lm.Config(mask_id=MASK, block=4)),
    ('rates', genmd4.Config(mask_id=MASK)),
    ('analytic', sedd.Config(mask_id=MASK)),
    ('timed', mdlm.Config(mask_id=MASK, is_timed=True)),
  ],
)
def test_every_sampler_is_told_how_tokens_are_drawn(
  sampler, objective, tmp_path, monkeypatch
):
  found, seen = untrained_run(tmp_path), []
  found.config.objective = objective
  found.model.rates = lambda: jnp.ones(MASK)

  def decode(*args, filters, temperature=0.0, **unused):
    seen.append((filters, temperature))
    [canvas] = [x for x in args if isinstance(x, samplers.Canvas)]
    return (canvas, None) if sampler == 'timed' else canvas

  modules = (ancestral, block_cache, first_hitting, genmd4, samplers, sedd)
  for module in modules:
    monkeypatch.setattr(module, 'decode', decode)
  filters = sampling.Config(temperature=0.7, top_p=0.9)
  sample.sample(found, num_rows=1, steps=2, sampler=sampler, filters=filters)
  assert seen == [(filters, 0.0)]


def test_a_rule_is_not_dropped_by_another_sampler(tmp_path):
  with pytest.raises(ValueError, match="needs sampler='remask'"):
    sample.sample(
      text_run(tmp_path),
      num_rows=1,
      steps=2,
      sampler='ancestral',
      remask=remdm.Config(),
    )


def test_remasking_takes_more_calls_and_leaves_no_mask(tmp_path):
  found, calls = untrained_run(tmp_path), {}
  for eta in (0.0, 1.0):
    canvas = sample.sample(
      found,
      num_rows=4,
      steps=60,
      sampler='remask',
      remask=remdm.Config(kind='loop', eta=eta),
    )
    assert not canvas.is_masked_bt.any()
    assert (canvas.tokens_bt < MASK).all()
    calls[eta] = canvas.num_calls_b
  # 16 tokens without; with, one in ten is masked in 29 steps more.
  assert (calls[0.0] <= 16).all()
  assert (calls[1.0] > 16).all()


@pytest.mark.parametrize('is_timed', [False, True])
def test_scores_are_sampled_with_and_without_time(
  is_timed, tmp_path, monkeypatch
):
  found, told = untrained_run(tmp_path), []
  found.config.objective = sedd.Config(mask_id=MASK, is_timed=is_timed)
  call = transformer.Transformer.__call__

  def spy(self, tokens_bt, *, context=None, **options):
    told.append(context is not None)
    return call(self, tokens_bt, **options)

  monkeypatch.setattr(transformer.Transformer, '__call__', spy)
  canvas = sample.sample(found, num_rows=2, steps=3, sampler='analytic')
  assert told == [is_timed]  # Traced once.
  assert not canvas.is_masked_bt.any()
  assert (canvas.tokens_bt < MASK).all()
