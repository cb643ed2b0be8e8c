# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that write spaces as ▁, against the library that they are from."""

import json
import pydoc_data.topics

import hypothesis
import numpy as np
import pytest
import tokenizers as library
from hypothesis import strategies as st

from jaxtok.tokenizers import base, hf, metaspace
from jaxtok.tokenizers import spec as spec_lib
from tests.tokenizers import marked_spaces

PROSE = ''.join(pydoc_data.topics.topics.values())[:20_000] + 'né é 日本 ' * 9
SPECS = {k: marked_spaces.train(k, PROSE, 150) for k in marked_spaces.KINDS}

each = pytest.mark.parametrize('kind', SPECS)


def make(kind, **changes):
  return metaspace.make(spec_lib.normalise(SPECS[kind] | changes, kind))


def theirs(kind):
  return library.Tokenizer.from_str(json.dumps(SPECS[kind]))


@each
@hypothesis.settings(
  max_examples=150, deadline=None, database=None, derandomize=True
)
@hypothesis.given(
  text=st.text(
    st.sampled_from('  the is né日☃\n<s>0x41')
    | st.characters(exclude_categories=['Cs'])
  )
)
def test_ids_and_texts_are_those_of_tokenizers(kind, text):
  # What the library reads otherwise: it takes ▁ for a space, names for special
  # tokens, and Metaspace puts no space before one.
  text = text.replace('▁', '')
  for name in marked_spaces.SPECIAL:
    text = text.replace(name, '')
  text = text.lstrip(' ') if kind.startswith('metaspace') else text
  ours, other = make(kind), theirs(kind)
  ids = ours.encode(text)
  found = other.encode(text, add_special_tokens=False)
  assert ids.tolist() == found.ids
  assert ours.decode(ids).decode() == other.decode(found.ids) == text


def test_words_of_the_docstring_are_encoded_as_it_says():
  ours = make('llama')
  text_of = {i: token for token, i in ours.inner.spec['model']['vocab'].items()}
  tokens = [text_of[i] for i in ours.encode('né☃').tolist()]
  assert tokens == ['▁n', 'é', '<0xE2>', '<0x98>', '<0x83>']
  assert text_of[int(ours.encode('to be')[0])].startswith('▁t')


@each
def test_a_first_space_is_not_lost(kind):
  ours = make(kind)
  rows = [ours.encode(text).tolist() for text in ('a', ' a', '  a', '', ' ')]
  assert len(set(map(tuple, rows))) == 5
  assert rows[3] == []
  decoded = [ours.decode(row) for row in rows]
  assert decoded == [b'a', b' a', b'  a', b'', b' ']


@each
def test_the_mark_and_names_of_tokens_are_text(kind):
  ours = make(kind)
  for text in ('a▁b▁', '▁', '<s>a</s><unk><0x41>'):
    ids = ours.encode(text)
    assert ours.decode(ids) == text.encode()
    assert not ours.special.ids() & set(ids.tolist())


@each
def test_words_are_encoded_alone(kind):
  ours = make(kind)
  inner = ours.inner if isinstance(ours, base.Led) else ours
  texts = ['  to be  or\n not', 'a ☃ ▁ b', ' ', 'x', PROSE[:500]]
  for data in [*(t.encode() for t in texts), b'\xff \xe6\x97 a\xa5 ']:
    ranges = inner.split(data)
    assert (ranges[0, 0], ranges[-1, 1]) == (0, len(data))
    np.testing.assert_array_equal(ranges[1:, 0], ranges[:-1, 1])
    rows = [inner.encode(data[start:stop]) for start, stop in ranges]
    np.testing.assert_array_equal(np.concatenate(rows), inner.encode(data))
  assert len(inner.split(PROSE)) > 1000 or kind == 'metaspace-whole'
  assert inner.split(b'').shape == (0, 2)


def test_tokens_across_words_leave_no_words():
  ours = make('metaspace-whole').inner
  assert any(' ' in t.decode('utf-8', 'replace').strip() for t in ours._table)
  assert len(ours.split('to be or')) == 1


def test_a_continuation_keeps_its_space():
  ours = make('llama')
  first, second = ours.encode('to'), ours.inner.encode(' be')
  assert ours.decode_next(first, second) == b' be'
  assert ours.decode_next([], second) == b'be'
  bos = ours.special.bos
  assert ours.decode_next([bos], second) == b'be'
  assert ours.decode([bos, *ours.encode('to')], skip_special=False) == b'<s>to'
  bpe = hf.train_bpe([b'to be'] * 9, 260)
  assert bpe.decode_next(bpe.encode('to'), bpe.encode(' be')) == b' be'


def test_tokens_of_bytes_are_not_special_whatever_the_file_says():
  added = [
    {'id': i, 'content': name, 'special': True}
    for i, name in enumerate(marked_spaces.SPECIAL + marked_spaces.BYTES)
  ]
  ours = make('llama', added_tokens=added)
  assert len(ours.special.ids()) == 3
  np.testing.assert_array_equal(ours.encode('a☃'), make('llama').encode('a☃'))


def test_a_file_is_read_and_saved(tmp_path):
  (tmp_path / 'tokenizer.json').write_text(json.dumps(SPECS['llama']))
  config = hf.Config(path=str(tmp_path))
  ours = config.make()
  assert (ours.kind, ours.lossless) == ('context', 'bytes')
  assert (ours.special.bos, ours.special.eos) == (1, 2)
  assert ours.fingerprint == make('llama').fingerprint
  with pytest.raises(base.NotExpressible, match='puts no space before a text'):
    ours.inner.to_hf()


def test_a_normalizer_can_be_dropped_where_others_write_the_spaces(tmp_path):
  path = tmp_path / 'tokenizer.json'
  nfc = {'type': 'NFC'}
  path.write_text(json.dumps(SPECS['metaspace'] | {'normalizer': nfc}))
  config = hf.Config(path=str(path))
  with pytest.raises(
    ValueError, match=r'NFC changes the text\. drop_normalizer'
  ):
    config.make()
  config.drop_normalizer = True
  assert config.make().fingerprint == make('metaspace').fingerprint
  steps = [*SPECS['llama']['normalizer']['normalizers'], nfc]
  sequence = {'type': 'Sequence', 'normalizers': steps}
  path.write_text(json.dumps(SPECS['llama'] | {'normalizer': sequence}))
  with pytest.raises(ValueError, match=r'NFC changes the text\. allow_lossy'):
    hf.Config(path=str(path)).make()


@pytest.mark.parametrize(
  'changes, model, message',
  [
    (dict(normalizer={'type': 'NFKC'}), {}, 'normalizer NFKC changes'),
    (
      dict(normalizer={'type': 'Prepend', 'prepend': '_'}),
      {},
      'normalizer Prepend changes',
    ),
    (
      dict(
        pre_tokenizer={
          'type': 'Sequence',
          'pretokenizers': [
            SPECS['metaspace']['pre_tokenizer'],
            {'type': 'Digits', 'individual_digits': True},
          ],
        }
      ),
      {},
      'pre-tokenizer Digits cuts words',
    ),
    (
      dict(pre_tokenizer={'type': 'Metaspace', 'replacement': '_'}),
      {},
      'Metaspace writes spaces as _',
    ),
    (
      dict(added_tokens=[{'id': 9, 'content': 'x', 'special': False}]),
      {},
      'it has 1 added tokens that are not special',
    ),
    ({}, dict(byte_fallback=False), 'lost without byte_fallback'),
    ({}, dict(dropout=0.5), 'dropout makes encoding random'),
    ({}, dict(ignore_merges=True), 'without merges'),
    ({}, dict(end_of_word_suffix='_'), "end_of_word_suffix '_' is not part"),
    ({}, dict(type='Unigram', vocab=[['a', 0.0]]), 'is Unigram, not BPE'),
    ({}, dict(merges=[['<', 's>']]), "a merge makes '<s>'"),
    ({}, dict(vocab={'▁': 0, '<0x00>': 1}), r'no token <0x01>, .*<0x08>, \.\.'),
  ],
)
def test_every_way_to_lose_bytes_is_named(tmp_path, changes, model, message):
  spec = SPECS['metaspace'] | changes
  spec['model'] = spec['model'] | model
  (tmp_path / 'tokenizer.json').write_text(json.dumps(spec))
  with pytest.raises(ValueError, match=f'not lossless: .*{message}'):
    hf.Config(path=str(tmp_path)).make()
