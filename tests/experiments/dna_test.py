# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The experiment on DNA runs, resumes, and beats chance where it can."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import config_path
from experiments.dna import experiment, finetune, naive_bayes, tasks
from experiments.dna.configs import dnabert2 as dnabert2_config
from experiments.dna.configs import mergedna as mergedna_config
from jaxtok.data import planted

CONFIGS = (
  *('dnabert2:tiny', 'overlapping_6mers:tiny', 'mergedna:tiny'),
  *('mergedna:tiny_dtem', 'mergedna:tiny_window'),
)
DATA = dict(length=40, num_words=3, num_planted=1, mutation=0.0)


def tiny(name):
  name, size = name.split(':')
  config = config_path.load(f'experiments/dna/configs/{name}.py:{size}')
  source = planted.Motifs(num_train=64, num_heldout=20, **DATA)
  config.pretrain.data.source = source
  config.pretrain.data.seq_len = 64
  config.pretrain.steps = config.pretrain.log_every = 2
  config.pretrain.mesh.data, config.pretrain.batch_size = 1, 8
  if hasattr(config.pretrain.tokenizer, 'vocab_size'):
    config.pretrain.tokenizer.vocab_size = 40
  config.tasks['motifs'].data = source
  config.tasks['motifs'].max_steps = 2
  return config


@pytest.fixture
def programs(monkeypatch):
  """What fine-tuning has made to be compiled."""
  made = []

  class Recorded(finetune._Program):
    def __init__(self, *args):
      super().__init__(*args)
      made.append(self)

  monkeypatch.setattr(finetune, '_Program', Recorded)
  finetune._program.cache_clear()
  yield made
  finetune._program.cache_clear()


def test_the_claim_of_mergedna_trains_what_it_says():
  run = mergedna_config.get_config('claim').pretrain
  assert run.model.dim == 64
  assert run.model.window == 16
  layers = ('local', 'latent', 'latent_decoder', 'local_decoder')
  found = tuple(getattr(run.model, f'num_{name}') for name in layers)
  assert found == (2, 2, 1, 1)
  assert (run.batch_size, run.data.seq_len) == (16, 256)


@pytest.mark.parametrize(
  'name',
  [CONFIGS[0], *(pytest.param(x, marks=pytest.mark.slow) for x in CONFIGS[1:])],
)
def test_a_run_pretrains_finetunes_and_resumes(name, tmp_path, programs):
  config = tiny(name)
  shown = experiment.Experiment(config, tmp_path).run()
  assert shown.splitlines()[0].split()[0] == 'task'
  # Both starts share a program, which is compiled once.
  [program] = programs
  assert program.step._cache_size() == program._run._cache_size() == 1
  record = tmp_path / 'tasks' / 'motifs.json'
  found = json.loads(record.read_text())
  assert set(found) == {'floor', 'pretrained', 'random'}
  assert found['pretrained'][0]['steps'] == 2
  assert found['pretrained'] != found['random']
  [row] = experiment.train.run(config.pretrain, tmp_path / 'pretrain').metrics(
    'eval/val'
  )
  assert row['nats'] > 0
  # What is there is read, not computed again.
  found['random'][0]['mcc'] = 0.125
  record.write_text(json.dumps(found))
  assert '0.125' in experiment.Experiment(config, tmp_path).run()
  config.tasks['more'] = config.tasks['motifs']
  with pytest.raises(ValueError, match='holds another config'):
    experiment.Experiment(config, tmp_path)
  del config.tasks['more']
  config.only = ('motifs',)
  assert '0.125' in experiment.Experiment(config, tmp_path).run()
  with pytest.raises(ValueError, match=r"only=\['x'\] must be among .* motifs"):
    dataclasses.replace(config, only=('x',))
  config.seeds = (0, 1)
  with pytest.raises(ValueError, match='holds another config'):
    experiment.Experiment(config, tmp_path)


def test_some_tasks_are_run_and_those_of_before_are_shown(
  tmp_path, monkeypatch
):
  scores = dict(mcc=0.5, cut=0.0, steps=1)
  monkeypatch.setattr(
    experiment.finetune_lib, 'finetune', lambda *args, **kwargs: dict(scores)
  )
  monkeypatch.setattr(
    experiment.naive_bayes, 'score', lambda task: dict(mcc=0.25)
  )
  monkeypatch.setattr(
    experiment.Experiment,
    'encoder',
    finetune.Encoder(config=None, tokenizer=None, params=None),
  )
  config = tiny(CONFIGS[0])
  config.tasks['second'] = config.tasks['motifs']
  config.only = ('motifs',)
  assert 'second' not in experiment.Experiment(config, tmp_path).run()
  config.only = ('second',)
  shown = experiment.Experiment(config, tmp_path).run()
  assert 'motifs' in shown
  assert 'second' in shown


@pytest.mark.slow
def test_finetuning_learns_what_a_word_tells():
  task = finetune.Task(
    data=planted.Motifs(num_train=1000, num_heldout=200, **DATA), epochs=4
  )
  config = dnabert2_config.get_config('tiny')
  tokenizer = config.pretrain.tokenizer
  tokenizer.vocab_size = 60
  tokenizer = tokenizer.make(lambda: task.data.read('train').sequences)
  model = config.pretrain.model
  model.vocab_size, model.dim, model.mlp_dim = tokenizer.vocab_size, 32, 64
  encoder = finetune.Encoder(model, tokenizer, None)
  found = finetune.finetune(encoder, task, config.finetune, seed=0)
  assert found['mcc'] > 0.9
  assert found['cut'] == 0


def test_naive_bayes_is_right_about_words_and_at_chance_without():
  score = lambda **kw: naive_bayes.score(
    finetune.Task(data=planted.Motifs(num_train=2000, **(DATA | kw)))
  )['mcc']
  assert score() > 0.95
  # 1000 held-out rows: a standard error of 0.032.
  assert abs(score(mutation=1.0)) < 0.15


def test_published_settings_are_those_of_the_longest_name():
  assert tasks.published('prom/prom_core_tata').epochs == 10
  assert tasks.published('prom/prom_core_all').epochs == 4
  assert tasks.published('splice/reconstructed').data.num_classes == 3
  assert tasks.published('virus/covid').metric == 'macro_f1'
  with pytest.raises(ValueError, match='no data set of GUE'):
    tasks.published('x/0')


def test_splits_have_rows_of_one_length():
  rows = finetune.rows(
    finetune.Task(data=planted.Motifs(num_train=40, num_heldout=10, **DATA)),
    dnabert2_config.dna.Config().make(),
  )
  widths = {part.tokens_nt.shape[1] for part in rows.values()}
  assert widths == {42}  # 40 bases, [CLS], [SEP].
  assert np.unique(rows['train'].labels_n).tolist() == [0, 1]
