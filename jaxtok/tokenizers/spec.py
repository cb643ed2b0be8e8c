# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the content of a tokenizer.json says, without running it.

A *spec* is that content as a dict, with its variants of spelling removed.
"""

import copy
from collections.abc import Callable
from typing import Any

from jaxtok.tokenizers import base, bytelevel

Spec = dict[str, Any]

# What an entry of "added_tokens" says of itself, by default.
_ADDED = dict(
  single_word=False, lstrip=False, rstrip=False, normalized=False, special=False
)

# WordPiece takes longer words for unknown ones.
_MIN_WORD_CHARS = 1 << 20


def normalise(data: Any, source: Any) -> Spec:
  """Checks the content of a tokenizer.json and unifies its spelling.

  Args:
    data: Parsed JSON.
    source: Where it comes from, for messages.
  """
  model = data.get('model') if isinstance(data, dict) else None
  if not isinstance(model, dict) or 'vocab' not in model:
    raise ValueError(
      f'{source} is JSON, but no tokenizer.json: it has no "model" with a '
      '"vocab". (vocab.json, config.json and tokenizer_config.json are other '
      'files; name the tokenizer.json beside them.)'
    )
  model = {'type': _model_type(model), **model}
  if 'merges' in model:
    pairs = [m.split(' ') if isinstance(m, str) else m for m in model['merges']]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
      raise ValueError(f'{source}: merge {wrong[0]!r} is no pair of tokens.')
    model['merges'] = pairs
  parts = ('normalizer', 'pre_tokenizer', 'post_processor', 'decoder')
  data = copy.deepcopy({part: data.get(part) for part in parts}) | {
    'added_tokens': [_ADDED | token for token in data.get('added_tokens') or []]
  }
  for step in flatten(data['pre_tokenizer'], 'pretokenizers'):
    if step.get('behavior') == 'Removed' and step.get('invert'):
      # Keeps the words; what lies between them is kept too, not dropped.
      step.update(behavior='Isolated', invert=False)
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    **data,
    'model': model,
  }


def _model_type(model: dict[str, Any]) -> str:
  """The type; files before tokenizers 0.8 do not name it."""
  if 'merges' in model:
    return 'BPE'
  if isinstance(model['vocab'], list):
    return 'Unigram'
  has_prefix = 'continuing_subword_prefix' in model
  return 'WordPiece' if has_prefix else 'WordLevel'


def flatten(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
  """The steps of a component that may be a (nested) Sequence."""
  if part is None:
    return []
  if part['type'] != 'Sequence':
    return [part]
  return [step for sub in part[key] for step in flatten(sub, key)]


def pre_tokenizers(spec: Spec) -> list[dict[str, Any]]:
  """The steps that cut text into words."""
  return flatten(spec['pre_tokenizer'], 'pretokenizers')


def vocabulary(spec: Spec) -> dict[str, int]:
  """Token to id, without added tokens."""
  vocab = spec['model']['vocab']
  if isinstance(vocab, list):  # Unigram: pairs of token and score.
    return {token: i for i, (token, _) in enumerate(vocab)}
  return vocab


def special_ids(spec: Spec) -> dict[str, int]:
  """Name to id of the special tokens."""
  return {t['content']: t['id'] for t in spec['added_tokens'] if t['special']}


def token_table(spec: Spec) -> list[bytes]:
  """The bytes of each id; empty for special and unused ids."""
  special = set(special_ids(spec).values())
  tokens = {i: bytelevel.to_bytes(t) for t, i in vocabulary(spec).items()}
  for added in spec['added_tokens']:
    tokens[added['id']] = added['content'].encode()
  size = max(tokens, default=-1) + 1
  return [b'' if i in special else tokens.get(i) or b'' for i in range(size)]


class LossyError(ValueError):
  """A pipeline changes or loses bytes."""


def check_concat(spec: Spec) -> None:
  """Checks that a tokenizer gives back the bytes it was given.

  Raises:
    LossyError: With every reason, and what can be done.
  """
  refuse(spec, _why_lossy)


def refuse(spec: Spec, why: Callable[[Spec], list[str]]) -> None:
  """Raises a LossyError if there are reasons, and says what can be done."""
  reasons = why(spec)
  if not reasons:
    return
  remedy = 'allow_lossy=True reads it all the same, without bits per byte'
  if not why(spec | {'normalizer': None}):
    remedy = (
      'drop_normalizer=True reads it without the normalizer, so that it is '
      f'lossless; {remedy}'
    )
  raise LossyError(
    f'this tokenizer is not lossless: {"; ".join(reasons)}. {remedy}.'
  )


def _why_lossy(spec: Spec) -> list[str]:
  reasons = []
  for step in flatten(spec['normalizer'], 'normalizers'):
    reasons.append(f'its normalizer {step["type"]} changes the text')
  steps = pre_tokenizers(spec)
  if not steps or steps[-1]['type'] != 'ByteLevel':
    reasons.append('it has no ByteLevel pre-tokenizer, so bytes are no tokens')
  for step in steps:
    reasons += _why_step_loses(step)
  if missing := _missing_bytes(spec):
    shown = ', '.join(f'0x{b:02X}' for b in missing[:8])
    dots = ', ...' if len(missing) > 8 else ''
    reasons.append(f'{len(missing)} single bytes have no token ({shown}{dots})')
  made = {a + b for a, b in spec['model'].get('merges', ())}
  for name in sorted(made & set(special_ids(spec))):
    reasons.append(f'a merge makes {name!r}, which is a special token')
  for token in spec['added_tokens']:
    if not token['special'] and (token['lstrip'] or token['rstrip']):
      name = token['content']
      reasons.append(f'its added token {name!r} swallows the spaces around it')
  return reasons + _why_model_loses(spec['model'])


def _missing_bytes(spec: Spec) -> list[int]:
  vocab = vocabulary(spec)
  return [b for b, char in enumerate(bytelevel.ALPHABET) if char not in vocab]


def _why_step_loses(step: dict[str, Any]) -> list[str]:
  name = step['type']
  if name == 'ByteLevel':
    if step.get('add_prefix_space'):
      return ['its ByteLevel pre-tokenizer puts a space before the text']
  elif name in ('Split', 'Punctuation'):
    behavior = step.get('behavior', 'Isolated')
    if behavior == 'Removed':
      return [f'its {name} pre-tokenizer removes what it splits on']
  elif name not in ('Digits', 'UnicodeScripts', 'FixedLength'):
    return [f'its pre-tokenizer {name} may change the text']
  return []


def _why_model_loses(model: dict[str, Any]) -> list[str]:
  reasons = []
  if model['type'] not in ('BPE', 'WordPiece', 'Unigram'):
    reasons.append(f'its model {model["type"]} cannot express unknown words')
  if model.get('dropout'):
    reasons.append('BPE dropout makes encoding random')
  for key in ('continuing_subword_prefix', 'end_of_word_suffix'):
    if model.get(key):
      reasons.append(f'its {key} {model[key]!r} is not part of the text')
  longest = model.get('max_input_chars_per_word', 100)
  if model['type'] == 'WordPiece' and longest < _MIN_WORD_CHARS:
    reasons.append(f'words of more than {longest} bytes become unknown')
  return reasons


def without_special(spec: Spec) -> Spec:
  """A spec in which no text, not even its name, gives a special token."""
  names = set(special_ids(spec))
  hidden = lambda token: f'\uffff{token}' if token in names else token
  model = dict(spec['model'])
  if isinstance(model['vocab'], list):
    model['vocab'] = [[hidden(t), score] for t, score in model['vocab']]
  else:
    model['vocab'] = {hidden(t): i for t, i in model['vocab'].items()}
  if model.get('unk_token'):
    model['unk_token'] = hidden(model['unk_token'])
  added = [token for token in spec['added_tokens'] if not token['special']]
  return spec | {'model': model, 'added_tokens': added}


def split_pattern(spec: Spec) -> str | None:
  """The one regex that cuts text into words; None if there is no such."""
  match pre_tokenizers(spec):
    case [{'type': 'ByteLevel', **rest}] if rest.get('use_regex', True):
      return bytelevel.PATTERNS['gpt2']
    case [
      {'type': 'Split', 'pattern': {'Regex': regex}, **rest},
      {'type': 'ByteLevel', 'use_regex': False},
    ]:
      if rest['behavior'] == 'Isolated' and not rest['invert']:
        return regex
  return None


def why_not_fast(spec: Spec) -> str:
  """What keeps a byte-level tokenizer from the fast path; '' if nothing."""
  model = spec['model']
  if model['type'] != 'BPE':
    return f'its model is {model["type"]}, not BPE'
  num = sum(not token['special'] for token in spec['added_tokens'])
  if num:
    return f'it has {num} added tokens that are not special'
  if split_pattern(spec) is None:
    return 'its pre-tokenizer is not one regex'
  products = [left + right for left, right in model['merges']]
  if len(set(products)) < len(products):
    return 'two of its merges make the same token'
  return ''


def template(spec: Spec) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
  """Ids that the post-processor puts around a text; None without one."""
  for step in flatten(spec['post_processor'], 'processors'):
    match step:
      case {'type': 'TemplateProcessing', 'single': single} if len(single) > 1:
        return _around(single, step['special_tokens'])
      case {'cls': [_, cls], 'sep': [_, sep]}:
        return (cls,), (sep,)
  return None


def around(
  spec: Spec, special: base.SpecialTokens
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Ids before and after a text: by the template, else bos and eos."""
  found = template(spec)
  if found is not None:
    return found
  ends = (special.bos, special.eos)
  before, after = (() if i is None else (i,) for i in ends)
  return before, after


def _around(
  single: list[dict[str, Any]], tokens: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  sides: tuple[list[int], list[int]] = ([], [])
  seen_text = 0
  for piece in single:
    if 'Sequence' in piece:
      seen_text = 1
    else:
      sides[seen_text].extend(tokens[piece['SpecialToken']['id']]['ids'])
  return tuple(sides[0]), tuple(sides[1])


# Names that published tokenizers give to roles, the most telling first.
_ROLE_NAMES = {
  'pad': ('<pad>', '[PAD]', '<|pad|>', '<|finetune_right_pad_id|>'),
  'bos': (
    '<bos>',
    '<s>',
    '[BOS]',
    '<|bos|>',
    '<|begin_of_text|>',
    '<|startoftext|>',
    '<|start|>',
    '<|endoftext|>',
  ),
  'eos': (
    '<eos>',
    '</s>',
    '[EOS]',
    '<|eos|>',
    '<|end_of_text|>',
    '<|endoftext|>',
    '<|end|>',
  ),
  'unk': ('<unk>', '[UNK]', '<|unk|>'),
  'mask': ('<mask>', '[MASK]', '<|mask|>'),
  'sep': ('<sep>', '[SEP]', '<|sep|>'),
  'cls': ('<cls>', '[CLS]', '<|cls|>'),
}
ROLES = tuple(_ROLE_NAMES)


def special_tokens(spec: Spec, roles: dict[str, str]) -> base.SpecialTokens:
  """Gives roles to special tokens.

  Args:
    spec: The tokenizer.
    roles: Role to name, where known; other roles go by well-known names.

  Raises:
    ValueError: If a name in `roles` is no special token.
  """
  ids = special_ids(spec)
  found = {}
  for role, names in _ROLE_NAMES.items():
    wanted = roles.get(role)
    if wanted and wanted not in ids:
      raise ValueError(
        f'{role}={wanted!r} is no special token of this tokenizer. It has: '
        f'{", ".join(ids) or "none"}. New ones can be added with '
        'new_special_tokens=(...).'
      )
    known = [wanted] if wanted else [n for n in names if n in ids]
    if known:
      found[role] = known[0]
  extra = {n: i for n, i in ids.items() if n not in found.values()}
  return base.SpecialTokens(
    **{r: ids[n] for r, n in found.items()}, extra=extra
  )


def append_special(spec: Spec, names: tuple[str, ...]) -> Spec:
  """Appends new special tokens at the end of the vocabulary."""
  added, size = list(spec['added_tokens']), len(token_table(spec))
  known = {token['content'] for token in added} | set(vocabulary(spec))
  for i, name in enumerate(names):
    if not name or name in known:
      raise ValueError(
        f'new_special_tokens={names}: {name!r} is '
        f'{"in the vocabulary already" if name else "empty"}.'
      )
    added.append({**_ADDED, 'id': size + i, 'content': name, 'special': True})
    known.add(name)
  return spec | {'added_tokens': added}


def truncate(spec: Spec, vocab_size: int) -> Spec:
  """A byte-level BPE spec without its last merges.

  Args:
    spec: BPE, without added tokens that are not special.
    vocab_size: New number of ids: bytes, special tokens and first merges.

  Returns:
    A spec whose ids are in the order of the old ones, without gaps: the same
    ids if bytes and special tokens came first.
  """
  model, special = spec['model'], special_ids(spec)
  if model['type'] != 'BPE' or len(special) < len(spec['added_tokens']):
    raise ValueError(
      'only BPE without added tokens that are not special can be truncated.'
    )
  num = vocab_size - 256 - len(special)
  if not 0 <= num <= len(model['merges']):
    raise ValueError(
      f'vocab_size={vocab_size} must be between {256 + len(special)} (bytes '
      'and special tokens) and '
      f'{256 + len(special) + len(model["merges"])} (all merges).'
    )
  merges = model['merges'][:num]
  kept = {*bytelevel.ALPHABET, *(a + b for a, b in merges)}
  old = {t: model['vocab'][t] for t in kept} | special
  new = {t: i for i, t in enumerate(sorted(old, key=old.get))}
  if template(spec) is not None and any(new[t] != i for t, i in old.items()):
    raise ValueError(
      'the ids of this tokenizer would change, but its post-processor names '
      'ids. Remove its template first.'
    )
  ids = {name: new.pop(name) for name in special}
  made = bytelevel.make_spec(
    new,
    merges,
    ids,
    spec['pre_tokenizer'],
    ignore_merges=model.get('ignore_merges', False),
  )
  return made | {'post_processor': spec['post_processor']}
