# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Byte-level laws against the enumeration of all texts, or of all covers."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.decoding import byte_infill, byte_probs, cover_state, sampling
from jaxtok.decoding.byte_probs import END
from jaxtok.models import base, transformer
from jaxtok.tokenizers import base as tokenizer_base
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import concat, hf


class ToyTokenizer(concat.ConcatTokenizer):
  """BPE over the letters a and b by two merges, without words.

  The ids: a 0, b 1, ab 2, aab 3, BOS 4.
  """

  def __init__(self):
    special = tokenizer_base.SpecialTokens(bos=4)
    table = [b'a', b'b', b'ab', b'aab', b'']
    super().__init__(table, special, lossless='no')

  def encode_bytes(self, data):
    symbols = [bytes([b]) for b in data]
    for merge in ((b'a', b'b'), (b'a', b'ab')):
      at = 0
      while at + 1 < len(symbols):
        if (symbols[at], symbols[at + 1]) == merge:
          symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        at += 1
    return np.array([self._table.index(s) for s in symbols], np.int32)

  def split(self, data):
    return np.array([[0, len(data)]] if data else np.zeros((0, 2)), np.int64)

  def identity(self):
    return {}

  def save_config(self, path):
    return {}

  @classmethod
  def from_config(cls, path, config):
    return cls()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nodes:
  """A cache: the node of a tree of prefixes after each token."""

  node_bs: Any
  length_b: Any

  def truncate(self, length_b):
    return Nodes(self.node_bs, jnp.minimum(self.length_b, length_b))

  def gather(self, rows):
    return jax.tree.map(lambda x: x[rows], self)


class Tree(nnx.Module):
  """The language model that gives a finite law over token sequences exactly.

  Args:
    law: Token sequence (with BOS and the final end) to probability.
    vocab_size: Ids.
  """

  def __init__(self, law, vocab_size):
    nodes, edges = {(): 0}, {}
    weight = [{}]
    for sequence, prob in law.items():
      for i, token in enumerate(sequence):
        node = nodes[sequence[:i]]
        weight[node][token] = weight[node].get(token, 0.0) + prob
        if sequence[: i + 1] not in nodes:
          nodes[sequence[: i + 1]] = len(nodes)
          weight.append({})
        edges[node, token] = nodes[sequence[: i + 1]]
    logits = np.full((len(nodes), vocab_size), -np.inf)
    children = np.zeros((len(nodes), vocab_size), np.int32)
    for node, found in enumerate(weight):
      total = sum(found.values())
      for token, value in found.items():
        logits[node, token] = np.log(value / total)
    for (node, token), child in edges.items():
      children[node, token] = child
    # A node without continuations is never asked; any finite row will do.
    logits[np.isneginf(logits).all(axis=1)] = 0
    self.children = nnx.Variable(jnp.asarray(children))
    self.table = nnx.Param(jnp.asarray(logits, jnp.float32))

  def init_cache(self, batch_size, max_len):
    zeros = jnp.zeros((batch_size, max_len), jnp.int32)
    return Nodes(zeros, jnp.zeros(batch_size, jnp.int32))

  def __call__(self, tokens_bt, *, cache):
    rows = jnp.arange(len(tokens_bt))

    def step(carry, token_b):
      cache = carry
      last_b = cache.node_bs[rows, jnp.maximum(cache.length_b - 1, 0)]
      node_b = self.children[...][jnp.where(cache.length_b, last_b, 0), token_b]
      node_bs = cache.node_bs.at[rows, cache.length_b].set(node_b)
      return Nodes(node_bs, cache.length_b + 1), node_b

    cache, node_tb = jax.lax.scan(step, cache, tokens_bt.T)
    return base.Output(node_tb.T[..., None].astype(jnp.float32), cache)

  def logits(self, hidden_btd):
    return self.table[...][hidden_btd[..., 0].astype(jnp.int32)]


def texts_with_probs(alphabet, length, seed=0, *, step=None):
  """A first-order Markov law over texts of up to `length` bytes."""
  stop = 0.1 if step is None else 0.0
  if step is None:
    rng = np.random.default_rng(seed)
    step = rng.dirichlet(np.ones(len(alphabet)), size=len(alphabet) + 1)
  law = {}

  def grow(text, last, prob):
    if len(text) == length:
      law[text] = prob
      return
    if stop:
      law[text] = prob * stop
    for i, byte in enumerate(alphabet):
      grow(text + bytes([byte]), i, prob * (1 - stop) * step[last, i])

  grow(b'', len(alphabet), 1.0)
  return law


def next_byte_law(law, prefix):
  """The law of the next byte, by summing over all texts."""
  result = np.zeros(END + 1)
  for text, prob in law.items():
    if text.startswith(prefix):
      symbol = text[len(prefix)] if len(text) > len(prefix) else END
      result[symbol] += prob
  return result / result.sum()


def push_forward(law, tokenizer):
  """The law over token sequences that encoding gives."""
  bos = tokenizer.special.bos
  return {
    (bos, *tokenizer.encode(text).tolist(), bos): prob
    for text, prob in law.items()
  }


def naive_law(sequences, tokenizer, prefix):
  """The law of the token behind a prefix's encoding, by first bytes.

  Zeros if no text has an encoding that begins so.
  """
  result = np.zeros(END + 1)
  head = (tokenizer.special.bos, *tokenizer.encode(prefix).tolist())
  for sequence, prob in sequences.items():
    if sequence[: len(head)] == head:
      piece = tokenizer.token_bytes(sequence[len(head)])
      result[piece[0] if piece else END] += prob
  return result / max(result.sum(), 1e-300)


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
  step = np.array([[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]])
  law = texts_with_probs(b'ab', 9, step=step)
  prefixes = [
    bytes(p) for n in range(6) for p in itertools.product(b'ab', repeat=n)
  ]
  assert check_all_prefixes(tokenizer, law, prefixes) >= 0.5


# What makes encodings of GPT-2's kind depend on what follows.
_TRAINING = [b"we'll hell\n\nell'el   le\n \n'lle ee ll  \n\n" * 40]


@pytest.fixture(scope='module')
def bpe():
  return hf.train_bpe(_TRAINING, 259 + 20)


def test_laws_are_exact_where_words_depend_on_what_follows(bpe):
  """Contractions and white space: the regex looks ahead."""
  law = texts_with_probs(b"el' \n", 4)
  prefixes = [
    bytes(p) for n in range(4) for p in itertools.product(b"el' \n", repeat=n)
  ]
  assert any(len(bpe.token_bytes(i)) > 2 for i in range(259, 279))
  assert check_all_prefixes(bpe, law, prefixes) > 0.1


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


@pytest.fixture(scope='module')
def random_model(bpe):
  """A transformer with random parameters, far from uniform."""
  lm = transformer.Config(
    vocab_size=bpe.vocab_size, dim=8, num_layers=1, num_heads=1, embed_std=1.0
  ).make(nnx.Rngs(0))
  return lm


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
  covers = all_covers(bpe, text, keep)
  scores = {c: uncached.score([model.bos], c) for c in covers}
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


def test_a_byte_tokenizer_has_its_models_own_law():
  tokenizer = byte_tokenizer.Config().make()
  lm = transformer.Config(
    vocab_size=tokenizer.vocab_size, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(1))
  model = byte_probs.ByteModel(lm, tokenizer, byte_probs.Config(validity='all'))
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


def test_an_ensemble_is_the_mean_of_its_members(bpe, random_model):
  byte = byte_tokenizer.Config().make()
  other = transformer.Config(
    vocab_size=byte.vocab_size, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(2))
  members = [
    byte_probs.ByteModel(random_model, bpe),
    byte_probs.ByteModel(other, byte, byte_probs.Config(validity='all')),
  ]
  ensemble = byte_probs.Ensemble(members)
  state = ensemble.start([b'he'], 4)
  state.append([ord('l')])
  parts = [m.start([b'hel'], 1).logprobs() for m in members]
  want = np.log(np.mean(np.exp(parts), axis=0))
  np.testing.assert_allclose(state.logprobs(), want, atol=1e-5)
  texts = byte_probs.sample_bytes(ensemble, [b'he', b'l'], num_bytes=3)
  assert [len(t) for t in texts] == [3, 3]


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
      covers = all_covers(bpe, text, keep)
      scores = [uncached.score(head, c) for c in covers]
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
  with pytest.raises(ValueError, match="order='mid' must be one of spm, psm"):
    byte_infill.Config(prefix=0, suffix=1, middle=2, order='mid')
