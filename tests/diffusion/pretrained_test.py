# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generation of LLaDA and Dream against loops written out in NumPy."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.decoding import sampling
from jaxtok.diffusion import (
  budgets,
  denoisers,
  policy,
  pretrained,
  samplers,
  selectors,
)
from jaxtok.models import transformer

VOCAB, MASK, EOS, EOT, P = 12, 11, 3, 2, 4
PROMPT = np.random.default_rng(0).integers(0, 10, (3, P)).astype(np.int32)


@pytest.fixture(scope='module')
def model():
  config = transformer.Config.llama(
    vocab_size=VOCAB, dim=16, num_layers=1, num_heads=2, is_causal=False
  )
  model = config.make(nnx.Rngs(0))
  # Logits of about 1 instead of 0.1, so that confidences differ.
  kernel = model.head.out.kernel
  kernel[...] = 10 * kernel[...]
  return model


@pytest.fixture(scope='module')
def logits_of(model):
  """`[1, t]` to float64 logits `[t, v]`."""
  call = nnx.jit(lambda model, x: model.logits(model(x).hidden_btd))
  return lambda x: np.asarray(call(model, x[None])[0], np.float64)


def test_shifted_states_do_not_cross_documents(model):
  rows = {
    'tokens_bt': jnp.array([[1, 2, 3, 4, 5, 6, 0]]),
    'segment_ids': jnp.array([[1, 1, 1, 2, 2, 2, 0]]),
    'positions': jnp.array([[0, 1, 2, 0, 1, 2, 0]]),
  }
  aligned = nnx.jit(
    lambda model, tokens_bt, **options: (
      pretrained.Aligned(model)(tokens_bt, **options).hidden_btd
    )
  )
  packed = aligned(model, **rows)
  for a, z in ((0, 3), (3, 6)):
    alone = aligned(model, **{k: x[:, a:z] for k, x in rows.items()})
    np.testing.assert_allclose(packed[:, a:z], alone, atol=1e-5)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def generate(model, config, **fields):
  fn = functools.partial(
    pretrained.generate, config=config, mask_id=MASK, **fields
  )
  return nnx.jit(fn)(model, jnp.asarray(PROMPT), rng=jax.random.key(0))


def best(score, allowed, k):
  """The k allowed positions of the highest score, ties to the left."""
  order = sorted(np.flatnonzero(allowed), key=lambda i: (-score[i], i))
  return order[:k]


def rounded(length, steps):
  """Tokens of each step of a cosine schedule; those without are left out."""
  mask_rate = lambda j: 1e-4 + (1 - 1e-4) * np.sin(np.pi / 2 * (1 - j / steps))
  counts = []
  for j in range(steps):
    left = length - sum(counts)
    part = (mask_rate(j) - mask_rate(j + 1)) / mask_rate(j)
    counts.append(round(left * part) if j < steps - 1 else left)
  return [x for x in counts if x]


def llada(
  prompt,
  logits_of,
  *,
  length,
  block,
  steps,
  guidance=0.0,
  eos='',
  alpha='',
  schedule='even',
):
  """Greedy answers of one prompt; the loop of the paper's code."""
  x = np.concatenate([prompt, np.full(length, MASK)])
  steps_of_block = (steps or length) // (length // block)
  for start in range(P, P + length, block):
    counts = [block // steps_of_block] * steps_of_block
    for i in range(block % steps_of_block):
      counts[i] += 1
    if schedule == 'rounded':
      counts = rounded(block, steps_of_block)
    for count in counts:
      logits = logits_of(x)
      if guidance:
        free = np.where(np.arange(len(x)) < P, MASK, x)
        logits = logits_of(free) + (guidance + 1) * (logits - logits_of(free))
      logits[:, MASK] = -np.inf
      if eos == 'logits':
        logits[:, EOS] = -np.inf
      token, prob = logits.argmax(-1), softmax(logits).max(-1)
      if eos == 'confidence':
        prob = np.where(np.isin(token, (EOS, EOT)), -1.0, prob)
      allowed = (x == MASK) & (np.arange(len(x)) >= start)
      allowed &= np.arange(len(x)) < start + block
      chosen = best(prob, allowed, count)
      x[chosen] = token[chosen]
  return x


@pytest.mark.parametrize(
  ('fields', 'calls'),
  [
    (dict(length=8, block=8, steps=3), 3),
    (dict(length=8, block=4, steps=0), 8),
    (dict(length=8, block=4, steps=4, guidance=1.5), 8),
    (
      dict(length=8, block=4, steps=10, schedule='rounded', alpha='cosine'),
      2 * len(rounded(4, 5)),
    ),
    (dict(length=8, block=8, steps=5, eos='logits'), 5),
    (dict(length=8, block=8, steps=5, eos='confidence'), 5),
  ],
)
def test_greedy_answers_of_llada_equal_the_written_loop(
  model, logits_of, fields, calls
):
  canvas = generate(model, pretrained.Config(**fields), eos_ids=(EOS, EOT))
  want = np.stack([llada(row, logits_of, **fields) for row in PROMPT])
  np.testing.assert_array_equal(canvas.tokens_bt, want)
  np.testing.assert_array_equal(canvas.num_calls_b, [calls] * len(PROMPT))
  answers = canvas.tokens_bt[:, P:]
  assert (answers == EOT).any(), 'no turn ends, so the rule is not seen'
  assert (answers == EOS).any() == (fields.get('eos') != 'logits')


def keep_top(probs, top_p, top_k):
  """The fewest tokens of this much probability, and at most so many."""
  kept = np.zeros_like(probs)
  for row, out in zip(probs, kept, strict=True):
    order = np.argsort(-row, kind='stable')
    before = np.cumsum(row[order]) - row[order]
    few = order[before < top_p][: top_k or None]
    out[few] = row[few]
  return kept / kept.sum(-1, keepdims=True)


def dream(prompt, logits_of, *, length, steps, order, top_p, top_k):
  """Greedy answers of one prompt; each step reveals at least one token."""
  x = np.concatenate([prompt, np.full(length, MASK)])
  times = np.linspace(1, 1e-3, steps + 1)
  for i in range(steps):
    if not (x == MASK).any():
      break
    logits = logits_of(x)
    logits = np.concatenate([logits[:1], logits[:-1]])
    logits[:, MASK] = -np.inf
    probs = keep_top(softmax(logits), top_p, top_k)
    top = np.sort(probs, -1)
    score = {
      'confidence': top[:, -1],
      'margin': top[:, -1] - top[:, -2],
      'entropy': np.where(probs > 0, probs * np.log(probs + 1e-300), 0).sum(-1),
    }[order]
    left = (x == MASK).sum()
    count = (
      left if i == steps - 1 else int(left * (1 - times[i + 1] / times[i]))
    )
    chosen = best(score, x == MASK, max(count, 1))
    x[chosen] = logits.argmax(-1)[chosen]
  return x


@pytest.mark.parametrize(
  ('order', 'top_p', 'top_k'),
  [
    ('confidence', 1.0, 0),
    ('margin', 1.0, 0),
    ('entropy', 0.5, 0),
    ('entropy', 0.4, 2),
  ],
)
def test_greedy_answers_of_dream_equal_the_written_loop(
  model, logits_of, order, top_p, top_k
):
  settings = dict(length=9, steps=5, order=order)
  filters = sampling.Config(temperature=0.0, top_p=top_p, top_k=top_k)
  config = pretrained.Config.dream(sampling=filters, **settings)
  canvas = generate(model, config)
  settings |= dict(top_p=top_p, top_k=top_k)
  want = np.stack([dream(row, logits_of, **settings) for row in PROMPT])
  np.testing.assert_array_equal(canvas.tokens_bt, want)
  assert canvas.num_calls_b.max() <= 5


def test_drawn_tokens_keep_to_the_filters_and_change_with_the_key(model):
  greedy = generate(model, pretrained.Config(length=8, steps=8))
  draw = lambda **fields: (
    generate(
      model,
      pretrained.Config(
        length=8, steps=8, order='random', sampling=sampling.Config(**fields)
      ),
    ).tokens_bt
  )
  wild = draw(temperature=3.0)
  assert (wild != greedy.tokens_bt).any()
  assert not (wild == MASK).any()
  # One token left of the distribution is the greedy one, if the order is fixed.
  config = pretrained.Config(length=8, steps=8)
  one = sampling.Config(temperature=3.0, top_k=1)
  fixed = generate(
    model, pretrained.Config(length=8, steps=8, block=1, sampling=one)
  )
  config = pretrained.Config(length=8, steps=8, block=1)
  np.testing.assert_array_equal(
    fixed.tokens_bt, generate(model, config).tokens_bt
  )


class Fixed:
  """A model with the same logits everywhere, whatever it reads."""

  logits_tv = np.log(
    [
      [0.25, 0.25, 0.25, 0.25],
      [0.44, 0.42, 0.09, 0.05],
      [0.45, 0.4, 0.14, 0.01],
    ]
  )
  mask_id = 4
  config = types.SimpleNamespace(vocab_size=5)

  def __call__(self, tokens_bt, *, segment_ids):
    logits_tv = jnp.pad(self.logits_tv, ((0, 0), (0, 1)))
    return types.SimpleNamespace(
      hidden_btd=jnp.broadcast_to(logits_tv, (*tokens_bt.shape, 5))
    )

  def logits(self, hidden_btd):
    return hidden_btd


def law_of_first(config):
  """Probability that the left of two positions comes first; over all tokens."""
  left, right = Fixed.logits_tv[1:]

  def drawn(logits):
    p = softmax(logits / config.sampling.temperature)
    p[np.argsort(-p)[config.sampling.top_k or 4 :]] = 0
    return p / p.sum()

  scores = softmax if config.scores == 'model' else drawn
  chance = 0.0
  for a in range(4):
    for c in range(4):
      if scores(left)[a] > scores(right)[c]:
        chance += drawn(left)[a] * drawn(right)[c]
  return chance


@pytest.mark.parametrize('top_k', [0, 3])
@pytest.mark.parametrize('scores', ['model', 'drawn'])
def test_drawn_tokens_are_ordered_by_the_published_confidence(scores, top_k):
  num = 20_000
  config = pretrained.Config(
    length=2,
    steps=2,
    scores=scores,
    sampling=sampling.Config(temperature=3.0, top_k=top_k),
  )
  canvas = jax.jit(
    lambda prompt_bt, rng: pretrained.generate(
      Fixed(), prompt_bt, config, mask_id=Fixed.mask_id, rng=rng
    )
  )(jnp.zeros((num, 1), jnp.int32), jax.random.key(1))
  got = (canvas.reveal_step_bt[:, 1] < canvas.reveal_step_bt[:, 2]).mean()
  want = law_of_first(config)
  # Four standard deviations of the share of independent rows.
  bound = 4 * np.sqrt(want * (1 - want) / num)
  (other,) = {'model', 'drawn'} - {scores}
  gap = law_of_first(dataclasses.replace(config, scores=other)) - want
  assert abs(gap) > 2 * bound, 'the two rules cannot be told apart here'
  np.testing.assert_allclose(got, want, atol=bound)


def masked_rows(length):
  tokens_bt = jnp.pad(jnp.asarray(PROMPT), ((0, 0), (0, length)))
  is_masked_bt = jnp.broadcast_to(jnp.arange(P + length) >= P, tokens_bt.shape)
  return samplers.start(tokens_bt, is_masked_bt, MASK)


def decode(denoiser, rule, *, length, block=0):
  """By the sampler itself, with the denoiser as an argument."""
  fn = functools.partial(
    samplers.decode, prompt_len=P, mask_id=MASK, block=block
  )
  rngs_b = samplers.row_rngs(jax.random.key(0), len(PROMPT))
  return jax.jit(fn)(denoiser, masked_rows(length), rule, rngs_b)


@pytest.mark.parametrize('shift', [False, True])
def test_other_selectors_decode_as_the_sampler_does(model, shift):
  rule = selectors.Threshold(0.8)
  config = pretrained.Config(length=8, block=4, shift=shift)
  got = generate(model, config, selector=rule)
  denoiser = denoisers.OfModel.make(
    pretrained.Aligned(model) if shift else model
  )
  want = decode(denoiser, rule, length=8, block=4)
  np.testing.assert_array_equal(got.tokens_bt, want.tokens_bt)
  np.testing.assert_array_equal(got.num_calls_b, want.num_calls_b)
  # Both blocks cost a call; the published budget of this config makes 8.
  assert (got.num_calls_b >= 2).all()
  assert (got.num_calls_b < 8).all()


def test_learned_policies_decode_with_and_without_a_cache(model):
  learned = policy.Policy(
    policy.Config(hidden=8, mlp_dim=8, time_dim=4).make(nnx.Rngs(0))
  )
  settings = dict(
    length=8, steps=8, sampling=sampling.Config(temperature=2.0, top_k=4)
  )
  run = lambda **fields: generate(
    model, pretrained.Config(**settings, **fields), selector=learned
  )
  got, want = run(cache='dual', refresh_every=1), run()
  np.testing.assert_array_equal(got.tokens_bt, want.tokens_bt)
  np.testing.assert_array_equal(got.reveal_step_bt, want.reveal_step_bt)
  assert not (want.tokens_bt == MASK).any()


@pytest.mark.parametrize('shift', [False, True])
def test_denoisers_are_arguments_of_jitted_functions(model, shift):
  config = pretrained.Config(length=6, steps=6, shift=shift)
  denoiser = pretrained.Denoiser(model, config, P, MASK, jnp.zeros(VOCAB, bool))
  got = decode(denoiser, selectors.TopK(1), length=6)
  np.testing.assert_array_equal(
    got.tokens_bt, generate(model, config).tokens_bt
  )
  # Other parameters are another argument, not another program.
  doubled = jax.tree.map(
    lambda x: 2 * x if jnp.issubdtype(x.dtype, jnp.floating) else x, denoiser
  )
  call = jax.jit(lambda denoiser, tokens_bt: denoiser(tokens_bt))
  tokens_bt = jnp.asarray(PROMPT)
  assert (call(doubled, tokens_bt) != call(denoiser, tokens_bt)).any()
  assert call._cache_size() == 1


def test_aligned_models_are_arguments_of_jitted_functions(model):
  tokens_bt = jnp.asarray(PROMPT)
  call = jax.jit(lambda model, x: model.logits(model(x).hidden_btd))
  np.testing.assert_allclose(
    call(pretrained.Aligned(model), tokens_bt),
    pretrained.shifted(call(model, tokens_bt)),
    atol=1e-5,
  )


def draw_sets(config, num, scores, step=0):
  """What the budget reveals of positions with these scores, `num` times."""
  length = len(scores)
  rule = budgets.Budget(
    steps=config.steps,
    length=length,
    order=config.order,
    schedule=config.schedule,
    order_temperature=config.order_temperature,
  )
  # A token of this probability, and one of the rest.
  probs_tv = np.stack([scores, 1 - np.asarray(scores)], axis=1)
  is_masked_bt = jnp.ones((num, length), bool)
  view = selectors.View(
    probs_btv=jnp.broadcast_to(jnp.float32(probs_tv), (num, length, 2)),
    tokens_bt=jnp.zeros((num, length), jnp.int32),
    is_masked_bt=is_masked_bt,
    allowed_bt=is_masked_bt,
    progress_b=jnp.full(num, step / length),
    rngs_b=samplers.row_rngs(jax.random.key(2), num),
  )
  return np.asarray(jax.jit(lambda rule, view: rule(view))(rule, view))


def shares_of_sets(select_bt):
  """How often each set of positions came, by its bits."""
  t = select_bt.shape[1]
  return np.bincount(select_bt @ (1 << np.arange(t)), minlength=1 << t) / len(
    select_bt
  )


def test_positions_are_drawn_without_replacement_by_their_scores():
  num, scores, temperature = 20_000, np.array([0.9, 0.8, 0.55, 0.6]), 0.2
  # Dream's times 1, 0.5005, 0.001: 0.4995 of four positions, which is one, then
  # all; LLaDA's two steps: two and two.
  weights = softmax(scores / temperature)
  want_one, want_two = np.zeros(16), np.zeros(16)
  for i in range(4):
    want_one[1 << i] += weights[i]
    for k in {0, 1, 2, 3} - {i}:
      chance = weights[i] * weights[k] / (1 - weights[i])
      want_two[(1 << i) + (1 << k)] += chance
  for schedule, want in (('dream', want_one), ('even', want_two)):
    config = pretrained.Config(
      length=4, steps=2, schedule=schedule, order_temperature=temperature
    )
    got = shares_of_sets(draw_sets(config, num, scores))
    # Four standard deviations of each share.
    bound = 4 * np.sqrt(want * (1 - want) / num)
    assert (np.abs(got - want) <= bound).all(), (got, want)


def test_the_origin_order_reveals_each_position_on_its_own():
  num, steps, scores = 20_000, 3, np.array([0.9, 0.8, 0.55])
  config = pretrained.Config.dream(length=3, steps=steps, order='origin')
  times = np.linspace(1, 1e-3, steps + 1)
  for step in range(steps):
    part = 1 - times[step + 1] / times[step] if step < steps - 1 else 1.0
    size = np.array([bin(i).count('1') for i in range(8)])
    want = part**size * (1 - part) ** (3 - size)
    got = shares_of_sets(draw_sets(config, num, scores, step))
    bound = 4 * np.sqrt(want * (1 - want) / num)
    assert (np.abs(got - want) <= bound).all(), (step, got, want)


@pytest.mark.parametrize(
  'fields', [dict(order='origin'), dict(order_temperature=0.5)]
)
def test_answers_in_a_random_order_are_complete(model, fields):
  config = pretrained.Config.dream(length=9, steps=5, **fields)
  canvas = generate(model, config)
  assert not (canvas.tokens_bt == MASK).any()
  np.testing.assert_array_equal(canvas.tokens_bt[:, :P], PROMPT)
  assert (canvas.num_calls_b <= 5).all()
  order_bt = canvas.reveal_step_bt[:, P:]
  best = generate(model, pretrained.Config.dream(length=9, steps=5))
  assert (order_bt != best.reveal_step_bt[:, P:]).any()


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(length=10, block=4), 'multiple of block=4'),
    (dict(length=8, block=4, steps=3), 'multiple of the 2 blocks'),
    (dict(length=8, steps=9), 'at most length=8'),
    (dict(length=8, steps=-1), 'must be >= 0'),
    (dict(length=8, steps=8, order='best'), 'must be one of confidence'),
    (dict(length=8, steps=8, eos='never'), 'must be one of none'),
    (dict(schedule='rounded', alpha='quartic'), 'must be one of linear'),
    (dict(length=8, block=4, steps=9, schedule='rounded'), 'the 2 blocks'),
    (dict(length=8, steps=8, order='origin'), "Set schedule='dream'"),
    (
      dict(steps=8, order='origin', schedule='dream', eos='confidence'),
      "order='origin' has no order",
    ),
    (dict(steps=8, order_temperature=-1.0), 'must be finite and >= 0'),
    (dict(steps=8, order='random', order_temperature=1.0), 'has none'),
    (dict(length=8, steps=8, scores='top'), 'must be one of model, drawn'),
    (dict(length=8, steps=8, block=4, schedule='dream'), 'Set block=0'),
  ],
)
def test_wrong_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    pretrained.Config(**fields)


def test_what_a_call_lacks_is_named(model):
  call = functools.partial(
    pretrained.generate, mask_id=MASK, rng=jax.random.key(0)
  )
  with pytest.raises(ValueError, match='Begin with the BOS token'):
    call(model, jnp.zeros((1, 0), jnp.int32), pretrained.Config.dream())
  with pytest.raises(ValueError, match='eos_ids is empty'):
    call(model, jnp.asarray(PROMPT), pretrained.Config(eos='logits'))
  with pytest.raises(ValueError, match='selector=TopK has an order of its own'):
    call(
      model,
      jnp.asarray(PROMPT),
      pretrained.Config(eos='confidence'),
      eos_ids=(EOS,),
      selector=selectors.TopK(),
    )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(mask_id=99), r'mask_id=99 must be in \[0, 12\)'),
    (dict(mask_id=VOCAB), r'mask_id=12 must be in \[0, 12\)'),
    (dict(mask_id=-1), r'mask_id=-1 must be in \[0, 12\)'),
    (dict(eos_ids=(EOS, 500)), r'eos_ids=\(3, 500\) must be in \[0, 12\)'),
    (dict(eos_ids=(-2,)), r'eos_ids=\(-2,\) must be in \[0, 12\)'),
  ],
)
def test_tokens_that_the_model_does_not_have_are_refused(
  model, fields, message
):
  call = functools.partial(
    pretrained.generate,
    **dict(mask_id=MASK, rng=jax.random.key(0)) | fields,
  )
  with pytest.raises(ValueError, match=message):
    call(model, jnp.asarray(PROMPT), pretrained.Config(length=4))


@pytest.mark.parametrize('shift', [False, True])
@pytest.mark.parametrize(
  'row', [[True, True, False, False], [False, True, False, True]]
)
def test_padding_behind_a_prompt_is_refused(model, shift, row):
  is_prompt = jnp.ones(PROMPT.shape, bool).at[1].set(jnp.array(row))
  with pytest.raises(
    ValueError, match=r'is_prompt_bt=\[.*in row 1 has padding'
  ):
    pretrained.generate(
      model,
      jnp.asarray(PROMPT),
      pretrained.Config(length=4, shift=shift),
      mask_id=MASK,
      is_prompt_bt=is_prompt,
      rng=jax.random.key(0),
    )


def test_planned_budgets_leave_out_calls_with_and_without_a_cache(model):
  fields = dict(length=8, block=4, steps=8, schedule='binomial')
  want = generate(model, pretrained.Config(**fields))
  cache = dict(cache='dual', refresh_every=1)
  got = generate(model, pretrained.Config(**fields, **cache))
  np.testing.assert_array_equal(got.tokens_bt, want.tokens_bt)
  np.testing.assert_array_equal(got.num_calls_b, want.num_calls_b)
  # Each call reveals something.
  for row in np.asarray(want.reveal_step_bt[:, P:]):
    assert len(set(row)) == row.max() + 1
  assert (want.num_calls_b < 8).any()
  assert not (want.tokens_bt == MASK).any()


@pytest.mark.parametrize('cache', ['none', 'dual'])
def test_shorter_prompts_in_a_batch_are_answered_as_alone(model, cache):
  config = pretrained.Config(length=8, block=4, steps=8, cache=cache)
  run = functools.partial(
    pretrained.generate, model, config=config, mask_id=MASK, eos_ids=(EOS,)
  )
  padded = jnp.asarray(PROMPT).at[0, :2].set(0)
  is_prompt = jnp.ones(PROMPT.shape, bool).at[0, :2].set(False)
  rng = jax.random.key(0)
  together = run(padded, is_prompt_bt=is_prompt, rng=rng).tokens_bt[:, P:]
  alone = run(jnp.asarray(PROMPT)[:1, 2:], rng=rng).tokens_bt[:, P - 2 :]
  np.testing.assert_array_equal(together[:1], alone)
  others = run(jnp.asarray(PROMPT), rng=rng).tokens_bt[:, P:]
  np.testing.assert_array_equal(together[1:], others[1:])
