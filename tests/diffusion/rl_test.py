# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rollouts, their replay, and the policy gradient against REINFORCE."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import (
  cloning,
  policy,
  returns,
  rl,
  rollout,
  samplers,
  selectors,
)
from jaxtok.tasks import base, free_choice

TASK = free_choice.FreeChoice(num_groups=2)
ROWS = base.batch(TASK, 0, 0, 12)
SMALL = policy.Config(hidden=8, mlp_dim=8, time_dim=8, bias=-0.5)
ACTIONS = {kind: kind.make() for kind in rl.Likelihood}


def canvas(rows=ROWS):
  masked = jnp.broadcast_to(base.answer_positions(TASK), rows.shape)
  return samplers.start(jnp.asarray(rows), masked, TASK.mask_id)


def play(kind, expert=None, is_expert=None, **kwargs):
  model = SMALL.make(nnx.Rngs(0))
  played = jax.jit(
    lambda: rollout.play(
      TASK.exact_denoiser,
      canvas(),
      model,
      samplers.row_rngs(jax.random.key(3), len(ROWS)),
      prompt_len=TASK.prompt_len,
      mask_id=TASK.mask_id,
      actions=ACTIONS[kind],
      expert=expert,
      is_expert_b=is_expert,
      **kwargs,
    )
  )()
  return model, played


@pytest.fixture(
  scope='module', params=list(rl.Likelihood), ids=lambda kind: kind.value
)
def game(request):
  return request.param, *play(request.param)


def test_a_replay_has_ratio_one(game):
  kind, model, played = game
  for step in range(int(played.num_steps)):
    got, _ = rollout.log_probs(model, played, step, ACTIONS[kind])
    is_open = np.asarray(played.is_open_sb[step])
    # Float32 sums of at most 6 logarithms of one program and another.
    np.testing.assert_allclose(
      got[is_open], played.log_prob_sb[step][is_open], atol=1e-5
    )
    # Finished rows have nothing to decide.
    np.testing.assert_array_equal(np.asarray(got)[~is_open], 0)


def test_the_record_tells_the_whole_story(game):
  kind, _, played = game
  num = int(played.num_steps)
  masked = np.asarray(played.is_masked_sbt)[:num]
  chosen = np.stack([ACTIONS[kind].to_set(a) for a in played.action_sbt[:num]])
  assert not (chosen & ~np.asarray(played.allowed_sbt)[:num]).any()
  np.testing.assert_array_equal(masked[1:], masked[:-1] & ~chosen[:-1])
  calls = np.asarray(played.canvas.num_calls_b)
  np.testing.assert_array_equal(played.is_open_sb.sum(0), calls)
  want = (np.arange(num)[:, None] < calls) * np.arange(num)[:, None] / 6
  got = np.where(played.is_open_sb, played.progress_sb, 0)[:num]
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_packed_record_holds_what_unfinished_rows_did(game):
  kind, _, played = game
  is_open = np.asarray(played.is_open_sb)
  places = np.flatnonzero(is_open)
  tags = jnp.arange(is_open.size).reshape(is_open.shape)
  record, (got,) = rollout.packed(played, tags)
  assert int(record.num_steps) == -(-len(places) // len(ROWS))
  if kind is not rl.Likelihood.ONE_TOKEN:  # All its rows take as long.
    assert int(record.num_steps) < int(played.num_steps)
  np.testing.assert_array_equal(got.reshape(-1)[: len(places)], places)
  flat = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])
  assert not flat(record.is_open_sb)[len(places) :].any()
  for name in ('action_sbt', 'confidence_sbtp', 'log_prob_sb'):
    np.testing.assert_array_equal(
      flat(getattr(record, name))[: len(places)],
      flat(getattr(played, name))[places],
    )


def test_rows_do_not_depend_on_each_other(game):
  kind, model, played = game
  if kind is not rl.Likelihood.BERNOULLI:
    pytest.skip('one distribution is enough: the loop is the same')
  alone = rollout.play(
    TASK.exact_denoiser,
    canvas(ROWS[:2]),
    model,
    samplers.row_rngs(jax.random.key(3), 2),
    prompt_len=TASK.prompt_len,
    mask_id=TASK.mask_id,
  )
  np.testing.assert_array_equal(
    alone.canvas.tokens_bt, played.canvas.tokens_bt[:2]
  )
  np.testing.assert_array_equal(
    alone.canvas.num_calls_b, played.canvas.num_calls_b[:2]
  )


def setup(kind, **fields):
  model, played = play(kind)
  graphdef, params = nnx.split(model)
  advantage = jnp.asarray(np.random.default_rng(0).normal(size=len(ROWS)))
  advantage = advantage.astype(jnp.float32)
  if kind is rl.Likelihood.ONE_TOKEN:  # All rollouts are as long.
    fields['alpha'] = 0.0
  config = rl.Config(likelihood=kind, group=4, num_prompts=3, **fields)
  nobody = jnp.zeros(len(ROWS), bool)
  advantage = jnp.broadcast_to(advantage, (6, len(ROWS)))
  return graphdef, params, played, advantage, nobody, config


@pytest.mark.parametrize('kind', list(rl.Likelihood), ids=lambda k: k.value)
def test_at_ratio_one_the_gradient_is_that_of_reinforce(kind):
  graphdef, params, played, advantage, nobody, config = setup(kind)
  _, got = jax.jit(lambda *args: rl.loss_and_gradient(graphdef, *args, config))(
    params, played, advantage, nobody
  )

  calls = np.asarray(played.canvas.num_calls_b)

  @jax.jit
  def reinforce(params):
    model = nnx.merge(graphdef, params)
    total = 0.0
    for step in range(calls.max()):
      log_prob, _ = rollout.log_probs(model, played, step, ACTIONS[kind])
      open_rows = np.flatnonzero(calls > step)
      gain = (advantage[0] * log_prob / calls)[open_rows]
      total -= gain.sum() / len(ROWS)
    return total

  want = jax.grad(reinforce)(params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-4),
    got,
    want,
  )
  assert float(jnp.abs(jax.tree.leaves(want)[0]).max()) > 0


def test_what_is_stored_for_finished_rows_has_no_effect():
  graphdef, params, played, advantage, nobody, config = setup(
    rl.Likelihood.BERNOULLI, entropy=0.1
  )
  learn = jax.jit(
    lambda played: rl.loss_and_gradient(
      graphdef, params, played, advantage, nobody, config
    )
  )
  loss, grads = learn(played)
  closed = ~np.asarray(played.is_open_sb)
  assert closed[: int(played.num_steps)].any()
  spoilt = dataclasses.replace(
    played,
    log_prob_sb=jnp.where(closed, -0.5, played.log_prob_sb),
    confidence_sbtp=jnp.where(
      closed[..., None, None], 0.77, played.confidence_sbtp
    ),
  )
  new_loss, new_grads = learn(spoilt)
  np.testing.assert_array_equal(loss, new_loss)
  jax.tree.map(np.testing.assert_array_equal, grads, new_grads)


def test_the_clip_stops_gains_and_never_losses():
  ratio = jnp.array([0.5, 1.0, 1.5])
  up = rl.surrogate(jnp.log(ratio), jnp.zeros(3), jnp.ones(3), 0.2)
  down = rl.surrogate(jnp.log(ratio), jnp.zeros(3), -jnp.ones(3), 0.2)
  np.testing.assert_allclose(up, [0.5, 1.0, 1.2], rtol=1e-6)
  np.testing.assert_allclose(down, [-0.8, -1.0, -1.5], rtol=1e-6)


def test_rewards_and_advantages_by_hand():
  right, calls = np.array([1, 1, 0, 1]), np.array([1, 20, 5, 25])
  got = returns.rewards(right, calls, 20, 2.0)
  np.testing.assert_allclose(got, [1.0, 1 / 400, 0.0, 1 / 400], rtol=1e-6)
  got = returns.rewards(right, calls, 20, 1.0, returns.Reward.SUM)
  np.testing.assert_allclose(got, [0.95, 0.0, -0.25, 0.0], atol=1e-6)
  np.testing.assert_allclose(returns.rewards(right, calls, 20, 0.0), right)
  got = returns.advantages(np.array([1.0, 0.0, 0.5, 0.5]), 2)
  np.testing.assert_allclose(got, [0.5, -0.5, 0.0, 0.0])


def test_the_step_that_broke_the_answer_is_blamed():
  trainer = rl.Trainer(
    rl.Config(credit=returns.Credit.BLAME),
    TASK.exact_denoiser,
    TASK.is_correct,
    TASK.prompt_len,
    TASK.mask_id,
    SMALL.make(nnx.Rngs(0)),
    can_complete=TASK.can_complete,
  )
  # Group 0 is wrong (0 + 0 + 0) from step 2 on, where its verdict falls.
  rows = np.array([[0, 1, 0, 0, 11, 0, 0, 11], [1, 1, 0, 0, 11, 0, 0, 11]])
  steps = np.array([[-1, -1, 0, 1, 2, 0, 1, 3]] * 2)
  fault = trainer._faults(rows, steps)
  np.testing.assert_array_equal(fault, [2, -1])
  advantage, calls = np.float32([-0.5, 0.5]), np.array([4, 4])
  credited = lambda credit: returns.credited(advantage, fault, calls, 6, credit)
  got = credited(returns.Credit.BLAME)
  np.testing.assert_allclose(got[:, 0], [0, 0, -2.0, 0, 0, 0])
  np.testing.assert_allclose(got[:, 1], 0.5)
  got = credited(returns.Credit.UNTIL_FAULT)
  np.testing.assert_allclose(got[:, 0], [-0.5, -0.5, -0.5, 0, 0, 0])
  np.testing.assert_allclose(got[:, 1], 0.5)
  np.testing.assert_allclose(credited(returns.Credit.ALL), [[-0.5, 0.5]] * 6)


def test_a_fault_is_found_at_any_call_that_is_allowed():
  trainer = rl.Trainer(
    rl.Config(credit=returns.Credit.UNTIL_FAULT, max_calls=9),
    TASK.exact_denoiser,
    TASK.is_correct,
    TASK.prompt_len,
    TASK.mask_id,
    SMALL.make(nnx.Rngs(0)),
    can_complete=TASK.can_complete,
  )
  # The answer has 6 tokens; the verdict of group 0 is wrong (0 + 0 + 0).
  row = np.array([0, 1, 0, 0, 11, 0, 0, 11])
  steps = np.array([[-1, -1, 0, 1, call, 0, 1, 3] for call in range(9)])
  fault = trainer._faults(np.tile(row, (9, 1)), steps)
  np.testing.assert_array_equal(fault, [1, 1, *range(2, 9)])
  # What was never revealed is no fault.
  row[4] = TASK.mask_id
  steps = np.array([[-1, -1, 0, 1, -1, 0, 1, 8]])
  np.testing.assert_array_equal(trainer._faults(row[None], steps), [-1])


@pytest.mark.parametrize('kind', list(rl.Likelihood), ids=lambda k: k.value)
def test_the_divergence_is_that_of_the_actions_played(kind):
  graphdef, params, played, _, nobody, config = setup(kind)
  # Unevenly: what raises all logits alike changes no softmax.
  moved = jax.tree.map(
    lambda x: x + 0.1 * (1 + jnp.arange(x.size).reshape(x.shape) % 3), params
  )
  measure = jax.jit(
    lambda params, who: rl.divergence(graphdef, params, played, who, config)
  )
  # Sums of squares of float32 rounding of two programs, see the replay test.
  assert float(measure(params, nobody)) < 1e-9
  model, total = nnx.merge(graphdef, moved), []
  for step in range(int(played.num_steps)):
    new, _ = rollout.log_probs(model, played, step, ACTIONS[kind])
    gap = np.float64(new) - np.float64(played.log_prob_sb[step])
    total.append((np.exp(gap) - 1 - gap)[np.asarray(played.is_open_sb[step])])
  # Differences of float32 log-probabilities, about 1e-6 of some nats.
  want = np.concatenate(total).mean()
  assert want > 1e-4
  assert float(measure(moved, nobody)) == pytest.approx(want, rel=1e-3)
  assert float(measure(moved, ~nobody)) == 0


def test_an_update_moves_the_policy_no_further_than_allowed():
  graphdef, params, played, advantage, nobody, config = setup(
    rl.Likelihood.BERNOULLI, lr=0.1, warmup_steps=0
  )
  measure = jax.jit(
    lambda params: rl.divergence(graphdef, params, played, nobody, config)
  )
  moved, at = {}, {}
  for bound in (0.0, 1e-3):
    setting = dataclasses.replace(config, max_kl=bound)
    moved[bound], _, numbers = rl._update(
      params,
      config.optimizer().init(params),
      played,
      advantage,
      nobody,
      graphdef=graphdef,
      config=setting,
    )
    at[bound] = float(measure(moved[bound]))
    assert float(numbers['kl_proposed']) > 0.05
    assert float(numbers['kl']) == pytest.approx(at[bound], rel=1e-3)
  assert at[0.0] > 0.05
  assert 1e-5 < at[1e-3] < 1.2e-3
  shift = lambda new: np.concatenate(
    [
      np.ravel(a - b)
      for a, b in zip(
        jax.tree.leaves(new), jax.tree.leaves(params), strict=True
      )
    ]
  )
  a, b = shift(moved[0.0]), shift(moved[1e-3])
  cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
  assert cosine > 0.999  # The same direction, but for rounding.


def test_expert_steering_bounds_the_ratio():
  impossible = rl.expert_steering_log_prob(jnp.array([-1e3, 0.0]), 8, 1)
  np.testing.assert_allclose(impossible, np.log([1 / 9, 1.0]), atol=1e-6)


@pytest.mark.parametrize('kind', list(rl.Likelihood), ids=lambda k: k.value)
def test_expert_rows_do_what_the_expert_does(kind):
  num = 1 if kind is rl.Likelihood.ONE_TOKEN else 2
  expert = selectors.TopK(num)
  is_expert = jnp.arange(len(ROWS)) % 2 == 0
  _, played = play(kind, expert, is_expert)
  out = samplers.decode(
    TASK.exact_denoiser,
    canvas(),
    expert,
    samplers.row_rngs(jax.random.key(3), len(ROWS)),
    prompt_len=TASK.prompt_len,
    mask_id=TASK.mask_id,
  )
  np.testing.assert_array_equal(
    played.canvas.tokens_bt[::2], out.tokens_bt[::2]
  )
  assert (np.asarray(played.canvas.num_calls_b)[::2] == 6 // num).all()
  assert np.isfinite(played.log_prob_sb).all()


def test_an_expert_in_blocks_stays_in_them():
  order = rollout.InBlocks(selectors.TopK(6), 3)
  _, played = play(rl.Likelihood.BERNOULLI, order, jnp.ones(len(ROWS), bool))
  np.testing.assert_array_equal(
    played.canvas.reveal_step_bt[:, 2:], [[0, 0, 0, 1, 1, 1]] * len(ROWS)
  )


@pytest.mark.parametrize('kind', list(rl.Likelihood), ids=lambda k: k.value)
def test_a_rollout_ends_when_a_block_has_had_its_calls(kind):
  block, fields = 3, dict(prompt_len=TASK.prompt_len, mask_id=TASK.mask_id)
  rows = np.tile(ROWS, (10, 1))
  model = dataclasses.replace(SMALL, bias=0.5).make(nnx.Rngs(0))
  run = lambda max_steps: jax.jit(
    lambda: rollout.play(
      TASK.exact_denoiser,
      canvas(rows),
      model,
      samplers.row_rngs(jax.random.key(3), len(rows)),
      block=block,
      max_steps=max_steps,
      actions=ACTIONS[kind],
      **fields,
    )
  )()
  # With calls of its own choice a rollout goes on.
  played, free = run(0), run(9)
  masked = np.asarray(free.is_masked_sbt)
  allowed = np.asarray(free.allowed_sbt)
  ended = 0
  for row in range(len(rows)):
    spent, end, calls = (
      np.zeros(2, int),
      None,
      int(free.canvas.num_calls_b[row]),
    )
    for step in range(calls):
      now = int(masked[step, row].argmax() // block)
      if spent[now] == block:
        end = step
        break
      spent[now] += 1
      assert allowed[step, row].nonzero()[0].max() // block == now
    want = calls if end is None else end
    ended += end is not None
    assert int(played.canvas.num_calls_b[row]) == want
    open_s = np.asarray(played.is_open_sb[:, row])
    np.testing.assert_array_equal(open_s, np.arange(6) < want)
    np.testing.assert_array_equal(played.log_prob_sb[want:, row], 0)
    has_masks = bool(played.canvas.is_masked_bt[row].any())
    if end is None:
      assert has_masks == bool(free.canvas.is_masked_bt[row].any())
    else:
      assert has_masks
      np.testing.assert_array_equal(
        played.canvas.is_masked_bt[row, 2:], masked[end, row]
      )
  # One token per call, or at least one, is always enough.
  assert (ended > 5) == (kind is rl.Likelihood.BERNOULLI)
  assert ended < len(rows) // 2


def test_rollouts_in_parts_are_those_of_the_whole_batch():
  rows = []

  def denoiser(tokens_bt):
    rows.append(tokens_bt.shape[0])
    return TASK.exact_denoiser(tokens_bt)

  def learnt(rows_per_call):
    trainer = rl.Trainer(
      rl.Config(num_prompts=4, group=3, num_experts=1, lr=0.1),
      jax.tree_util.Partial(denoiser),
      TASK.is_correct,
      TASK.prompt_len,
      TASK.mask_id,
      SMALL.make(nnx.Rngs(0)),
      selectors.TopK(2),
      rows_per_call=rows_per_call,
    )
    played = trainer._play(np.repeat(ROWS[:4], 4, axis=0), jax.random.key(2))
    trainer.update(ROWS[:4], jax.random.key(2))
    return played, trainer.current()

  whole, model = learnt(0)
  # 16 rows in parts of 6, 6 and 4, the last filled up.
  parts, other = learnt(7)
  assert set(rows) == {16, 6}
  for name in ('tokens_bt', 'num_calls_b', 'reveal_step_bt', 'psi_bt'):
    np.testing.assert_array_equal(
      getattr(parts.canvas, name), getattr(whole.canvas, name)
    )
  np.testing.assert_array_equal(parts.num_steps, whole.num_steps)
  np.testing.assert_array_equal(parts.is_open_sb, whole.is_open_sb)
  is_open = np.asarray(whole.is_open_sb)
  for name in ('action_sbt', 'confidence_sbtp', 'log_prob_sb'):
    np.testing.assert_array_equal(
      np.asarray(getattr(parts, name))[is_open],
      np.asarray(getattr(whole, name))[is_open],
    )
  jax.tree.map(
    np.testing.assert_array_equal, nnx.state(other), nnx.state(model)
  )
  start = nnx.state(SMALL.make(nnx.Rngs(0)))
  changed = jax.tree.map(lambda a, b: (a != b).any(), nnx.state(model), start)
  assert any(jax.tree.leaves(changed))


def test_a_clone_decides_as_its_expert():
  _, shown = play(
    rl.Likelihood.BERNOULLI,
    selectors.Threshold(0.5),
    jnp.ones(len(ROWS), bool),
  )
  _, nats, _ = cloning.clone(
    SMALL.make(nnx.Rngs(1)), shown, cloning.Config(steps=300, lr=1e-2)
  )
  assert (
    nats
    < 0.1
    < float(cloning.loss(SMALL.make(nnx.Rngs(1)), cloning.choices(shown)))
  )


@pytest.mark.parametrize('kind', list(rl.Likelihood), ids=lambda k: k.value)
def test_inference_reveals_what_a_rollout_does(kind):
  rows = np.tile(ROWS[:1], (1000, 1))
  model = dataclasses.replace(SMALL, bias=-1.5).make(nnx.Rngs(0))
  fields = dict(prompt_len=TASK.prompt_len, mask_id=TASK.mask_id)
  rngs = samplers.row_rngs(jax.random.key(5), len(rows))
  played = jax.jit(
    lambda: rollout.play(
      TASK.exact_denoiser,
      canvas(rows),
      model,
      rngs,
      actions=ACTIONS[kind],
      max_steps=1,
      **fields,
    )
  )()
  selector = policy.Policy(model, actions=ACTIONS[kind])
  out = jax.jit(
    lambda: samplers.decode(
      TASK.exact_denoiser, canvas(rows), selector, rngs, **fields
    )
  )()
  first = lambda end: (np.asarray(end.reveal_step_bt) == 0).sum(-1)
  trained, tested = first(played.canvas), first(out)
  # The same numbers at random: equal row by row, and so in the mean. Inference
  # reveals a position where a rollout may reveal none, which is Bernoulli's.
  np.testing.assert_array_equal(tested, np.maximum(trained, 1))
  is_bernoulli = kind is rl.Likelihood.BERNOULLI
  assert (trained == 0).any() == is_bernoulli
  other = ACTIONS[next(k for k in rl.Likelihood if k is not kind)]
  start, step = canvas(rows), jnp.int32(0)
  view = samplers.look(TASK.exact_denoiser, start, rngs, step, **fields)
  wrong = np.asarray(policy.Policy(model, actions=other)(view)).sum(-1)
  # Deviations of counts below 1.5, of a mean of 1000 below 0.05: 4 of them.
  assert abs(wrong.mean() - tested.mean()) > 0.2


@pytest.mark.parametrize(
  'until, shares, done',
  [
    (0.97, [0.5, 0.969, 0.97], 250),
    (0.97, [0.5, 0.97, 1.0], 200),
    (0.97, [0.1, 0.2, 0.3], 250),
    (0.0, [], 250),
  ],
)
def test_cloning_ends_when_the_clone_is_right_enough(until, shares, done):
  expert, everyone = selectors.Threshold(0.5), jnp.ones(len(ROWS), bool)
  _, shown = play(rl.Likelihood.BERNOULLI, expert, everyone)
  config = cloning.Config(steps=250, lr=1e-2, until=until)
  start, left, seen = SMALL.make(nnx.Rngs(1)), list(shares), []

  def share(model):
    seen.append(model)
    return left.pop(0)

  model, nats, steps = cloning.clone(start, shown, config, share=share)
  assert steps == done
  assert len(seen) == (math.ceil(done / 100) if until else 0)
  if not until:
    return
  # It is the last one that was judged, and training went on between.
  jax.tree.map(
    np.testing.assert_array_equal, nnx.state(model), nnx.state(seen[-1])
  )
  losses = [float(cloning.loss(m, cloning.choices(shown))) for m in seen]
  assert losses == sorted(losses, reverse=True)
  assert abs(losses[-1] - nats) < 0.5 * losses[0]


def test_a_share_of_accuracy_is_at_most_one():
  with pytest.raises(ValueError, match=r'until=1\.5 must be in \[0, 1\]'):
    cloning.Config(until=1.5)


def test_a_clone_by_orders_reveals_what_its_expert_does():
  kind, expert = rl.Likelihood.PLACKETT_LUCE, selectors.Threshold(0.5)
  _, shown = play(kind, expert, jnp.ones(len(ROWS), bool))
  start, made = SMALL.make(nnx.Rngs(1)), cloning.choices(shown)
  actions, sure = ACTIONS[kind], cloning.Config(steps=300, lr=1e-2)
  model, nats, _ = cloning.clone(start, shown, sure, actions)
  assert nats < 0.5 * float(cloning.loss(start, made, actions=actions))
  logits = model(made.confidence_btp, made.is_masked_bt, made.progress_b)
  want = -actions.log_prob(logits, made.action_bt, made.allowed_bt)
  got = cloning.loss(model, made, actions=actions)
  assert float(got) == pytest.approx(
    float(want.sum() / made.allowed_bt.sum()), rel=1e-5
  )
  with pytest.raises(ValueError, match=r'smoothing=0\.1 must be 0 for Plack'):
    cloning.loss(start, made, 0.1, actions)


def test_a_smoothed_clone_is_less_sure():
  _, shown = play(
    rl.Likelihood.BERNOULLI,
    selectors.Threshold(0.5),
    jnp.ones(len(ROWS), bool),
  )
  config = cloning.Config(steps=300, lr=1e-2, smoothing=0.1)
  _, nats, _ = cloning.clone(SMALL.make(nnx.Rngs(1)), shown, config)
  # No policy is below the entropy of the smoothed choices.
  least = -0.9 * np.log(0.9) - 0.1 * np.log(0.1)
  assert least - 1e-3 < nats < least + 0.1
  with pytest.raises(ValueError, match=r'smoothing=0\.5 must be'):
    cloning.Config(smoothing=0.5)


def test_training_finds_that_one_call_is_best_where_all_is_certain():
  def certain(tokens):
    return jnp.broadcast_to(20.0 * jax.nn.one_hot(7, 13), (*tokens.shape, 13))

  trainer = rl.Trainer(
    rl.Config(
      steps=30, warmup_steps=2, num_prompts=2, group=16, lr=3e-2, clip_norm=1.0
    ),
    jax.tree_util.Partial(certain),
    lambda tokens: (tokens[:, 2:] == 7).all(-1),
    prompt_len=2,
    mask_id=12,
    model=SMALL.make(nnx.Rngs(0)),
  )
  rng = jax.random.key(0)
  seen = [
    trainer.update(ROWS[:2], jax.random.fold_in(rng, i)) for i in range(30)
  ]
  assert seen[0]['calls'] > 3
  assert seen[-1]['calls'] < 2
  assert seen[-1]['accuracy'] > 0.95


def test_going_back_keeps_the_learning_rate_of_now():
  config = rl.Config(num_prompts=2, group=4)
  trainer = rl.Trainer(
    config,
    jax.tree_util.Partial(TASK.exact_denoiser),
    TASK.is_correct,
    TASK.prompt_len,
    TASK.mask_id,
    SMALL.make(nnx.Rngs(0)),
  )
  start = trainer.current()
  for step in range(4):
    trainer.update(ROWS[:2], jax.random.key(step))
  steps = lambda: [
    int(x) for x in jax.tree.leaves(trainer.opt_state) if x.ndim == 0
  ]
  before = steps()
  trainer.go_back(start)
  same = lambda a, b: all(
    np.array_equal(x, y)
    for x, y in zip(
      jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True
    )
  )
  assert same(trainer.current(), start)
  assert before == steps()
  assert max(before) > 1
  moments = [x for x in jax.tree.leaves(trainer.opt_state) if x.ndim]
  assert moments
  assert not any(np.any(x) for x in moments)


def test_a_restored_trainer_learns_as_one_that_was_not_stopped():
  # Pressure, learning rate and moments differ from update to update.
  config = rl.Config(
    steps=6, warmup_steps=2, num_prompts=2, group=4, lr=0.1, alpha_start=0.0
  )
  new = lambda seed: rl.Trainer(
    config,
    jax.tree_util.Partial(TASK.exact_denoiser),
    TASK.is_correct,
    TASK.prompt_len,
    TASK.mask_id,
    SMALL.make(nnx.Rngs(seed)),
  )
  update = lambda trainer, i: trainer.update(
    ROWS[2 * i : 2 * i + 2], jax.random.key(i)
  )
  whole = new(0)
  seen = [update(whole, i) for i in range(2)]
  state, step = whole.state, whole.step
  seen += [update(whole, i) for i in range(2, 5)]
  # Of other weights: all that decides is in the state, through a file too.
  other = new(1)
  other.restore(jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state), step)
  assert [update(other, i) for i in range(2, 5)] == seen[2:]
  assert other.step == whole.step == 5
  jax.tree.map(np.testing.assert_array_equal, other.state, whole.state)
  assert all(x['norm'] for x in seen)
  moved = jax.tree.map(lambda a, b: (a != b).any(), state, whole.state)
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
  'field, value',
  [
    ('alpha', -1.0),
    ('group', 1),
    ('num_experts', -1),
    ('lr', 0.0),
    ('entropy', -1.0),
    ('max_kl', -1.0),
  ],
)
def test_bad_settings_are_refused(field, value):
  with pytest.raises(ValueError, match=f'rl.{field}={value} must be'):
    rl.Config(**{field: value})


def test_a_group_holds_the_policy_whatever_its_experts():
  assert rl.Config(group=1, num_experts=1).rows_per_prompt == 2
  with pytest.raises(ValueError, match=r'rl\.group=0 must be >= 1 beside'):
    rl.Config(group=0, num_experts=3)


def test_the_learning_rate_warms_up_then_stays_or_falls():
  at = lambda step, **fields: float(
    rl.Config(lr=1.0, steps=100, **fields).schedule()(step)
  )
  for step, want in [(0, 0.1), (5, 0.55), (10, 1.0), (99, 1.0)]:
    got = at(step, warmup_steps=10, is_cosine=False)
    assert got == pytest.approx(want)
  assert at(0, warmup_steps=0, is_cosine=False) == 1.0
  assert at(0, warmup_steps=10) == pytest.approx(0.1)
  assert at(10, warmup_steps=10) == pytest.approx(1.0)
  assert at(100, warmup_steps=10) == pytest.approx(0.0, abs=1e-6)


def test_a_bound_is_for_one_update_per_batch():
  with pytest.raises(ValueError, match=r'but rl\.num_inner=2\. Use 1'):
    rl.Config(max_kl=0.1, num_inner=2)


def test_steering_needs_an_expert():
  with pytest.raises(ValueError, match='num_experts=1 needs an expert'):
    rl.Trainer(
      rl.Config(num_experts=1),
      None,
      TASK.is_correct,
      2,
      12,
      SMALL.make(nnx.Rngs(0)),
    )
