# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of 16 bits as a finite dictionary: no model at run time.

With coder and model reset at every window, a word of 16 bits stands for one
string, whatever surrounds it: a variable-to-fixed-length code, like Tunstall's
(1967) but over the model's tree. All strings are enumerated once, level by
level. What is stored are integers, so the code is exact on every device, for
ever, whatever the model's own determinism. Encoding walks down the tree; rule
`cell` is greedy longest match over the strings, and rule `delay` has tables of
its own over the same tree (`with_close_rule`).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.entropy import (
  base,
  dictionary_rules,
  model_file,
  quantize,
  trie,
)
from jaxtok.entropy.determinism import DeterminismLevel, fingerprint
from jaxtok.entropy.formats import WindowFormat

KIND = 'window-dictionary-1'
_NUM_WORDS = 1 << 16
_BATCH = 4096  # Nodes per call of the model.


class NotADictionaryError(model_file.ModelFileError):
  """The file holds something else."""


@dataclasses.dataclass(frozen=True)
class WindowDictionary:
  """The string of each word.

  Attributes:
    parents: int32 [nodes], the tree in breadth-first order; -1 for the root.
    symbols: uint16 [nodes], the last symbol of each node's string.
    node_of_word: int32 [2**16], the longest string s(V) whose interval holds
      the word's cell.
    max_symbols: No string is longer.
    model_fingerprint: The model that it was compiled from.
    close_rule: 'cell' or 'delay'.
  """

  parents: np.ndarray
  symbols: np.ndarray
  node_of_word: np.ndarray
  max_symbols: int
  model_fingerprint: str
  close_rule: str = 'cell'

  level = DeterminismLevel.TABLE

  def __getstate__(self) -> dict[str, Any]:
    """What is pickled: the fields, not what was built from them."""
    names = [field.name for field in dataclasses.fields(self)]
    return {name: getattr(self, name) for name in names}

  def with_close_rule(self, close_rule: str) -> 'WindowDictionary':
    """The dictionary of the same model for another rule.

    Raises:
      ValueError: If the rule is not 'cell' or 'delay'.
    """
    if close_rule not in dictionary_rules.RULES:
      raise ValueError(
        f'close_rule={close_rule!r} must be one of {dictionary_rules.RULES}: '
        'words of other rules have no one string. Use encode_windows with the '
        'model.'
      )
    if close_rule == self.close_rule:
      return self
    return dataclasses.replace(self, close_rule=close_rule)

  @property
  def used_words(self) -> np.ndarray:
    """The words that encoding uses, one per string, uint16 and rising."""
    return self._codes.used_w

  def fingerprint(self) -> str:
    """SHA-256 (hex) of the strings of all words."""
    return self._fingerprint

  @functools.cached_property
  def _fingerprint(self) -> str:
    arrays = {
      'parents': self.parents.astype('<i4'),
      'symbols': self.symbols.astype('<u2'),
      'node_of_word': self.node_of_word.astype('<i4'),
    }
    return fingerprint(KIND, arrays, **self._rule())

  def _rule(self) -> dict[str, str]:
    """The rule where it is named: files without a name are of rule `cell`."""
    is_cell = self.close_rule == 'cell'
    return {} if is_cell else {'close_rule': self.close_rule}

  @functools.cached_property
  def _codes(self) -> dictionary_rules.Codes:
    rule, tree = self.close_rule, (self.parents, self.node_of_word)
    return dictionary_rules.codes(rule, *tree)

  @functools.cached_property
  def _tree(self) -> trie.Tree:
    return trie.lay_out(self.parents, self.symbols, self._codes)

  @functools.cached_property
  def _strings(self) -> tuple[trie.Strings, np.ndarray]:
    return trie.spell(self.parents, self.symbols, self._codes)

  def encode(
    self, text: bytes, *, use_numba: bool | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Codes a text, followed by EOS.

    Args:
      text: Any bytes.
      use_numba: By default, if it is installed; the result is the same.

    Returns:
      Words (uint16) and how many symbols each covers (int32), EOS included.
    """
    data = np.frombuffer(text, np.uint8)
    return trie.encode(self._tree, data, use_numba=use_numba)

  def decode(self, words: Any, *, use_numba: bool | None = None) -> bytes:
    """The text of words up to the first EOS; any words do."""
    words = np.asarray(words)
    if words.size and not 0 <= words.min() <= words.max() < _NUM_WORDS:
      raise ValueError(
        f'words hold {words.min()}..{words.max()}; they are in 0..65535.'
      )
    strings, ends = self._strings
    end = np.flatnonzero(ends[words])
    words = words[: end[0] + 1] if len(end) else words
    return trie.decode(strings, words, use_numba=use_numba).tobytes()

  def texts(self) -> tuple[list[bytes], np.ndarray]:
    """The bytes of each word's string without EOS, and which ones have it."""
    strings, ends = self._strings
    data, start = strings.data.tobytes(), strings.offset_w
    stop = start + strings.length_w
    pairs = zip(start.tolist(), stop.tolist(), strict=True)
    return [data[a:b] for a, b in pairs], ends

  def string(self, word: int) -> tuple[int, ...]:
    """The symbols of a word; EOS (256) can only be the last."""
    node, found = int(self._codes.node_w[word]), []
    while node:
      found.append(int(self.symbols[node]))
      node = int(self.parents[node])
    return tuple(reversed(found))

  def save(self, path: Any) -> None:
    """Writes an npz file."""
    num_children = np.bincount(self.parents[1:], minlength=len(self.parents))
    arrays = {
      'num_children': num_children.astype(np.uint16),
      'symbols': self.symbols,
      'node_of_word': self.node_of_word,
      'max_symbols': self.max_symbols,
      'model_fingerprint': self.model_fingerprint,
      **self._rule(),
    }
    model_file.write_arrays(path, KIND, self.fingerprint(), arrays)


def load(path: Any) -> WindowDictionary:
  """Reads what `WindowDictionary.save` wrote.

  Raises:
    FileNotFoundError: If there is no such file.
    NotADictionaryError: If the file is something else.
    ModelFileError: If it was changed.
  """
  arrays = model_file.read_arrays(path)
  if str(arrays.get('kind')) != KIND:
    raise NotADictionaryError(f'{path} is not a window dictionary.')
  num_children = arrays['num_children']
  parents = np.repeat(np.arange(len(num_children)), num_children)
  found = WindowDictionary(
    parents=np.append(-1, parents).astype(np.int32),
    symbols=arrays['symbols'],
    node_of_word=arrays['node_of_word'],
    max_symbols=int(arrays['max_symbols']),
    model_fingerprint=str(arrays['model_fingerprint']),
    close_rule=str(arrays.get('close_rule', 'cell')),
  )
  model_file.check_fingerprint(path, arrays, found.fingerprint())
  return found


class _Level(NamedTuple):
  """Nodes of one depth that may have children.

  Attributes:
    node_n: Their numbers.
    low_n: uint64, where their intervals start, in 2**-32.
    r_n: uint64, how long they are.
    state: The model's states, on the host.
  """

  node_n: np.ndarray
  low_n: np.ndarray
  r_n: np.ndarray
  state: Any


def compile_window_dictionary(
  model: base.NextByteModel, window_bits: int = 16, max_symbols: int = 0
) -> WindowDictionary:
  """Enumerates the strings of all words, for rule `cell`.

  Args:
    model: Any model with `next_cdf`; it is not needed afterwards.
    window_bits: 16; larger windows have too many words to list.
    max_symbols: Longest string; 0 means the default of `WindowFormat`.
  """
  if window_bits != 16:
    raise ValueError(
      f'window_bits={window_bits} must be 16: longer windows have too many '
      'words for a dictionary. Use encode_windows with the model.'
    )
  limit = WindowFormat(max_symbols=max_symbols).max_symbols
  node_of_word = np.full(_NUM_WORDS, -1, np.int32)
  parents, symbols = [np.array([-1])], [np.array([0])]
  num_nodes, depth = 1, 0
  level = _Level(
    np.zeros(1, np.int64),
    np.zeros(1, np.uint64),
    np.full(1, 1 << 32, np.uint64),
    jax.tree.map(lambda x: np.asarray(x)[:1], model.init_state(_lanes(model))),
  )
  while len(level.node_n):
    depth += 1
    cdf_nv = _next_cdf(model, level.state)
    parent, symbol, low, r = _children(level, cdf_nv, node_of_word)
    node = num_nodes + np.arange(len(parent))
    num_nodes += len(node)
    parents.append(level.node_n[parent])
    symbols.append(symbol)
    grows = (symbol != quantize.EOS) & (depth < limit)
    _own_all(node[~grows], low[~grows], r[~grows], node_of_word)
    states = jax.tree.map(lambda x, i=parent[grows]: x[i], level.state)
    level = _Level(
      node[grows],
      low[grows],
      r[grows],
      _step(model, states, symbol[grows]),
    )
  assert (node_of_word >= 0).all()  # Every word has a string.
  return WindowDictionary(
    parents=np.concatenate(parents).astype(np.int32),
    symbols=np.concatenate(symbols).astype(np.uint16),
    node_of_word=node_of_word,
    max_symbols=limit,
    model_fingerprint=model.fingerprint(),
  )


def _children(level: _Level, cdf_nv: np.ndarray, node_of_word: np.ndarray):
  """Children that own a word; words that only the parent owns are noted.

  Returns:
    Index of the parent in the level, symbol, low and r of each child.
  """
  cdf_nv = cdf_nv.astype(np.uint64)
  bounds_nv = level.low_n[:, None] + (level.r_n[:, None] * cdf_nv >> 16)
  if level.node_n[0] == 0:
    bounds_nv = cdf_nv << 16
  start_nv, end_nv = bounds_nv[:, :-1], bounds_nv[:, 1:]
  word_nv = end_nv[:, :-1] >> 16  # Words that hold an inner bound.
  first_n = _first_word(bounds_nv[:, :1])
  stop_n = bounds_nv[:, -1:] >> 16
  straddles_nv = (end_nv[:, :-1] & 0xFFFF != 0) & (word_nv >= first_n)
  straddles_nv &= word_nv < stop_n
  row = np.nonzero(straddles_nv)[0]
  node_of_word[word_nv[straddles_nv]] = level.node_n[row]
  parent, symbol = np.nonzero(_first_word(start_nv) < end_nv >> 16)
  low = start_nv[parent, symbol]
  return parent, symbol, low, end_nv[parent, symbol] - low


def _first_word(low: np.ndarray) -> np.ndarray:
  return (low + 0xFFFF) >> 16


def _own_all(node, low, r, node_of_word) -> None:
  """Notes nodes without children as the owners of all their words."""
  first = _first_word(low).astype(np.int64)
  num = ((low + r) >> 16).astype(np.int64) - first
  offset = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
  node_of_word[np.repeat(first, num) + offset] = np.repeat(node, num)


def _lanes(model: base.NextByteModel) -> int:
  return getattr(model, 'tile', _BATCH)


_jit_cdf = jax.jit(lambda model, state: model.next_cdf(state))
_jit_step = jax.jit(lambda model, state, symbol: model.step(state, symbol))


def _in_batches(model, state, call) -> Any:
  """Runs `call(state, slice)` over batches of one shape, on the host."""
  num, lanes, parts = len(jax.tree.leaves(state)[0]), _lanes(model), []
  for i in range(0, max(num, 1), lanes):
    part = jax.tree.map(lambda x, i=i: _pad(x[i : i + lanes], lanes), state)
    out = call(part, slice(i, i + lanes))
    keep = min(lanes, num - i)
    parts.append(jax.tree.map(lambda x, k=keep: np.asarray(x)[:k], out))
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _pad(x: np.ndarray, rows: int) -> np.ndarray:
  return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def _next_cdf(model: base.NextByteModel, state: Any) -> np.ndarray:
  if model.level == DeterminismLevel.FIXED_TILE:
    return _in_batches(model, state, lambda part, _: model.next_cdf(part))
  return _in_batches(model, state, lambda part, _: _jit_cdf(model, part))


def _step(model: base.NextByteModel, state: Any, symbol: np.ndarray) -> Any:
  run = lambda part, symbol_b: _jit_step(model, part, symbol_b)
  if model.level == DeterminismLevel.FIXED_TILE:
    run = model.step

  def call(part, rows):
    padded = _pad(symbol[rows].astype(np.int32), _lanes(model))
    return run(part, jnp.asarray(padded))

  return _in_batches(model, state, call)
