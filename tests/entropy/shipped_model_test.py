# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The model in the package: what it is, and that its ids never change."""

import hashlib
import io
import pathlib
import random

import numpy as np
import pytest

from jaxtok.entropy import container, dictionary, documents, quantize, shipped
from jaxtok.entropy.__main__ import main
from jaxtok.entropy.formats import WindowFormat
from jaxtok.tokenizers import arithmetic, neural

CARD = pathlib.Path(__file__).parents[2] / 'docs/compressed_text_model.md'
TEXT = (
  b'There was a hand-bill, a candle, and the sound of wheels; she went to the '
  b'window and looked out. for i in range(10): print(i)\n\x00\xff' * 2
)


# The first 107 bytes of TEXT, compressed once and for all.
GOLDEN = bytes.fromhex(
  '6a747a011e000200100000000000000000000000adf38cc7c5021e30609cb0d838f4f91a'
  'c3c41660016b000000004000001e0000000d000000724a5bf395df99255a7be43e36700b'
  '3d140f1e2d54c2577a992d1669e57b000000000000000000280000006b00000000000000'
  '7f41fc15d27a411524345ea20a8cc0772b58908258b6302d3ee0cda8aacddbf0fa31576a'
)


def test_model_and_dictionary_belong_together_and_are_small():
  words = shipped.window_dictionary()
  assert words.model_fingerprint == shipped.model().fingerprint()
  files = list(shipped.FOLDER.glob('*.npz'))
  assert sorted(x.name for x in files) == [shipped.MODEL, shipped.DICTIONARY]
  assert sum(x.stat().st_size for x in files) < 1_000_000


def test_the_model_card_describes_these_files():
  card = CARD.read_text()
  assert shipped.model().fingerprint() in card
  assert shipped.window_dictionary().fingerprint() in card


def test_the_tokenizer_works_at_once_and_compresses_english():
  tokenizer = neural.NeuralCompressionTokenizer()
  ids = tokenizer.encode(TEXT)
  assert tokenizer.decode(ids) == TEXT
  prose = TEXT[:107]
  assert len(prose) / len(tokenizer.encode(prose)) > 3.5
  assert neural.Config().make().fingerprint == tokenizer.fingerprint


def test_every_word_of_the_dictionary_decodes_to_its_string():
  words = shipped.window_dictionary()
  for word in range(0, 1 << 16, 7):
    string = words.string(word)
    assert string
    assert words.decode([word]) == bytes(x for x in string if x < 256)


@pytest.mark.parametrize(
  'rule', ['cell', pytest.param('delay', marks=pytest.mark.slow)]
)
def test_the_dictionary_is_what_the_model_does(rule):
  fmt = WindowFormat(close_rule=rule)
  [(want, spans)] = documents.encode_windows([TEXT], shipped.model(), fmt)
  words = shipped.window_dictionary().with_close_rule(rule)
  got, lengths = words.encode(TEXT)
  np.testing.assert_array_equal(got, want[:, 0])
  np.testing.assert_array_equal(lengths, spans)


@pytest.mark.slow  # Files are coded with the same stream coder below.
def test_arithmetic_codes_use_the_model_too():
  tokenizer = arithmetic.Config().make()
  assert tokenizer.model.fingerprint() == shipped.model().fingerprint()
  ids = tokenizer.encode(TEXT)
  assert tokenizer.decode(ids) == TEXT


def test_files_are_compressed_with_the_model_of_the_package(tmp_path):
  path, packed, back = (tmp_path / x for x in ('text', 'packed', 'back'))
  path.write_bytes(TEXT)
  assert main(['compress', str(path), '-o', str(packed), '--quiet']) == 0
  assert main(['decompress', str(packed), '-o', str(back), '--quiet']) == 0
  assert back.read_bytes() == TEXT


def test_random_words_decode_to_text_like_that_of_the_model():
  """Uniform words are samples of M1: about the letters of English."""
  numbers = random.Random(0)
  words = [numbers.randrange(1 << 16) for _ in range(4000)]
  string = shipped.window_dictionary().string
  words = [x for x in words if quantize.EOS not in string(x)]
  text = neural.NeuralCompressionTokenizer().decode(words)
  assert len(text) > 3 * len(words)
  counts = np.bincount(np.frombuffer(text, np.uint8), minlength=256)
  assert 0.15 < counts[ord(' ')] / len(text) < 0.35
  assert counts[32:127].sum() / len(text) > 0.9


@pytest.mark.slow
def test_the_dictionary_can_be_compiled_again():
  words = dictionary.compile_window_dictionary(shipped.model())
  assert words.fingerprint() == shipped.window_dictionary().fingerprint()


def test_ids_are_those_of_all_other_machines():
  ids = neural.NeuralCompressionTokenizer().encode(TEXT)
  digest = hashlib.sha256(ids.astype('<i4').tobytes()).hexdigest()
  assert digest in CARD.read_text()


def test_files_of_today_can_be_read_for_ever():
  target = io.BytesIO()
  container.decompress(io.BytesIO(GOLDEN), target, shipped.model())
  assert target.getvalue() == TEXT[:107]


@pytest.mark.slow  # The windows of the dictionary are pinned above.
@pytest.mark.parametrize(
  ('config', 'want'),
  [
    (neural.Config(window_bits=64), '44f4b25593c29d1be10e759a0c9bbc67'),
    (arithmetic.Config(), '3a272c58e692fc2c932cafb92901d371'),
  ],
  ids=['b=64', 'arithmetic'],
)
def test_ids_of_the_integer_model_never_change(config, want):
  ids = np.asarray(config.make().encode(TEXT)).astype('<i4')
  assert hashlib.sha256(ids.tobytes()).hexdigest()[:32] == want
