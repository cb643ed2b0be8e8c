# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Units of C's family: tables of each language, and tokens of a parser."""

import json
import os
import pathlib
import zipfile

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import c_family, code_units

DATA = pathlib.Path(os.environ.get('JAXTOK_DATA', '/none'))
ARCHIVE = DATA / 'code/codexglue.zip'
ALL = c_family.LANGUAGES
SHORT = {
  'number': 'n',
  'name': 'i',
  'operator': 'o',
  'string': 's',
  'comment': 'c',
}


def lexed(text, language):
  """Texts of the units but for white space, and a letter for each kind."""
  data = text.encode()
  found = [
    (data[start:stop].decode(), SHORT[kind])
    for start, stop, kind in c_family.lex(data, language)
    if kind != 'space'
  ]
  return [unit for unit, _ in found], ''.join(kind for _, kind in found)


_SNIPPETS = st.sampled_from(
  [
    *(
      '"',
      "'",
      '`',
      '\\',
      '/',
      '//',
      '/*',
      '*/',
      '\n',
      '\r\n',
      ' ',
      'R"x(',
      '#',
    ),
    *(')x"', '"""', '$', '@', '{', '}', '${', '$"', '@"', '0x', '1', '.', 'e'),
    *(
      '+',
      '-',
      '<',
      '>',
      '=',
      '?',
      ':',
      'a',
      'return',
      '_',
      'é',
      '#region',
      '[',
    ),
  ]
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
  data=st.one_of(
    st.binary(max_size=30),
    st.lists(_SNIPPETS, max_size=25).map(lambda x: ''.join(x).encode()),
  ),
  language=st.sampled_from(ALL),
)
def test_units_tile_any_bytes(data, language):
  units = c_family.lex(data, language)
  starts = [start for start, _, _ in units]
  stops = [stop for _, stop, _ in units]
  assert [0, *stops][: len(units)] == starts
  assert (stops or [0])[-1] == len(data)
  assert all(start < stop for start, stop, _ in units)
  assert {kind for _, _, kind in units} <= set(c_family.KINDS)


@pytest.mark.parametrize('language', ALL)
@pytest.mark.parametrize(
  'operator',
  [
    *('++', '--', '&&', '||', '<<', '>>', '<=', '>=', '==', '!=', '+=', '-='),
    *('*=', '/=', '%=', '&=', '|=', '^=', '<<=', '>>=', '...'),
  ],
)
def test_operators_that_all_share_are_one_unit(operator, language):
  assert lexed(f'a{operator}b', language) == (['a', operator, 'b'], 'ioi')


@pytest.mark.parametrize(
  'operator, languages',
  [
    ('->', 'c cpp csharp java c_family'),
    ('::', 'c cpp csharp java c_family'),
    ('=>', 'csharp javascript c_family'),
    ('===', 'javascript c_family'),
    ('!==', 'javascript c_family'),
    ('>>>', 'csharp java javascript c_family'),
    ('>>>=', 'csharp java javascript c_family'),
    ('**', 'javascript'),
    ('??', 'csharp javascript c_family'),
    ('??=', 'csharp javascript c_family'),
    ('?.', 'csharp javascript c_family'),
    ('&&=', 'javascript c_family'),
    (':=', 'go c_family'),
    ('<-', 'go'),
    ('&^=', 'go'),
    ('->*', 'cpp'),
    ('.*', 'cpp'),
    ('<=>', 'cpp c_family'),
    ('##', 'c cpp c_family'),
    ('..', 'csharp c_family'),
  ],
)
def test_other_operators_are_one_unit_where_the_language_has_them(
  operator, languages
):
  one = {
    language
    for language in ALL
    if lexed(f'a{operator}b', language) == (['a', operator, 'b'], 'ioi')
  }
  assert one == set(languages.split())


@pytest.mark.parametrize(
  'language, literals',
  [
    ('java', "1L 0xFFL 1e-3f 1_000 .5d 1. 1.f 0x1.8p-3 0b1010 017 '\\u0041'"),
    ('java', r""" "a\"b" "" 'c' '\'' '\\' '\177' "//" "/*" """),
    (
      'csharp',
      r"""10m 0xFFUL 1.5e3 1_0 "a" '\x41' @"a\" @"a""b" $"x" $@"c:\" """,
    ),
    ('csharp', '$"{d["k"]}" $"{{" $@"{d["k"]}" """a"b""" $$"""{{x}}"""'),
    ('c', r"""0xFFu 1e-3f 10ULL 1.0L 1'000 'a' 'ab' L'x' u8"x" "a\"b" '\0' """),
    (
      'cpp',
      r"""R"(a"b)" R"x(a)" b)x" LR"(\)" 12ms 1'000'000u U"x" "a\"b" '\'' """,
    ),
    ('go', r"""1i 0o17 0x1p-2 1_000 `a\` "a\"" '\u00e9' '\'' 'x' .5 1. """),
    (
      'javascript',
      r"""1n .5 1e9 0xff 'it\'s' "a" `a` `a${`b${"}"}`}c` `$` `\`` """,
    ),
    (
      'c_family',
      r"""1L 0xFFu 1e-3f 1n 'abc' "a" `a` @"a""b" R"x(")x" u8"x" """,
    ),
  ],
)
def test_a_literal_is_one_unit(language, literals):
  # Written without white space inside but for one raw string.
  parts = literals.replace('" b)', '"\xa0b)').split(' ')
  for literal in filter(None, parts):
    literal = literal.replace('\xa0', ' ')
    is_number = literal[0].isdigit() or literal[0] == '.'
    want = ['x', '=', literal, ';'], f'io{"n" if is_number else "s"}o'
    assert lexed(f'x={literal};', language) == want


@pytest.mark.parametrize(
  'language, text, units, kinds',
  [
    # Comments, with what opens a string elsewhere.
    ('java', "a // don't\nb", ['a', "// don't", 'b'], 'ici'),
    ('c', 'a /* don\'t\n"x */ b', ['a', '/* don\'t\n"x */', 'b'], 'ici'),
    ('go', 'a // x\r\nb', ['a', '// x', 'b'], 'ici'),
    ('cpp', 'a // x\\\ny\nb', ['a', '// x\\\ny', 'b'], 'ici'),
    ('java', 'a // x\\\ny', ['a', '// x\\', 'y'], 'ici'),
    ('java', 'a /* b', ['a', '/* b'], 'ic'),
    ('java', '/**/a', ['/**/', 'a'], 'ci'),
    ('java', '"//" a', ['"//"', 'a'], 'si'),
    # Signs.
    ('java', '@Override x', ['@Override', 'x'], 'ii'),
    ('java', '@ a $b', ['@', 'a', '$b'], 'oii'),
    ('csharp', '@class=1', ['@class', '=', '1'], 'ion'),
    ('c', '@a', ['@', 'a'], 'oi'),
    ('javascript', 'this.#x', ['this', '.', '#x'], 'ioi'),
    ('javascript', '@dec x', ['@dec', 'x'], 'ii'),
    # Directives: no comments of Python.
    ('csharp', "#region Don't\nx", ['#region', "Don't", 'x'], 'ici'),
    ('csharp', '#endregion\nx', ['#endregion', 'x'], 'ii'),
    ('csharp', '#if A && B', ['#if', 'A', '&&', 'B'], 'iioi'),
    ('c', ' # include <a/b.h>', ['# include', '<a/b.h>'], 'is'),
    ('c', "#error don't", ['#error', "don't"], 'ic'),
    ('c', 'a<b>c', ['a', '<', 'b', '>', 'c'], 'ioioi'),
    (
      'c',
      '#define S(x) #x',
      ['#define', 'S', '(', 'x', ')', '#', 'x'],
      'iioiooi',
    ),
    # Strings over several lines.
    (
      'java',
      '"""\n a "b" \\""" c"""+1',
      ['"""\n a "b" \\""" c"""', '+', '1'],
      'son',
    ),
    ('go', '`a\n"b`+1', ['`a\n"b`', '+', '1'], 'son'),
    ('javascript', '`a\n${b}`', ['`a\n${b}`'], 's'),
    ('c', '"a\\\nb"', ['"a\\\nb"'], 's'),
    ('csharp', '@"a\nb"', ['@"a\nb"'], 's'),
    # Numbers beside points, signs and names.
    ('csharp', '1..2', ['1', '..', '2'], 'non'),
    ('csharp', '1.ToString', ['1', '.', 'ToString'], 'noi'),
    ('java', '1.e', ['1', '.', 'e'], 'noi'),
    ('java', 'a-1', ['a', '-', '1'], 'ion'),
    ('java', '0xE+1', ['0xE', '+', '1'], 'non'),
    ('javascript', 'a?.5:1', ['a', '?', '.5', ':', '1'], 'ionon'),
    ('javascript', '1..x', ['1.', '.', 'x'], 'noi'),
    # Two operators in one language are one in another.
    ('c', 'a<-1', ['a', '<', '-', '1'], 'ioon'),
    ('c_family', 'a<-1', ['a', '<', '-', '1'], 'ioon'),
    ('c', 'int**p', ['int', '*', '*', 'p'], 'iooi'),
    (
      'java',
      'List<List<A>>x',
      ['List', '<', 'List', '<', 'A', '>>', 'x'],
      'ioioioi',
    ),
    # Expressions of JavaScript between slashes.
    ('javascript', 'x=a/b/c', ['x', '=', 'a', '/', 'b', '/', 'c'], 'ioioioi'),
    ('javascript', "x=/[/']+\\//gi", ['x', '=', "/[/']+\\//gi"], 'ios'),
    ('javascript', 'return/a/', ['return', '/a/'], 'is'),
    ('javascript', 'f(1)/a/b', [*'f(1)/a/b'], 'ionooioi'),
    ('javascript', 'a++/b/c', ['a', '++', '/', 'b', '/', 'c'], 'iooioi'),
    ('javascript', '= /*c*/ /a/', ['=', '/*c*/', '/a/'], 'ocs'),
    ('java', '=/a/', ['=', '/', 'a', '/'], 'ooio'),
    # Letters of any script; bytes of no character stand alone.
    ('java', 'größe=1', ['größe', '=', '1'], 'ion'),
  ],
)
def test_units_of_a_text(language, text, units, kinds):
  assert lexed(text, language) == (units, kinds)


@pytest.mark.parametrize(
  'language, text, units, kinds',
  [
    ('java', '"ab\nc', ['"', 'ab', 'c'], 'oii'),
    ('java', '"ab\\', ['"', 'ab', '\\'], 'oio'),
    ('java', "the user's bag", ['the', 'user', "'", 's', 'bag'], 'iioii'),
    ('java', "isn't it's", ['isn', "'", 't', 'it', "'", 's'], 'ioiioi'),
    ('java', '"""a', ['""', '"', 'a'], 'soi'),
    ('csharp', '@"a', ['@', '"', 'a'], 'ooi'),
    ('csharp', '$"{a', ['$', '"', '{', 'a'], 'oooi'),
    ('cpp', 'R"x(a)"', ['R', '"x(a)"'], 'is'),
    ('go', '`a b', ['`', 'a', 'b'], 'oii'),
    ('javascript', '`a ${b', ['`', 'a', '$', '{', 'b'], 'oiioi'),
    ('javascript', "'a\nb'", ["'", 'a', 'b', "'"], 'oiio'),
    ('javascript', '= /a\n', ['=', '/', 'a'], 'ooi'),
  ],
)
def test_a_literal_without_an_end_is_an_operator_and_code(
  language, text, units, kinds
):
  assert lexed(text, language) == (units, kinds)


def test_bytes_of_no_character_are_operators_of_one():
  assert c_family.lex(b'a\xff\xc3"', 'java') == [
    *((0, 1, 'name'), (1, 2, 'operator')),
    *((2, 3, 'operator'), (3, 4, 'operator')),
  ]


def test_templates_without_an_end_do_not_take_exponential_time():
  text = '`${' * 60
  assert ''.join(lexed(text, 'javascript')[0]) == text


def test_merged_units_follow_the_language():
  tokenizer = byte_tokenizer.Config().make()
  data = b"i++ // it's\ng(1L);"
  count = lambda language: (
    code_units.units(tokenizer, data, language=language)[1].max() + 1
  )
  # Of 18 bytes `++` and `1L` are two; to Python `//` is two, and `s\n` not `'`.
  assert count('java') == len(data) - 2
  assert count('python') != count('java')
  assert code_units.lex(b'a # b', 'python')[-1] == (2, 5, 'comment')
  assert code_units.lex(b'a # b', 'java')[-1] == (4, 5, 'name')


@pytest.mark.parametrize('lex', [c_family.lex, code_units.lex])
def test_an_unknown_language_is_refused(lex):
  with pytest.raises(
    ValueError, match=r"language='cobol' must be one of .*java"
  ):
    lex(b'a', 'cobol')


@pytest.mark.skipif(not ARCHIVE.exists(), reason='JAXTOK_DATA is not set')
@pytest.mark.parametrize('language', ['go', 'java', 'javascript'])
def test_units_are_the_tokens_of_a_parser(language):
  """CodeXGLUE's cloze test has the leaves of syntax trees of 906 functions."""
  with zipfile.ZipFile(ARCHIVE) as archive:
    lines = archive.read(f'cloze_maxmin/{language}.jsonl').splitlines()[:20]
  num = same = 0
  for line in lines:
    for token in json.loads(line)['pl_tokens']:
      # Strings and expressions are several leaves if there is code in them.
      if token.strip() in ('', '<mask>', '${') or '\\' in token:
        continue
      [*units] = c_family.lex(token.strip().encode(), language)
      num, same = num + 1, same + (len(units) == 1)
  assert num > 1000
  assert same / num > 0.998
