# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The experiment from the first stage to the picture, and its parts."""

import csv
import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.claims import policy as claim
from experiments.claims import policy_blocks as blocks_claim
from experiments.unmasking import (
  chosen,
  denoiser,
  experiment,
  frontier,
  progress,
  selection,
  training,
)
from experiments.unmasking.configs import (
  dice,
  free_choice,
  policy,
  puzzles,
  remdm,
)
from experiments.unmasking.configs import upo as upo_config
from jaxtok.diffusion import (
  cloning,
  policy_files,
  returns,
  rl,
  rollout,
  selectors,
)
from jaxtok.diffusion import policy as policy_lib
from jaxtok.evals import pareto
from jaxtok.tasks import addition, base, dice_countdown
from jaxtok.tasks import free_choice as free_choice_task

TINY = experiment.Config(
  task=free_choice_task.FreeChoice(num_groups=1),
  denoiser=None,
  policy=training.Config(
    model=policy_lib.Config(hidden=8, mlp_dim=8, time_dim=8),
    clone=cloning.Config(steps=20),
    learn=rl.Config(
      steps=2,
      warmup_steps=1,
      num_prompts=2,
      group=2,
      credit=returns.Credit.UNTIL_FAULT,
      max_kl=0.1,
      max_calls=2,
    ),
    alphas=(1.0, 2.0),
    num_validation=8,
    temperatures=(0.25, 1.0),
  ),
  seeds=(0,),
  num_test=16,
  temperatures=(0.5,),
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return workdir, experiment.Experiment(TINY, workdir).run()


@pytest.mark.slow
def test_a_run_ends_with_table_and_picture(finished):
  workdir, outcome = finished
  assert (workdir / 'frontier.png').stat().st_size > 10_000
  table = (workdir / 'frontier.md').read_text()
  for name in ('threshold', 'entropy bound', 'random', 'learned, seed 0'):
    assert f'| {name} |' in table
  assert outcome.learned[0]
  assert len(outcome.rules['threshold']) == 85
  rows = list(csv.DictReader((workdir / 'points.csv').read_text().splitlines()))
  assert len(rows) == sum(map(len, outcome.rules.values())) + len(
    outcome.learned[0]
  )
  for row in rows:
    number = {k: float(row[k]) for k in list(row)[2:]}
    assert number['low'] <= number['accuracy'] <= number['high']
    length = TINY.task.answer_len
    written = number['written_per_call'] * number['calls']
    assert written == pytest.approx(length, rel=1e-3)
    tokens = (TINY.task.prompt_len + length) * number['calls']
    assert number['processed_per_row'] == pytest.approx(tokens, rel=1e-3)


@pytest.mark.slow
def test_a_second_call_trains_nothing(finished, capsys):
  workdir, outcome = finished
  again = experiment.Experiment(TINY, workdir).run()
  assert again.table() == outcome.table()
  shown = capsys.readouterr().out
  assert 'update' not in shown
  assert 'clone' not in shown


@pytest.mark.slow
def test_another_config_is_refused(finished):
  other = dataclasses.replace(TINY, num_test=17)
  with pytest.raises(ValueError, match='holds another config'):
    experiment.Experiment(other, finished[0])


def test_numbers_of_the_claim_by_hand():
  point = lambda accuracy, calls: pareto.Point(
    '', np.arange(100) < 100 * accuracy, np.full(100, calls)
  )
  rules = {
    'threshold': [point(0.5, 5.0), point(1.0, 12.0)],
    'top-k': [point(0.9, 10.0)],
    selection.ORACLE: [point(1.0, 1.0)],  # Not a rule.
  }
  got = claim.numbers(rules, [point(0.8, 6.0), point(0.98, 8.0)], 20)
  assert got['calls'] == 8.0
  assert got['gain_within_6_calls'] == pytest.approx(0.3)
  learned = (0.8 * 2 + 0.98 * 12) / 20
  threshold = (0.5 * 7 + 1.0 * 8) / 20
  every = (0.5 * 5 + 0.9 * 2 + 1.0 * 8) / 20
  assert got['gain_hypervolume'] == pytest.approx(learned - threshold)
  assert got['gain_over_all_rules'] == pytest.approx(learned - every)
  assert got['dominating_points'] == 2


def test_what_validation_chose_counts_as_tested():
  point = lambda name, accuracy, calls: pareto.Point(
    name, np.arange(100) < 100 * accuracy, np.full(100, calls)
  )
  rules = {'threshold': [point('', 0.5, 5.0), point('', 1.0, 12.0)]}
  front = chosen.Front(
    [point('a', 0.8, 6.0), point('b', 0.99, 9.0), point('c', 1.0, 9.47)],
    [
      point('a', 0.7, 6.5),
      point('b', 0.9, 8.0),
      point('c', 0.8, 30.0),
    ],
  )
  got = claim.tested(rules, front, 20)
  # c costs more than 9.45 calls.
  assert (got['accuracy'], got['calls']) == (0.9, 8.0)
  assert got['rule_calls'] == 12.0
  # What turned out to cost 6.5 calls is compared with rules of as many.
  assert got['fast_gain'] == pytest.approx(0.2)
  # One draw of each of 100 prompts: a share of 2/3 or 1/3, see `chosen.error`.
  error = np.sqrt(2 / 9 / 100)
  assert got['fast_gain_low'] == pytest.approx(0.2 - 1.96 * error)
  volume = (0.7 * 1.5 + 0.9 * 12) / 20
  threshold = (0.5 * 7 + 1.0 * 8) / 20
  assert got['gain_hypervolume'] == pytest.approx(volume - threshold)
  low, high = got['gain_hypervolume_low'], got['gain_hypervolume_high']
  assert low < volume - threshold < high
  # Nothing within the budgets.
  slow = chosen.Front([point('b', 0.9, 9.47)], [front.tested[1]])
  got = claim.tested(rules, slow, 20)
  assert (got['accuracy'], got['calls']) == (0.0, 20.0)
  assert got['fast_gain'] == pytest.approx(-0.5)


def test_settings_are_chosen_on_other_draws_than_they_are_tested_on():
  # Random(k) of six tokens: a triple is wrong if all of it is among them.
  task = free_choice_task.FreeChoice(num_groups=2)
  exact = training.exact_denoiser(task)
  judge = lambda num, seed: selection.Judge(
    task, exact, base.batch(task, 0, 0, 200), num_draws=num, seed=seed
  )
  rule = lambda k: selectors.Random(jnp.asarray(k))
  settings = [('k=1', rule(1)), ('k=3', rule(3)), ('k=6', rule(6))]
  front = chosen.choose(settings, judge(4, 1), judge(40, 2))
  assert [p.name for p in front.validated] == ['k=6', 'k=3', 'k=1']
  assert [t.calls for t in front.tested] == pytest.approx([1, 2, 6])
  got = front.within(2)
  right_pd, _ = judge(40, 2).drawn(rule(3))
  assert right_pd.shape == (25, 40)
  assert not np.array_equal(right_pd, judge(40, 1).drawn(rule(3))[0])
  _, count = np.unique(
    base.batch(task, 0, 0, 200)[:, :2], axis=0, return_counts=True
  )
  weight = count / 200
  assert got.accuracy == pytest.approx(weight @ right_pd.mean(1))
  # Of as many draws again, within four standard errors.
  again = judge(40, 3).point('', rule(3))
  assert abs(again.accuracy - got.accuracy) < 4 * np.hypot(
    chosen.error(got), chosen.error(again)
  )
  assert chosen.error(got) == pytest.approx(
    np.sqrt(np.sum(weight**2 * right_pd.var(1)) / 40), rel=0.1
  )


def test_the_deficit_in_blocks_is_taken_at_equal_calls():
  point = lambda accuracy, calls: pareto.Point(
    '', np.arange(100) < 100 * accuracy, np.full(100, calls)
  )
  thresholds = [point(0.6, 4.0), point(0.8, 6.0), point(0.9, 8.0)]
  deficit = blocks_claim.largest_deficit
  assert deficit(thresholds, [point(0.95, 4.0)]) == pytest.approx(-0.05)
  fast = point(0.6, 4.0)
  assert deficit(thresholds, [fast, point(0.75, 6.0)]) == pytest.approx(0.15)
  # What costs more does not count.
  assert deficit(thresholds, [point(1.0, 5.0)]) == pytest.approx(0.6)


def test_equal_prompts_are_decoded_once_and_counted_as_often():
  task = TINY.task
  rows = base.batch(task, 0, 0, 40)
  judge = selection.Judge(task, training.exact_denoiser(task), rows)
  rule = selectors.Threshold(jnp.asarray(0.05))
  found = judge.point('', rule)
  right, calls = judge.judged(rule, rows)
  _, first_p, index_n = np.unique(
    rows[:, : task.prompt_len], axis=0, return_index=True, return_inverse=True
  )
  np.testing.assert_array_equal(found.right_pd[:, 0], right[first_p])
  np.testing.assert_array_equal(found.right_pd[index_n.reshape(-1), 0], right)
  np.testing.assert_array_equal(found.cost_pd[index_n.reshape(-1), 0], calls)
  assert found.accuracy == pytest.approx(right.mean())
  assert found.calls == pytest.approx(calls.mean())
  # A rule without chance: each prompt counts.
  assert found.num_independent == 40
  assert 0 < found.accuracy < 1


def test_with_chance_each_prompt_is_decoded_as_often():
  # Three of six tokens at once: a triple is wrong if all of it is among them.
  task = free_choice_task.FreeChoice(num_groups=2)
  rows = base.batch(task, 0, 0, 200)
  judge = selection.Judge(task, training.exact_denoiser(task), rows)
  found = judge.point('', selectors.Random(jnp.asarray(3)))
  # 25 prompts: they occur often enough.
  _, count_p = np.unique(rows[:, :2], axis=0, return_counts=True)
  assert found.right_pd.shape == (len(count_p), selection.MAX_DRAWS)
  np.testing.assert_array_equal(found.counts, count_p)
  # In fewer decodings than prompts there is less to know.
  assert 12 < found.num_independent < 12 * 25
  assert set(found.right_pd.ravel()) == {0.0, 1.0}


def test_prompts_in_parts_come_out_as_all_at_once():
  task = free_choice_task.FreeChoice(num_groups=2)
  rows_bt, sizes = base.batch(task, 0, 0, 40), set()

  def exact(tokens_bt):
    sizes.add(tokens_bt.shape[0])
    return task.exact_denoiser(tokens_bt)

  found = jax.tree_util.Partial(exact)
  whole = selection.Judge(task, found, rows_bt)
  parts = selection.Judge(task, found, rows_bt, rows_per_call=7)
  assert whole.rows_per_call > 10_000
  answers_bt = jnp.asarray(rows_bt[:, task.prompt_len :])
  rules = (
    selectors.Random(jnp.asarray(3)),
    selectors.OracleMargin(answers_bt, jnp.asarray(2)),
  )
  for rule in rules:
    a, b = whole.point('', rule), parts.point('', rule)
    np.testing.assert_array_equal(a.right_pd, b.right_pd)
    np.testing.assert_array_equal(a.cost_pd, b.cost_pd)
  assert max(sizes) >= 40
  got, want = parts.decode(rules[0], rows_bt), whole.decode(rules[0], rows_bt)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_array_equal(x, y)
  # 40 rows are six parts of seven, the last of which is filled up.
  sizes.clear()
  again = dataclasses.replace(parts, rows_per_call=6)
  again.decode(rules[1], rows_bt)
  assert sizes == {6}


def test_the_paper_s_setting_is_decoded_in_parts():
  class Task:
    prompt_len = answer_len = 256
    vocab_size, mask_id = 126_464, 126_336

  judge = selection.Judge(Task(), None, np.zeros((512, 512), np.int32))
  # 16 distributions of 256 x 126464 float32 are 2.07 GB of 2.15.
  assert judge.rows_per_call == 16


def test_demonstrations_in_parts_are_the_same():
  exact = training.exact_denoiser(TINY.task)
  task = free_choice_task.FreeChoice(num_groups=2)
  lesson = training.Lesson(task, exact, TINY.policy, 0, lambda line: None)
  lesson.denoiser = jax.tree_util.Partial(task.exact_denoiser)
  whole = lesson._demonstrations()
  lesson.judge.rows_per_call = 7
  parts = lesson._demonstrations()
  np.testing.assert_array_equal(parts.canvas.tokens_bt, whole.canvas.tokens_bt)
  is_open = np.asarray(whole.is_open_sb)
  np.testing.assert_array_equal(parts.is_open_sb, is_open)
  assert is_open.any()
  np.testing.assert_array_equal(
    np.asarray(parts.action_sbt)[is_open], np.asarray(whole.action_sbt)[is_open]
  )


def test_rules_that_mask_again_reveal_more_than_that():
  task = free_choice_task.FreeChoice(num_groups=2)
  rows = base.batch(task, 0, 0, 16)
  judge = selection.Judge(task, training.exact_denoiser(task), rows)
  found = selection.remasked(judge, 2)
  assert list(found) == [
    f'{name}, 2 masked again' for name in ('top-k', 'margin', 'random')
  ]
  for points in found.values():
    assert [p.name for p in points] == ['k=3', 'k=4', 'k=6']
    # Of six tokens: each call but the last gains k - 2, the last what is left.
    np.testing.assert_array_equal(points[0].cost_pd, 6)
    np.testing.assert_array_equal(points[1].cost_pd, 4)
  assert judge.remask is None


@pytest.mark.parametrize('block', [0, 2])
def test_an_expert_may_go_in_blocks_where_the_policy_does_not(block):
  task = free_choice_task.FreeChoice(num_groups=2)
  config = dataclasses.replace(
    TINY.policy, expert_threshold=0.01, expert_block=block
  )
  exact = training.exact_denoiser(task)
  lesson = training.Lesson(task, exact, config, 0, lambda line: None)
  shown = lesson._demonstrations()
  want = [0, 0, 1, 1, 2, 2] if block else [0] * 6
  got = np.asarray(shown.canvas.reveal_step_bt)[:, task.prompt_len :]
  np.testing.assert_array_equal(got, np.tile(want, (len(got), 1)))
  # Log-probabilities are of all masked positions: what the expert leaves for
  # later blocks is shown as left.
  is_open = np.asarray(shown.is_open_sb)
  np.testing.assert_array_equal(
    np.asarray(shown.allowed_sbt)[is_open],
    np.asarray(shown.is_masked_sbt)[is_open],
  )


@pytest.mark.parametrize(
  'kind, calls', [(rl.Likelihood.BERNOULLI, 1), (rl.Likelihood.ONE_TOKEN, 3)]
)
@pytest.mark.parametrize('until', [0.0, 1.0])
def test_a_clone_that_is_worse_than_its_expert_is_told(until, kind, calls):
  learn = rl.Config(likelihood=kind, alpha=0.0, num_prompts=2, group=2)
  clone = cloning.Config(steps=1, lr=1e-9, until=until)
  config = dataclasses.replace(
    TINY.policy, learn=learn, clone=clone, alphas=(), expert_threshold=0.01
  )
  exact = training.exact_denoiser(TINY.task)
  lines, shown = [], []
  lesson = training.Lesson(TINY.task, exact, config, 0, lines.append)

  class Judge:
    rows_nt, rows_per_call = lesson.judge.rows_nt, 99
    canvas = lesson.judge.canvas
    real = lesson.judge

    def judged(self, selector, rows_nt):
      if isinstance(selector, rollout.Shown):
        shown.append(self.real.judged(selector, rows_nt))
        return np.ones(len(rows_nt)), shown[-1][1]
      return np.zeros(len(rows_nt)), np.ones(len(rows_nt))

  lesson.judge = Judge()
  lesson.start()
  # The expert is judged as its demonstrations: of one token, one per call.
  ((_, calls_n),) = shown
  np.testing.assert_array_equal(calls_n, calls)
  assert lines[0].startswith('clone: 1 updates')
  assert 'of what it copies: 1.000' in lines[0]
  assert len(lines) == (2 if until else 1)
  assert not until or 'clone.until=1 times what it copies' in lines[1]


def test_temperatures_of_validation_are_positive_numbers():
  with pytest.raises(ValueError, match='must be > 0'):
    training.Config(temperatures=(0.25, 0.0))
  with pytest.raises(ValueError, match='not empty'):
    training.Config(temperatures=())


def test_the_bound_is_exact_where_the_model_is():
  task = dice_countdown.DiceCountdown(min_total=2, max_total=2, max_pairs=2)
  rows = jnp.asarray(base.batch(task, 0, 0, 4096))
  got = denoiser.nelbo(
    jax.jit(task.exact_denoiser), rows, 1, task.mask_id, jax.random.key(0)
  )
  # Two chains of probability 1/2: ln 2 nats over four tokens. The bound of an
  # exact denoiser is tight; a row's estimate deviates by at most a few nats.
  assert float(got) == pytest.approx(np.log(2) / 4, abs=0.02)


def test_the_last_bound_is_that_of_the_last_fifth_of_steps(monkeypatch):
  monkeypatch.setattr(denoiser, '_CHUNK', 2)
  config = denoiser.Config(
    dim=8, num_layers=1, num_heads=2, steps=10, batch_size=4
  )
  lines = []
  task = addition.Addition(num_digits=1)
  _, nats = denoiser.train(task, config, lines.append)
  shown = [f'nelbo {nats:.3f} nats/token' in line for line in lines]
  assert shown == [False, False, False, False, True]


class Stopped(Exception):
  """What ends a run in a test."""


def arrays_of(workdir):
  """What the files of a folder hold; all must be .npz."""
  found = {}
  for path in sorted(workdir.iterdir()):
    with np.load(path) as stored:
      found |= {(path.name, key): stored[key].tolist() for key in stored}
  return found


def test_a_stopped_denoiser_goes_on_to_the_same_weights(tmp_path, monkeypatch):
  monkeypatch.setattr(denoiser, '_CHUNK', 2)
  monkeypatch.setattr(denoiser, '_SAVE_EVERY', 3)
  config = denoiser.Config(
    dim=8, num_layers=1, num_heads=2, steps=8, batch_size=4
  )
  task, lines = addition.Addition(num_digits=1), []
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  training.trained_denoiser(whole, task, config, lines.append)
  assert [path.name for path in whole.iterdir()] == ['denoiser_seed0.npz']
  assert not any('goes on' in line for line in lines)

  def stop(line):
    if line.startswith('denoiser step 6/'):
      raise Stopped
    return lines.append(line)

  with pytest.raises(Stopped):
    training.trained_denoiser(parts, task, config, stop)
  # Due after 3 and 6 updates; a chunk ends at 4 and 6.
  state = parts / 'denoiser_seed0_state.npz'
  other = dataclasses.replace(config, lr=0.1)
  with pytest.raises(ValueError, match=r'denoiser\.lr: 0\.003 there, 0\.1 ask'):
    training.trained_denoiser(parts, task, other, lines.append)
  del lines[:]
  training.trained_denoiser(parts, task, config, lines.append)
  assert lines[0] == f'denoiser goes on after step 6/8, from {state}'
  assert lines[1].startswith('denoiser step 8/8')
  assert arrays_of(parts) == arrays_of(whole)


def test_a_stopped_stage_goes_on_to_the_same_policies(tmp_path, monkeypatch):
  config = dataclasses.replace(
    TINY.policy,
    model=policy_lib.Config(hidden=8, mlp_dim=8, time_dim=8, bias=-1.0),
    clone=None,
    alphas=(0.5, 2.0),
    validate_every=2,
    learn=rl.Config(
      steps=5, warmup_steps=1, num_prompts=2, group=4, lr=0.03, max_calls=6
    ),
    num_validation=32,
    temperatures=(1.0,),
  )
  task, lines = free_choice_task.FreeChoice(num_groups=2), []
  exact = training.exact_denoiser(task)
  run = lambda workdir, config=config: training.trained(
    workdir, task, exact, config, 0, lines.append
  )
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  run(whole)
  # But for their times.
  seen = lambda: [x.rpartition(',')[0] for x in lines if 'goes on' not in x]
  want = seen()
  assert sum(' update ' in x for x in want) == len(want) == 6
  del lines[:]
  steps, starts = [], []
  update, start = rl.Trainer.update, training.Lesson.start
  first, second = [0, 1, 2, 3], [0, 1, 2, 3, 2, 3, 4, 0, 1, 2, 3]

  def stopping(self, *args):
    steps.append(self.step)
    # In each stage once, an update after it was saved.
    if steps in (first, second):
      raise Stopped
    return update(self, *args)

  def counted(self, number):
    starts.append(number)
    return start(self, number)

  monkeypatch.setattr(rl.Trainer, 'update', stopping)
  monkeypatch.setattr(training.Lesson, 'start', counted)
  with pytest.raises(Stopped):
    run(parts)
  state = parts / 'policy_seed0_alpha0.5_start0_state.npz'
  assert list(parts.iterdir()) == [state]
  more = dataclasses.replace(config, num_validation=33)
  with pytest.raises(ValueError, match=r'num_validation: 32 there, 33 asked'):
    run(parts, more)
  with pytest.raises(Stopped):
    run(parts)
  assert f'seed 0 alpha 0.5 goes on after update 2/5, from {state}' in lines
  assert not state.exists()
  run(parts)
  assert lines[-3].startswith('seed 0 alpha 2 goes on after update 2/5')
  assert steps == [*second, 2, 3, 4]
  assert starts == [0]
  assert seen() == want
  assert arrays_of(parts) == arrays_of(whole)


def test_what_a_stage_has_found_comes_back(tmp_path):
  config = dataclasses.replace(TINY.policy, clone=None, alphas=(0.5, 1.0, 2.0))
  exact = training.exact_denoiser(TINY.task)
  lesson = training.Lesson(TINY.task, exact, config, 0, lambda line: None)
  model = lambda seed: config.model.make(nnx.Rngs(seed))
  numbers = lambda step: dict(step=step, reward=step / 3, temperature=0.1)
  bests = {a: (model(i), numbers(i)) for i, a in enumerate(config.alphas)}
  # More than ten: they come back in order.
  history = [numbers(20 * i) for i in range(12)]
  trainer = lesson._trainer(model(7), 1.0, 12)
  trainer.step = 12
  path = tmp_path / 'state.npz'
  progress.Progress(bests, history).save(path, trainer, lesson.made_by)
  other = lesson._trainer(model(8), 1.0, 12)
  found = progress.Progress.load(path, other, lesson.made_by, config.alphas)
  assert found.history == history
  assert all(isinstance(x['step'], int) for x in found.history)
  assert other.step == 12
  jax.tree.map(np.testing.assert_array_equal, other.state, trainer.state)
  for a, (want, numbers) in bests.items():
    assert found.bests[a][1] == numbers
    jax.tree.map(
      np.testing.assert_array_equal,
      nnx.state(found.bests[a][0]),
      nnx.state(want),
    )


def test_saved_weights_come_back(tmp_path):
  config = policy_lib.Config(hidden=8, mlp_dim=8, time_dim=8)
  model = config.make(nnx.Rngs(3))
  path, made_by = tmp_path / 'p.npz', {'policy': config}
  denoiser.save(path, model, made_by=made_by, reward=0.5)
  blank = config.make(nnx.Rngs(0))
  other, numbers = denoiser.load(path, blank, made_by=made_by)
  assert numbers == {'reward': 0.5}
  args = jnp.ones((2, 5, 1)), jnp.ones((2, 5), bool), jnp.zeros(2)
  np.testing.assert_array_equal(model(*args), other(*args))


def test_weights_of_another_model_are_refused(tmp_path):
  # Of the same shapes: nothing but what is stored tells them apart.
  config = policy_lib.Config(hidden=8, mlp_dim=8, time_dim=8)
  model = config.make(nnx.Rngs(0))
  denoiser.save(tmp_path / 'p.npz', model, made_by={'steps': 2500})
  with pytest.raises(
    ValueError, match=r'steps: 2500 there, 5000 asked for.*delete the file'
  ):
    denoiser.load(tmp_path / 'p.npz', model, made_by={'steps': 5000})


def test_the_best_of_several_starts_goes_on(tmp_path):
  task = free_choice_task.FreeChoice(num_groups=2)
  exact = training.exact_denoiser(task)
  config = dataclasses.replace(
    TINY.policy, clone=None, num_starts=3, start_steps=1, alphas=(0.5,)
  )
  config.learn = rl.Config(
    steps=1, warmup_steps=0, num_prompts=2, group=2, max_calls=6
  )
  config.temperatures = (1.0,)
  lines = []
  args = tmp_path, task, exact, config, 0, lines.append
  found = training.trained(*args)
  (model,) = found.best.values()
  assert list(found.every.values()) == [model]
  blank, rewards = config.model.make(nnx.Rngs(0)), []
  made_by = {'task': task, 'policy': config}
  for i in range(3):
    path = tmp_path / f'policy_seed0_alpha0.5_start{i}_best0.5.npz'
    other, numbers = denoiser.load(path, blank, made_by=made_by)
    rewards.append(numbers['reward'])
    if rewards[-1] == max(rewards) and rewards.count(rewards[-1]) == 1:
      want = other
  assert len(set(rewards)) > 1
  probe = jnp.ones((2, 3, 1)), jnp.ones((2, 3), bool), jnp.zeros(2)
  np.testing.assert_array_equal(model(*probe), want(*probe))
  assert 'the best of 3 starts' in lines[-1]
  # What is on disk is not trained again.
  num = len(lines)
  training.trained(*args)
  assert len(lines) == num + 1


def kept_policies(learn, tmp_path, monkeypatch):
  """What an experiment leaves of two policies that were not trained."""
  model = lambda seed: TINY.policy.model.make(nnx.Rngs(seed))
  found = {'alpha=1': model(1), 'alpha=2 for 1, chain 1': model(2)}
  numbers = {
    'alpha=1': dict(accuracy=0.5, calls=2.0, temperature=0.25),
    'alpha=2 for 1, chain 1': dict(accuracy=0.7, calls=1.5, temperature=0.7),
  }
  made = training.Policies({1.0: found['alpha=1']}, found, numbers)
  monkeypatch.setattr(training, 'trained', lambda *args: made)
  config = dataclasses.replace(
    TINY, policy=dataclasses.replace(TINY.policy, learn=learn)
  )
  job = experiment.Experiment(config, tmp_path)
  return found, job.settings(None, 3)


@pytest.mark.parametrize('block', [0, 2])
def test_a_run_leaves_policies_that_need_no_config(
  block, tmp_path, monkeypatch, capsys
):
  learn = dataclasses.replace(TINY.policy.learn, block=block)
  found, settings = kept_policies(learn, tmp_path, monkeypatch)
  assert len(settings) == 2
  files = {
    'alpha=1': 'seed3_alpha=1.npz',
    'alpha=2 for 1, chain 1': 'seed3_alpha=2_for_1_chain_1.npz',
  }
  folder = tmp_path / 'policies'
  assert {p.name for p in folder.iterdir()} == set(files.values())
  for name, file in files.items():
    selector = policy_files.load(folder / file)
    if block:
      assert selector.block == block
      selector = selector.selector
    assert isinstance(selector, policy_lib.Policy)
    jax.tree.map(
      np.testing.assert_array_equal,
      nnx.state(selector.model),
      nnx.state(found[name]),
    )
    numbers = policy_files.numbers_of(folder / file)
    assert selector.temperature == numbers['temperature']
  shown = capsys.readouterr().out
  assert f'validation 0.700 at 1.50 calls (temperature 0.7), in {folder}' in (
    shown
  )


def test_the_page_shows_how_a_policy_is_used(tmp_path, monkeypatch, capsys):
  page = pathlib.Path(__file__).parents[2] / 'docs' / 'unmasking.md'
  (code,) = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
  # In place of minutes of training: the exact denoiser, a policy of chance.
  task = dice.get_config('tiny').task
  exact = training.exact_denoiser(task)
  monkeypatch.setattr(training, 'trained_denoiser', lambda *args: exact)
  monkeypatch.chdir(tmp_path)
  (file,) = re.findall(r"load\(\s*'(\S+)'", code)
  assert file == 'runs/dice/policies/seed0_alpha=0.4.npz'
  model = dice.get_config('tiny').policy.model.make(nnx.Rngs(0))
  policy_files.save(file, policy_lib.Policy(model, 0.25))
  exec(compile(code, str(page), 'exec'), {})
  shown = capsys.readouterr().out
  assert re.fullmatch(r'right in [01]\.\d\d at \d+\.\d calls\n', shown)


@pytest.mark.parametrize('data', [b'', b'no zip', b'PK\x03\x04 cut short'])
def test_a_damaged_file_is_named(data, tmp_path):
  path = tmp_path / 'p.npz'
  path.write_bytes(data)
  model = policy_lib.Config(hidden=8, mlp_dim=8, time_dim=8).make(nnx.Rngs(0))
  with pytest.raises(
    ValueError, match=r'p\.npz is empty or damaged.*Delete it'
  ):
    denoiser.load(path, model, made_by={})


@pytest.mark.parametrize('kept', [0, 1, 20, 150, -1])
def test_a_damaged_file_of_points_is_named(kept, tmp_path):
  path = tmp_path / 'rules.npz'
  right_pd, cost_pd = np.arange(80).reshape(40, 2) % 3 == 1, np.ones((40, 2))
  point = pareto.Point('k=1', right_pd, 3.0 * cost_pd, np.arange(1, 41))
  frontier.save_points(path, {'top-k': [point, point]})
  (back, *_) = frontier.load_points(path)['top-k']
  np.testing.assert_array_equal(back.right_pd, right_pd)
  np.testing.assert_array_equal(back.cost_pd, 3)
  np.testing.assert_array_equal(back.counts, np.arange(1, 41))
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(
    ValueError, match=r'rules\.npz is empty or damaged.*Delete it'
  ):
    frontier.load_points(path)


def test_a_file_without_points_or_with_a_wrong_byte_is_named(tmp_path):
  path = tmp_path / 'learned_seed0.npz'
  frontier.save_points(path, {})
  with pytest.raises(ValueError, match=r'seed0\.npz is empty or damaged'):
    frontier.load_points(path)
  values = np.random.default_rng(0).random(400)
  frontier.save_points(path, {'a': [pareto.Point('b', values, values)]})
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 255
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r'seed0\.npz is empty or damaged'):
    frontier.load_points(path)


@pytest.mark.parametrize('kind', list(rl.Likelihood), ids=lambda k: k.value)
def test_policies_are_tried_with_the_actions_of_their_training(
  kind, monkeypatch
):
  is_one = kind is rl.Likelihood.ONE_TOKEN
  alpha = 0.0 if is_one else TINY.policy.learn.alpha
  learn = dataclasses.replace(TINY.policy.learn, likelihood=kind, alpha=alpha)
  alphas = () if is_one else TINY.policy.alphas
  config = dataclasses.replace(TINY.policy, learn=learn, alphas=alphas)
  exact = training.exact_denoiser(TINY.task)
  lesson = training.Lesson(TINY.task, exact, config, 0, lambda line: None)
  tried = []
  judged = lambda self, selector, rows: (tried.append(selector), rows)
  monkeypatch.setattr(selection.Judge, 'judged', judged)
  model = config.model.make(nnx.Rngs(0))
  lesson._validate(model)
  tried += [s for _, s in selection.policies(model, learn)]
  assert len(tried) == 2 + 4
  assert {selector.actions for selector in tried} == {kind.make()}
  # Demonstrations too: sets are booleans, orders are numbers.
  shown = lesson._demonstrations()
  is_set = shown.action_sbt.dtype == bool
  assert is_set == (kind is not rl.Likelihood.PLACKETT_LUCE)


def test_orders_have_no_opposite_to_smooth_with():
  learn = rl.Config(likelihood=rl.Likelihood.PLACKETT_LUCE)
  with pytest.raises(ValueError, match=r'clone\.smoothing=0\.1 must be 0'):
    training.Config(learn=learn, clone=cloning.Config(smoothing=0.1))


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: experiment.Config(num_test=0), 'config.num_test=0 must be >= 1'),
    (
      lambda: experiment.Config(temperatures=(0,)),
      r'config.temperatures=\(0,\) must be > 0',
    ),
    (lambda: experiment.Config(scales=()), r'scales=\(\) .* not empty'),
    (
      lambda: experiment.Config(remasks=(1, 0)),
      r'config.remasks=\(1, 0\) must be >= 1 each',
    ),
    (lambda: training.Config(num_validation=0), 'policy.num_validation=0 must'),
    (lambda: training.Config(validate_every=0), 'policy.validate_every=0 must'),
    (lambda: training.Config(expert_block=-1), 'expert_block=-1 must be >= 0'),
    (lambda: denoiser.Config(steps=0), 'denoiser.steps=0 must be >= 1'),
    (lambda: denoiser.Config(lr=0.0), 'denoiser.lr=0.0 must be > 0'),
  ],
)
def test_settings_that_measure_nothing_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_the_tasks_that_an_error_names_are_tasks():
  assert all(isinstance(make(), base.Task) for make in experiment.TASKS)


def test_a_pressure_takes_the_best_of_its_stage_and_later_ones(
  tmp_path, monkeypatch
):
  config = dataclasses.replace(TINY.policy, clone=None, alphas=(0.5, 1.0, 2.0))
  # Of each stage: the reward of its best policy at each pressure.
  rewards = {
    0.5: {0.5: 0.6, 1.0: 0.9, 2.0: 0.9},  # Before its time: does not count.
    1.0: {0.5: 0.7, 1.0: 0.5, 2.0: 0.9},
    2.0: {0.5: 0.4, 1.0: 0.4, 2.0: 0.3},
  }
  made = {
    (stage, a): config.model.make(nnx.Rngs(10 * i + j))
    for i, stage in enumerate(rewards)
    for j, a in enumerate(rewards[stage])
  }
  begun = []

  def stage(self, model, alpha, *, steps=0, number=0, path):
    begun.append(model)
    # For its own pressure the last stage finds none better than its start.
    step = {(2.0, 2.0): 0}
    numbers = lambda a: dict(
      reward=rewards[alpha][a],
      accuracy=1.0,
      calls=1.0,
      step=step.get((alpha, a), 20 + 10 * a),
    )
    return {a: (made[alpha, a], numbers(a)) for a in rewards[alpha]}, []

  monkeypatch.setattr(training.Lesson, 'stage', stage)
  exact = training.exact_denoiser(TINY.task)
  args = tmp_path, TINY.task, exact, config, 0, lambda line: None
  policies = training.trained(*args)
  found = policies.best
  same = lambda a, b: jax.tree.all(
    jax.tree.map(np.array_equal, nnx.state(a), nnx.state(b))
  )
  assert same(found[0.5], made[1.0, 0.5])
  assert same(found[1.0], made[1.0, 1.0])
  assert same(found[2.0], made[2.0, 2.0])
  # What a later stage is better at is there, too.
  assert list(policies.every) == [
    'alpha=0.5',
    *('alpha=1 for 0.5', 'alpha=1 for 1'),
    *('alpha=2 for 0.5', 'alpha=2 for 1'),
  ]
  assert same(policies.every['alpha=2 for 1'], made[2.0, 1.0])
  # Each stage begins with the best of the one before at its own pressure.
  assert same(begun[1], made[0.5, 0.5])
  assert same(begun[2], made[1.0, 1.0])


def test_each_chain_goes_on_from_a_start_of_its_own(tmp_path, monkeypatch):
  config = dataclasses.replace(
    TINY.policy, clone=None, alphas=(1.0, 2.0), num_starts=3, num_chains=2
  )
  # By pressure of the stage and number of start or chain.
  rewards = {(1.0, 0): 0.1, (1.0, 1): 0.3, (1.0, 2): 0.2}
  rewards |= {(2.0, 0): 0.4, (2.0, 1): 0.5}
  made = {key: config.model.make(nnx.Rngs(i)) for i, key in enumerate(rewards)}
  begun = {}

  def stage(self, model, alpha, *, steps=0, number=0, path):
    begun[alpha, number] = model
    reward = rewards[alpha, number]
    numbers = dict(reward=reward, accuracy=1.0, calls=1.0, step=20)
    return {a: (made[alpha, number], numbers) for a in config.alphas}, []

  monkeypatch.setattr(training.Lesson, 'stage', stage)
  exact = training.exact_denoiser(TINY.task)
  args = tmp_path, TINY.task, exact, config, 0, lambda line: None
  policies = training.trained(*args)
  same = lambda a, b: jax.tree.all(
    jax.tree.map(np.array_equal, nnx.state(a), nnx.state(b))
  )
  assert same(begun[2.0, 0], made[1.0, 1])
  assert same(begun[2.0, 1], made[1.0, 2])
  assert same(policies.best[2.0], made[2.0, 1])
  of = {
    'alpha=1': (1.0, 1),
    'alpha=2 for 1': (2.0, 0),
    'alpha=1, chain 1': (1.0, 2),
    'alpha=2 for 1, chain 1': (2.0, 1),
  }
  assert list(policies.every) == list(of)
  assert all(same(policies.every[name], made[key]) for name, key in of.items())
  # Each has its files: nothing is trained again.
  monkeypatch.setattr(training.Lesson, 'stage', lambda self: None)
  assert list(training.trained(*args).every) == list(of)


@pytest.mark.parametrize('reward', [0.0, 0.1])
def test_a_stage_that_earns_nothing_goes_back_to_its_best(reward, monkeypatch):
  config = dataclasses.replace(
    TINY.policy, clone=None, validate_every=1, temperatures=(1.0,)
  )
  exact = training.exact_denoiser(TINY.task)
  lesson = training.Lesson(TINY.task, exact, config, 0, lambda line: None)
  start = lesson.start()
  went, numbers = [], dict(reward=reward, accuracy=0.0, calls=3.0)
  monkeypatch.setattr(rl.Trainer, 'update', lambda *args: numbers)
  monkeypatch.setattr(rl.Trainer, 'go_back', lambda self, m: went.append(m))
  best = dict(reward=0.5, accuracy=1.0, calls=1.0, temperature=1.0)
  monkeypatch.setattr(lesson, '_best', lambda validated, step, alpha: best)
  lesson.stage(start, 1.0)
  assert went == ([] if reward else [start] * config.learn.steps)


@pytest.mark.parametrize('last', [1, 1.0000001])
def test_pressures_that_would_share_files_are_refused(last, tmp_path):
  alphas = (0.4, 1, 3, last)
  message = f'policy.alphas={alphas} must differ in their first six digits'
  with pytest.raises(ValueError, match=re.escape(message)):
    training.Config(alphas=alphas)
  assert training.Config(alphas=(0.4, 1, 3, 1.001)).alphas[-1] == 1.001
  # As --config.policy.alphas does, after the config was made.
  config = dataclasses.replace(TINY, policy=dataclasses.replace(TINY.policy))
  config.policy.alphas = alphas
  with pytest.raises(ValueError, match=re.escape(message)):
    experiment.Experiment(config, tmp_path)
  exact = training.exact_denoiser(TINY.task)
  with pytest.raises(ValueError, match=re.escape(message)):
    training.trained(tmp_path, TINY.task, exact, config.policy, 0, print)
  assert not list(tmp_path.iterdir())


def test_starts_that_would_be_equal_are_refused():
  with pytest.raises(ValueError, match='would start as the same clone'):
    training.Config(num_starts=2)
  with pytest.raises(ValueError, match=r'num_chains=3 must be in \[1, num_sta'):
    training.Config(clone=None, num_starts=2, num_chains=3)
  with pytest.raises(ValueError, match='start_steps=-1 >= 0'):
    training.Config(clone=None, start_steps=-1)


def test_more_inputs_than_tokens_are_refused_before_anything_is_trained():
  config = dataclasses.replace(
    TINY.policy, model=policy_lib.Config(hidden=8, time_dim=8, top_p=50)
  )
  refused = pytest.raises(
    ValueError, match=r'policy\.model\.top_p=50 must be at most 33, the size'
  )
  with refused:
    experiment.Config(policy=config)
  # Of questions the vocabulary comes with the language model.
  with refused:
    training.Lesson(
      dice_countdown.DiceCountdown(), None, config, 0, lambda line: None
    )


def test_a_task_without_an_exact_denoiser_needs_a_trained_one():
  with pytest.raises(ValueError, match='Addition has no exact denoiser'):
    training.exact_denoiser(addition.Addition())


@pytest.mark.parametrize('module', [dice, free_choice, policy, puzzles, remdm])
@pytest.mark.parametrize('size', ['tiny', 'small'])
def test_configs_can_be_built(module, size):
  config = module.get_config(size)
  assert config.policy.alphas
  assert hash(config) == hash(module.get_config(size))


@pytest.mark.parametrize(
  'kind', ['sudoku', 'brackets', 'addition', 'countdown']
)
def test_each_puzzle_has_a_config_and_answers_its_own_questions(kind):
  task = puzzles.get_config(f'tiny_{kind}').task
  assert type(task).__name__.lower() == kind
  assert task.is_correct(base.batch(task, 0, 0, 8)).all()


@pytest.mark.parametrize('kind', ['', '_no_time', '_no_mask'])
def test_each_ablation_of_the_policy_has_a_config(kind):
  model = policy.get_config(f'tiny{kind}').policy.model
  assert model.zeroed.value == (kind.removeprefix('_no_') or 'nothing')


@pytest.mark.parametrize('kind', ['top_k', 'softmax', 'confidence', 'free'])
def test_each_reference_has_a_config(kind):
  config = upo_config.get_config(f'tiny_{kind}')
  near = config.policy.learn.near
  assert bool(near.kl) == (kind != 'free')
  assert not near.kl or near.reference.value == kind
  assert bool(near.num_candidates) == (kind == 'top_k')
  assert (config.policy.clone is None) == (kind in ('top_k', 'free'))


def test_pressures_are_refused_with_one_token_before_anything_is_trained():
  learn = rl.Config(likelihood=rl.Likelihood.ONE_TOKEN, alpha=0.0)
  with pytest.raises(
    ValueError, match=r'policy\.alphas=\(0\.4,\) must be \(\)'
  ):
    training.Config(clone=None, learn=learn, alphas=(0.4,))


def test_an_order_is_learned_one_token_per_call(tmp_path):
  config = upo_config.get_config('tiny_top_k')
  config.task = free_choice_task.FreeChoice(num_groups=2)
  config.denoiser = None
  config.policy.learn.steps, config.policy.learn.warmup_steps = 2, 0
  config.policy.num_validation, config.num_test = 16, 16
  config.temperatures = (1.0,)
  job = experiment.Experiment(config, tmp_path)
  points = job.learned(job.judge(job.denoiser()), 0)
  assert points
  for point in points:
    # Whatever it learned, it took one token per call, which is safe here.
    np.testing.assert_array_equal(point.cost_pd, config.task.answer_len)
    assert point.accuracy == 1
