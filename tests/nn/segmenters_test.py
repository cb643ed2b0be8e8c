# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Segmenters against loops over characters, and their promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, transformer
from jaxtok.nn import segmenters
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import dna, word_bytes, words

# Every kind of white space, near misses of it, and cut-off characters.
_PIECES = [
  *('a', 'Z', '7', '_', ' ', '  ', '\n', '\t', '\x0b', '\x1f', '\x85', '\xa0'),
  *('\u1680', '\u2000', '\u200a', '\u200b', '\u2028', '\u2029', '\u202f'),
  *('\u205f', '\u2060', '\u3000', '\u3001', 'é', '日本', '😀', '-', '.'),
]
RULES = [
  segmenters.Whitespace(),
  segmenters.Spacelike(),
  segmenters.Stride(size=3),
  segmenters.Words(),
]
named = pytest.mark.parametrize('rule', RULES, ids=lambda r: type(r).__name__)
_jitted = jax.jit(lambda rule, x, s: rule(x, s), static_argnums=0)


def random_text(seed, length=64):
  rng = np.random.default_rng(seed)
  text = ''.join(_PIECES[i] for i in rng.integers(0, len(_PIECES), length))
  return text.encode()[:length]


def rows(*datas):
  return jnp.stack([jnp.asarray(np.frombuffer(d, np.uint8)) for d in datas])


def starts(rule, data, **kwargs):
  tokens = rows(data).astype(jnp.int32)
  return np.flatnonzero(_jitted(rule, tokens, kwargs.get('segments'))[0])


@pytest.mark.parametrize('seed', range(8))
def test_whitespace_units_are_the_words_of_the_host(seed):
  data = random_text(seed)
  want = [0, *words.whitespace_words(data)[:-1]]
  assert starts(RULES[0], data).tolist() == want


# More of what is likely to meet: words, camel case, runs of spaces.
_ASCII = [chr(c) for c in range(128)] + [*'aAbB 1 _.,\r\n '] * 8


@pytest.mark.parametrize('seed', range(8))
def test_units_of_words_are_those_of_the_host_on_ascii(seed):
  rng = np.random.default_rng(seed)
  data = ''.join(rng.choice(_ASCII, 400)).encode()
  want = [0, *words.uax29_words(data)[:-1]]
  assert starts(segmenters.Words(), data).tolist() == want


@pytest.mark.parametrize(
  'text, want',
  [
    ('Hello, world!', ['Hello,', ' world!']),
    ("can't stop 3.14", ["can'", 't', ' stop', ' 3.', '14']),
    ('howAreYou', ['how', 'Are', 'You']),
    ('a  b', ['a', '  ', 'b']),
    ('été là', ['été', ' là']),
    ('日本 語.a', ['日', '本', ' 語.', 'a']),
  ],
)
def test_units_of_words_by_examples(text, want):
  data = text.encode()
  edges = [*starts(segmenters.Words(), data), len(data)]
  got = [data[i:j].decode() for i, j in itertools.pairwise(edges)]
  assert got == want


@pytest.mark.parametrize('seed', range(4))
def test_spacelike_units_begin_where_the_paper_says(seed):
  data = random_text(seed)
  is_spacelike = [
    not (chr(b).isalnum() and b < 128) and not 0x80 <= b <= 0xBF for b in data
  ]
  want = [
    i
    for i, new in enumerate(is_spacelike)
    if i == 0 or (new and not is_spacelike[i - 1])
  ]
  assert starts(RULES[1], data).tolist() == want


def test_stride_counts_from_the_document():
  tokens = jnp.zeros((1, 11), jnp.int32)
  documents = jnp.array([[1] * 4 + [2] * 5 + [0] * 2])
  got = np.flatnonzero(_jitted(RULES[2], tokens, documents))
  assert got.tolist() == [0, 3, 4, 7]


@named
def test_documents_are_cut_as_if_alone_and_padding_has_no_units(rule):
  a, b = random_text(1, 20), random_text(2, 20)
  tokens = rows(a + b + a[:8]).astype(jnp.int32)
  documents = jnp.array([[1] * 20 + [2] * 20 + [0] * 8])
  got = np.flatnonzero(_jitted(rule, tokens, documents))
  want = [*starts(rule, a), *(20 + starts(rule, b))]
  assert got.tolist() == want


def parts(data, is_start, longest):
  """Where units and their parts begin, decided byte by byte."""
  sizes = {4: range(0xF0, 0xF5), 3: range(0xE0, 0xF0), 2: range(0xC2, 0xE0)}
  found, begin = [], 0
  for i, byte in enumerate(data):
    size = next((n for n, leads in sizes.items() if byte in leads), 1)
    if is_start[i] or (i > begin and i + size > begin + longest):
      begin = i
      found.append(i)
  return found


@pytest.mark.parametrize('longest', [1, 2, 3, 5, 10, 100])
def test_long_units_are_cut_before_the_character_that_is_too_much(longest):
  rng = np.random.default_rng(longest)
  characters = np.array([*'aé€😀'])
  text = ''.join(rng.choice(characters, 120)).encode()[:240]
  noise = rng.integers(0, 256, 240, np.uint8).tobytes()
  japanese = ('あ' * 80).encode()
  is_start = rng.random((3, 240)) < 0.02
  is_start[:, 0] = True
  is_start[2, 1:] = False
  limit = jax.jit(segmenters.limit_characters, static_argnums=1)
  tokens = rows(text, noise, japanese).astype(jnp.int32)
  got = limit(jnp.asarray(is_start), longest, tokens)
  for row, data, starts in zip(
    got, (text, noise, japanese), is_start, strict=True
  ):
    assert np.flatnonzero(row).tolist() == parts(data, starts, longest)
  ends = words.chunk_words(japanese, np.array([240]), longest)
  assert np.flatnonzero(got[2]).tolist() == [0, *ends[:-1]]


@named
def test_a_unit_does_not_depend_on_what_follows(rule):
  data = random_text(3, 48)
  whole = starts(rule, data)
  for length in (1, 7, 20, 33):
    changed = data[:length] + random_text(length, 48)[length:]
    got = starts(rule, changed)
    assert got[got < length].tolist() == whole[whole < length].tolist()


@named
def test_jit_changes_nothing(rule):
  tokens = rows(random_text(5)).astype(jnp.int32)
  with jax.disable_jit():
    plain = rule(tokens)
  np.testing.assert_array_equal(_jitted(rule, tokens, None), plain)


@pytest.mark.parametrize('kind', ['Whitespace', 'Spacelike'])
def test_ids_are_shifted_and_special_ids_are_units(kind):
  rule = getattr(segmenters, kind)(offset=3)
  text = np.frombuffer(b'ab cd', np.uint8).astype(np.int32) + 3
  tokens = jnp.asarray([[1, *text, 1, *text]])
  got = np.flatnonzero(rule(tokens))
  plain = getattr(segmenters, kind)()(jnp.asarray([text - 3]))
  inside = np.flatnonzero(plain)
  for begin in (1, 7):
    assert begin - 1 in got  # The special id,
    assert set(begin + inside[1:]) <= set(got)  # and what follows, as alone.
  assert len(got) == 2 * (len(inside) + (kind == 'Whitespace'))


@pytest.mark.parametrize('rule', segmenters.RULES)
def test_entropy_units_equal_a_loop(rule):
  rng = np.random.default_rng(0)
  entropy = rng.exponential(size=(2, 20)).astype(np.float32)
  documents = np.array([[1] * 9 + [2] * 8 + [0] * 3, [1] * 20])
  segmenter = segmenters.Entropy(
    threshold=0.8,
    rule=rule,
    least_rise=0.2 if rule == 'both' else 0.0,
    longest=4,
  )
  got = jax.jit(lambda e, s: segmenter(e, s))(entropy, jnp.asarray(documents))
  for b in range(2):
    begin, last = 0, 0
    for t in range(20):
      if documents[b, t] == 0:
        assert not got[b, t]
        continue
      if t == 0 or documents[b, t] != documents[b, t - 1]:
        begin = t
      before = entropy[b, t - 1]
      rise = before - entropy[b, t - 2]
      want = {
        'global': before > 0.8,
        'monotonic': rise > 0.8,
        'both': before > 0.8 and rise > 0.2,
      }[rule]
      want = t - begin < 2 or want or t - last == 4
      assert bool(got[b, t]) == want, (b, t)
      last = t if want else last


def test_each_entropy_rule_has_units_of_its_own():
  # High at 3 by a large rise, at 4 by a small one, at 5 by none, at 7 by the
  # largest; at 9 not high after a large rise.
  entropy = [0.0, 0.1, 0.2, 1.1, 1.2, 1.15, 0.1, 1.5, 0.0, 0.95, 0.0]
  begins = lambda **fields: np.flatnonzero(
    segmenters.Entropy(threshold=1.0, **fields)(jnp.array([entropy]))[0]
  ).tolist()
  # A unit begins behind the position whose entropy decides.
  assert begins(rule='global') == [0, 1, 4, 5, 6, 8]
  assert begins(rule='monotonic') == [0, 1, 8]
  assert begins(rule='both') == [0, 1, 4, 5, 8]
  assert begins(rule='both', least_rise=0.5) == [0, 1, 4, 8]
  assert begins(rule='both', least_rise=1.0) == begins(rule='monotonic')


class Table(nnx.Module):
  """A model whose logits are a row of a table."""

  def __init__(self, table):
    self.table = nnx.Param(jnp.asarray(table))

  def __call__(self, tokens_bt, *, positions=None):
    return base.Output(self.table[...][tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


def test_entropies_are_those_of_the_model():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(11, 11)).astype(np.float32) * 4
  table[3, 5] = -np.inf
  tokens = rng.integers(0, 11, (2, 6))
  got = segmenters.entropies(
    Table(table), jnp.asarray(tokens), positions=jnp.arange(6)[None]
  )
  probs = np.exp(table[tokens].astype(np.float64))
  probs /= probs.sum(-1, keepdims=True)
  want = -(probs * np.log(np.maximum(probs, 1e-300))).sum(-1)
  # Sums of 11 float32 terms of order 1.
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow  # Two shapes of a transformer.
def test_entropies_grow_with_a_cache():
  model = transformer.Config(
    vocab_size=11, dim=8, num_layers=1, num_heads=1
  ).make(nnx.Rngs(0))
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 6)))
  want = segmenters.entropies(model, tokens)
  cache = model.init_cache(2, 6)
  head, cache = segmenters.entropies(model, tokens[:, :4], cache=cache)
  tail, _ = segmenters.entropies(model, tokens[:, 4:], cache=cache)
  np.testing.assert_allclose(
    np.concatenate([head, tail], axis=1), want, atol=1e-5
  )


def test_the_cosine_gate_equals_its_formula_and_learns():
  gate = segmenters.CosineGate(4)
  rng = np.random.default_rng(0)
  gate.q[...] += rng.normal(size=(4, 4)).astype(np.float32) * 0.3
  x = rng.normal(size=(2, 7, 4)).astype(np.float32)
  documents = jnp.array([[1, 1, 1, 2, 2, 2, 0], [1] * 7])
  got = jax.jit(lambda x: gate(x, documents))(jnp.asarray(x))
  q, k = x @ np.asarray(gate.q[...]), x @ np.asarray(gate.k[...])
  for b in range(2):
    for t in range(7):
      is_first = t == 0 or documents[b, t] != documents[b, t - 1]
      norm = np.linalg.norm(q[b, t - 1]) * np.linalg.norm(k[b, t])
      prob = 1.0 if is_first else (1 - q[b, t - 1] @ k[b, t] / norm) / 2
      if documents[b, t] == 0:
        assert not got.start_bt[b, t]
        continue
      assert abs(float(got.prob_bt[b, t]) - prob) < 1e-5  # float32 products.
      assert bool(got.start_bt[b, t]) == (prob > 0.5)
  graph, params = nnx.split(gate)
  total = lambda p: nnx.merge(graph, p)(jnp.asarray(x)).prob_bt.sum()
  for leaf in jax.tree.leaves(jax.grad(total)(params)):
    assert np.isfinite(leaf).all()
    assert (np.asarray(leaf) != 0).any()


def test_a_gate_is_at_rest_where_states_do_not_change():
  """Identity maps and equal states: p = 0; opposite states: p = 1."""
  gate = segmenters.CosineGate(3)
  x = jnp.array([[[1.0, 2, 3], [2, 4, 6], [-1, -2, -3], [0, 0, 0]]])
  got = gate(x)
  # 1 - cos is rounded in float32.
  np.testing.assert_allclose(got.prob_bt[0], [1, 0, 1, 0.5], atol=1e-6)
  np.testing.assert_array_equal(got.start_bt[0], [True, False, True, False])


@pytest.mark.parametrize('map', byte_tokenizer.MAPS)
@pytest.mark.parametrize(
  'rule', [segmenters.Whitespace, segmenters.Spacelike, segmenters.Words]
)
def test_only_the_offset_of_the_byte_map_is_accepted(map, rule):
  tokenizer = byte_tokenizer.Config(map=map).make()
  right = byte_tokenizer.MAPS[map].offset
  segmenters.check_offset('rule', rule(offset=right), tokenizer)
  for offset in {0, 1, 3, 4, 64, -1, 400} - {right}:
    with pytest.raises(
      ValueError,
      match=rf'rule.offset={offset}: {rule.__name__} takes id {offset} for '
      rf"byte 0, but ByteTokenizer\(.*map='{map}'\) has byte 0 at id {right}. "
      rf'Set rule.offset={right}.',
    ):
      segmenters.check_offset('rule', rule(offset=offset), tokenizer)


def test_rules_of_bytes_are_refused_where_ids_are_no_bytes():
  tokenizer = dna.Config(k=1).make()
  with pytest.raises(ValueError, match='has no ids for the 256 bytes in thei'):
    segmenters.check_offset('rule', segmenters.Spacelike(), tokenizer)
  for rule in (segmenters.Stride(size=2), segmenters.Entropy(), None):
    segmenters.check_offset('rule', rule, tokenizer)
  # Bytes with marks between them are bytes.
  segmenters.check_offset(
    'rule', segmenters.Words(), word_bytes.Config().make()
  )


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: segmenters.Stride(size=0), 'size=0 must be >= 1'),
    (lambda: segmenters.Entropy(rule='top'), "rule='top' must be one of"),
    (lambda: segmenters.Entropy(longest=-1), 'longest=-1 must be >= 0'),
    (
      lambda: segmenters.Entropy(least_rise=0.3),
      "least_rise=0.3 is of the rule 'both', but rule='global'",
    ),
  ],
)
def test_impossible_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
