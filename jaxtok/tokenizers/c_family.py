# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lexical units of programs in C, C++, C#, Go, Java and JavaScript.

Literals are those of each language's lexical grammar. What follows is ours:

* A literal that does not end (on its line, if it may not go on) is none: its
  quote is an operator and the code goes on behind it, so that the apostrophe of
  a sentence costs one unit. A block comment without an end goes to the end of
  the text.
* A string with code in it (`${x}`, `$"{x}"`) is one string.
* An annotation, a directive and a private name are names with their sign:
  `@Override`, `#include`, `#x`. What `#error`, `#warning`, `#region` and
  `#endregion` say is a comment.
* Operators are the longest that match, also where `>>` ends two type arguments.
* In JavaScript `/` begins a regular expression unless a name that is no
  keyword, a literal or a closing bracket is before it.

`c_family` is for code of an unknown or of mixed languages. A quoted text of any
length on a line is a string, backticks are without `${`, and operators that are
two in another of the languages are left out: `<-`, `**`, `.*`, `->*`, `&^`.
"""

import dataclasses
import functools

import numpy as np
import regex

from jaxtok.tokenizers import words

KINDS = ('space', 'comment', 'string', 'number', 'name', 'operator')

# Pieces of patterns, in verbose mode; `.` is any character, `^` begins a line.
# Words in capitals stand for other pieces (`_compiled`).
_ANY = r'\\ (?: \r\n | . )'  # An escape, also of the end of a line.
_ESCAPE = r'\\ [^\r\n]'
_QUOTED = r'" (?: ESCAPE | [^"\\\r\n] )*+ "'
_SINGLE = r"' (?: ESCAPE | [^'\\\r\n] )*+ '"
_CHARACTER = r"""
  (?: \\ (?: u+[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | x[0-9a-fA-F]{1,4}
      | [0-7]{1,3} | [^\r\n] )
    | [^'\\\r\n] )
"""
_BACKTICKS = '` [^`]* `'
_PREFIX = '(?: u8 | [uUL] )?'
_RAW_CPP = r"""
  PREFIX R" (?P<fence> [^()\\\s"]{0,16} ) \( .*? \) (?P=fence) "
"""
_BLOCK_JAVA = r"""
  \"""[ \t\f]* \r?\n (?: \\. | [^\\] )*? \"""
"""
_RAW_CSHARP = r'\$* (?P<quotes> "{3,}+ ) .*? (?<! " ) (?P=quotes) (?! " )'
_VERBATIM = '@" (?: "" | [^"] )*+ "'
_INTERPOLATED = r"""
    (?: \$@ | @\$ ) " (?: "" | \{\{ | (?&hole) | [^"] )*+ "
  | \$ " (?: ESCAPE | \{\{ | (?&hole) | [^"\\\r\n] )*+ "
"""
_HOLE = r"""
  (?P<hole> \{ (?: [^{}"'\r\n] | QUOTED | ' CHARACTER ' | (?&hole) )*+ \} )
"""
# Nothing is tried twice: what begins with `${` and does not end is no template.
_TEMPLATE = r"""
  (?P<template> ` (?: \\. | \$ (?! \{ ) | \$ (?&block) | [^`\\$] )*+ ` )
  (?P<block> \{
    (?: /\* .*? \*/ | [^{}`"'] | QUOTED | SINGLE | (?&template) | (?&block) )*+
  \} )
"""
_REGEX = r"""
  / (?! [*/] )
  (?: \\ [^\r\n] | \[ (?: \\ [^\r\n] | [^\]\\\r\n] )*+ \] | [^/\\\[\r\n] )++
  / \w*
"""
_HEADER = r'< (?<= ^ [ \t]* \# [ \t]* include [ \t]* < ) [^>\r\n]+ >'
_DIRECTIVE = r'\# (?<= ^ [ \t]* \# ) [ \t]* [a-zA-Z]+'
_REMARK = r"""
  \S (?<= ^ [ \t]* \# [ \t]* (?: error | warning | region | endregion )
      [ \t]+ \S ) [^\r\n]*
"""
_NEVER = '(?!)'
_PATTERN = r"""
  (?(DEFINE) DEFINED )
  (?: (?P<space> \s+ )
    | (?P<comment>
        // (?: SPLICE | [^\r\n] )*+ | /\* .*? (?: \*/ | \Z ) | REMARK )
    | (?P<string> STRINGS )
    | (?P<number>
        (?: 0[xX] (?: SEPARATOR? [0-9a-fA-F] )+
            (?: (?: \. [0-9a-fA-F]* )? [pP][+-]?\d+ )?
          | 0[bB] (?: SEPARATOR? [01] )+
          | 0[oO] (?: SEPARATOR? [0-7] )+
          | (?: DIGITS (?: \. DIGITS | DOT )? | \. DIGITS )
            (?: [eE][+-]? DIGITS )?
        ) SUFFIX )
    | (?P<name> DIRECTIVE | SIGN [\wLETTERS--\d] [\wLETTERS]* )
    | (?P<operator> OPERATORS | . ) )
"""
_SHARED = (
  *('...', '<<=', '>>=', '++', '--', '&&', '||', '<<', '>>', '==', '!='),
  *('<=', '>=', '+=', '-=', '*=', '/=', '%=', '&=', '|=', '^='),
)


@dataclasses.dataclass(frozen=True)
class _Language:
  """What languages differ in; patterns but for `operators`.

  Attributes:
    strings: Literals, in the order in which they are tried.
    operators: Those of several characters besides the shared ones.
    suffix: Of numbers.
    sign: What may stand before a name and is a part of it.
    letters: Of names, besides `_` and Unicode's.
    separator: Between two digits.
    dot: The point of a number that has no digit behind it.
    directive: `#include`, which is a name.
    remark: What directives say, which is a comment.
    splice: What makes a comment of one line go on.
    escape: In strings of one line.
    defined: Patterns that others call by their names.
  """

  strings: tuple[str, ...]
  operators: tuple[str, ...]
  suffix: str
  sign: str = ''
  letters: str = ''
  separator: str = '_'
  dot: str = r'\. (?! \. ) (?= [eE][+-]?\d | SUFFIX (?! \w ) )'
  directive: str = _NEVER
  remark: str = _NEVER
  splice: str = _NEVER
  escape: str = _ESCAPE
  defined: str = ''


_C = _Language(
  strings=(_HEADER, 'PREFIX QUOTED', "PREFIX ' CHARACTER{1,4} '"),
  operators=('->', '::', '##'),
  suffix=r'(?: [a-zA-Z_]\w* )?',
  separator="'",
  directive=_DIRECTIVE,
  remark=_REMARK,
  splice=r'\\ \r?\n',
  escape=_ANY,
)
_JAVA = _Language(
  strings=(_BLOCK_JAVA, 'QUOTED', "' CHARACTER '"),
  operators=('>>>=', '>>>', '->', '::'),
  suffix='[lLfFdD]?',
  sign='@?',
  letters='$',
)
_CSHARP = _Language(
  strings=(_RAW_CSHARP, _INTERPOLATED, _VERBATIM, 'QUOTED', "' CHARACTER '"),
  operators=('>>>=', '>>>', '??=', '=>', '->', '::', '??', '?.', '..'),
  suffix='(?: [uU][lL]? | [lL][uU]? | [fFdDmM] )?',
  sign='@?',
  dot=_NEVER,
  directive=_DIRECTIVE,
  remark=_REMARK,
  defined=_HOLE,
)
_GO = _Language(
  strings=(_BACKTICKS, 'QUOTED', "' CHARACTER '"),
  operators=('&^=', '&^', ':=', '<-'),
  suffix='i?',
)
_JAVASCRIPT = _Language(
  strings=('(?&template)', 'QUOTED', 'SINGLE'),
  operators=(
    *('>>>=', '===', '!==', '**=', '&&=', '||=', '??=', '>>>'),
    *('=>', '**', '??', '?.'),
  ),
  suffix='n?',
  sign='[@#]?',
  letters='$',
  dot=r'\.',
  escape=_ANY,
  defined=_TEMPLATE,
)
_LANGUAGES = {
  'c': _C,
  'c_family': _Language(
    strings=(
      *(_HEADER, _RAW_CPP, _BLOCK_JAVA, _RAW_CSHARP, _INTERPOLATED),
      *(_VERBATIM, _BACKTICKS, 'PREFIX QUOTED', 'PREFIX SINGLE'),
    ),
    operators=(
      *('>>>=', '===', '!==', '&&=', '||=', '??=', '<=>', '>>>'),
      *('->', '=>', '::', ':=', '??', '?.', '..', '##'),
    ),
    suffix='(?: [uUlL]{1,3} | [fFdDmMni] )?',
    sign='@?',
    letters='$',
    separator="[_']",
    directive=_DIRECTIVE,
    remark=_REMARK,
    defined=_HOLE,
  ),
  'cpp': dataclasses.replace(
    _C,
    strings=(_RAW_CPP, *_C.strings),
    operators=('<=>', '->*', '.*', *_C.operators),
  ),
  'csharp': _CSHARP,
  'go': _GO,
  'java': _JAVA,
  'javascript': _JAVASCRIPT,
}
LANGUAGES = tuple(_LANGUAGES)

# Words of JavaScript behind which a slash begins a regular expression.
_BEFORE_REGEX = frozenset(
  (
    *('await', 'case', 'delete', 'do', 'else', 'in', 'instanceof', 'new'),
    *('of', 'return', 'throw', 'typeof', 'void', 'yield'),
  )
)


def lex(data: bytes, language: str) -> list[tuple[int, int, str]]:
  """Lexical units of a program: (start, stop, kind) in bytes; they tile.

  Never fails on a program, be it broken or of another language. Time is
  proportional to the text, unless strings with code in them, or raw ones, open
  again and again without an end.

  Args:
    data: The program; what is no UTF-8 are operators of one byte.
    language: One of `LANGUAGES`.

  Raises:
    ValueError: If there is no such language.
  """
  if language not in _LANGUAGES:
    raise ValueError(
      f'language={language!r} must be one of {", ".join(LANGUAGES)}.'
    )
  text, ends = words.characters(data)
  edges = np.concatenate([[0], ends]).tolist()
  plain, other = _compiled(language, False), _compiled(language, True)
  units, pattern, start = [], other, 0
  while start < len(text):
    match = pattern.match(text, start)
    kind = next(kind for kind in KINDS if match[kind] is not None)
    start = match.end()
    units.append((edges[match.start()], edges[start], kind))
    if kind not in ('space', 'comment'):
      pattern = plain if _is_value(kind, match[0]) else other
  return units


def _is_value(kind: str, unit: str) -> bool:
  """Whether a slash behind a unit divides."""
  if kind == 'operator':
    return unit in (')', ']', '}', '++', '--')
  return kind != 'name' or unit not in _BEFORE_REGEX


@functools.cache
def _compiled(language: str, can_be_regex: bool) -> regex.Pattern:
  """The next unit where a slash may, or may not, begin an expression."""
  rules = _LANGUAGES[language]
  strings = rules.strings
  if can_be_regex and language == 'javascript':
    strings = (*strings, _REGEX)
  operators = sorted({*_SHARED, *rules.operators}, key=len, reverse=True)
  escaped = [regex.escape(operator) for operator in operators]
  pieces = {
    'DEFINED': rules.defined,
    'STRINGS': ' | '.join(strings),
    # A question mark and the point of a number behind it.
    'OPERATORS': ' | '.join(escaped).replace(r'\?\.', r'\?\.(?!\d)'),
    'REMARK': rules.remark,
    'SPLICE': rules.splice,
    'DIRECTIVE': rules.directive,
    'SIGN': rules.sign,
    'DOT': rules.dot,
    'SUFFIX': rules.suffix,
    'DIGITS': r'\d (?: SEPARATOR? \d )*',
    'SEPARATOR': rules.separator,
    'PREFIX': _PREFIX,
    'QUOTED': _QUOTED,
    'SINGLE': _SINGLE,
    'CHARACTER': _CHARACTER,
    'ESCAPE': rules.escape,
  }
  pattern = _PATTERN.replace('LETTERS', rules.letters)
  for name, piece in pieces.items():
    pattern = pattern.replace(name, f'(?: {piece} )')
  flags = regex.VERBOSE | regex.DOTALL | regex.MULTILINE | regex.V1
  return regex.compile(pattern, flags)
