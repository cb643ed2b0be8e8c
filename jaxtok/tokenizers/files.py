# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads vocabulary files: tokenizer.json, vocab.json, .tiktoken."""

import base64
import json
import re
from typing import Any

from etils import epath

from jaxtok.tokenizers import bytelevel, spec

# File name of a published .tiktoken vocabulary to the name of its regex and
# its special tokens, which the file itself does not hold.
_END = '<|endoftext|>'
_FIM = ('<|fim_prefix|>', '<|fim_middle|>', '<|fim_suffix|>')
PUBLISHED: dict[str, tuple[str, dict[str, int]]] = {
  'r50k_base': ('gpt2', {_END: 50256}),
  'p50k_base': ('gpt2', {_END: 50256}),
  'cl100k_base': (
    'cl100k',
    {
      _END: 100257,
      **dict(zip(_FIM, range(100258, 100261), strict=True)),
      '<|endofprompt|>': 100276,
    },
  ),
  'o200k_base': ('o200k', {_END: 199999, '<|endofprompt|>': 200018}),
}


def read(path: str, pattern: str = '') -> tuple[spec.Spec, dict[str, str]]:
  """Reads a vocabulary.

  Args:
    path: A tokenizer.json, a folder that holds one or vocab.json and
      merges.txt, or a .tiktoken file.
    pattern: For .tiktoken: a name in `bytelevel.PATTERNS`, or a regex. Known
      for the published files.

  Returns:
    The spec, and the names of special tokens by role as far as a
    tokenizer_config.json beside it tells.
  """
  if not path:
    raise ValueError(
      'path is empty. Name a tokenizer.json, a folder that holds one, or a '
      '.tiktoken file; to train a vocabulary, use hf.Train.'
    )
  file = epath.Path(path).expanduser()
  if file.is_dir():
    if _is_pair(file):
      return _from_pair(file), _read_roles(file)
    file = _in_folder(file)
  if not file.exists():
    raise FileNotFoundError(f'path={path!r}: there is no such file or folder.')
  if file.suffix == '.tiktoken':
    return _from_tiktoken(file, pattern), {}
  if file.suffix != '.json':
    raise ValueError(
      f'path={path!r} ends in {file.suffix or "nothing"!r}; a tokenizer.json '
      'or a .tiktoken file is read. A SentencePiece .model has to be converted '
      'to tokenizer.json first, e.g. by transformers.AutoTokenizer.'
    )
  if pattern:
    raise ValueError(
      f'pattern={pattern!r} is for .tiktoken files; {file.name} holds its own.'
    )
  data = _read_json(file)
  return spec.normalise(data, file), _read_roles(file.parent)


def write(folder: Any, content: spec.Spec) -> None:
  """Writes a spec as tokenizer.json, which `tokenizers` reads as well."""
  text = json.dumps(content, ensure_ascii=False)
  (epath.Path(folder) / 'tokenizer.json').write_bytes(text.encode())


def _is_pair(folder: epath.Path) -> bool:
  has = lambda name: (folder / name).exists()
  return not has('tokenizer.json') and has('vocab.json') and has('merges.txt')


def _from_pair(folder: epath.Path) -> spec.Spec:
  """Byte-level BPE of GPT-2 and RoBERTa, as published before tokenizer.json.

  Names in angle brackets that no merge makes are special: <s>, <|endoftext|>.
  RoBERTa's put <s> and </s> around a text.
  """
  vocab = _read_json(folder / 'vocab.json')
  lines = (folder / 'merges.txt').read_bytes().decode().split('\n')
  first = lines[0].startswith('#version')  # Other lines may begin with #.
  merges = [line.rstrip('\r').split(' ') for line in lines[first:] if line]
  if not isinstance(vocab, dict):
    raise ValueError(f'{folder / "vocab.json"} holds no tokens and their ids.')
  if wrong := [pair for pair in merges if len(pair) != 2]:
    raise ValueError(
      f'{folder / "merges.txt"}: {" ".join(wrong[0])!r} is no pair of tokens.'
    )
  made = {left + right for left, right in merges}
  special = {
    name: i
    for name, i in vocab.items()
    if re.fullmatch(r'<.+>', name) and name not in made
  }
  special |= _read_added(folder)
  plain = {name: i for name, i in vocab.items() if name not in special}
  content = bytelevel.make_spec(
    plain, merges, special, bytelevel.split_on('gpt2')
  )
  if {'<s>', '</s>'} <= set(special):
    content['post_processor'] = {
      'type': 'RobertaProcessing',
      'sep': ['</s>', special['</s>']],
      'cls': ['<s>', special['<s>']],
      'trim_offsets': False,
      'add_prefix_space': False,
    }
  return content


def _read_added(folder: epath.Path) -> dict[str, int]:
  file = folder / 'added_tokens.json'
  return _read_json(file) if file.exists() else {}


def _in_folder(folder: epath.Path) -> epath.Path:
  file = folder / 'tokenizer.json'
  if file.exists():
    return file
  found = ', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'nothing'
  raise FileNotFoundError(
    f'folder {folder} holds neither tokenizer.json nor vocab.json and '
    f'merges.txt (it holds {found}). Name the file itself if it is called '
    'otherwise.'
  )


def _read_json(file: epath.Path) -> Any:
  try:
    return json.loads(file.read_bytes())
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise ValueError(f'{file} is not valid JSON: {e}.') from e


def _read_roles(folder: epath.Path) -> dict[str, str]:
  """Roles by a tokenizer_config.json, where transformers writes them."""
  file = folder / 'tokenizer_config.json'
  if not file.exists():
    return {}
  config, roles = _read_json(file), {}
  for role in spec.ROLES:
    token = config.get(f'{role}_token')
    token = token.get('content') if isinstance(token, dict) else token
    if token:
      roles[role] = token
  return roles


def read_ranks(path: Any) -> dict[bytes, int]:
  """The lines of a .tiktoken file: base64 of the token's bytes, and rank."""
  file = epath.Path(path)
  ranks: dict[bytes, int] = {}
  for number, line in enumerate(file.read_bytes().splitlines(), 1):
    if not line.strip():
      continue
    try:
      token, rank = line.split()
      ranks[base64.b64decode(token, validate=True)] = int(rank)
    except ValueError as e:
      raise ValueError(
        f'{file}, line {number}: expected a token in base64 and its rank, got '
        f'{line[:40]!r}.'
      ) from e
  if not ranks:
    raise ValueError(f'{file} is empty.')
  return ranks


def _from_tiktoken(file: epath.Path, pattern: str) -> spec.Spec:
  known, special = PUBLISHED.get(file.stem, ('', {}))
  pattern = pattern or known
  if not pattern:
    raise ValueError(
      f'{file.name} does not say how text is cut into words. Set pattern to '
      f'one of {", ".join(bytelevel.PATTERNS)}, or to a regex.'
    )
  ranks = read_ranks(file)
  vocab = {bytelevel.to_chars(token): rank for token, rank in ranks.items()}
  return bytelevel.make_spec(
    vocab,
    bytelevel.merges_from_ranks(ranks),
    special,
    bytelevel.split_on(pattern),
    ignore_merges=True,
  )
