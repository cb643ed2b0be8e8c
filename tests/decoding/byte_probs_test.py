# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Byte-level laws against the enumeration of all texts, or of all covers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.claims.byte_probs import (
  TOY_STEPS,
  ToyTokenizer,
  Tree,
  naive_law,
  next_byte_law,
  push_forward,
  texts_with_probs,
)
from jaxtok.decoding import (
  byte_baselines,
  byte_infill,
  byte_probs,
  cover_state,
  covers,
  sampling,
)
from jaxtok.decoding.byte_probs import END
from jaxtok.models import transformer
from jaxtok.tokenizers import base as tokenizer_base
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import dna, hf, metaspace, word_bytes
from jaxtok.tokenizers import spec as spec_lib
from tests.tokenizers import marked_spaces


def check_all_prefixes(tokenizer, law, prefixes):
  """Compares laws; returns the naive method's largest error."""
  sequences = push_forward(law, tokenizer)
  lm = Tree(sequences, tokenizer.vocab_size)
  states = byte_probs.ByteModel(lm, tokenizer).start(prefixes, 1)
  got = np.exp(states.logprobs())
  naive = 0.0
  for prefix, row in zip(prefixes, got, strict=True):
    want = next_byte_law(law, prefix)
    np.testing.assert_allclose(row, want, atol=1e-6, err_msg=repr(prefix))
    error = np.abs(naive_law(sequences, tokenizer, prefix) - want).max()
    naive = max(naive, error)
  return naive


def test_laws_of_the_papers_kind_of_example_are_exact_and_naive_ones_are_not():
  tokenizer = ToyTokenizer()
  law = texts_with_probs(b'ab', 9, step=TOY_STEPS)
  prefixes = [
    bytes(p) for n in range(6) for p in itertools.product(b'ab', repeat=n)
  ]
  assert check_all_prefixes(tokenizer, law, prefixes) >= 0.5


# What makes encodings of GPT-2's kind depend on what follows.
_TRAINING = [b"we'll hell\n\nell'el   le\n \n'lle ee ll  \n\n" * 40]


@pytest.fixture(scope='module')
def bpe():
  return hf.train_bpe(_TRAINING, 259 + 20)


@pytest.mark.parametrize(
  'pattern, alphabet',
  [
    ('gpt2', b"el' \n"),
    ('cl100k', b"el' \n"),
    pytest.param('o200k', b"el' \n", marks=pytest.mark.slow),
    pytest.param('cl100k', b'1.\n a', marks=pytest.mark.slow),
    pytest.param('o200k', b"Aa's ", marks=pytest.mark.slow),
  ],
)
def test_laws_are_exact_where_words_depend_on_what_follows(pattern, alphabet):
  """Contractions, white space and numbers: the regexes look ahead."""
  rng = np.random.default_rng(0)
  training = bytes(rng.choice(list(alphabet), 2000).tolist())
  tokenizer = hf.train_bpe([_TRAINING[0] + training], 259 + 20, pattern=pattern)
  law = texts_with_probs(alphabet, 4)
  prefixes = [
    bytes(p) for n in range(4) for p in itertools.product(alphabet, repeat=n)
  ]
  assert any(len(tokenizer.token_bytes(i)) > 2 for i in range(259, 279))
  assert check_all_prefixes(tokenizer, law, prefixes) > 0.1


class Unsplit(ToyTokenizer):
  """Whose text is one word, which it need not say."""

  split = None  # Hides the method.


def test_a_tokenizer_without_words_has_exact_laws():
  tokenizer = Unsplit()
  assert not isinstance(tokenizer, tokenizer_base.PretokenSplit)
  law = texts_with_probs(b'ab', 6)
  prefixes = [
    bytes(p) for n in range(5) for p in itertools.product(b'ab', repeat=n)
  ]
  assert check_all_prefixes(tokenizer, law, prefixes) > 0.1


@pytest.mark.parametrize('k, length', [(1, 4), (2, 5), (3, 5)])
def test_laws_of_kmers_are_exact(k, length):
  tokenizer = dna.Config(k=k).make()
  law = texts_with_probs(b'ACN', length)
  prefixes = [
    bytes(p) for n in range(length) for p in itertools.product(b'ACN', repeat=n)
  ]
  naive = check_all_prefixes(tokenizer, law, prefixes)
  assert naive > 0.1 or k == 1


def test_long_texts_of_kmers_have_the_probability_of_their_covers():
  """Longer than the tails within which tokens are checked."""
  tokenizer = dna.Config(k=2).make()
  law = {b'ACGTNACA' * 4 + end: 0.25 for end in (b'A', b'AC', b'N', b'TTT')}
  lm = Tree(push_forward(law, tokenizer), tokenizer.vocab_size)
  model = byte_probs.ByteModel(lm, tokenizer)
  for text in law:
    scores = byte_probs.score_bytes(model, [text], ends=True)[0]
    np.testing.assert_allclose(scores.sum(), np.log(0.25), atol=1e-5)


@pytest.mark.parametrize('pattern', ['gpt2', 'cl100k', 'o200k'])
def test_settled_tokens_stay_whatever_follows(pattern):
  tokenizer = hf.train_bpe(
    ["we'll don't DON'T 12345 \n\n  x = [1, 2]\t\n é日 " * 40],
    259 + 30,
    pattern=pattern,
  )
  canonical = covers.Canonical(tokenizer, covers.Vocabulary(tokenizer))
  rng, letters = np.random.default_rng(0), list("al' \n1.A\tsé")
  draw = lambda n: ''.join(rng.choice(letters, n)).encode()
  num_settled = 0
  for _ in range(150):
    text = draw(rng.integers(2, 9))
    head, at = canonical.settled(text)
    assert tokenizer.decode(np.array(head, np.int32)) == text[:at]
    num_settled += at > 0
    for n in (1, 1, 1, 2, 3):
      whole = tokenizer.encode(text + draw(n)).tolist()
      assert tuple(whole[: len(head)]) == head, text
  assert num_settled > 50


def test_laws_are_exact_inside_characters():
  tokenizer = hf.train_bpe(['é日è本 日é'.encode() * 60], 259 + 8)
  alphabet = ['é', 'è', '日', '本']
  law, rng = {}, np.random.default_rng(0)
  probs = rng.dirichlet(np.ones(16))
  for prob, pair in zip(
    probs, itertools.product(alphabet, repeat=2), strict=True
  ):
    law[''.join(pair).encode()] = prob
  prefixes = sorted({text[:n] for text in law for n in range(len(text))})
  check_all_prefixes(tokenizer, law, prefixes)


def marked(kind, text, num_merges):
  spec = marked_spaces.train(kind, text, num_merges)
  return metaspace.make(spec_lib.normalise(spec, kind))


@pytest.mark.parametrize('kind', marked_spaces.KINDS)
def test_laws_are_exact_where_spaces_are_marked(kind):
  """Some kinds put a space before each text but the empty one."""
  training = ''.join(np.random.default_rng(0).choice(list('  ab'), 500))
  tokenizer = marked(kind, training, 12)
  assert (
    isinstance(tokenizer, tokenizer_base.Led) == marked_spaces.KINDS[kind][2]
  )
  law = texts_with_probs(b' ab', 4)
  prefixes = [
    bytes(p) for n in range(4) for p in itertools.product(b' ab', repeat=n)
  ]
  check_all_prefixes(tokenizer, law, prefixes)


@pytest.mark.parametrize('kind', ['llama', 'gemma'])
def test_laws_are_exact_where_characters_are_written_as_bytes(kind):
  tokenizer = marked(kind, 'é aé日 éé ' * 9, 4)
  law, rng = {}, np.random.default_rng(0)
  alphabet = ['é', '日', '☃', '☂', '▁', ' ', 'a']  # Three are unknown.
  pairs = list(itertools.product(alphabet, repeat=2))
  probs = rng.dirichlet(np.ones(len(pairs)))
  law = {
    ''.join(pair).encode(): prob
    for prob, pair in zip(probs, pairs, strict=True)
  }
  prefixes = sorted({text[:n] for text in law for n in range(len(text) + 1)})
  check_all_prefixes(tokenizer, law, prefixes)


@pytest.mark.parametrize('kind', marked_spaces.KINDS)
def test_long_texts_with_marked_spaces_have_exact_laws(kind):
  """Longer than the tails within which tokens are checked."""
  tokenizer = marked(kind, 'ab  ba abb  a ' * 40, 12)
  long = b' ab  ba abb a  ab ba abb  a ab'
  law = {
    text + end: prob
    for prob, text, end in (
      *((0.1, long, b' ab'), (0.2, long, b''), (0.3, long, b'ba a')),
      *((0.15, b'', b''), (0.25, b'ba', b'')),
    )
  }
  check_all_prefixes(tokenizer, law, [long, long + b'b', long[:-1], long[:7]])
  lm = Tree(push_forward(law, tokenizer), tokenizer.vocab_size)
  model = byte_probs.ByteModel(lm, tokenizer)
  scores = byte_probs.score_bytes(model, list(law), ends=True)
  got = [row.sum() for row in scores]
  # Sums of 30 float32 logarithms.
  np.testing.assert_allclose(got, np.log(list(law.values())), atol=1e-5)


def random_lm(tokenizer):
  """A language model whose laws are far from uniform."""
  return transformer.Config(
    vocab_size=tokenizer.vocab_size,
    dim=8,
    num_layers=1,
    num_heads=1,
    embed_std=1.0,
  ).make(nnx.Rngs(0))


@pytest.fixture(scope='module')
def random_model(bpe):
  """A transformer with random parameters, far from uniform."""
  return random_lm(bpe)


@jax.jit
def _all_logprobs(lm_parts, tokens):
  lm = nnx.merge(*lm_parts)
  return jax.nn.log_softmax(lm.logits(lm(tokens).hidden_btd))


class Uncached:
  """Log-probabilities of token sequences, all from one padded shape."""

  def __init__(self, lm, width=16):
    self.parts, self.width, self.known = nnx.split(lm), width, {}

  def law(self, tokens):
    tokens = tuple(tokens)
    if tokens not in self.known:
      padded = np.zeros((1, self.width), np.int32)
      padded[0, : len(tokens)] = tokens
      self.known[tokens] = np.asarray(
        _all_logprobs(self.parts, padded)[0], np.float64
      )
    return self.known[tokens][len(tokens) - 1]

  def score(self, head, tokens):
    tokens, total = list(tokens), 0.0
    for i, token in enumerate(tokens):
      total += self.law([*head, *tokens[:i]])[token]
    return total


def all_covers(tokenizer, text, keep):
  """Token sequences that cover a text, by recursion over the vocabulary."""
  found = []

  def grow(tokens, at):
    for token in range(tokenizer.vocab_size):
      piece = tokenizer.token_bytes(token)
      rest = text[at:]
      if not piece or not (rest.startswith(piece) or piece.startswith(rest)):
        continue
      longer = (*tokens, token)
      if not keep(longer):
        continue
      if at + len(piece) >= len(text):
        found.append(longer)
      else:
        grow(longer, at + len(piece))

  grow((), 0)
  return found


def has_a_continuation(tokenizer, alphabet, num):
  """Whether some text's encoding begins with tokens, by trying many."""
  ends = [
    bytes(e)
    for n in range(num + 1)
    for e in itertools.product(alphabet, repeat=n)
  ]

  def keep(tokens):
    text = b''.join(tokenizer.token_bytes(t) for t in tokens)
    return any(
      tuple(tokenizer.encode(text + end)[: len(tokens)].tolist()) == tokens
      for end in ends
    )

  return keep


@pytest.mark.parametrize('validity', cover_state.VALIDITY)
def test_a_text_has_the_probability_of_its_covers(bpe, random_model, validity):
  text, uncached = b'l\n\nel', Uncached(random_model)
  model = byte_probs.ByteModel(
    random_model, bpe, byte_probs.Config(validity=validity)
  )
  keep = lambda tokens: True
  if validity == 'canonical':
    keep = has_a_continuation(bpe, b"el' \n1.", 2)
  found = all_covers(bpe, text, keep)
  scores = {c: uncached.score([model.bos], c) for c in found}
  state = model.start([b''], len(text))
  for byte in text:
    state.append([byte])
  want = np.logaddexp.reduce(list(scores.values()))
  # Sums of about 10 float32 logarithms.
  np.testing.assert_allclose(state.log_prob_b, [want], atol=1e-4)
  got = {tokens: weight for tokens, _, weight in state.covers(0)}
  assert got.keys() == scores.keys()
  for tokens, weight in got.items():
    np.testing.assert_allclose(weight, scores[tokens], atol=1e-4)
  assert 0 < state.missing_b[0] < 1


@pytest.mark.parametrize('validity', cover_state.VALIDITY)
def test_covers_begin_with_the_space_before_a_text(validity):
  tokenizer = marked('llama', 'ab ba  abb é ' * 40, 12)
  lm = random_lm(tokenizer)
  config = byte_probs.Config(validity=validity)
  model = byte_probs.ByteModel(lm, tokenizer, config)
  keep, inner = lambda tokens: True, tokenizer.inner
  if validity == 'canonical':
    keep = has_a_continuation(inner, b'ab ', 1)
  uncached, text = Uncached(lm), b'ab\xc3'
  state = model.start([text], 0)
  scores = {
    tokens: uncached.score([model.bos], tokens)
    for tokens in all_covers(inner, b' ' + text, keep)
  }
  got = {tokens: weight for tokens, _, weight in state.covers(0)}
  assert got.keys() == scores.keys()
  for tokens, weight in got.items():
    np.testing.assert_allclose(weight, scores[tokens], atol=1e-4)
  assert state.num_bytes_b[0] == len(text)
  # Behind nothing there is the end too, of the empty text.
  first = model.start([b''], 0)
  masses = np.array(
    [
      np.logaddexp.reduce(
        [
          uncached.score([model.bos], c)
          for c in all_covers(inner, b' ' + bytes([b]), keep)
        ]
      )
      for b in b'ab '
    ]
  )
  law = first.logprobs()[0]
  end = np.logaddexp.reduce(uncached.law([model.bos])[model.vocabulary.end_ids])
  np.testing.assert_allclose(
    law[list(b'ab ')] - law[END], masses - end, atol=1e-4
  )
  assert 0 < first.missing_b[0] < 1


def test_covers_keep_their_weights_however_few_bytes_were_promised(
  bpe, random_model
):
  text = b"we'll l.w.l.w hell\n\nell lle.we"
  uncached = Uncached(random_model, 32)
  model = byte_probs.ByteModel(random_model, bpe)
  state = model.start([b''], num_bytes=0)
  for byte in text:
    state.append([byte])
  found = state.covers(0)
  assert len(found) > 1
  assert max(len(tokens) for tokens, _, _ in found) > 16  # The first room.
  for tokens, _, weight in found:
    # Sums of about 20 float32 logarithms.
    want = uncached.score([model.bos], tokens)
    np.testing.assert_allclose(weight, want, atol=1e-4)


def test_byte_by_byte_the_laws_chain_to_the_texts_probability(
  bpe, random_model
):
  model = byte_probs.ByteModel(random_model, bpe)
  text = b"we'll\n\n hel"
  state, total = model.start([b''], len(text)), 0.0
  for byte in text:
    total += state.logprobs(normalise=False)[0, byte]
    state.append([byte])
  np.testing.assert_allclose(total, state.log_prob_b[0], atol=1e-6)
  # At most one row of the model for each byte but where words are ambiguous.
  assert state.stats['model_rows'] <= 2 * len(text)
  scores = byte_probs.score_bytes(model, [text, text[:4]], ends=True)
  assert [len(s) for s in scores] == [len(text) + 1, 5]
  np.testing.assert_allclose(scores[1][:4], scores[0][:4], atol=1e-6)


def test_prompts_give_the_same_laws_as_their_bytes_and_as_alone(
  bpe, random_model
):
  """Settled words are read at once; their tokens are not summed over."""
  model = byte_probs.ByteModel(random_model, bpe)
  prompts = [b"we'll hell we", b'', b"ell'el le hel"]
  together = model.start(prompts, 2)
  together.append([ord('l')] * 3)
  for i, prompt in enumerate(prompts):
    alone = model.start([b''], len(prompt) + 1)
    for byte in prompt + b'l':
      alone.append([byte])
    np.testing.assert_allclose(
      together.logprobs()[i], alone.logprobs()[0], atol=1e-5
    )


@pytest.mark.slow
def test_a_beam_says_what_it_drops(bpe, random_model):
  text = b'hell ell'
  laws = {}
  for most in (0, 4, 200):
    config = byte_probs.Config(validity='all', max_covers=most)
    model = byte_probs.ByteModel(random_model, bpe, config)
    state = model.start([text], 1)
    laws[most] = np.exp(state.log_prob_b[0])
    assert (state.dropped_b[0] > 0) == (most == 4)
    if most == 4:
      dropped = state.dropped_b[0]
  assert laws[200] == pytest.approx(laws[0], rel=1e-5)
  # What is dropped at one byte would have spread as the rest did, at best.
  assert laws[4] < laws[0]
  assert 0 < dropped < 1


@pytest.mark.slow
@pytest.mark.parametrize('validity', cover_state.VALIDITY)
def test_a_byte_tokenizer_has_its_models_own_law(validity):
  tokenizer = byte_tokenizer.Config().make()
  lm = transformer.Config(
    vocab_size=tokenizer.vocab_size, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(1))
  config = byte_probs.Config(validity=validity)
  model = byte_probs.ByteModel(lm, tokenizer, config)
  got = model.start([b'abc'], 1).logprobs()[0]
  logits = lm.logits(lm(jnp.array([[257, *b'abc']])).hidden_btd)[0, -1]
  probs = np.asarray(jax.nn.softmax(logits), np.float64)
  want = np.append(probs[:256], probs[257:].sum())
  np.testing.assert_allclose(np.exp(got), want / want.sum(), atol=1e-6)


def test_sampling_draws_from_the_law_and_stops_at_the_end(bpe):
  law = texts_with_probs(b'el ', 3, seed=2)
  lm = Tree(push_forward(law, bpe), bpe.vocab_size)
  model = byte_probs.ByteModel(lm, bpe)
  num = 600
  found = byte_probs.sample_bytes(
    model,
    [b'e'] * num,
    num_bytes=2,
    rng=jax.random.key(0),
    sampling=sampling.Config(),
  )
  total = sum(p for text, p in law.items() if text.startswith(b'e'))
  for text, prob in law.items():
    if text.startswith(b'e'):
      share = sum(f == text[1:] for f in found) / num
      # Five standard errors: all 13 texts pass with 99.999 %.
      error = np.sqrt(prob / total * (1 - prob / total) / num)
      assert abs(share - prob / total) <= 5 * error + 1e-9
  best = byte_probs.sample_bytes(model, [b'e'], num_bytes=1)[0]
  assert best[0] == np.argmax(next_byte_law(law, b'e')[:END])


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members(bpe, random_model):
  byte = byte_tokenizer.Config().make()
  other = transformer.Config(
    vocab_size=byte.vocab_size, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(2))
  members = [
    byte_probs.ByteModel(random_model, bpe),
    byte_probs.ByteModel(other, byte),
  ]
  ensemble = byte_probs.Ensemble(members)
  state = ensemble.start([b'he'], 4)
  state.append([ord('l')])
  parts = [m.start([b'hel'], 1).logprobs() for m in members]
  want = np.log(np.mean(np.exp(parts), axis=0))
  np.testing.assert_allclose(state.logprobs(), want, atol=1e-5)
  texts = byte_probs.sample_bytes(ensemble, [b'he', b'l'], num_bytes=3)
  assert [len(t) for t in texts] == [3, 3]


@pytest.mark.slow
@pytest.mark.parametrize('order', byte_infill.ORDERS)
def test_the_middle_follows_all_covers_of_a_cut_prefix(
  bpe, random_model, order
):
  prefix, suffix = b"el'l", b'le'
  config = byte_infill.Config(
    prefix=1, suffix=2, middle=3, order=order, max_covers=1000
  )
  model = byte_probs.ByteModel(random_model, bpe)
  state = byte_infill.start(model, prefix, suffix, num_bytes=2, config=config)
  ids, uncached = bpe.encode(suffix).tolist(), Uncached(random_model, 24)
  keep = has_a_continuation(bpe, b"el' \n1.", 2)
  masses = np.zeros(256)
  for byte in range(256):
    text = prefix + bytes([byte])
    if order == 'spm':
      head = [model.bos, 1, 2, *ids, 3]
      found = all_covers(bpe, text, keep)
      scores = [uncached.score(head, c) for c in found]
    else:
      head, scores = [model.bos, 1], []
      for cover in all_covers(bpe, prefix, keep):
        beyond = b''.join(map(bpe.token_bytes, cover))[len(prefix) :]
        row = [*cover, 2, *ids, 3]
        if beyond[:1] == bytes([byte]):
          scores.append(uncached.score(head, row))
        elif not beyond:
          last = uncached.law([*head, *row])
          scores += [
            uncached.score(head, row) + last[t]
            for t in range(bpe.vocab_size)
            if bpe.token_bytes(t)[:1] == bytes([byte]) and keep((t,))
          ]
    masses[byte] = np.exp(np.logaddexp.reduce(scores)) if scores else 0.0
  got = state.logprobs(normalise=False)[0, :256]
  np.testing.assert_allclose(
    np.exp(got) / np.exp(got).sum(), masses / masses.sum(), atol=1e-5
  )
  assert state.dropped_b[0] == 0
  (middle,) = byte_probs.continue_bytes(state, num_bytes=2)
  assert middle[0] == np.argmax(masses)


def test_a_middle_says_what_covers_it_leaves_out(bpe, random_model):
  model = byte_probs.ByteModel(random_model, bpe)
  config = byte_infill.Config(
    prefix=1, suffix=2, middle=3, order='psm', max_covers=2
  )
  state = byte_infill.start(model, b'e', b'le', num_bytes=2, config=config)
  found = state.covers(0)
  assert len(found) == 2
  assert 0 < state.dropped_b[0] < 1
  # The bytes of a cover beyond the prefix are the beginning of the middle.
  law = np.exp(state.logprobs()[0])
  for _, beyond, _ in found:
    assert not beyond or law[beyond[0]] > 0


def test_what_is_too_unlikely_to_be_checked_is_missing(bpe, random_model):
  laws = {}
  for least in (0.0, 1e-3):
    config = byte_probs.Config(min_prob=least)
    state = byte_probs.ByteModel(random_model, bpe, config).start([b''], 2)
    laws[least] = np.exp(state.logprobs(normalise=False)[0])
    state.append([int(laws[least][:END].argmax())])
    assert state.missing_b[0] > 0
  assert (laws[1e-3] <= laws[0.0] * 1.01).all()
  lost = laws[0.0].sum() - laws[1e-3].sum()
  assert 0 < lost <= 1e-3 * bpe.vocab_size


def test_usual_methods_equal_their_definitions(bpe, random_model):
  model = byte_probs.ByteModel(random_model, bpe)
  prompts = [b'hel', b'', b"we'l"]
  naive, healed = byte_baselines.laws(model, prompts)
  uncached = Uncached(random_model)
  texts = [bpe.token_bytes(t) for t in range(bpe.vocab_size)]
  skipped = bpe.special.pad

  def first_bytes(probs):
    law = np.zeros(END + 1)
    for token, piece in enumerate(texts):
      if token != skipped:
        law[piece[0] if piece else END] += probs[token]
    return law / law.sum()

  for i, prompt in enumerate(prompts):
    row = [model.bos, *bpe.encode(prompt).tolist()]
    want = first_bytes(np.exp(uncached.law(row)))
    np.testing.assert_allclose(naive[i], want, atol=1e-6)
    if prompt:
      last, before = texts[row[-1]], np.exp(uncached.law(row[:-1]))
      again = np.zeros(END + 1)
      for token, piece in enumerate(texts):
        if piece == last:
          again += before[token] * want
        elif piece.startswith(last):
          again[piece[len(last)]] += before[token]
      want = again / again.sum()
    np.testing.assert_allclose(healed[i], want, atol=1e-6)


def test_usual_methods_read_all_positions_of_a_model():
  tokenizer = byte_tokenizer.Config().make()
  config = transformer.Config(
    dim=8,
    num_layers=1,
    num_heads=1,
    vocab_size=tokenizer.vocab_size,
    embed_std=1.0,
    position='learned',
    max_len=20,
  )
  model = byte_probs.ByteModel(config.make(nnx.Rngs(0)), tokenizer)
  prompt = b'a prompt of 19 byte'  # BOS and these are 20 tokens.
  exact = np.exp(model.start([prompt, prompt[:16]], 0).logprobs())
  # Each byte is a token, so what is usually done is exact.
  for law in byte_baselines.laws(model, [prompt, prompt[:16]]):
    np.testing.assert_allclose(law, exact, atol=1e-6)
  with pytest.raises(ValueError, match='21 tokens exceed the 20 positions'):
    byte_baselines.laws(model, [prompt + b's'])


def test_mistakes_are_named(bpe, random_model):
  with pytest.raises(ValueError, match="validity='some' must be one of"):
    byte_probs.Config(validity='some')
  with pytest.raises(ValueError, match='max_covers=-1 must be >= 0'):
    byte_probs.Config(max_covers=-1)
  model = byte_probs.ByteModel(random_model, bpe)
  with pytest.raises(ValueError, match='0 prompts and num_bytes=1'):
    model.start([], 1)
  state = model.start([b'e'], 1)
  with pytest.raises(ValueError, match='2 bytes for 1 texts'):
    state.append([1, 2])
  with pytest.raises(ValueError, match=r'must be in 0..255, or -1; got \[256'):
    state.append([END])
  with pytest.raises(ValueError, match='rng is None, but temperature'):
    byte_probs.continue_bytes(state, num_bytes=1, sampling=sampling.Config())
  with pytest.raises(ValueError, match=r'before=\(\) must be one id or more'):
    model.start([b'e'], 1, before=())
  with pytest.raises(
    ValueError, match=r'before=\(257, 274\) must be .*\[0, 274'
  ):
    model.start([b'e'], 1, before=(257, 274))
  with pytest.raises(ValueError, match="order='mid' must be one of spm, psm"):
    byte_infill.Config(prefix=0, suffix=1, middle=2, order='mid')
  led = marked('llama', 'ab ba' * 9, 1)
  lm = transformer.Config(
    vocab_size=led.vocab_size, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(0))
  config = byte_infill.Config(prefix=1, suffix=2, middle=3, order='psm')
  with pytest.raises(ValueError, match=r"order='psm' .* Use order='spm'"):
    byte_infill.start(
      byte_probs.ByteModel(lm, led), b'e', b'l', num_bytes=1, config=config
    )
  config = byte_infill.Config(prefix=1, suffix=300, middle=3)
  with pytest.raises(ValueError, match=r'suffix=300 of the config must be in'):
    byte_infill.start(model, b'e', b'l', num_bytes=1, config=config)


def test_texts_may_be_str_and_what_is_no_list_of_texts_is_named(
  bpe, random_model
):
  model = byte_probs.ByteModel(random_model, bpe)
  both = byte_probs.score_bytes(model, ['hé', 'hé'.encode()])
  assert both[0].shape == (3,)
  np.testing.assert_array_equal(*both)
  with pytest.raises(
    TypeError, match=r"prompts='he' is a single str\. Use \[te"
  ):
    byte_probs.sample_bytes(model, 'he', num_bytes=1)
  with pytest.raises(
    TypeError, match=r"texts=b'he' is a single bytes\. Use \["
  ):
    covers.as_texts(b'he', 'texts')
  with pytest.raises(TypeError, match=r'texts\[1\] is of type int\. A text is'):
    covers.as_texts([b'he', 104], 'texts')


def test_of_no_texts_there_are_no_scores_and_of_no_bytes_empty_ones(
  bpe, random_model
):
  model = byte_probs.ByteModel(random_model, bpe)
  assert byte_probs.score_bytes(model, []) == []
  assert [s.tolist() for s in byte_probs.score_bytes(model, [b'', b''])] == [
    [],
    [],
  ]
  none = byte_probs.sample_bytes(model, [b'h', b'el'], num_bytes=0)
  assert none == [b'', b'']


@pytest.mark.parametrize('validity', cover_state.VALIDITY)
def test_marks_without_bytes_are_refused_and_ids_never_used_are_not(validity):
  lm = transformer.Config(
    vocab_size=384, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(0))
  config = byte_probs.Config(validity=validity)
  with pytest.raises(TypeError, match=r'stand for no bytes \(ids 259\)'):
    byte_probs.ByteModel(lm, word_bytes.Config().make(), config)
  byt5 = byte_tokenizer.Config(map='byt5').make()
  byte_probs.ByteModel(lm, byt5, config).start([b'a'], 1)


def test_models_that_do_not_fit_are_refused(bpe):
  config = transformer.Config(
    vocab_size=bpe.vocab_size - 1, dim=8, num_layers=1, num_heads=1
  )
  with pytest.raises(ValueError, match='the model has 273 ids and HfTokenizer'):
    byte_probs.ByteModel(config.make(nnx.Rngs(0)), bpe)
  with pytest.raises(TypeError, match='Linear has no init_cache'):
    byte_probs.ByteModel(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), bpe)


def test_more_ids_than_the_tokenizers_are_missing_from_the_law(bpe):
  """Published models have tables that are padded."""
  config = transformer.Config(
    vocab_size=bpe.vocab_size + 9, dim=8, num_layers=1, num_heads=1
  )
  model = byte_probs.ByteModel(config.make(nnx.Rngs(0)), bpe)
  law = np.exp(model.start([b''], 1).logprobs(normalise=False))
  assert 9 / 300 < 1 - law.sum() < 1
