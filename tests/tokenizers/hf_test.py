# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import base64
import json
import pydoc_data.topics
import random

import numpy as np
import pytest
import tiktoken
import tokenizers as library

from jaxtok.tokenizers import base, bytelevel, hf, libraries, subword, training
from jaxtok.tokenizers import spec as spec_lib

PROSE = ''.join(pydoc_data.topics.topics.values())
TEXT = (
  PROSE[:60_000]
  + "\r\n\t DON'T 12345 we'll\u00a0x\u0085y ſK Größe 日本語 हिन्दी ½²①  \n" * 20
)
# Sennrich et al. 2016, arXiv:1508.07909, section 3.2: one word per document.
WORDS = ['low'] * 5 + ['lower'] * 2 + ['newest'] * 6 + ['widest'] * 3


@pytest.fixture(scope='module')
def bpe():
  return hf.train_bpe([TEXT], 700)


def small_spec(merges, **model):
  """Byte-level BPE with the given merges of ASCII tokens, bytes first."""
  tokens = [*bytelevel.ALPHABET, *dict.fromkeys(a + b for a, b in merges)]
  vocab = {token: i for i, token in enumerate(tokens)}
  words = bytelevel.split_on('gpt2')
  spec = bytelevel.make_spec(vocab, merges, {}, words)
  return spec | {'model': spec['model'] | model}


def token_strings(tokenizer, text):
  return [
    tokenizer.token_bytes(int(i)).decode() for i in tokenizer.encode(text)
  ]


def reference_ids(tokenizer, text):
  return tokenizer.to_hf().encode(text, add_special_tokens=False).ids


def write_ranks(path, ranks):
  lines = [
    base64.b64encode(token) + f' {rank}'.encode()
    for token, rank in ranks.items()
  ]
  path.write_bytes(b'\n'.join(lines) + b'\n')


# Training.


def test_training_finds_the_merges_computed_by_hand():
  tokenizer = hf.train_bpe(WORDS, 300)
  merges = [''.join(pair) for pair in tokenizer.spec['model']['merges']]
  # Counts 9 9 7 7 6 6 6 3 3 3 2 2; equal counts go by the smaller ids.
  assert merges == [
    *['es', 'est', 'lo', 'low', 'ew', 'new', 'newest'],
    *['dest', 'idest', 'widest', 'er', 'lower'],
  ]
  assert tokenizer.vocab_size == 259 + 12
  assert token_strings(tokenizer, 'lowest') == ['low', 'est']
  assert token_strings(tokenizer, 'newer') == ['new', 'er']


def test_ids_are_bytes_then_special_tokens_then_merges(bpe):
  assert [bpe.token_bytes(i) for i in range(256)] == [
    bytes([i]) for i in range(256)
  ]
  special = bpe.special
  assert (special.pad, special.bos, special.eos) == (256, 257, 258)
  first = ''.join(bpe.spec['model']['merges'][0])
  assert bpe.token_bytes(259) == bytelevel.to_bytes(first)
  assert (bpe.prefix, bpe.suffix) == ((257,), (258,))
  assert bpe.vocab_size == 700


def test_training_twice_gives_the_same_tokenizer(bpe):
  again = hf.train_bpe(iter([TEXT.encode()]), 700)
  assert again.fingerprint == bpe.fingerprint


def test_a_smaller_vocabulary_is_a_prefix(bpe):
  small = hf.train_bpe([TEXT], 400)
  assert small.fingerprint == bpe.truncate(400).fingerprint
  assert bpe.truncate(700).fingerprint == bpe.fingerprint
  assert [small.token_bytes(i) for i in range(400)] == [
    bpe.token_bytes(i) for i in range(400)
  ]


def test_training_skips_invalid_utf8():
  clean = hf.train_bpe(['abab', 'abab'], 262)
  dirty = hf.train_bpe([b'abab\xff\xfeabab'], 262)
  assert dirty.fingerprint == clean.fingerprint


def test_training_reads_at_most_max_bytes():
  cut = hf.train_bpe(['abab', 'abcdcdcd'], 300, max_bytes=6)
  assert cut.fingerprint == hf.train_bpe(['abab', 'ab'], 300).fingerprint


def test_tokens_are_no_longer_than_asked():
  tokenizer = hf.train_bpe([PROSE[:30_000]], 500, max_token_bytes=3)
  assert tokenizer.token_byte_lengths.max() == 3


def test_names_of_special_tokens_in_the_text_become_no_tokens():
  text = '<bos> x <bos><eos> ' * 50
  tokenizer = hf.train_bpe([text], 300)
  assert tokenizer.fast
  ids = tokenizer.encode(text)
  assert not tokenizer.special.ids() & set(ids.tolist())
  assert tokenizer.decode(ids) == text.encode()


def test_one_very_long_word_trains():
  # Quadratic time in the length of a word would take minutes.
  text = ''.join(random.Random(0).choices('ACGT', k=200_000)) + ' ' * 10_000
  tokenizer = hf.train_bpe([text], 300)
  assert tokenizer.vocab_size == 300
  assert tokenizer.decode(tokenizer.encode(text)) == text.encode()


def test_an_existing_tokenizer_trains_anew_on_other_text(bpe):
  other = bpe.train(WORDS, 271)
  assert other.fingerprint == hf.train_bpe(WORDS, 271).fingerprint


def test_capabilities_are_found_by_protocol(bpe):
  assert isinstance(bpe, base.Trainable)
  assert isinstance(bpe, base.Truncatable)
  assert isinstance(bpe, base.PretokenSplit)
  assert not isinstance(bpe, base.Resumable)


def test_a_cached_vocabulary_is_not_trained_again(tmp_path, monkeypatch):
  config = hf.Train(vocab_size=262)
  first = config.make(lambda: ['abcabc'], cache_dir=tmp_path)
  other = config.make(lambda: ['xyzxyz'], cache_dir=tmp_path)
  monkeypatch.delattr(training, 'train_spec')
  again = config.make(lambda: iter(['abcabc']), cache_dir=tmp_path)
  assert again.fingerprint == first.fingerprint != other.fingerprint


def test_new_special_tokens_come_before_the_merges_and_in_no_text(tmp_path):
  # BPE would make a token of the second name.
  text = '<PRE> <PRE><PRE> SUF PRE SUF ' * 50
  names = ('<PRE>', 'SUF')
  config = hf.Train(vocab_size=266, new_special_tokens=names)
  tokenizer = config.make(lambda: [text], cache_dir=tmp_path)
  assert tokenizer.special.extra == {'<PRE>': 259, 'SUF': 260}
  assert (tokenizer.special.bos, tokenizer.special.eos) == (257, 258)
  ids = tokenizer.encode(text)
  assert ids.max() > 261  # There are merges.
  assert not tokenizer.special.ids() & set(ids.tolist())
  assert tokenizer.decode(ids) == text.encode()
  assert tokenizer.token_bytes(259) == b''
  marked = tokenizer.encode('<PRE>aSUF', parse_special=True)
  assert marked.tolist() == [259, ord('a'), 260]
  smaller = hf.Train(vocab_size=264, new_special_tokens=names)
  other = smaller.make(lambda: [text])
  assert all(
    other.token_bytes(i) == tokenizer.token_bytes(i) for i in range(264)
  )
  again = config.make(lambda: [text], cache_dir=tmp_path)  # As it was saved.
  assert again.special == tokenizer.special
  assert again.encode(text).tolist() == ids.tolist()


@pytest.mark.parametrize('documents', [[], [b''], ['', '']])
def test_empty_training_text_is_an_error(documents):
  with pytest.raises(ValueError, match=r'text is empty.*data source'):
    hf.train_bpe(documents, 300)


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(vocab_size=258), 'vocab_size=258 is too small: .* at least 260'),
    (dict(max_bytes=-1), 'max_bytes must be >= 0, got -1'),
    (dict(min_frequency=-2), 'min_frequency must be >= 0, got -2'),
    (
      dict(vocab_size=259, new_special_tokens=('<a>',)),
      r'4 special tokens \(pad, bos, eos, <a>\) take 260 ids. Use at least 261',
    ),
    (dict(new_special_tokens=('<a>', '<a>')), "'<a>' is given twice"),
    (dict(new_special_tokens=('<bos>',)), "'<bos>' is given twice, or is one"),
    (dict(new_special_tokens=('a',)), "'a' has fewer than two characters"),
  ],
)
def test_settings_out_of_range_are_errors(fields, message):
  with pytest.raises(ValueError, match=message):
    hf.Train(**fields)
  config = hf.Train()
  for name, value in fields.items():  # As flags set them.
    setattr(config, name, value)
  with pytest.raises(ValueError, match=message):
    config.make(lambda: ['text'])


def test_a_misspelt_pattern_is_an_error():
  with pytest.raises(ValueError, match=r"pattern='gpt' is neither .*gpt2"):
    hf.train_bpe(['text'], pattern='gpt')


def test_a_single_text_is_no_list_of_documents():
  with pytest.raises(TypeError, match=r'single str\. Use \[text\]'):
    hf.train_bpe('text', 300)


def test_training_without_documents_says_what_to_call():
  with pytest.raises(ValueError, match=r'call make\(documents\)'):
    hf.Train().make()


# Encoding.


def test_merges_apply_in_order_by_hand():
  tokenizer = subword.HfTokenizer(small_spec([('a', 'b'), ('b', 'c')]))
  assert token_strings(tokenizer, 'abc') == ['ab', 'c']
  assert token_strings(tokenizer, 'bbc') == ['b', 'bc']
  assert token_strings(tokenizer, 'aabcbc') == ['a', 'ab', 'c', 'bc']
  np.testing.assert_array_equal(tokenizer.encode('abbc'), [256, 257])


@pytest.mark.parametrize('pattern', list(bytelevel.PATTERNS))
def test_fast_ids_equal_those_of_tokenizers(pattern):
  tokenizer = hf.train_bpe([TEXT], 500, pattern=pattern)
  assert tokenizer.fast
  text = TEXT + PROSE[100_000:150_000]
  np.testing.assert_array_equal(
    tokenizer.encode(text), reference_ids(tokenizer, text)
  )


def test_all_characters_split_alike_in_both_libraries(bpe):
  # One of 17 code points of all of Unicode, beside letters, digits, spaces.
  chars = [chr(c) for c in range(0, 0x110000, 17) if not 0xD800 <= c < 0xE000]
  text = ''.join(f'a{c}b1{c}2 {c} {c}\n' for c in chars)
  np.testing.assert_array_equal(bpe.encode(text), reference_ids(bpe, text))


def test_lengths_of_tokens_are_those_of_their_bytes(bpe):
  lengths = bpe.token_byte_lengths
  assert lengths.dtype == np.int32
  assert lengths.tolist() == [len(bpe.token_bytes(i)) for i in range(700)]
  assert lengths[:260].tolist() == [1] * 256 + [0, 0, 0, 2]


def test_a_token_that_does_not_reencode_takes_the_slow_path():
  # 'abc' is reached from 'ab'+'c' only, but 'bc' merges first.
  spec = small_spec([('b', 'c'), ('a', 'b'), ('ab', 'c')])
  tokenizer = subword.HfTokenizer(spec)
  assert tokenizer.slow_reason == "token b'abc' does not re-encode to itself"
  assert token_strings(tokenizer, 'abc') == ['a', 'bc']


def test_two_merges_to_one_token_take_the_slow_path():
  spec = small_spec([('a', 'b'), ('b', 'c'), ('ab', 'c'), ('a', 'bc')])
  tokenizer = subword.HfTokenizer(spec)
  assert tokenizer.slow_reason == 'two of its merges make the same token'


@pytest.mark.parametrize('whole', [False, True])
def test_random_vocabularies_equal_tokenizers_on_random_words(whole):
  # Merges in random order are often unreachable: both paths get used.
  rng = random.Random(0)
  paths = set()
  for _ in range(40):
    tokens, merges = list('abc'), {}
    for _ in range(rng.randint(1, 6)):
      pair = rng.choice(tokens), rng.choice(tokens)
      merges.setdefault(''.join(pair), pair)
      tokens = [*'abc', *merges]
    tokenizer = subword.HfTokenizer(
      small_spec(list(merges.values()), ignore_merges=whole)
    )
    paths.add(tokenizer.fast)
    text = ' '.join(''.join(rng.choices('abc', k=k)) for k in range(1, 40))
    assert tokenizer.encode(text).tolist() == reference_ids(tokenizer, text)
  assert paths == {False, True}


def test_a_saved_check_holds_for_the_same_libraries_only(tmp_path, monkeypatch):
  spec = small_spec([('b', 'c'), ('a', 'b'), ('ab', 'c')])
  tokenizer = subword.HfTokenizer(spec)
  tokenizer.save(tmp_path)
  monkeypatch.setattr(
    subword.HfTokenizer, '_find_disagreement', lambda self: 'checked again'
  )
  loaded = subword.HfTokenizer.load(tmp_path)
  assert loaded.slow_reason == tokenizer.slow_reason
  monkeypatch.setitem(libraries.VERSIONS, 'tiktoken', '9.9')
  loaded = subword.HfTokenizer.load(tmp_path)
  assert loaded.slow_reason == 'checked again'


def test_a_run_of_a_million_spaces_is_encoded():
  # tiktoken's regex engine gives up on it.
  tokenizer = hf.train_bpe([' ' * 100, 'ab ab ab'], 266)
  data = b'a' + b' ' * 1_200_000 + b'b\xff'
  ids = tokenizer.encode(data)
  assert tokenizer.decode(ids) == data
  batch = tokenizer.encode_batch([data, b'ab ab'])
  np.testing.assert_array_equal(batch.rows()[0], ids)
  np.testing.assert_array_equal(batch.rows()[1], tokenizer.encode(b'ab ab'))


def test_each_valid_run_and_each_invalid_byte_is_encoded_alone(bpe):
  parts = ['the value', b'\xff\xfe', ' of a', b'\xe6\x97', 'x']
  wanted = []
  for part in parts:
    wanted += (
      list(part) if isinstance(part, bytes) else bpe.encode(part).tolist()
    )
  data = b''.join(base.as_bytes(part) for part in parts)
  assert bpe.encode(data).tolist() == wanted


def test_private_characters_are_text_like_any_other(bpe):
  private = ''.join(map(chr, range(0x10FF78, 0x110000))).encode()
  inputs = [private, private + b'\xff', b'', b'a\xff', private[:7]]
  for data in inputs:
    assert bpe.decode(bpe.encode(data)) == data
  rows = bpe.encode_batch(inputs).rows()
  for row, data in zip(rows, inputs, strict=True):
    np.testing.assert_array_equal(row, bpe.encode(data))
  text = private.decode()
  np.testing.assert_array_equal(bpe.encode(text), reference_ids(bpe, text))


def test_a_possessive_count_in_a_regex_takes_the_slow_path(bpe):
  # `tokenizers` reads {1,3}+ as a repeated group, tiktoken as possessive.
  pattern = r'\p{N}{1,3}+|[^\p{N}]+'
  spec = bpe.spec | {'pre_tokenizer': bytelevel.split_on(pattern)}
  tokenizer = subword.HfTokenizer(spec)
  assert tokenizer.slow_reason == 'tiktoken reads its regex differently'


def test_text_that_a_regex_skips_is_kept(bpe):
  spec = bpe.spec | {'pre_tokenizer': bytelevel.split_on(r'\w+')}
  tokenizer = subword.HfTokenizer(spec)
  assert not tokenizer.fast
  assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT.encode()


def test_added_words_between_special_tokens_keep_their_ids(bpe):
  spec = spec_lib.append_special(bpe.spec, ('<a>', 'the value', '<b>', 'xyzzy'))
  for token in spec['added_tokens']:
    token['special'] = token['content'][0] == '<'
  tokenizer = subword.HfTokenizer(spec)
  assert 'has 2 added tokens that are not special' in tokenizer.slow_reason
  text = 'of the value<b>xyzzy<a> the'
  ids = tokenizer.encode(text)
  assert {701, 703} < set(ids.tolist())
  assert not {700, 702} & set(ids.tolist())
  assert tokenizer.decode(ids) == text.encode()
  text = 'of the value and xyzzy'
  assert tokenizer.encode(text).tolist() == reference_ids(tokenizer, text)


def test_words_tile_the_text_and_are_those_of_tokenizers(bpe):
  data = "Don't  split日本 me".encode() + b'\xff\xfe' + b' now'
  words = [data[a:b] for a, b in bpe.split(data)]
  assert b''.join(words) == data
  text, _, after = data.partition(b'\xff\xfe')
  found = bpe.to_hf().pre_tokenizer.pre_tokenize_str(text.decode())
  wanted = [bytelevel.to_bytes(word) for word, _ in found]
  assert words == [*wanted, b'\xff', b'\xfe', after]
  assert bpe.split(b'').shape == (0, 2)


def test_truncation_outside_the_merges_is_an_error(bpe):
  for vocab_size in (258, 701):
    with pytest.raises(ValueError, match=r'between 259 .* and 700'):
      bpe.truncate(vocab_size)


# Files.


def save_json(path, spec):
  path.write_text(json.dumps(spec))
  return hf.Config(path=str(path))


def test_ranks_encode_like_tiktoken(tmp_path, bpe):
  ranks, _ = bytelevel.ranks(bpe.spec)
  ranks |= {b' unmergeable': len(ranks), b'qqq': len(ranks) + 1}
  path = tmp_path / 'mine.tiktoken'
  write_ranks(path, ranks)
  regex = bytelevel.PATTERNS['cl100k']
  theirs = tiktoken.Encoding(
    'x', pat_str=regex, mergeable_ranks=ranks, special_tokens={}
  )
  ours = hf.Config(path=str(path), pattern='cl100k').make()
  text = TEXT + ' unmergeable qqq qqqq an unmergeables'
  wanted = theirs.encode_ordinary(text)
  assert ranks[b' unmergeable'] in wanted
  np.testing.assert_array_equal(ours.encode(text), wanted)
  np.testing.assert_array_equal(reference_ids(ours, text), wanted)


def test_published_ranks_know_their_regex_and_special_tokens(tmp_path, bpe):
  path = tmp_path / 'cl100k_base.tiktoken'
  ranks, _ = bytelevel.ranks(bpe.spec)
  write_ranks(path, ranks)
  tokenizer = hf.Config(path=str(path)).make()
  assert tokenizer.special.bos == tokenizer.special.eos == 100257
  assert tokenizer.special.extra['<|fim_prefix|>'] == 100258
  assert tokenizer.vocab_size == 100277
  small = tokenizer.truncate(300)
  assert small.special.eos == 295
  assert small.decode(small.encode(TEXT)) == TEXT.encode()


@pytest.mark.parametrize(
  'name, ours',
  [('r50k_base', 'gpt2'), ('cl100k_base', 'cl100k'), ('o200k_base', 'o200k')],
)
def test_regexes_split_like_those_tiktoken_ships(name, ours, monkeypatch, bpe):
  public = pytest.importorskip('tiktoken_ext.openai_public')
  ranks, _ = bytelevel.ranks(bpe.spec)
  monkeypatch.setattr(public, 'load_tiktoken_bpe', lambda *a, **k: ranks)
  shipped = getattr(public, name)()
  ids = [
    tiktoken.Encoding(
      'x', pat_str=regex, mergeable_ranks=ranks, special_tokens={}
    ).encode_ordinary(TEXT)
    for regex in (shipped['pat_str'], bytelevel.PATTERNS[ours])
  ]
  assert ids[0] == ids[1]
  known = hf.files.PUBLISHED[name]
  assert known == (ours, shipped['special_tokens'])


def test_roles_come_from_names_configs_and_arguments(tmp_path, bpe):
  spec = spec_lib.append_special(bpe.spec, ('[MASK]', '<go>'))
  config = save_json(tmp_path / 'tokenizer.json', spec)
  assert config.make().special.mask == 700
  assert config.make().special.bos == 257
  assert config.make().special.extra == {'<go>': 701}
  roles = {'bos_token': {'content': '<go>'}, 'pad_token': None}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(roles))
  assert config.make().special.bos == 701
  config.bos = '<eos>'
  assert config.make().special.bos == 258
  config.bos = '<start>'
  with pytest.raises(ValueError, match="bos='<start>' is no special token"):
    config.make()
  config.new_special_tokens = ('<start>',)
  assert config.make().special.bos == 702
  config.new_special_tokens = ('<eos>',)
  with pytest.raises(ValueError, match="'<eos>' is in the vocabulary already"):
    config.make()


def test_templates_tell_what_add_special_adds(tmp_path, bpe):
  processor = library.processors.TemplateProcessing(
    single='<bos> $A', special_tokens=[('<bos>', 257)]
  )
  theirs = bpe.to_hf()
  theirs.post_processor = processor
  path = tmp_path / 'tokenizer.json'
  theirs.save(str(path))
  ours = hf.Config(path=str(path)).make()
  wanted = theirs.encode('the value').ids
  assert ours.encode('the value', add_special=True).tolist() == wanted
  assert (ours.prefix, ours.suffix) == ((257,), ())


def write_pair(folder, bpe):
  """RoBERTa's two files: its special tokens come first."""
  names = ['<s>', '<pad>', '</s>', '<unk>']
  merges = bpe.spec['model']['merges']
  tokens = [*bytelevel.ALPHABET, *dict.fromkeys(a + b for a, b in merges)]
  vocab = {t: i for i, t in enumerate([*names, *tokens, '<mask>'])}
  (folder / 'vocab.json').write_text(json.dumps(vocab))
  lines = ['#version: 0.2', *map(' '.join, merges), '']
  (folder / 'merges.txt').write_text('\n'.join(lines))


def test_a_vocabulary_in_two_files_is_that_of_tokenizers(tmp_path, bpe):
  write_pair(tmp_path, bpe)
  ours = hf.Config(path=str(tmp_path)).make()
  files = [str(tmp_path / name) for name in ('vocab.json', 'merges.txt')]
  theirs = library.Tokenizer(library.models.BPE.from_file(*files))
  theirs.pre_tokenizer = library.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  theirs.post_processor = library.processors.RobertaProcessing(
    ('</s>', 2), ('<s>', 0), add_prefix_space=False
  )
  want = theirs.encode(TEXT).ids
  assert ours.encode(TEXT, add_special=True).tolist() == want
  assert ours.decode(want) == TEXT.encode()
  assert ours.fast
  special = ours.special
  assert (special.bos, special.pad, special.eos, special.unk) == (0, 1, 2, 3)
  assert special.mask == ours.vocab_size - 1
  (tmp_path / 'added_tokens.json').write_text('{"<extra>": 900}')
  added = hf.Config(path=str(tmp_path)).make()
  assert (added.special.extra, added.vocab_size) == ({'<extra>': 900}, 901)


def test_merges_may_begin_with_a_hash(tmp_path):
  tokens = [*bytelevel.ALPHABET, '##']
  vocab = {token: i for i, token in enumerate(tokens)}
  (tmp_path / 'vocab.json').write_text(json.dumps(vocab))
  (tmp_path / 'merges.txt').write_text('# #\n')
  ours = hf.Config(path=str(tmp_path)).make()
  assert ours.encode('##').tolist() == [256]
  (tmp_path / 'merges.txt').write_text('#version: 0.2\na b c\n')
  with pytest.raises(ValueError, match="'a b c' is no pair of tokens"):
    hf.Config(path=str(tmp_path)).make()


def test_files_that_lose_bytes_are_refused_with_a_remedy(tmp_path, bpe):
  spec = bpe.spec | {'normalizer': {'type': 'NFC'}}
  config = save_json(tmp_path / 'tokenizer.json', spec)
  with pytest.raises(ValueError, match=r'NFC changes the text\. drop_normal'):
    config.make()
  config.drop_normalizer = True
  assert config.make().fingerprint == bpe.fingerprint
  config.drop_normalizer, config.allow_lossy = False, True
  tokenizer = config.make()
  assert (tokenizer.kind, tokenizer.lossless) == ('lossy', 'no')
  assert tokenizer.decode(tokenizer.encode('e\u0301')) == 'é'.encode()
  with pytest.raises(TypeError, match='no bytes per id, because'):
    _ = tokenizer.token_byte_lengths


@pytest.mark.parametrize(
  'changes, model, message',
  [
    (dict(pre_tokenizer=None), {}, 'no ByteLevel pre-tokenizer'),
    (
      dict(pre_tokenizer={'type': 'ByteLevel', 'add_prefix_space': True}),
      {},
      'puts a space before',
    ),
    (
      dict(
        pre_tokenizer={
          'type': 'Sequence',
          'pretokenizers': [
            {'type': 'WhitespaceSplit'},
            bytelevel.byte_level(use_regex=False),
          ],
        }
      ),
      {},
      'WhitespaceSplit may change the text',
    ),
    ({}, dict(dropout=0.1), 'dropout makes encoding random'),
    ({}, dict(end_of_word_suffix='</w>'), 'end_of_word_suffix'),
    ({}, dict(type='WordLevel'), 'WordLevel cannot express unknown'),
  ],
)
def test_every_way_to_lose_bytes_is_named(bpe, changes, model, message):
  spec = bpe.spec | changes | {'model': bpe.spec['model'] | model}
  with pytest.raises(spec_lib.LossyError, match=message):
    subword.HfTokenizer(spec)


def test_a_vocabulary_without_all_bytes_is_refused(bpe):
  vocab = dict(bpe.spec['model']['vocab'])
  del vocab[bytelevel.ALPHABET[0x18]]
  spec = bpe.spec | {'model': bpe.spec['model'] | {'vocab': vocab}}
  message = r'1 single bytes have no token \(0x18\)'
  with pytest.raises(spec_lib.LossyError, match=message):
    subword.HfTokenizer(spec)


def test_lossy_pipelines_run_as_they_are(tmp_path):
  """A BERT-like lower-casing WordPiece."""
  theirs = library.Tokenizer(library.models.WordPiece(unk_token='[UNK]'))
  theirs.normalizer = library.normalizers.BertNormalizer(lowercase=True)
  theirs.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
  theirs.decoder = library.decoders.WordPiece()
  trainer = library.trainers.WordPieceTrainer(
    vocab_size=300, special_tokens=['[PAD]', '[UNK]', '[CLS]', '[SEP]']
  )
  theirs.train_from_iterator([PROSE[:30_000]], trainer)
  theirs.post_processor = library.processors.BertProcessing(
    ('[SEP]', 3), ('[CLS]', 2)
  )
  theirs.save(str(tmp_path / 'tokenizer.json'))
  ours = hf.Config(path=str(tmp_path), allow_lossy=True).make()
  text = 'The Value of é'
  assert ours.encode(text, add_special=True).tolist() == (
    theirs.encode(text).ids
  )
  ids, offsets = ours.encode_with_offsets(text, add_special=True)
  assert (ids[0], ids[-1]) == (2, 3)
  assert offsets[0].tolist() == [0, 0]
  assert offsets[-1].tolist() == [15, 15]
  first = text.encode()[slice(*offsets[1])]
  assert first.lower() == ours.decode(ids[1:2])
  restored = ours.decode(ids)
  assert ours.decode(ours.encode(restored)) == restored


@pytest.mark.parametrize(
  'name, content, fields, message',
  [
    ('a.json', '{"a"', {}, 'is not valid JSON'),
    ('a.json', '{"a": 1}', {}, 'no "model" with a "vocab".*beside them'),
    ('a.json', '[]', {}, 'no tokenizer.json'),
    ('a.json', '{}', {'pattern': 'gpt2'}, 'is for .tiktoken files'),
    ('a.model', '', {}, "ends in '.model'.*converted to tokenizer.json"),
    ('a.txt', '', {}, r"ends in '\.txt'; a tokenizer.json or"),
    ('a.tiktoken', 'YQ== 0\n', {}, 'Set pattern to one of gpt2'),
    ('a.tiktoken', 'YQ== 0\n%%', {'pattern': 'gpt2'}, 'line 2: expected a'),
    ('a.tiktoken', '', {'pattern': 'gpt2'}, 'is empty'),
    ('a.tiktoken', 'YQ== 0\n', {'pattern': 'gpt2'}, '255 single bytes have'),
    ('a.tiktoken', 'YQ== 0\n', {'pattern': 'gpt3'}, "'gpt3' is neither"),
  ],
)
def test_wrong_files_are_explained(tmp_path, name, content, fields, message):
  (tmp_path / name).write_text(content)
  with pytest.raises(ValueError, match=message):
    hf.Config(path=str(tmp_path / name), **fields).make()


def test_missing_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='there is no such file'):
    hf.Config(path=str(tmp_path / 'nope.json')).make()
  (tmp_path / 'vocab.json').write_text('{}')
  with pytest.raises(FileNotFoundError, match=r'\(it holds vocab\.json\)'):
    hf.Config(path=str(tmp_path)).make()
  with pytest.raises(ValueError, match=r'path is empty.*use hf\.Train'):
    hf.Config().make()


def test_a_file_that_the_library_refuses_is_explained(tmp_path, bpe):
  model = bpe.spec['model'] | {'merges': [['a', 'nothing']]}
  config = save_json(tmp_path / 't.json', bpe.spec | {'model': model})
  with pytest.raises(ValueError, match=r'`tokenizers` .* cannot read'):
    config.make()


def test_merges_may_be_written_as_one_string(tmp_path, bpe):
  merges = [' '.join(pair) for pair in bpe.spec['model']['merges']]
  model = bpe.spec['model'] | {'merges': merges}
  config = save_json(tmp_path / 't.json', bpe.spec | {'model': model})
  assert config.make().fingerprint == bpe.fingerprint
