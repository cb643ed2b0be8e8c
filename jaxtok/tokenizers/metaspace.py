# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SentencePiece's kind of BPE, from its tokenizer.json (Llama 2, Mistral).

  'to be'  ->  ▁to ▁be            # A space is written as ▁, one is put before.
  'né☃'    ->  ▁n é <0xE2> <0x98> <0x83>

Merges join characters, and a character without a token is written as its bytes.
So are bytes that are no UTF-8 here, and ▁ itself (U+2581), which `tokenizers`
reads as a space: any bytes round trip.

Most files put a space before a text, which decoding takes off again. Then the
first token means one byte less than elsewhere, and the tokenizer comes in two
parts: `PrefixSpaceTokenizer`, of kind 'context', around `MetaspaceTokenizer`,
of kind 'concat'. SentencePiece puts the space before any text but the empty
one. So does this module; the pre-tokenizer Metaspace of `tokenizers` leaves it
out where the text begins with a space, and loses that.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import base, concat, files, libraries, utf8
from jaxtok.tokenizers import spec as spec_lib

MARK = '▁'
_LEAD = b' '
_BYTE_NAMES = [f'<0x{b:02X}>' for b in range(256)]
_TO_MARK = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': MARK}


def is_marked(spec: spec_lib.Spec) -> bool:
  """Whether a file writes spaces as ▁."""
  steps = spec_lib.flatten(spec['normalizer'], 'normalizers')
  return _TO_MARK in steps or _metaspace(spec) is not None


def make(
  spec: spec_lib.Spec, roles: dict[str, str] | None = None
) -> 'MetaspaceTokenizer | PrefixSpaceTokenizer':
  """The tokenizer of a file that writes spaces as ▁.

  Raises:
    LossyError: If it would change or lose bytes.
  """
  inner = MetaspaceTokenizer(spec, roles)
  return PrefixSpaceTokenizer(inner) if _puts_space(spec) else inner


def _metaspace(spec: spec_lib.Spec) -> dict[str, Any] | None:
  steps = spec_lib.pre_tokenizers(spec)
  return steps[0] if steps and steps[0]['type'] == 'Metaspace' else None


def _puts_space(spec: spec_lib.Spec) -> bool:
  """Whether text gets a space before it."""
  step = _metaspace(spec)
  if step is not None:
    old = 'always' if step.get('add_prefix_space', True) else 'never'
    if step.get('prepend_scheme', old) != 'never':
      return True
  steps = spec_lib.flatten(spec['normalizer'], 'normalizers')
  return any(step['type'] == 'Prepend' for step in steps)


def check(spec: spec_lib.Spec) -> None:
  """Checks that such a file gives back the bytes it was given.

  Raises:
    LossyError: With every reason.
  """
  spec_lib.refuse(
    spec, lambda spec: [*_why_steps_lose(spec), *_why_model_loses(spec)]
  )


def _why_steps_lose(spec: spec_lib.Spec) -> list[str]:
  steps = spec_lib.flatten(spec['normalizer'], 'normalizers')
  known = (_TO_MARK, {'type': 'Prepend', 'prepend': MARK})
  reasons = [
    f'its normalizer {step["type"]} changes the text'
    for step in steps
    if step not in known
  ]
  if not is_marked(spec):
    reasons.append('it writes spaces as they are')
  for i, step in enumerate(spec_lib.pre_tokenizers(spec)):
    name = step['type']
    if name == 'Metaspace' and i == 0:
      if step.get('replacement', MARK) != MARK:
        reasons.append(f'its Metaspace writes spaces as {step["replacement"]}')
    # A split on spaces finds none, as they are ▁ by then.
    elif name != 'Split' or step['pattern'] != {'String': ' '}:
      reasons.append(f'its pre-tokenizer {name} cuts words in a way of its own')
  return reasons


def _why_model_loses(spec: spec_lib.Spec) -> list[str]:
  model, reasons = spec['model'], []
  if model['type'] != 'BPE':
    return [f'its model is {model["type"]}, not BPE']
  if model.get('dropout'):
    reasons.append('BPE dropout makes encoding random')
  for key in ('continuing_subword_prefix', 'end_of_word_suffix'):
    if model.get(key):
      reasons.append(f'its {key} {model[key]!r} is not part of the text')
  if model.get('ignore_merges'):
    reasons.append('it emits words without merges (ignore_merges)')
  if not model.get('byte_fallback'):
    reasons.append('characters without a token are lost without byte_fallback')
  missing = [n for n in (MARK, *_BYTE_NAMES) if n not in model['vocab']]
  if missing:
    dots = ', ...' if len(missing) > 8 else ''
    reasons.append(f'it has no token {", ".join(missing[:8])}{dots}')
  special = set(spec_lib.special_ids(spec)) | set(_BYTE_NAMES)
  made = {left + right for left, right in model['merges']}
  reasons += [f'a merge makes {name!r}' for name in sorted(made & special)]
  num = sum(not token['special'] for token in spec['added_tokens'])
  if num:
    reasons.append(f'it has {num} added tokens that are not special')
  return reasons


def _without_added_bytes(spec: spec_lib.Spec) -> spec_lib.Spec:
  """Tokens of bytes are none of the special ones, whatever a file says."""
  added = [t for t in spec['added_tokens'] if t['content'] not in _BYTE_NAMES]
  return spec | {'added_tokens': added}


def _table(spec: spec_lib.Spec) -> list[bytes]:
  """The bytes of each id."""
  vocab, added = spec_lib.vocabulary(spec), spec['added_tokens']
  size = 1 + max([*vocab.values(), *(token['id'] for token in added)])
  table = [b''] * size
  for token, i in vocab.items():
    table[i] = token.replace(MARK, ' ').encode()
  for byte, name in enumerate(_BYTE_NAMES):
    table[vocab[name]] = bytes([byte])
  return table


class MetaspaceTokenizer(concat.ConcatTokenizer):
  """BPE over characters, spaces written as ▁; puts no space before a text.

  Attributes:
    spec: The content of its tokenizer.json.
  """

  depends_on = ('numpy', 'tokenizers')

  def __init__(self, spec: spec_lib.Spec, roles: dict[str, str] | None = None):
    """Checks that the tokenizer can express any bytes.

    Args:
      spec: See the module `spec`.
      roles: Role to name of special tokens, where names do not tell.

    Raises:
      LossyError: If the tokenizer would change or lose bytes.
    """
    spec = _without_added_bytes(spec)
    check(spec)
    self.spec, self.roles = spec, dict(roles or {})
    names = {i: n.encode() for n, i in spec_lib.special_ids(spec).items()}
    super().__init__(
      _table(spec),
      spec_lib.special_tokens(spec, self.roles),
      special_text=names,
    )
    vocab = spec_lib.vocabulary(spec)
    self._byte_ids = np.array([vocab[n] for n in _BYTE_NAMES], np.int32)
    self.prefix, self.suffix = spec_lib.around(spec, self.special)
    # Nothing is merged across the beginning of a run of spaces, if the file
    # cuts there or no token goes on behind it.
    crosses = re.compile(f'[^{MARK}]{MARK}').search
    self._has_words = self._cuts or not any(map(crosses, vocab))

  @property
  def _cuts(self) -> bool:
    step = _metaspace(self.spec)
    return step is not None and step.get('split', True)

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    return self._encode([data])[0]

  def encode_batch(
    self,
    xs: Iterable[base.Data],
    *,
    add_special: bool = False,
    num_threads: int | None = None,
  ) -> base.Ragged:
    if add_special:
      return super().encode_batch(
        xs, add_special=add_special, num_threads=num_threads
      )
    # That library has threads of its own.
    return base.Ragged.from_rows(self._encode([base.as_bytes(x) for x in xs]))

  def split(self, x: base.Data) -> Int[np.ndarray, 'w 2']:
    """Byte ranges of words, int64: each begins with the spaces before it."""
    raw = np.frombuffer(base.as_bytes(x), np.uint8)
    is_space = raw == _LEAD[0]
    is_start = np.zeros(len(raw), bool)
    if self._has_words:
      is_start[1:] = is_space[1:] & ~is_space[:-1]
    is_start[:1] = True
    starts = np.flatnonzero(is_start)
    stops = np.append(starts[1:], len(raw))[: len(starts)]
    return np.stack([starts, stops], axis=1)

  def identity(self) -> dict[str, Any]:
    parts = ('model', 'normalizer', 'pre_tokenizer', 'post_processor')
    spec = {part: self.spec[part] for part in (*parts, 'added_tokens')}
    return {'tokenizer': 'metaspace', 'spec': spec, 'roles': self.roles}

  def to_hf(self) -> Any:
    if _puts_space(self.spec):
      raise base.NotExpressible(
        'this is the part of a tokenizer that puts no space before a text; '
        'its file, as it is, does.'
      )
    return libraries.build(self.spec)

  def save_config(self, path: Any) -> dict[str, Any]:
    files.write(path, self.spec)
    return {'roles': self.roles}

  @classmethod
  def from_config(
    cls, path: Any, config: dict[str, Any]
  ) -> 'MetaspaceTokenizer':
    return cls(files.read(str(path))[0], config['roles'])

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k != '_merger'}

  @functools.cached_property
  def _merger(self) -> Any:
    """The library's part: merges of text whose spaces are ▁."""
    cut = {
      'type': 'Metaspace',
      'replacement': MARK,
      'prepend_scheme': 'never',
      'split': True,
    }
    changes = {
      'normalizer': None,
      'pre_tokenizer': cut if self._cuts else None,
      'post_processor': None,
    }
    return libraries.build(spec_lib.without_special(self.spec) | changes)

  def _encode(self, datas: Sequence[bytes]) -> list[Int[np.ndarray, 'n']]:
    """Ids of several texts: those of their pieces, put together."""
    texts, plans = [], []
    for data in datas:
      plans.append(plan := [])
      for piece in _pieces(data):
        if isinstance(piece, str):
          plan.append(len(texts))
          texts.append(piece.replace(' ', MARK))
        else:
          plan.append(self._byte_ids[list(piece)])
    found = self._merger.encode_batch_fast(texts, add_special_tokens=False)
    rows = []
    for data, plan in zip(datas, plans, strict=True):
      ids = [found[x].ids if isinstance(x, int) else x for x in plan]
      row = np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.int32)
      if self._lengths[row].sum(dtype=np.int64) != len(data):
        raise ValueError(
          f'{self!r} lost bytes of a text of {len(data)} bytes, although its '
          'tokenizer.json promises not to. Please report it with the text.'
        )
      rows.append(row)
    return rows


def _pieces(data: bytes) -> list[str | bytes]:
  """Text without ▁, and what is written as bytes, in their order."""
  pieces: list[str | bytes] = []
  for piece in utf8.runs(data):
    if isinstance(piece, bytes):
      pieces.append(piece)
      continue
    for i, text in enumerate(piece.split(MARK)):
      pieces += [MARK.encode()] * (i > 0) + [text] * bool(text)
  return pieces


class PrefixSpaceTokenizer(base.Tokenizer):
  """Puts a space before a text, and takes it off again.

  Attributes:
    lead: The space.
    inner: What encodes the text with it.
  """

  max_tokens_per_byte = 2  # The space may be a token.
  depends_on = MetaspaceTokenizer.depends_on

  def __init__(self, inner: MetaspaceTokenizer):
    self.inner, self.lead = inner, _LEAD
    self.kind, self.lossless = 'context', inner.lossless
    self.vocab_size, self.special = inner.vocab_size, inner.special
    self.special_text = inner.special_text
    self.prefix, self.suffix = inner.prefix, inner.suffix

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    return self.inner.encode_bytes(self.lead + data if data else data)

  def encode_with_offsets(
    self, x: base.Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    data = base.as_bytes(x)
    led = self.lead + data if data else data
    ids, offsets = self.inner.encode_with_offsets(led, add_special=add_special)
    return ids, np.maximum(offsets - (len(led) - len(data)), 0)

  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    ids = base.check_ids(ids, self.vocab_size, self.special.pad)
    is_special = np.isin(ids, list(self.special.ids()))
    num = int(np.argmin(np.append(is_special, False)))  # Before the text.
    names, text = (
      self.inner.decode(part, skip_special=skip_special)
      for part in (ids[:num], ids[num:])
    )
    return names + text.removeprefix(self.lead)

  def decode_next(self, before: Any, ids: Any) -> bytes:
    is_first = not self.inner.decode(before)
    return self.decode(ids) if is_first else self.inner.decode(ids)

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': 'prefix_space', 'inner': self.inner.identity()}

  def to_hf(self) -> Any:
    return libraries.build(self.inner.spec)

  def save_config(self, path: Any) -> dict[str, Any]:
    return self.inner.save_config(path)

  @classmethod
  def from_config(
    cls, path: Any, config: dict[str, Any]
  ) -> 'PrefixSpaceTokenizer':
    return cls(MetaspaceTokenizer.from_config(path, config))
