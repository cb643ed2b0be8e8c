# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generation against the model run without a cache, token by token."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from jaxtok import partition
from jaxtok.decoding import autoregressive, sampling
from jaxtok.models import transformer
from jaxtok.train import sharding

VOCAB = 13
WIDTH = 35
SMALL = dict(vocab_size=VOCAB, dim=32, num_layers=2, num_heads=2)
CONFIGS = {
  'rope': transformer.Config(**SMALL, num_kv_heads=1),
  # The longest prompt of 16 and 20 tokens, the last of which is never read.
  'learned': transformer.Config.gpt2(**SMALL, max_len=WIDTH),
}
ALL_ROW_LENGTHS = [3, 16, 9, 1]
BANNED = sampling.ban(VOCAB, [0, 3], num_real=12)
# One config for all tests that draw, so that they share programs.
DRAW = sampling.Config(temperature=1.3, top_p=0.95)


def make(config, build=None):
  """A model whose logits are spread enough for arg-maxes to be clear."""
  rng = np.random.default_rng(0)
  build = build or (lambda: config.make(nnx.Rngs(0)))
  graph, params = nnx.split(nnx.eval_shape(build))
  draw = lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32)
  return nnx.merge(graph, jax.tree.map(draw, params))


@pytest.fixture(scope='module', params=CONFIGS)
def model(request):
  return make(CONFIGS[request.param])


@pytest.fixture(scope='module')
def rope_model():
  return make(CONFIGS['rope'])


@nnx.jit
def all_logprobs(model, tokens):
  """Log-probabilities of all next tokens, without a cache."""
  return jax.nn.log_softmax(model.logits(model(tokens).hidden_btd))


def prompts(lengths=ALL_ROW_LENGTHS, seed=0):
  rng = np.random.default_rng(seed)
  rows = [rng.integers(1, VOCAB, size=n) for n in lengths]
  return autoregressive.pad_prompts(rows)


def rows_of(prompt, lengths, generation):
  """Prompt and continuation of each row, unpadded."""
  pieces = zip(
    prompt, lengths, generation.tokens, generation.lengths, strict=True
  )
  return [np.concatenate([p[:n], t[:m]]) for p, n, t, m in pieces]


def uncached(model, prompt, lengths, num_tokens):
  """Greedy tokens and their log-probabilities, one full call per token."""
  tokens = np.zeros((len(prompt), WIDTH + 1), np.int32)
  tokens[:, : prompt.shape[1]] = prompt
  at, chosen, logprobs = np.asarray(lengths), [], []
  index = np.arange(len(at))
  for _ in range(num_tokens):
    scores = np.asarray(all_logprobs(model, jnp.asarray(tokens[:, :WIDTH])))
    scores = scores[index, at - 1]
    chosen.append(scores.argmax(-1))
    logprobs.append(scores.max(-1))
    tokens[index, at] = chosen[-1]
    at = at + 1
  return np.stack(chosen, 1), np.stack(logprobs, 1)


def test_greedy_equals_argmax_without_a_cache_for_ragged_prompts(model):
  prompt, lengths = prompts()
  got = autoregressive.generate(model, prompt, lengths, num_tokens=20)
  tokens, logprobs = uncached(model, prompt, lengths, 20)
  np.testing.assert_array_equal(got.tokens, tokens)
  # Logits of size about 10 in float32: rounding of a few 1e-6.
  np.testing.assert_allclose(got.logprobs, logprobs, atol=1e-5)
  np.testing.assert_array_equal(got.lengths, [20] * 4)
  assert got.stats == dict(tokens=80, prompt_tokens=29, model_calls=20)


def test_drawn_tokens_are_allowed_and_have_the_logprobs_of_the_model(
  rope_model,
):
  prompt, lengths = prompts()
  got = autoregressive.generate(
    rope_model,
    prompt,
    lengths,
    num_tokens=20,
    rng=jax.random.key(1),
    sampling=DRAW,
    banned_v=BANNED,
  )
  assert not BANNED[np.asarray(got.tokens)].any()
  for row, n, logprobs in zip(
    rows_of(prompt, lengths, got), lengths, got.logprobs, strict=True
  ):
    padded = np.zeros((1, WIDTH), np.int32)
    padded[0, : len(row) - 1] = row[:-1]
    scores = all_logprobs(rope_model, jnp.asarray(padded))[0]
    want = scores[np.arange(n - 1, n + 19), row[n:]]
    np.testing.assert_allclose(logprobs, want, atol=1e-5)


@pytest.mark.parametrize('is_drawn', [False, True])
def test_other_rows_do_not_change_a_row(rope_model, is_drawn):
  prompt, lengths = prompts()
  others, other_lengths = prompts([5, 2, 16, 16], seed=7)
  mixed = others.copy()
  mixed[1], other_lengths[1] = prompt[1], lengths[1]
  drawn = dict(rng=jax.random.key(3), sampling=DRAW, banned_v=BANNED)
  run = lambda prompt, lengths: autoregressive.generate(
    rope_model, prompt, lengths, num_tokens=20, **drawn if is_drawn else {}
  )
  one, two = run(prompt, lengths), run(mixed, other_lengths)
  np.testing.assert_array_equal(one.tokens[1], two.tokens[1])
  np.testing.assert_allclose(one.logprobs[1], two.logprobs[1], atol=1e-5)


def test_stop_tokens_end_rows_and_the_loop(rope_model):
  prompt, lengths = prompts()
  free = np.asarray(
    autoregressive.generate(rope_model, prompt, lengths, num_tokens=20).tokens
  )
  stop = sorted({int(row[3]) for row in free})
  got = autoregressive.generate(
    rope_model, prompt, lengths, num_tokens=20, stop=stop, pad_id=12
  )
  ends = [int(np.isin(row, stop).argmax()) + 1 for row in free]
  np.testing.assert_array_equal(got.lengths, ends)
  for row, want, end in zip(got.tokens, free, ends, strict=True):
    np.testing.assert_array_equal(row[:end], want[:end])
    assert (row[end:] == 12).all()
  assert (np.asarray(got.logprobs) != 0).sum(axis=1).tolist() == ends
  assert got.stats['model_calls'] == max(ends) < 20
  assert got.stats['tokens'] == sum(ends)


@pytest.mark.parametrize('chunk', [7, 20])
def test_streamed_pieces_are_what_generate_returns(rope_model, chunk):
  prompt, lengths = prompts()
  args = dict(
    num_tokens=20,
    rng=jax.random.key(5),
    sampling=DRAW,
    banned_v=BANNED,
  )
  want = autoregressive.generate(rope_model, prompt, lengths, **args)
  pieces = list(
    autoregressive.stream(rope_model, prompt, lengths, chunk=chunk, **args)
  )
  assert [p.tokens.shape[1] for p in pieces] == {7: [7, 7, 6], 20: [20]}[chunk]
  for name in ('tokens', 'logprobs'):
    got = np.concatenate([getattr(p, name) for p in pieces], axis=1)
    np.testing.assert_array_equal(got, getattr(want, name))
  assert sum(int(p.stats['prompt_tokens']) for p in pieces) == sum(lengths)
  np.testing.assert_array_equal(sum(p.lengths for p in pieces), want.lengths)


def test_stream_ends_when_all_rows_have_stopped(rope_model):
  prompt, lengths = prompts()
  args = dict(rng=jax.random.key(5), sampling=DRAW, banned_v=BANNED)
  run = lambda **kwargs: list(
    autoregressive.stream(
      rope_model, prompt, lengths, num_tokens=20, chunk=7, **args, **kwargs
    )
  )
  firsts = sorted(set(np.asarray(run()[0].tokens[:, 0]).tolist()))
  pieces = run(stop=firsts)
  assert len(pieces) == 1
  np.testing.assert_array_equal(pieces[0].lengths, [1] * 4)


def test_drawn_sequences_follow_the_enumerated_distribution(rope_model):
  # All 13**2 continuations by plain calls against 4000 draws; chi-square over
  # cells with expectation >= 5, false alarm 1e-4 (fixed seed: never).
  num, prompt = 4000, np.asarray([[4, 2, 9]])
  got = autoregressive.generate(
    rope_model,
    np.repeat(prompt, num, axis=0),
    num_tokens=2,
    rng=jax.random.key(0),
    sampling=DRAW,
  ).tokens
  pairs = np.asarray(list(itertools.product(range(VOCAB), repeat=2)))
  rows = np.concatenate([np.repeat(prompt, len(pairs), axis=0), pairs], axis=1)
  scores = all_logprobs(rope_model, jnp.asarray(rows, jnp.int32))[:, 2:4]
  logprobs = jax.nn.log_softmax(sampling.filter_logits(scores, DRAW))
  index = np.arange(len(pairs))
  logprobs = np.asarray(logprobs, np.float64)
  want = np.exp(sum(logprobs[index, i, pairs[:, i]] for i in range(2))) * num
  counts = np.bincount(np.asarray(got) @ [VOCAB, 1], minlength=len(pairs))
  assert counts[want == 0].sum() == 0
  is_large = want >= 5
  observed = np.asarray([*counts[is_large], counts[~is_large].sum()])
  expected = np.asarray([*want[is_large], want[~is_large].sum()])
  observed, expected = observed[expected > 0], expected[expected > 0]
  assert len(expected) > 10
  expected *= num / expected.sum()  # Rounding only.
  assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_model_split_over_devices_gives_the_same_tokens(rope_model):
  mesh = sharding.Config(data=2, model=2).make(jax.devices()[:4])
  graph, params = nnx.split(rope_model)

  def split(variable):
    axes = variable.get_metadata()['axes']
    value = variable.get_value()
    spec = partition.parameter_spec(axes, value.shape, mesh.shape)
    where = jax.NamedSharding(mesh, spec)
    return variable.replace(jax.device_put(value, where))

  is_variable = lambda x: isinstance(x, nnx.Variable)
  params = jax.tree.map(split, params, is_leaf=is_variable)
  prompt, lengths = prompts()
  run = lambda model: autoregressive.generate(
    model, prompt, lengths, num_tokens=20
  )
  want, got = run(rope_model), run(nnx.merge(graph, params))
  np.testing.assert_array_equal(got.tokens, want.tokens)


def test_encoder_decoder_equals_argmax_without_a_cache():
  config = transformer.Config.byt5(**SMALL, num_encoder_layers=1)
  model = make(config)
  source = jnp.asarray(prompts([12, 12])[0])
  got = autoregressive.generate(
    model, np.zeros((2, 1), np.int32), num_tokens=8, context=source
  )
  run = nnx.jit(lambda m, x: m.logits(m(x, context=source).hidden_btd))
  tokens = np.zeros((2, 9), np.int32)
  for i in range(8):
    tokens[:, i + 1] = run(model, jnp.asarray(tokens))[:, i].argmax(-1)
  np.testing.assert_array_equal(got.tokens, tokens[:, 1:])


def test_sizes_in_one_bucket_share_a_program():
  calls = 0

  class Counted(transformer.Transformer):
    def __call__(self, *args, **kwargs):
      nonlocal calls
      calls += 1
      return super().__call__(*args, **kwargs)

  config = CONFIGS['rope']
  model = make(config, lambda: Counted(config, rngs=nnx.Rngs(0)))
  calls = 0
  for t, num_tokens, stop in ((3, 17, [5]), (16, 24, [2]), (11, 19, [1, 3])):
    prompt, lengths = prompts([t])
    autoregressive.generate(
      model, prompt, lengths, num_tokens=num_tokens, stop=stop
    )
  assert calls == 2  # Traced once: the prefill and the loop's body.


@pytest.mark.parametrize(
  'size, want', [(1, 16), (16, 16), (17, 24), (25, 32), (33, 48), (97, 128)]
)
def test_buckets_grow_by_half_or_a_third(size, want):
  assert autoregressive.bucket(size) == want


def test_wrong_arguments_are_explained(rope_model):
  prompt, lengths = prompts()
  run = lambda *args, **kwargs: autoregressive.generate(
    rope_model, *args, **dict(num_tokens=4) | kwargs
  )
  with pytest.raises(ValueError, match='prompt 1 has no tokens; begin'):
    autoregressive.pad_prompts([[1], []])
  with pytest.raises(ValueError, match=r'prompt_len_b=\[0, 16, 9, 1\] must be'):
    run(prompt, lengths * (np.arange(4) > 0))
  with pytest.raises(ValueError, match='must be 1 to 16'):
    run(prompt, lengths + 1)
  with pytest.raises(
    ValueError, match=r'16 tokens.*21 exceed the 35 .*most 20'
  ):
    autoregressive.generate(
      make(CONFIGS['learned']), prompt, lengths, num_tokens=21
    )
  with pytest.raises(ValueError, match='the id -1; ids begin with 0'):
    run(prompt - (prompt == 0), lengths)
  with pytest.raises(ValueError, match='chunk=0'):  # Before the first piece.
    autoregressive.stream(rope_model, prompt, num_tokens=4, chunk=0)
  with pytest.raises(ValueError, match='num_tokens=0'):
    run(prompt, lengths, num_tokens=0)
  with pytest.raises(ValueError, match=r'rng is None, but temperature=1\.0'):
    run(prompt, lengths, sampling=sampling.Config())
