# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""diffu-GRPO against NumPy, enumeration and REINFORCE."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import (
  denoisers,
  diffu_grpo,
  estimates,
  samplers,
  selectors,
)
from jaxtok.models import transformer

P, S, V, MASK = 2, 3, 3, 3  # Prompt, answer, real tokens, the mask.
TOKENS = np.array([[0, 1, 2, 0, 1], [2, 2, 1, 1, 0], [1, 0, 0, 2, 2]])
VISIBLE = np.zeros((3, P), bool)
HIDDEN = np.array([[True, False], [False, False], [False, True]])
PLAIN = diffu_grpo.Config(kl_weight=0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Table:
  """Logits by the whole input; or by the prompt alone, so that they factorise.

  Attributes:
    params: [(V + 1)**(P + S), P + S, V + 1].
    width: Positions that count; static.
  """

  params: Any
  width: int = dataclasses.field(metadata=dict(static=True))

  @classmethod
  def make(cls, width=P + S, dtype=np.float32, num=P + S):
    shape = ((V + 1) ** width, num, V + 1)
    table = 1.5 * np.random.default_rng(0).normal(size=shape)
    return cls(jnp.asarray(table, dtype), width)

  def __call__(self, tokens_bt):
    place = (V + 1) ** jnp.arange(self.width)
    return self.params[(tokens_bt[:, : self.width] * place).sum(-1)]


def log_probs(denoiser, tokens):
  """Of real tokens at one input, double precision, in NumPy."""
  x = np.asarray(denoiser(jnp.asarray(tokens)[None]), np.float64)[0, :, :V]
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def batch(advantage=(0.5, -1.0, 0.25), is_scored=None):
  if is_scored is None:
    is_scored = np.ones((3, S), bool)
  return diffu_grpo.Batch(
    jnp.asarray(TOKENS), jnp.asarray(advantage), jnp.asarray(is_scored)
  )


def score(denoiser, hidden=HIDDEN, tokens=TOKENS):
  return estimates.mean_field_log_prob(
    denoiser, jnp.asarray(tokens), jnp.asarray(hidden), MASK
  )


def gradient(denoiser, config, *, old=None, reference=None, of=None):
  """Gradient of the loss with respect to the table, and its numbers."""
  same = score(denoiser)
  return jax.grad(
    lambda params: diffu_grpo.loss(
      dataclasses.replace(denoiser, params=params),
      of or batch(),
      same if old is None else old,
      same if reference is None else reference,
      diffu_grpo.Masks(jnp.asarray(HIDDEN)),
      mask_id=MASK,
      config=config,
    ),
    has_aux=True,
  )(denoiser.params)


def test_log_probabilities_are_those_of_one_masked_call():
  denoiser = Table.make()
  got = score(denoiser)
  for row, hidden, x in zip(got, HIDDEN, TOKENS, strict=True):
    masked = np.where(np.append(hidden, [True] * S), MASK, x)
    want = log_probs(denoiser, masked)[P:][np.arange(S), x[P:]]
    # Logits of about 5, so sums in float32 are off by a few 1e-7 each.
    np.testing.assert_allclose(row, want, atol=5e-6)


def test_a_token_that_is_the_mask_is_impossible():
  tokens = TOKENS.copy()
  tokens[0, -1] = MASK
  got = score(Table.make(), tokens=tokens)
  np.testing.assert_array_equal(got < -1e29, tokens[:, P:] == MASK)
  np.testing.assert_array_equal(got > -30, tokens[:, P:] != MASK)


def chain_probability(denoiser, x, order):
  """Of an answer that is revealed in some order, one token per call."""
  tokens, total = np.append(x[:P], [MASK] * S), 0.0
  for place in order:
    total += log_probs(denoiser, tokens)[place, x[place]]
    tokens[place] = x[place]
  return np.exp(total)


@pytest.mark.parametrize('width', [P, P + S], ids=['factorises', 'does not'])
def test_the_estimate_is_exact_if_the_model_factorises(width):
  denoiser = Table.make(width)
  answers = np.array(list(itertools.product(range(V), repeat=S)))
  rows = np.hstack([np.tile(TOKENS[:1, :P], (len(answers), 1)), answers])
  hidden = np.zeros((len(rows), P), bool)
  got = np.exp(np.asarray(score(denoiser, hidden, rows)).sum(-1))
  np.testing.assert_allclose(got.sum(), 1, atol=1e-5)  # 27 terms, float32.
  gap = 0.0
  for order in itertools.permutations(range(P, P + S)):
    want = [chain_probability(denoiser, x, order) for x in rows]
    gap = max(gap, np.abs(got - want).max())
  if width == P:
    assert gap < 1e-6  # Three factors of at most 1, each off by 3e-7.
  else:
    assert gap > 0.05  # The estimate is biased.


def test_at_ratio_one_the_gradient_is_that_of_reinforce():
  with jax.enable_x64(True):
    denoiser = Table.make(dtype=np.float64)
    advantage = jnp.asarray([0.5, -1.0, 0.25])

    def reinforce(params):
      of = dataclasses.replace(denoiser, params=params)
      return -(advantage * score(of).mean(-1)).mean()

    got, numbers = gradient(denoiser, PLAIN, of=batch(advantage))
    want = jax.grad(reinforce)(denoiser.params)
    assert got.dtype == jnp.float64
    # Sums of nine terms below 1 in double precision.
    np.testing.assert_allclose(got, want, atol=1e-14)
    assert jnp.abs(want).max() > 0.01
    assert numbers['clipped'] == 0


def test_the_expected_gradient_is_that_of_the_expected_reward():
  # Groups of two: rewards less their mean have (2 - 1)/2 of the signal, and the
  # mean over the answer's S tokens is 1/S of the log-probability.
  with jax.enable_x64(True):
    denoiser = Table.make(P, np.float64)
    answers = np.array(list(itertools.product(range(V), repeat=S)))
    rows = np.hstack([np.tile(TOKENS[:1, :P], (len(answers), 1)), answers])
    hidden = jnp.zeros((2, P), bool)
    reward = np.random.default_rng(1).normal(size=len(rows))

    def law(params):
      of = dataclasses.replace(denoiser, params=params)
      return jnp.exp(score(of, np.zeros((len(rows), P), bool), rows).sum(-1))

    want = jax.grad(lambda params: -(law(params) * reward).sum() / 2 / S)(
      denoiser.params
    )

    @jax.jit
    @jax.grad
    def of_pair(params, tokens, advantage):
      of = dataclasses.replace(denoiser, params=params)
      old = jax.lax.stop_gradient(score(of, hidden, tokens))
      pair = diffu_grpo.Batch(tokens, advantage, jnp.ones((2, S), bool))
      return diffu_grpo.loss(
        of,
        pair,
        old,
        old,
        diffu_grpo.Masks(hidden),
        mask_id=MASK,
        config=PLAIN,
      )[0]

    p, got = np.asarray(law(denoiser.params)), 0.0
    for i, j in itertools.product(range(len(rows)), repeat=2):
      half = (reward[i] - reward[j]) / 2
      pair = jnp.asarray(rows[[i, j]])
      got += (
        p[i] * p[j] * of_pair(denoiser.params, pair, np.array([half, -half]))
      )
    # 729 terms below 1 in double precision.
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.abs(want).max() > 1e-3


def test_ratios_beyond_the_bound_have_no_gradient():
  denoiser = Table.make()
  config = dataclasses.replace(PLAIN, clip_ratio=0.2)
  # All ratios are 2: too large for a positive advantage to grow further; a
  # negative one still pulls back.
  old = score(denoiser) - np.log(2)
  up, numbers = gradient(denoiser, config, old=old, of=batch((1.0, 1.0, 1.0)))
  assert not np.any(up)
  assert float(numbers['clipped']) == pytest.approx(1)
  down, _ = gradient(denoiser, config, old=old, of=batch((-1.0, -1.0, -1.0)))
  assert np.any(down)


def test_the_divergence_is_zero_at_the_reference_and_positive_elsewhere():
  denoiser = Table.make()
  config = diffu_grpo.Config(kl_weight=1.0)
  nobody = batch((0.0, 0.0, 0.0))
  grads, numbers = gradient(denoiser, config, of=nobody)
  assert float(numbers['kl']) == 0
  assert not np.any(grads)
  far = score(denoiser) + 0.3 * (-1) ** np.arange(S)
  grads, numbers = gradient(denoiser, config, of=nobody, reference=far)
  up, down = (np.expm1(x) - x for x in (0.3, -0.3))
  # Of about 0.04, in float32 from log-probabilities of about 4.
  assert float(numbers['kl']) == pytest.approx((2 * up + down) / 3, abs=2e-6)
  assert np.any(grads)


def test_the_divergence_has_the_mean_of_the_exact_one():
  rng = np.random.default_rng(0)
  p, q = rng.dirichlet(np.ones(5), 2)
  estimate = diffu_grpo.divergence(jnp.log(p)[None], jnp.log(q)[None])[0]
  # Five float32 terms of at most 2.
  assert (p * estimate).sum() == pytest.approx(
    (p * np.log(p / q)).sum(), abs=2e-6
  )


def test_tokens_behind_the_end_and_unrevealed_ones_are_not_scored():
  tokens = np.array([[2, 1, 2, 0], [2, 0, 1, 3], [2, 0, 0, 0], [0, 2, 1, 2]])
  got = diffu_grpo.scored(jnp.asarray(tokens), 1, MASK, (2,))
  want = [[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]]
  np.testing.assert_array_equal(got, np.array(want, bool))
  both = diffu_grpo.scored(jnp.asarray(tokens), 1, MASK, (2, 1))
  np.testing.assert_array_equal(both[0], [True, False, False])
  every = diffu_grpo.scored(jnp.asarray(tokens), 1, MASK)
  np.testing.assert_array_equal(every, tokens[:, 1:] != MASK)


def test_tokens_that_are_not_scored_have_no_effect():
  denoiser = Table.make()
  is_scored = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
  config = diffu_grpo.Config(kl_weight=0.5)
  same = score(denoiser)
  spoilt = jnp.where(is_scored, same, -3.0)
  find = lambda x: gradient(
    denoiser, config, old=x, reference=x, of=batch(is_scored=is_scored)
  )[0]
  np.testing.assert_array_equal(find(same), find(spoilt))
  assert np.any(find(same))
  # One entry of the table per row: the last row has no scored token.
  touched = np.flatnonzero(np.any(np.asarray(find(same)), axis=(1, 2)))
  assert len(touched) == 2


def test_rows_or_tokens_weigh_the_same():
  is_scored = jnp.asarray([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
  row = diffu_grpo.weights(is_scored, diffu_grpo.Average.ROW)
  np.testing.assert_allclose(row.sum(-1), [1 / 3, 1 / 3, 0], atol=1e-7)
  token = diffu_grpo.weights(is_scored, diffu_grpo.Average.TOKEN)
  np.testing.assert_allclose(token, np.asarray(is_scored) / 4, atol=1e-7)


def learn(config, denoiser, reference=None, rng=0):
  return diffu_grpo.learn(
    denoiser,
    denoiser.params if reference is None else reference,
    config.optimizer().init(denoiser.params),
    batch(),
    jax.random.key(rng),
    mask_id=MASK,
    config=config,
  )


@pytest.mark.parametrize('estimate', diffu_grpo.Estimate)
def test_policies_are_compared_under_the_same_mask(estimate):
  # A new mask for the policy would give ratios other than 1 and a divergence
  # from itself; the table has other logits for each mask.
  config = diffu_grpo.Config(
    estimate=estimate, num_inner=1, prompt_mask_rate=0.5, kl_weight=1.0
  )
  for seed in range(5):
    _, _, numbers = learn(config, Table.make(), rng=seed)
    assert float(numbers['kl']) == 0
    assert float(numbers['clipped']) == 0


def test_every_inner_update_has_a_mask_of_its_own():
  # Each masked prompt is an entry of the table; those seen have a gradient.
  config = diffu_grpo.Config(
    num_inner=4, prompt_mask_rate=0.5, kl_weight=0.0, weight_decay=0.0
  )
  denoiser = Table.make(P)
  seen = lambda num: np.flatnonzero(
    np.any(
      learn(dataclasses.replace(config, num_inner=num), denoiser)[0]
      != denoiser.params,
      axis=(1, 2),
    )
  )
  assert len(seen(1)) <= 3  # Rows.
  assert len(seen(8)) > 3


def test_coupled_updates_learn_from_partly_revealed_answers():
  # Of each row the entries of its two inputs have a gradient; in the mean field
  # all of them have the whole answer masked.
  denoiser = Table.make()
  # The first token is the lowest digit of a place in the table.
  digits = np.indices((V + 1,) * (P + S))[::-1].reshape(P + S, -1)
  whole = (digits[P:] == MASK).all(axis=0)
  seen = {}
  for estimate in diffu_grpo.Estimate:
    config = diffu_grpo.Config(
      estimate=estimate, num_inner=4, kl_weight=0.0, weight_decay=0.0
    )
    params, _, _ = learn(config, denoiser)
    seen[estimate.value] = np.any(params != denoiser.params, axis=(1, 2))
  assert not np.any(seen['mean_field'] & ~whole)
  assert np.any(seen['coupled'] & ~whole)


def test_the_reference_pulls_the_policy_back():
  denoiser = Table.make()
  config = diffu_grpo.Config(
    kl_weight=100.0, lr=1e-2, num_inner=20, prompt_mask_rate=0.0,
    weight_decay=0.0, warmup_updates=0,
  )  # fmt: skip
  noise = np.random.default_rng(3).normal(size=denoiser.params.shape)
  reference = denoiser.params + jnp.asarray(noise, jnp.float32)
  gap = lambda params: float(
    diffu_grpo.divergence(
      score(dataclasses.replace(denoiser, params=params), VISIBLE),
      score(dataclasses.replace(denoiser, params=reference), VISIBLE),
    ).mean()
  )
  params, _, _ = learn(config, denoiser, reference)
  assert gap(params) < 0.7 * gap(denoiser.params)


def trainer(reward, **fields):
  fields = (
    dict(num_prompts=4, group=8, lr=3e-2, warmup_updates=0, weight_decay=0.0)
    | fields
  )
  model = transformer.Config.gpt2(
    vocab_size=V + 1, dim=16, num_layers=1, num_heads=2, max_len=P + S,
    is_causal=False, is_tied=False,
  ).make(nnx.Rngs(0))  # fmt: skip
  return diffu_grpo.Trainer(
    diffu_grpo.Config(**fields),
    denoisers.OfModel.make(model),
    reward,
    prompt_len=P,
    mask_id=MASK,
    selector=selectors.TopK(1),
  )


PROMPTS = np.array([[a, b, 0, 0, 0] for a in range(2) for b in range(2)])


def leaves(tree):
  return [np.asarray(x) for x in jax.tree.leaves(tree)]


def same(a, b):
  return all(map(np.array_equal, leaves(a), leaves(b)))


def test_training_finds_the_rewarded_answers():
  # Right is the first token of the prompt, three times.
  job = trainer(lambda x: (x[:, P:] == x[:, :1]).mean(-1))
  rewards = [
    job.update(PROMPTS, jax.random.key(i))['reward'] for i in range(25)
  ]
  assert rewards[0] < 0.6  # A third by chance.
  assert rewards[-1] > 0.95


def test_equal_rewards_teach_nothing():
  job = trainer(lambda x: np.ones(len(x)))
  before = job.state
  numbers = job.update(PROMPTS, jax.random.key(0))
  assert numbers['reward'] == 1
  assert numbers['norm'] == 0
  assert same(before, job.state)
  assert job.step == 1


def test_unfinished_answers_earn_nothing():
  job = trainer(lambda x: np.ones(len(x)), max_calls=1)
  assert job.update(PROMPTS, jax.random.key(0))['reward'] == 0


def test_the_reference_is_renewed_between_batches():
  job = trainer(lambda x: x[:, P] == 0, num_inner=2, sync_every=3)
  start, is_policy = job.reference, []
  for i in range(3):
    job.update(PROMPTS, jax.random.key(i))
    is_policy.append(same(job.reference, job.denoiser.params))
  # Updates 2, 4, 6: numbers 3 and 6 are reached in the second and third batch.
  assert is_policy == [False, True, True]
  assert not same(start, job.reference)


def test_a_restored_state_goes_on_alike():
  reward = lambda x: x[:, P] == x[:, 0]
  whole, half = trainer(reward), trainer(reward)
  for i in range(2):
    whole.update(PROMPTS, jax.random.key(i))
  half.restore(whole.state, whole.step)
  for job in (whole, half):
    job.update(PROMPTS, jax.random.key(2))
  assert same(whole.state, half.state)
  assert half.step == 3


def test_answers_are_sampled_by_the_given_selector():
  job = trainer(lambda x: np.zeros(len(x)))
  calls = {}
  for k in (1, 3):
    canvas = diffu_grpo.sample(
      job.denoiser, jnp.asarray(PROMPTS), selectors.TopK(k),
      jax.random.key(0), prompt_len=P, mask_id=MASK, config=job.config,
    )  # fmt: skip
    assert not canvas.is_masked_bt.any()
    np.testing.assert_array_equal(canvas.tokens_bt[:, :P], PROMPTS[:, :P])
    calls[k] = int(canvas.num_calls_b.max())
  assert calls == {1: 3, 3: 1}
  assert isinstance(canvas, samplers.Canvas)


@pytest.mark.parametrize(
  'field, value, rule',
  [
    ('group', 1, '>= 2'),
    ('prompt_mask_rate', 1.0, r'in \[0, 1\)'),
    ('temperature', 0.0, '> 0'),
    ('num_inner', 0, '>= 1'),
    ('kl_weight', -0.1, '>= 0'),
    ('clip_ratio', 0.0, '> 0'),
    ('lr', 0.0, '> 0'),
  ],
)
def test_bad_settings_are_refused(field, value, rule):
  with pytest.raises(ValueError, match=f'{field}={value} must be {rule}'):
    diffu_grpo.Config(**{field: value})


def test_only_floats_are_trained():
  whole = Table(jnp.zeros(((V + 1) ** P, P + S, V + 1), jnp.int32), P)
  with pytest.raises(ValueError, match='int32: only floats can be trained'):
    diffu_grpo.Trainer(PLAIN, whole, np.mean, P, MASK, selectors.TopK(1))


def test_the_number_of_prompts_is_fixed():
  job = trainer(lambda x: np.zeros(len(x)))
  with pytest.raises(ValueError, match='2 prompts were given'):
    job.update(PROMPTS[:2], jax.random.key(0))
