# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The compiled dictionary against the window coder that it replaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.entropy import (
  dictionary,
  dictionary_rules,
  quantize,
  reference,
  trie,
  window,
)
from jaxtok.entropy.formats import WindowFormat
from tests.entropy import coding_oracle as oracle

ENGINES = [
  False,
  pytest.param(
    True,
    marks=pytest.mark.skipif(not trie.has_numba(), reason='numba is missing'),
  ),
]


@pytest.fixture(scope='module')
def compiled():
  models = {
    name: oracle.MODELS[name]() for name in ('sparse', 'peaked', 'flat')
  }
  return {
    name: (model, dictionary.compile_window_dictionary(model))
    for name, model in models.items()
  }


RULES = ['cell', 'delay']


@pytest.mark.parametrize('rule', RULES)
def test_every_word_has_the_string_that_the_decoder_finds(rule, compiled):
  model, words = compiled['sparse']
  words = words.with_close_rule(rule)
  fmt = WindowFormat(close_rule=rule)
  got = window.decode_windows(
    np.arange(1 << 16).reshape(1, -1, 1), [1 << 16], model, fmt
  )
  for word in range(0, 1 << 16, 5):
    n = got.num_symbols_bk[0, word]
    assert words.string(word) == tuple(got.symbols_bkn[0, word, :n].tolist())


def test_intervals_of_the_strings_cover_every_cell_once(compiled):
  """Kraft: a word has one owner, and owners' shares of words sum to all."""
  for model, words in compiled.values():
    cdf = oracle.next_cdf(model)
    owned = np.bincount(words.node_of_word, minlength=len(words.parents))
    assert owned.sum() == 1 << 16
    rng = np.random.default_rng(0)
    for word in rng.integers(1 << 16, size=60).tolist():
      path = reference.follow_word(word, cdf, 16)
      node = path[-1][1]
      assert words.string(word) == tuple(s for s, _ in path)
      # The node owns its whole cells but for those inside its children.
      num = node.high // node.cell - node.first_word
      ends = path[-1][0] == reference.EOS or node.n == 64
      if not ends:
        context = tuple(s for s, _ in path)
        bounds = node.bounds(cdf(context))
        children = (node.child(bounds, s) for s in range(oracle.NUM))
        num -= sum(
          c.high // c.cell - c.first_word for c in children if c.feasible
        )
      assert num == owned[words.node_of_word[word]]


@pytest.mark.parametrize('use_numba', ENGINES)
@pytest.mark.parametrize('name', ['sparse', 'peaked', 'flat'])
@pytest.mark.parametrize('rule', RULES)
def test_walks_of_the_tree_are_the_close_rules(rule, name, use_numba, compiled):
  model, words = compiled[name]
  words = words.with_close_rule(rule)
  for text in oracle.hard_texts(model):
    got, lengths = words.encode(text, use_numba=use_numba)
    want = reference.encode_windows(text, oracle.next_cdf(model), 16, rule)
    assert list(zip(lengths.tolist(), got.tolist(), strict=True)) == want
    assert words.decode(got, use_numba=use_numba) == text
    assert np.isin(got, words.used_words).all()


@given(st.integers(0, (1 << 16) - 1), st.integers(1, 1 << 16))
def test_zero_padded_words_are_the_shortest_bit_strings(first, num):
  stop = min(first + num, 1 << 16)
  node = reference.Node(16, low=first << 16)
  node = node._replace(r=stop - first << 16, n=1)
  got = dictionary_rules.zero_padded(np.array([first]), np.array([stop]))
  assert got.tolist() == [node.zero_padded_word()]


@given(st.binary(max_size=300), st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_any_bytes_round_trip(compiled, text, rule):
  words = compiled['sparse'][1].with_close_rule(rule)
  got, lengths = words.encode(text, use_numba=False)
  assert lengths.sum() == len(text) + 1
  assert words.decode(got, use_numba=False) == text


@pytest.mark.parametrize('use_numba', ENGINES)
@pytest.mark.parametrize('rule', RULES)
def test_texts_longer_than_a_block_round_trip(
  rule, use_numba, compiled, monkeypatch
):
  monkeypatch.setattr(trie, '_BLOCK', 100)
  words = compiled['sparse'][1].with_close_rule(rule)
  text = np.random.default_rng(0).bytes(1000) + b'a' * 501 + bytes(300)
  got, lengths = words.encode(text, use_numba=use_numba)
  monkeypatch.undo()
  want, want_lengths = words.encode(text, use_numba=use_numba)
  np.testing.assert_array_equal(got, want)
  np.testing.assert_array_equal(lengths, want_lengths)
  assert words.decode(got, use_numba=use_numba) == text


@pytest.mark.parametrize('use_numba', ENGINES)
def test_decoding_stops_at_the_first_end_of_text(use_numba, compiled):
  _, words = compiled['sparse']
  first, _ = words.encode(b'one')
  second, _ = words.encode(b'two')
  both = np.concatenate([first, second])
  assert words.decode(both, use_numba=use_numba) == b'one'
  assert words.decode(both[:0], use_numba=use_numba) == b''


@pytest.mark.parametrize('rule', RULES)
def test_saved_dictionaries_load_and_damaged_ones_do_not(
  rule, compiled, tmp_path
):
  words = compiled['sparse'][1].with_close_rule(rule)
  path = tmp_path / 'words.npz'
  words.save(path)
  again = dictionary.load(path)
  assert again.close_rule == rule
  assert again.fingerprint() == words.fingerprint()
  assert again.decode(again.encode(b'hello')[0]) == b'hello'
  arrays = dict(np.load(path))
  arrays['node_of_word'][7] += 1
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match='damaged'):
    dictionary.load(path)
  np.savez(path, x=1)
  with pytest.raises(ValueError, match='not a window dictionary'):
    dictionary.load(path)


def test_longer_windows_are_refused():
  with pytest.raises(ValueError, match='window_bits=32'):
    dictionary.compile_window_dictionary(oracle.order1(0), window_bits=32)


def test_a_rule_that_does_not_decode_is_refused(compiled):
  _, words = compiled['peaked']
  with pytest.raises(ValueError, match='close_rule='):
    words.with_close_rule('greedy_zero_pad')


def test_the_rule_is_part_of_the_fingerprint(compiled):
  _, words = compiled['peaked']
  other = words.with_close_rule('delay')
  assert other.fingerprint() != words.fingerprint()
  back = other.with_close_rule('cell')
  assert back.fingerprint() == words.fingerprint()


def test_words_out_of_range_are_refused(compiled):
  _, words = compiled['peaked']
  with pytest.raises(ValueError, match='65536'):
    words.decode([0, 65536])
  assert words.string(int(words.encode(b'')[0][0]))[0] == quantize.EOS
