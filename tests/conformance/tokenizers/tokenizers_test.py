# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every tokenizer promises.

A tokenizer joins with one line in `TOKENIZERS`: its name, and a function
without arguments that makes it.
"""

import functools
import pickle
import pydoc_data.topics
import random
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxtok import tokenizers
from jaxtok.tokenizers import (
  base,
  bytelevel,
  dna,
  files,
  gzip,
  hf,
  lossy,
  metaspace,
  neural,
  subword,
  word_bytes,
)
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import spec as spec_lib
from tests.tokenizers import marked_spaces

Tokenizer = base.Tokenizer

SCRIPTS = (
  'Größe, naïve café; 日本語のテキスト; текст; עברית; हिन्दी; '
  '👩\u200d👩\u200d👧 ½²①\r\n\t  '
)
TEXT = ''.join(pydoc_data.topics.topics.values())[:60_000] + SCRIPTS * 20
DIGITS_THEN_BYTES = {
  'type': 'Sequence',
  'pretokenizers': [
    {'type': 'Digits', 'individual_digits': True},
    bytelevel.byte_level(use_regex=True),
  ],
}


def byte_map(name: str, strict: bool = True) -> Callable[[], Tokenizer]:
  return byte_tokenizer.Config(map=name, strict=strict).make


def bpe(pattern: str) -> Callable[[], Tokenizer]:
  return lambda: hf.train_bpe([TEXT], 600, pattern=pattern)


def slow_bpe() -> Tokenizer:
  spec = bpe('gpt2')().spec | {'pre_tokenizer': DIGITS_THEN_BYTES}
  tokenizer = subword.HfTokenizer(spec)
  assert 'not one regex' in tokenizer.slow_reason
  return tokenizer


def whole_words() -> Tokenizer:
  """BPE that emits words it knows at once, made from ranks as tiktoken does."""
  spec = bpe('gpt2')().spec
  ranks, _ = bytelevel.ranks(spec)
  ranks |= {word: len(ranks) + i for i, word in enumerate([b' zq', b'xyzzy'])}
  return subword.HfTokenizer(
    bytelevel.make_spec(
      {bytelevel.to_chars(token): rank for token, rank in ranks.items()},
      bytelevel.merges_from_ranks(ranks),
      {'<|endoftext|>': 2000},
      bytelevel.split_on('cl100k'),
      ignore_merges=True,
    )
  )


def other_model(**model) -> Tokenizer:
  """The BPE vocabulary under another model of `tokenizers`."""
  spec = bpe('gpt2')().spec
  vocab = spec['model']['vocab']
  if model['type'] == 'Unigram':
    ordered = sorted(vocab, key=vocab.get)
    model['vocab'] = [[token, -1.0] for token in ordered]
  else:
    model['vocab'] = vocab | {'[UNK]': len(vocab)}
  return subword.HfTokenizer(spec | {'model': model})


def word_piece() -> Tokenizer:
  return other_model(
    type='WordPiece',
    unk_token='[UNK]',
    continuing_subword_prefix='',
    max_input_chars_per_word=1 << 20,
  )


def unigram() -> Tokenizer:
  return other_model(type='Unigram', unk_id=None, byte_fallback=False)


def nfkc() -> Tokenizer:
  spec = bpe('gpt2')().spec | {'normalizer': {'type': 'NFKC'}}
  return lossy.LossyHfTokenizer(spec)


def marked(kind: str) -> Callable[[], Tokenizer]:
  """As of SentencePiece."""

  def make():
    spec = marked_spaces.train(kind, TEXT, 200)
    return metaspace.make(spec_lib.normalise(spec, kind))

  return make


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
  'bytes': byte_map('default'),
  'bytes-byt5': byte_map('byt5'),
  'bytes-blt': byte_map('blt'),
  'bytes-evabyte': byte_map('evabyte'),
  'bytes-hnet': byte_map('hnet'),
  'bytes-hat': byte_map('hat'),
  'bytes-hat-lenient': byte_map('hat', strict=False),
  'bpe-gpt2': bpe('gpt2'),
  'bpe-cl100k': bpe('cl100k'),
  'bpe-o200k': bpe('o200k'),
  'bpe-slow': slow_bpe,
  'bpe-whole-words': whole_words,
  'wordpiece': word_piece,
  'unigram': unigram,
  'bpe-nfkc': nfkc,
  'bpe-marked-spaces': marked('gemma'),
  'bpe-prefix-space': marked('llama'),
  'word-bytes': word_bytes.Config(rule='uax29', longest=8).make,
  'windows-16': neural.NeuralCompressionTokenizer,
  'gzip': gzip.Config().make,
  'dna-bases': dna.Config().make,
  'dna-bases-only': dna.Config(fallback=False).make,
  'dna-3mers': dna.Config(k=3).make,
  'dna-overlapping-3mers': dna.Config(k=3, overlapping=True).make,
  'dna-bpe': lambda: dna.TrainBpe(vocab_size=300).make(lambda: [TEXT]),
}

make = functools.cache(lambda name: TOKENIZERS[name]())
each = pytest.mark.parametrize('name', TOKENIZERS)


def takes(tokenizer: Tokenizer, data: bytes) -> bytes:
  """The input, without what lies outside the tokenizer's promise."""
  if tokenizer.lossless == 'text':
    return data.decode('utf-8', 'ignore').encode()
  return data


def check_round_trip(tokenizer: Tokenizer, inputs: list[bytes]) -> None:
  """Every input comes back, and every byte is charged once."""
  inputs = [takes(tokenizer, data) for data in inputs]
  batch = tokenizer.encode_batch(inputs, num_threads=1)
  assert batch.values.dtype == np.int32
  if tokenizer.kind != 'concat':
    for data, ids in zip(inputs, batch.rows(), strict=True):
      check_fixed_point(tokenizer, data, ids)
    return
  # Decoding is concatenation, so this decodes each row.
  assert tokenizer.decode(batch.values) == b''.join(inputs)
  lengths = tokenizer.token_byte_lengths[batch.values].astype(np.int64)
  ends = np.append(0, np.cumsum(lengths))[batch.row_splits[1:]]
  np.testing.assert_array_equal(ends, np.cumsum([len(x) for x in inputs]))


def check_fixed_point(tokenizer: Tokenizer, data: bytes, ids) -> None:
  decoded = tokenizer.decode(ids)
  if tokenizer.lossless == 'no':
    data = tokenizer.decode(tokenizer.encode(decoded))
  assert decoded == data


def random_utf8(rng: random.Random) -> bytes:
  """Random characters of all widths, cut at random bytes."""
  low_high = [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0x10000, 0x10FFFF)]
  chars = [rng.randint(*rng.choice(low_high)) for _ in range(rng.randint(0, 9))]
  data = ''.join(map(chr, chars)).encode()
  first = rng.randint(0, len(data))
  return data[first : rng.randint(first, len(data))]


@each
def test_single_bytes_round_trip(name):
  check_round_trip(make(name), [bytes([b]) for b in range(256)])


@each
def test_pairs_of_bytes_round_trip(name):
  tokenizer = make(name)
  # Unicode's word rules take a second per three thousand texts; those of DNA
  # are made for long ones.
  slow = ('word-bytes', 'dna-bases', 'dna-3mers')
  is_quick = tokenizer.kind == 'concat' and name not in slow
  step = 1 if is_quick else 97
  pairs = [bytes(divmod(i, 256)) for i in range(0, 1 << 16, step)]
  check_round_trip(tokenizer, pairs)


@each
def test_random_bytes_round_trip(name):
  rng = random.Random(0)
  inputs = [rng.randbytes(rng.randint(0, 64)) for _ in range(1000)]
  inputs += [random_utf8(rng) for _ in range(1000)]
  check_round_trip(make(name), inputs)


@each
@hypothesis.settings(
  max_examples=40,
  deadline=None,
  database=None,
  derandomize=True,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(data=st.binary(max_size=80) | st.text().map(str.encode))
def test_any_bytes_round_trip(name, data):
  tokenizer = make(name)
  data = takes(tokenizer, data)
  ids, offsets = tokenizer.encode_with_offsets(data)
  np.testing.assert_array_equal(ids, tokenizer.encode(data))
  check_fixed_point(tokenizer, data, ids)
  if tokenizer.kind != 'lossy':
    check_tiling(offsets, len(data))


def check_tiling(offsets: np.ndarray, length: int) -> None:
  edges = np.concatenate([[0], offsets[:, 1]])
  np.testing.assert_array_equal(offsets[:, 0], edges[:-1])
  assert edges[-1] == length


@each
def test_offsets_tile_the_text(name):
  tokenizer = make(name)
  data = TEXT.encode()[-3000:]
  ids, offsets = tokenizer.encode_with_offsets(data)
  assert ids.dtype == np.int32
  assert offsets.dtype == np.int64
  assert offsets.shape == (len(ids), 2)
  if tokenizer.kind == 'lossy':
    return
  check_tiling(offsets, len(data))
  if tokenizer.kind == 'concat':
    for token, (start, stop) in zip(ids[-200:], offsets[-200:], strict=True):
      assert tokenizer.token_bytes(int(token)) == data[start:stop]
    assert tokenizer.token_byte_lengths[ids].sum() == len(data)


@each
def test_special_tokens_charge_no_bytes(name):
  tokenizer = make(name)
  data = 'Größe 12'.encode()
  plain = tokenizer.encode(data)
  ids, offsets = tokenizer.encode_with_offsets(data, add_special=True)
  wanted = [*tokenizer.prefix, *plain, *tokenizer.suffix]
  np.testing.assert_array_equal(ids, wanted)
  np.testing.assert_array_equal(ids, tokenizer.encode(data, add_special=True))
  num_before, num_after = len(tokenizer.prefix), len(tokenizer.suffix)
  assert (offsets[:num_before] == 0).all()
  assert (offsets[len(ids) - num_after :] == len(data)).all()
  assert tokenizer.decode(ids) == tokenizer.decode(plain)
  if tokenizer.kind == 'concat':
    for token in tokenizer.special.ids():
      assert tokenizer.token_bytes(token) == b''


@each
def test_ids_are_in_the_vocabulary(name):
  tokenizer = make(name)
  ids = tokenizer.encode(TEXT)
  assert ids.min() >= 0
  assert ids.max() < tokenizer.vocab_size
  used = set(tokenizer.special.ids()) - {tokenizer.special.pad}
  assert all(0 <= token < tokenizer.vocab_size for token in used)
  if tokenizer.kind == 'concat':
    assert tokenizer.token_byte_lengths.shape == (tokenizer.vocab_size,)


@each
@pytest.mark.parametrize('num_threads', [1, 3, None])
def test_a_batch_equals_its_rows(name, num_threads):
  tokenizer = make(name)
  rng = random.Random(1)
  data = TEXT.encode()
  cuts = sorted(rng.randrange(len(data)) for _ in range(40))
  inputs = [data[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
  inputs = [takes(tokenizer, x) for x in [b'', *inputs, b'', rng.randbytes(50)]]
  batch = tokenizer.encode_batch(inputs, num_threads=num_threads)
  assert len(batch) == len(inputs)
  for row, x in zip(batch.rows(), inputs, strict=True):
    np.testing.assert_array_equal(row, tokenizer.encode(x))
  assert tokenizer.decode_batch(batch) == [
    tokenizer.decode(row) for row in batch.rows()
  ]
  special = tokenizer.encode_batch(inputs[:3], add_special=True)
  np.testing.assert_array_equal(
    special.rows()[1], tokenizer.encode(inputs[1], add_special=True)
  )


@each
def test_an_empty_batch_has_no_rows(name):
  batch = make(name).encode_batch([])
  assert len(batch) == 0
  assert make(name).decode_batch(batch) == []
  assert make(name).decode([]) == b''


@each
def test_text_means_its_utf8(name):
  text = TEXT[-200:]
  np.testing.assert_array_equal(
    make(name).encode(text), make(name).encode(bytearray(text.encode()))
  )


@each
def test_names_of_special_tokens_in_data_are_text(name):
  tokenizer = make(name)
  names = b''.join(tokenizer.special_text.values())
  ids = tokenizer.encode(names)
  assert not tokenizer.special.ids() & set(ids.tolist())
  check_fixed_point(tokenizer, names, ids)


@each
def test_names_of_special_tokens_are_parsed_on_request(name):
  tokenizer = make(name)
  token, text = next(iter(sorted(tokenizer.special_text.items())[-1:]))
  ids = tokenizer.encode(b'ab' + text + b'cd', parse_special=True)
  wanted = [*tokenizer.encode(b'ab'), token, *tokenizer.encode(b'cd')]
  np.testing.assert_array_equal(ids, wanted)
  if tokenizer.kind == 'concat':
    assert tokenizer.decode(ids, skip_special=False) == b'ab' + text + b'cd'


@each
def test_a_saved_tokenizer_loads_unchanged(name, tmp_path):
  tokenizer = make(name)
  tokenizer.save(tmp_path)
  loaded = tokenizers.load(tmp_path)
  assert type(loaded) is type(tokenizer)
  assert loaded.fingerprint == tokenizer.fingerprint
  assert repr(loaded) == repr(tokenizer)
  for attribute in ('kind', 'lossless', 'special', 'prefix', 'suffix'):
    assert getattr(loaded, attribute) == getattr(tokenizer, attribute)
  np.testing.assert_array_equal(loaded.encode(TEXT), tokenizer.encode(TEXT))


@each
def test_a_pickled_tokenizer_is_the_same(name):
  tokenizer = make(name)
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy.fingerprint == tokenizer.fingerprint
  np.testing.assert_array_equal(copy.encode(TEXT), tokenizer.encode(TEXT))


@each
def test_streaming_gives_the_same_text(name):
  tokenizer = make(name)
  rng = random.Random(2)
  for data in [TEXT[-300:].encode(), *(random_utf8(rng) for _ in range(50))]:
    ids = tokenizer.encode(takes(tokenizer, data))
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.push(int(token)) for token in ids]
    end = decoder.flush()
    assert ''.join(pieces) + end == tokenizer.decode_text(ids)


@each
def test_streaming_never_shows_half_a_character(name):
  tokenizer = make(name)
  decoder = tokenizer.stream_decoder()
  shown = [decoder.push(int(i)) for i in tokenizer.encode('né👩日' * 5)]
  assert '�' not in ''.join(shown)
  assert decoder.flush() == ''


@each
def test_the_hugging_face_form_gives_the_same_ids(name):
  tokenizer = make(name)
  try:
    other = tokenizer.to_hf()
  except base.NotExpressible:
    return
  found = other.encode(TEXT, add_special_tokens=False).ids
  np.testing.assert_array_equal(tokenizer.encode(TEXT), found)


@each
def test_ids_outside_the_vocabulary_are_refused(name):
  tokenizer = make(name)
  with pytest.raises(ValueError, match=r'ids\[1\]=.* is outside the vocab'):
    tokenizer.decode([int(tokenizer.encode('a')[0]), tokenizer.vocab_size])


def test_fingerprints_tell_tokenizers_apart():
  prints = {name: make(name).fingerprint for name in TOKENIZERS}
  assert len(set(prints.values())) == len(prints), prints


def test_tokenizer_json_reads_back_through_the_config(tmp_path):
  tokenizer = make('bpe-gpt2')
  tokenizer.save(tmp_path)
  spec, _ = files.read(str(tmp_path))
  read = hf.Config(path=str(tmp_path)).make()
  assert spec == tokenizer.spec
  assert read.fingerprint == tokenizer.fingerprint
