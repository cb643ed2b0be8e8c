# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification and translation of programs, end to end at tiny sizes."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.claims import code_translate as claim
from experiments.code import __main__ as cli
from experiments.code import (
  fit,
  pairs,
  pretrained,
  savings,
  tasks,
  training,
  translation,
)
from experiments.code.configs import code_merge, code_translate
from jaxtok import config as config_lib
from jaxtok.models import interop, transformer
from jaxtok.nn import linear
from jaxtok.tokenizers import bytelevel
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import optim

HAS_DATA = (
  pathlib.Path(os.environ.get('JAXTOK_DATA', '/none')) / 'code/codexglue.zip'
).exists()


def test_rows_begin_with_a_token_of_their_own_and_end_with_padding():
  tokenizer = byte_tokenizer.Config().make()
  rows = tasks.rows(
    tokenizer, [b'ab+c', b'x' * 9], np.array([0, 1]), 7, language='python'
  )
  np.testing.assert_array_equal(rows.tokens_bt[0], [259, *b'ab+c', 0, 0])
  np.testing.assert_array_equal(
    rows.units_bt, [[0, 1, 1, 2, 3, -1, -1], [0, 1, 1, 1, 1, 1, 1]]
  )
  assert rows.units_per_token == 4 / 10


@pytest.mark.parametrize(
  'kind',
  [
    'modules',
    pytest.param(
      'defects',
      marks=pytest.mark.skipif(not HAS_DATA, reason='JAXTOK_DATA is not set'),
    ),
  ],
)
def test_programs_are_divided_without_overlap(kind):
  config = tasks.Config(kind=kind, num_examples=300)
  programs, labels, num = config.load(0)
  assert 0.7 < num / len(programs) < 0.9
  assert set(labels) <= set(range(config.num_classes))
  assert len(set(labels[num:])) > 1
  if kind == 'defects':
    assert labels[num:].mean() == 0.5  # Pairs stay together.
  again = config.load(0)
  assert again[0] == programs
  assert config.load(1)[0] != programs


@pytest.mark.parametrize(
  'config, instead',
  [
    (tasks.Config(kind='defects'), "task.kind='modules'"),
    (tasks.Config(kind='cloze'), "task.kind='modules'"),
    (pairs.Config(kind='java_cs'), "task.kind='camel'"),
    (pairs.Config(kind='refinement'), "task.kind='camel'"),
    (pairs.Config(kind='concode'), "task.kind='camel'"),
  ],
)
def test_the_data_folder_must_be_named_and_have_the_archive(
  config, instead, monkeypatch, tmp_path
):
  monkeypatch.delenv('JAXTOK_DATA', raising=False)
  with pytest.raises(ValueError, match='JAXTOK_DATA names, which is not set'):
    config.load(0)
  monkeypatch.setenv('JAXTOK_DATA', str(tmp_path))
  with pytest.raises(
    FileNotFoundError, match=f'has no code/codexglue.zip.*{instead}'
  ):
    config.load(0)


@pytest.fixture
def archive(tmp_path, monkeypatch):
  """Writes an archive in the form of CodeXGLUE's and makes it the data."""

  def write(files):
    (tmp_path / 'code').mkdir(exist_ok=True)
    with zipfile.ZipFile(tmp_path / 'code/codexglue.zip', 'w') as opened:
      for name, lines in files.items():
        text = ''.join(f'{line}\n' for line in lines)
        opened.writestr(name, text)
    monkeypatch.setenv('JAXTOK_DATA', str(tmp_path))

  return write


def fixes(split, num):
  return {
    f'refinement_small/{split}.buggy': [
      f'{split}{i} ( i++ ) ; ' for i in range(num)
    ],
    f'refinement_small/{split}.fixed': [
      f'{split}{i} ( ++i ) ; ' for i in range(num)
    ],
  }


def test_bug_fixing_learns_from_the_split_for_validation(archive):
  archive(fixes('valid', 5) | fixes('test', 3))
  config = pairs.Config(kind='refinement', num_train=0, num_test=2)
  train, test = config.load(0)
  assert sorted(train) == [
    (b'valid%d ( i++ ) ;' % i, b'valid%d ( ++i ) ;' % i) for i in range(5)
  ]
  assert len(test) == 2
  assert all(source.startswith(b'test') for source, _ in test)
  config.is_reversed = True
  assert config.load(0)[0] == [pair[::-1] for pair in train]


def test_files_of_pairs_must_have_as_many_lines(archive):
  files = fixes('valid', 5) | fixes('test', 3)
  files['refinement_small/valid.fixed'].pop()
  archive(files)
  with pytest.raises(
    ValueError, match=r'6 lines in .*valid.buggy and 5 in .*valid.fixed'
  ):
    pairs.Config(kind='refinement').load(0)


def concode(order):
  return [
    json.dumps({'nl': f'says {i // 2}', 'code': f'int f{i} ( ) ;'})
    for i in order
  ]


def test_concode_is_split_by_what_is_read(archive):
  archive({'concode/dev.jsonl': concode(range(40))})
  parts = pairs._concode()
  assert [len(part) for part in parts] == [32, 4, 4]
  assert len({pair for part in parts for pair in part}) == 40
  # Both methods of a sentence are on the same side.
  sources = [{source for source, _ in part} for part in parts]
  assert sum(map(len, sources)) == 20
  train, test = pairs.Config(kind='concode').load(0)
  assert (sorted(train), sorted(test)) == (sorted(parts[0]), sorted(parts[2]))
  # The split is one of examples, not of lines.
  archive({'concode/dev.jsonl': concode(reversed(range(40)))})
  assert [set(part) for part in pairs._concode()] == [set(p) for p in parts]


def cloze(*tokens):
  return json.dumps({'idx': 'maxmin-1', 'nl_tokens': [], 'pl_tokens': tokens})


def test_cloze_asks_for_a_word_whose_answer_is_known(archive):
  java = [
    cloze('a', "// don't", '=', 'min', '(', '<mask>', ')', 'max'),
    cloze('<mask>', '(', 'maximum', ')'),  # Nothing to ask for.
  ]
  go = [cloze(*['x'] * 30, 'max', *['y'] * 30)] * 9
  archive(
    {
      'cloze_maxmin/go.jsonl': go,
      'cloze_maxmin/java.jsonl': java,
      'cloze_maxmin/javascript.jsonl': [],
    }
  )
  config = tasks.Config(kind='cloze', num_examples=10)
  programs, labels, num = config.load(0)
  assert (num, config.num_classes) == (8, 2)
  assert sorted(zip(programs, labels, strict=True)) == [
    (b"a // don't\n= __asked__ ( __hidden__ ) max", 1),
    *[(b'x ' * 24 + b'__asked__ ' + b'y ' * 23 + b'y', 0)] * 9,
  ]


@pytest.mark.skipif(not HAS_DATA, reason='JAXTOK_DATA is not set')
def test_codexglues_files_have_the_examples_that_are_said():
  sizes = {
    kind: [len(part) for part in pairs.Config(kind=kind, num_train=0).load(0)]
    for kind in ('refinement', 'concode')
  }
  assert sizes == {'refinement': [5835, 1000], 'concode': [1602, 199]}
  programs, labels, num = tasks.Config(kind='cloze').load(0)
  assert (len(programs), num) == (545, 436)
  assert np.bincount(labels).tolist() == [369, 176]
  assert {program.count(b'__asked__') for program in programs} == {1}


def test_each_kind_is_cut_by_the_rules_of_its_language(archive):
  assert tasks.Config().rules == 'python'
  assert tasks.Config(kind='defects').rules == 'java'
  assert pairs.Config(kind='java_cs').rules == 'java'
  assert pairs.Config(kind='java_cs', is_reversed=True).rules == 'csharp'
  assert pairs.Config(kind='camel', language='go').rules == 'go'
  for config in (tasks.Config, pairs.Config):
    with pytest.raises(ValueError, match="language='perl' must be one of py"):
      config(language='perl')
  # `i++` is two units of Java and three of Python.
  archive(fixes('valid', 20) | fixes('test', 5))
  config = code_translate.get_config('tiny')
  config.task.kind, config.vocab_size = 'refinement', 259  # Bytes.
  java = translation.data(config).test
  config.task.language = 'python'
  python = translation.data(config).test
  assert java.pairs == python.pairs
  np.testing.assert_array_equal(
    java.units_bs.max(1) + 1, python.units_bs.max(1)
  )


def test_the_claim_keeps_the_rules_with_which_it_was_measured(
  monkeypatch, tmp_path
):
  seen = []
  numbers = dict.fromkeys(
    ('bleu', 'exact_match', 'nats', 'flops', 'positions_kept', 'test_pairs'), 1
  )
  monkeypatch.setattr(translation, 'data', seen.append)
  monkeypatch.setattr(translation, 'run', lambda *args: numbers)
  claim.measure(tmp_path, seed=0)
  assert [config.task.rules for config in seen] == ['python']


def test_the_help_and_the_list_name_all_kinds():
  for module, kinds in (
    (code_merge, tasks.KINDS),
    (code_translate, pairs.KINDS),
  ):
    for kind in kinds:
      assert kind in cli.__doc__
      assert kind in module.__doc__.splitlines()[0]


def test_the_table_has_a_row_for_each_way_to_merge(tmp_path, monkeypatch):
  config = code_merge.get_config('tiny')
  config.steps = 2
  cli.run(config, str(tmp_path / 'run'))
  text = (tmp_path / 'run/table.md').read_text()
  header, _, *rows = text.splitlines()
  assert [row.split(' | ')[0] for row in rows] == [
    '| none',
    '| average',
    '| learned',
  ]
  flops = header.split(' | ').index('flops')
  cost = [float(row.split(' | ')[flops]) for row in rows]
  assert cost[1] < cost[0]
  assert header.endswith('flops_saved |')
  assert rows[0].endswith('| 0.0% |')
  # What is finished is not trained again, and another config is refused.
  monkeypatch.setattr(training, 'run', None)
  (tmp_path / 'run/table.md').unlink()
  cli.run(config, str(tmp_path / 'run'))
  assert (tmp_path / 'run/table.md').read_text() == text
  config.steps = 3
  with pytest.raises(ValueError, match=r'(?s)another config.*steps: 2 -> 3'):
    cli.run(config, str(tmp_path / 'run'))


def fitted(**fields):
  """A linear layer after a step without gradient: what decays, and how far."""
  model = linear.Linear(
    (2,), (2,), axes=('embed', 'mlp'), use_bias=True, rngs=nnx.Rngs(0)
  )
  model.bias[...] = jnp.ones(2)
  before = np.asarray(model.kernel[...])
  optimizer = optim.Config(lr=0.5, warmup_steps=0, **fields)
  fit.fit(
    model,
    lambda model, rows, rng: 0.0 * model(rows).sum(),
    np.ones((4, 2), np.float32),
    optim=optimizer,
    steps=1,
    batch_size=2,
    seed=0,
  )
  return np.asarray(model.kernel[...]) / before, np.asarray(model.bias[...])


def test_weights_decay_and_biases_do_not_as_in_other_runs():
  kernel, bias = fitted()
  np.testing.assert_allclose(kernel, 1 - 0.5 * 0.1, rtol=1e-6)
  np.testing.assert_array_equal(bias, 1.0)


def test_learning_rates_follow_the_names_of_parameters():
  kernel, _ = fitted(lr_scales={'kernel': 0.2})
  np.testing.assert_allclose(kernel, 1 - 0.2 * 0.5 * 0.1, rtol=1e-6)
  with pytest.raises(ValueError, match="lr_scales has 'kernl', with which no"):
    fitted(lr_scales={'kernl': 0.2})


def test_hows_says_which_models_are_trained(tmp_path, monkeypatch):
  trained = []

  def train(config, parts, path):
    trained.append(config.model.how.value)
    return {'flops': 2.0}

  monkeypatch.setattr(training, 'run', train)
  monkeypatch.setattr(training, 'data', lambda config: 'parts')
  config = code_merge.get_config('tiny')
  config.hows = ('learned',)
  cli.run(config, str(tmp_path))
  assert (tmp_path / 'table.md').read_text().endswith('| learned | 2 | - |\n')
  config.hows = ('none', 'learned')  # What is there stays.
  cli.run(config, str(tmp_path))
  assert trained == ['learned', 'none']
  config.hows = ('mean',)
  with pytest.raises(
    ValueError, match=r"hows=\('mean',\) must be some of none"
  ):
    config_lib.check(config)


@pytest.mark.slow  # A process of its own.
def test_a_way_to_merge_that_would_be_ignored_is_refused(tmp_path):
  command = [
    *(sys.executable, '-m', 'experiments.code', f'--workdir={tmp_path}'),
    '--config=experiments/code/configs/code_merge.py:tiny',
    '--config.model.how=average',
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert "Use e.g. --config.hows=\"('none', 'average')\"." in done.stderr


def test_special_tokens_are_units_of_one():
  tokenizer = byte_tokenizer.Config().make()
  rows = tasks.rows(
    tokenizer,
    [b'ab+', b'x' * 9],
    np.array([0, 1]),
    6,
    language='python',
    prefix=(7,),
    suffix=(8,),
  )
  np.testing.assert_array_equal(
    rows.tokens_bt, [[7, *b'ab+', 8, 0], [7, *b'xxxx', 8]]
  )
  np.testing.assert_array_equal(
    rows.units_bt, [[0, 1, 1, 2, 3, -1], [0, 1, 1, 1, 1, 2]]
  )
  with pytest.raises(ValueError, match='length=2 must be > 2'):
    tasks.rows(
      tokenizer,
      [b'a'],
      np.array([0]),
      2,
      language='python',
      prefix=(7,),
      suffix=(8,),
    )


def test_pairs_end_with_padding_and_long_ones_are_left_out():
  tokenizer = byte_tokenizer.Config().make()
  ends = pretrained.Ends((1,), (2,), start=3, stop=4)
  texts = [(b'ab+c', b'xy'), (b'a', b'xyzxyz'), (b'abcdefg', b'x')]
  rows = pairs.rows(tokenizer, texts, 7, ends, language='python')
  assert (rows.pairs, rows.num_long) == (texts[:1], 2)
  np.testing.assert_array_equal(rows.tokens_bs, [[1, *b'ab+c', 2, 0]])
  np.testing.assert_array_equal(rows.units_bs, [[0, 1, 1, 2, 3, 4, -1]])
  np.testing.assert_array_equal(rows.targets_bt, [[3, *b'xy', 4, -1, -1, -1]])
  with pytest.raises(ValueError, match='length=3: all 3 pairs have more'):
    pairs.rows(tokenizer, texts, 3, ends, language='python')


@pytest.mark.parametrize(
  'kind',
  [
    'camel',
    pytest.param(
      'java_cs',
      marks=pytest.mark.skipif(not HAS_DATA, reason='JAXTOK_DATA is not set'),
    ),
  ],
)
def test_pairs_of_training_and_test_differ(kind):
  config = pairs.Config(kind=kind, num_train=300, num_test=0)
  train, test = config.load(0)
  assert len(train) == 300
  assert len(test) == 1000 if kind == 'java_cs' else len(test) > 300
  assert all(source != target for source, target in train)
  if kind == 'camel':
    assert not set(train) & set(test)
    assert all(b'_' in source for source, _ in test)
  reversed_ = pairs.Config(kind=kind, num_train=300, is_reversed=True).load(0)
  assert reversed_[0] == [(target, source) for source, target in train]
  assert config.load(1)[0] != train


def test_a_translator_trains_and_its_translations_are_written(tmp_path):
  config = code_translate.get_config('tiny')
  config.steps, config.batch_size = 2, 4
  config.task.num_train, config.task.num_test = 40, 10
  numbers = translation.run(config, path=tmp_path / 'found.txt')
  assert numbers['test_pairs'] <= 10
  assert 0 < numbers['positions_kept'] < 1
  assert 0 <= numbers['exact_match'] <= 1
  assert 0 < numbers['nats'] < 20
  lines = (tmp_path / 'found.txt').read_text().splitlines()
  assert [line[:6] for line in lines[:3]] == ['source', 'wanted', 'found ']


def test_savings_count_units_and_fall_with_the_layer():
  tokenizer = byte_tokenizer.Config().make()
  assert savings.count(tokenizer, [b'ab++', b'x' * 9], 'java') == (
    6 + 11,
    4 + 3,
  )
  assert savings.saved(50, 50, 0) == 0
  shares = [savings.saved(50, 25, layer) for layer in savings.LAYERS]
  assert shares == sorted(shares, reverse=True)
  # Half of every block, and of attention's pairs a quarter.
  assert 0.5 < shares[0] < 0.51


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """A small CodeBERT with random weights and its vocabulary in two files."""
  folder = tmp_path_factory.mktemp('codebert') / 'model'
  names = ['<s>', '<pad>', '</s>', '<unk>']
  merges = [('r', 'e'), ('s', 'e'), ('t', 'h'), ('a', 'r'), ('e', 'l')]
  tokens = [*names, *bytelevel.ALPHABET, *(a + b for a, b in merges), '<mask>']
  sizes = dict(dim=16, num_layers=2, num_heads=2, max_len=40)
  model = transformer.Config.roberta(
    vocab_size=len(tokens), **sizes, head_transform=False, head_bias=False
  ).make(nnx.Rngs(0))
  interop.save(model, folder)
  vocab = {token: i for i, token in enumerate(tokens)}
  (folder / 'vocab.json').write_text(json.dumps(vocab))
  lines = ['#version: 0.2', *map(' '.join, merges), '']
  (folder / 'merges.txt').write_text('\n'.join(lines))
  return str(folder)


def test_a_checkpoint_that_is_not_there_is_named():
  with pytest.raises(FileNotFoundError, match=r'init=nowhere is no folder'):
    pretrained.tokenizer('nowhere')


def test_a_classifier_starts_from_published_weights_and_tokens(published):
  config = code_merge.get_config('tiny')
  config.init, config.length, config.steps = published, 40, 1
  config.task.num_examples = 100
  tokenizer, train, test = training.data(config)
  assert (train.tokens_bt[:, 0] == 0).all()
  assert ((train.tokens_bt == 2).sum(axis=1) == 1).all()
  _, model = interop.load(published)
  made = training._make(config, tokenizer, 40)
  np.testing.assert_array_equal(
    made.encoder.embed.tokens.table[...], model.embed.tokens.table[...]
  )
  assert made.config.encoder.max_len == 40
  numbers = training.run(config, (tokenizer, train, test))
  assert 0 <= numbers['macro_f1'] <= 1
  config.prefix = ('<mask>', '</s>')
  prefixed = training.data(config)[1].tokens_bt
  assert (prefixed[:, :3] == [0, tokenizer.special.mask, 2]).all()
  config.prefix = ('<encoder-only>',)
  with pytest.raises(ValueError, match="'<encoder-only>' is no special token"):
    training.data(config)
  config.length = 41
  with pytest.raises(ValueError, match='length=41 must be <= 40'):
    training._make(config, tokenizer, 41)


def test_a_published_encoder_gets_a_new_decoder(published):
  config = code_translate.get_config('tiny')
  config.init, config.length = published, 40
  config.task.num_train = config.task.num_test = 10
  parts = translation.data(config)
  assert parts.ends == pretrained.Ends((0,), (2,), start=0, stop=2)
  model = translation._make(config, parts, 40)
  assert len(model.encoder.blocks) == len(model.stack.blocks) == 2
  _, source = interop.load(published)
  np.testing.assert_array_equal(
    model.encoder.blocks[1].mlp.up.kernel[...],
    source.stack.blocks[1].mlp.up.kernel[...],
  )
