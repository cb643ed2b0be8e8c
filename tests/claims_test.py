# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import json
import math
import types

import jax
import pytest

from experiments.claims import __main__ as cli
from experiments.claims import bpb_accounting, sampler_speed
from experiments.ledger import claim as claim_lib
from experiments.ledger import docs, measure, methods
from experiments.unmasking import denoiser
from jaxtok.diffusion import samplers
from jaxtok.tasks import base, dice_countdown


def make_claim(**fields):
  module = types.SimpleNamespace(
    __doc__='A toy.',
    TITLE='Toy',
    PAPER='',
    CLAIM='It is small.',
    THRESHOLD={'size': '<= 1.5'},
    SEEDS=(0, 1),
    measure=lambda workdir, *, seed: {'size': seed + 1, 'other': 7},
  )
  vars(module).update(fields)
  return claim_lib.from_module('toy', module)


@pytest.fixture
def records(tmp_path, monkeypatch):
  monkeypatch.setattr(claim_lib, 'RECORDS', tmp_path / 'records')
  return tmp_path / 'records'


@pytest.mark.parametrize('name', claim_lib.names())
def test_every_claim_file_says_what_it_must(name):
  claim = claim_lib.load(name)
  assert len(claim.doc) > 300  # The check, and why it tests the effect.
  assert claim.claim.endswith('.')
  for device, record in claim.records().items():
    assert claim.verdict(record) != claim_lib.NOT_MEASURED, device


def test_methods_md_is_up_to_date():
  assert docs.PATH.read_text() == docs.render(), (
    'run `python -m experiments.claims --write_docs`'
  )


def test_every_method_has_its_config_test_and_claim():
  assert methods.missing() == []


def test_what_a_method_lacks_is_named(tmp_path):
  for path in (
    'jaxtok/models/base.py',  # Infrastructure.
    'jaxtok/models/toy.py',
    'jaxtok/decoding/drafters/trie.py',
    'experiments/byte_lm/configs/toy.py',
    'experiments/claims/toy.py',
    'tests/decoding/drafters/trie_test.py',
  ):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
  assert set(methods.find(tmp_path)) == {'toy', 'trie'}
  problems = methods.missing(tmp_path)
  assert [p.split(': expected')[0] for p in problems] == [
    'jaxtok/decoding/drafters/trie.py has no config',
    'jaxtok/decoding/drafters/trie.py has no claim',
    'jaxtok/models/toy.py has no test',
  ]


@pytest.mark.parametrize(
  'rule, values, want',
  [
    ('<= 1.5', [1.0, 2.0], True),
    ('every <= 1.5', [1.0, 2.0], False),
    ('>= 1e-3', [0.0], False),
    ('every >= 2', [2.0, 3.0], True),
    ('<= 1', [math.nan], False),
  ],
)
def test_thresholds_hold_for_the_mean_or_for_every_seed(rule, values, want):
  assert claim_lib.is_met(rule, values) == want


@pytest.mark.parametrize(
  'rule, values, below, want',
  [
    ('>= 1.9', [1.0, 3.0], [1e-9, 2.0], True),  # 4 / 2
    ('>= 2.1', [1.0, 3.0], [1e-9, 2.0], False),
    ('every >= 2', [1.0, 3.0], [1e-9, 2.0], False),
    ('every >= 1.5', [1.0, 3.0], [0.0, 2.0], True),
    ('every <= 1', [0.0], [0.0], False),
  ],
)
def test_a_ratio_is_of_means_or_of_every_seed(rule, values, below, want):
  assert claim_lib.is_met(rule, values, below) == want


def test_ratios_are_measured_shown_and_judged(records, tmp_path):
  rule = {'size / other': '>= 0.2'}
  claim = make_claim(THRESHOLD=rule)
  device, entry = measure.measure(claim, tmp_path)
  assert claim.verdict(entry) == 'reproduced'  # 1.5 / 7
  measure.record(claim, device, entry)
  [row] = docs._rows(claim, {})
  assert row[3] == 'size / other 0.2143 (0.143, 0.286)'
  with pytest.raises(ValueError, match='returned no weight'):
    measure.measure(make_claim(THRESHOLD={'size / weight': '<= 1'}), tmp_path)


@pytest.mark.parametrize('rule', ['< 1', '1', '<= one', 'all <= 1', '<= nan'])
def test_a_broken_threshold_is_refused(rule):
  with pytest.raises(ValueError, match='must look like'):
    make_claim(THRESHOLD={'size': rule})


def test_verdicts_follow_from_the_numbers(records, tmp_path):
  claim = make_claim()
  assert claim.verdict(None) == 'not measured'
  device, entry = measure.measure(claim, tmp_path)
  assert (device, entry['measured']['size']) == ('cpu', [1.0, 2.0])
  assert entry['versions']['jax']
  measure.record(claim, device, entry)
  assert claim.verdict(claim.records()['cpu']) == 'reproduced'
  strict = make_claim(THRESHOLD={'size': '<= 1.4'})
  assert strict.verdict(strict.records()['cpu']) == 'not reproduced'
  other = make_claim(THRESHOLD={'size': '<= 1.4', 'speed': '>= 1'})
  assert other.verdict(other.records()['cpu']) == 'not measured'


def test_devices_are_separate_entries(records, tmp_path):
  claim = make_claim()
  _, entry = measure.measure(claim, tmp_path)
  measure.record(claim, 'cpu', entry)
  slow = entry | {'measured': {'size': [9.0, 9.0]}}
  measure.record(claim, 'NVIDIA H200', slow)
  stored = json.loads((records / 'toy.json').read_text())
  assert list(stored['devices']) == ['NVIDIA H200', 'cpu']
  rows = docs._rows(claim, {})
  assert [row[-2:] for row in rows] == [
    ['NVIDIA H200', 'not reproduced'],
    ['cpu', 'reproduced'],
  ]
  with pytest.raises(ValueError, match='gpu or tpu, but JAX runs on cpu'):
    measure.measure(make_claim(DEVICES=('gpu', 'tpu')), tmp_path)


def test_a_record_says_what_it_did_not_make(records, tmp_path):
  shared = tmp_path / 'toy' / 'denoisers' / 'seed0.npz'
  assert measure.measure(make_claim(), tmp_path)[1]['reused_files'] == []
  other = tmp_path / 'other' / 'trained' / 'seed0.npz'
  for path in (shared, other, tmp_path / 'toy' / 'seed_0' / 'of_before'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  _, entry = measure.measure(make_claim(), tmp_path)
  assert entry['reused_files'] == ['toy/denoisers/seed0.npz']
  _, entry = measure.measure(make_claim(SHARES=('other',)), tmp_path)
  both = ['other/trained/seed0.npz', 'toy/denoisers/seed0.npz']
  assert entry['reused_files'] == both


def test_an_interrupted_measurement_goes_on(tmp_path, monkeypatch):
  state = {'commit': 'c', 'diff': '', 'untracked': []}
  monkeypatch.setattr(measure.meta, 'git', lambda: state)
  calls = []

  def interrupted(workdir, *, seed):
    calls.append(seed)
    is_begun = (workdir / 'run').exists()
    (workdir / 'run').touch()
    if seed == 1 and not is_begun:
      raise KeyboardInterrupt
    return {'size': seed}

  claim = make_claim(measure=interrupted)
  for _ in range(2):  # Not resumed, the second call begins anew.
    with pytest.raises(KeyboardInterrupt):
      measure.measure(claim, tmp_path)
  assert calls == [0, 1, 0, 1]
  _, entry = measure.measure(claim, tmp_path, resume=True)
  assert calls[4:] == [1]
  assert entry['measured'] == {'size': [0.0, 1.0]}
  assert entry['resumed_seeds'] == [0, 1]
  # By other code, or code that is not committed, nothing is resumed.
  for other in ({'commit': 'd'}, {'untracked': ['jaxtok/new.py']}):
    monkeypatch.setattr(measure.meta, 'git', lambda x=other: state | x)
    with pytest.raises(ValueError, match='begun at commit c on cpu, now it is'):
      measure.measure(claim, tmp_path, resume=True)
  # Nor on another device.
  monkeypatch.setattr(measure.meta, 'git', lambda: state)
  other = measure.meta.device() | {'kind': 'another cpu'}
  monkeypatch.setattr(measure.meta, 'device', lambda: other)
  with pytest.raises(ValueError, match='now it is c on another cpu'):
    measure.measure(claim, tmp_path, resume=True)
  for broken in ('', '[]', '{}', '{"made'):
    (tmp_path / 'toy' / 'seed_0.json').write_text(broken)
    with pytest.raises(ValueError, match=r'seed_0\.json is empty or damaged'):
      measure.measure(claim, tmp_path, resume=True)


def test_it_is_said_that_there_is_nothing_to_resume(tmp_path, capsys):
  _, entry = measure.measure(make_claim(), tmp_path, resume=True)
  assert entry['resumed_seeds'] == []
  assert f'nothing to resume in {tmp_path / "toy"}' in capsys.readouterr().out


def test_records_of_other_claims_are_no_change_of_the_code(
  tmp_path, monkeypatch
):
  state = {'commit': 'c', 'diff': '', 'untracked': ['docs/claims/other.json']}
  state['diff'] = 'diff --git a/docs/claims/x.json b/docs/claims/x.json\n+1\n'
  monkeypatch.setattr(measure.meta, 'git', lambda: state)
  key = 'has_uncommitted_changes'
  assert measure.measure(make_claim(), tmp_path)[1][key] is False
  state['diff'] += 'diff --git a/jaxtok/config.py b/jaxtok/config.py\n+1\n'
  assert measure.measure(make_claim(), tmp_path)[1][key] is True
  state.update(diff='', untracked=['jaxtok/new.py'])
  assert measure.measure(make_claim(), tmp_path)[1][key] is True


def test_numbers_that_are_none_are_not_recorded(records, tmp_path):
  claim = make_claim(measure=lambda workdir, *, seed: {'size': math.nan})
  device, entry = measure.measure(claim, tmp_path)
  with pytest.raises(ValueError, match='nan'):
    measure.record(claim, device, entry)
  assert claim.records() == {}
  claim = make_claim(measure=lambda workdir, *, seed: {'weight': 1})
  with pytest.raises(ValueError, match='returned no size'):
    measure.measure(claim, tmp_path)


def test_the_command_line_names_what_is_wrong(capsys, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert cli.main(['--list']) == 0
  assert 'bpb_accounting' in capsys.readouterr().out
  assert cli.main(['bpb']) == 1
  error = capsys.readouterr().err
  assert "no claim 'bpb'. Claims: " in error
  assert ' bpb_accounting,' in error
  assert cli.main([]) == 1
  assert cli.main(['--all', '--device']) == 1
  assert 'only the CPU' in capsys.readouterr().err


def test_a_byte_and_a_bpe_table_score_the_same(tmp_path):
  got = bpb_accounting.measure(tmp_path, seed=5, num_texts=40, vocab_size=340)
  assert got['bpb_difference'] < 1e-6
  assert got['error_to_exact'] < 1e-6
  assert got['start_error'] < 1e-9
  assert got['bpe_tokens_per_byte'] < 0.8  # The tokenizers do differ.


def test_steps_of_a_batch_are_those_that_its_loop_makes():
  task = dice_countdown.DiceCountdown()
  model = denoiser.make(task, denoiser.Config(dim=16, num_layers=1))
  rows = base.batch(task, 0, 0, 16)
  sharp = lambda tokens: 2 * model(tokens)
  got = sampler_speed.steps_made(task, sharp, rows)
  assert got['batch_to_slowest'] == 1
  assert got['fewest_calls'] < got['most_calls'] < task.answer_len / 1.3

  def to_the_end(model, canvas, *args, **options):
    """A loop that makes a step for each position, needed or not."""
    out = samplers.decode(model, canvas, *args, **options)
    waste = lambda step, out: (model(out.tokens_bt), out)[1]
    return jax.lax.fori_loop(out.num_calls_b.max(), task.answer_len, waste, out)

  got = sampler_speed.steps_made(task, sharp, rows, to_the_end)
  assert got['batch_to_slowest'] == task.answer_len / got['most_calls'] > 1.3


@pytest.mark.slow
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path):
  from experiments.claims import resume_exactness

  got = resume_exactness.measure(tmp_path, seed=7)
  assert got['rows_that_differ'] == got['arrays_that_differ'] == 0
  assert got['kills'] == 2
  assert got['rows'] > 20
