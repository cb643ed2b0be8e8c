# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the units of a row of bytes begin, decided on the device.

A segmenter is a function

  start_bt = segmenter(tokens_bt, segment_ids_bt)

and causal: whether position t begins a unit depends on tokens 0..t, so that
generation can decide it as soon as the token is there. Each document begins a
unit, padding (document 0) none; ids that are no bytes (BOS) are units of one.
Rules that need tables of Unicode or a lexer are in `tokenizers.words`.

`Entropy` and `CosineGate` decide by numbers other than the tokens: a language
model's entropies, and hidden states.

Axes: b rows, t positions, d width, v vocabulary.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass

Start = Bool[Array, 'b t']


class Segmenter(Protocol):
  """Decides by the tokens; a config dataclass, hence static in `jit`."""

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    segment_ids_bt: Int[Array, '#b t'] | None = None,
  ) -> Start: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decision:
  """What a learned gate says.

  Attributes:
    start_bt: Where units begin.
    prob_bt: Probability of a beginning, through which gradients flow.
  """

  start_bt: Any
  prob_bt: Any


class Gate(Protocol):
  """Decides by hidden states; a module with parameters."""

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    segment_ids_bt: Int[Array, '#b t'] | None = None,
  ) -> Decision: ...


def first(
  like_bt: Any, segment_ids_bt: Int[Array, '#b t'] | None
) -> Bool[Array, 'b t']:
  """The first position of each document; `like_bt` gives the shape."""
  if segment_ids_bt is None:
    row_t = jnp.arange(like_bt.shape[1]) == 0
    return jnp.broadcast_to(row_t, like_bt.shape)
  edge_b1 = jnp.zeros_like(segment_ids_bt[:, :1])
  before_bt = jnp.concatenate([edge_b1, segment_ids_bt[:, :-1]], axis=1)
  is_first_bt = (segment_ids_bt != before_bt) & (segment_ids_bt != 0)
  return jnp.broadcast_to(is_first_bt, like_bt.shape)


def _finish(
  start_bt: Start, segment_ids_bt: Int[Array, '#b t'] | None
) -> Start:
  """Documents begin units and padding does not."""
  start_bt = start_bt | first(start_bt, segment_ids_bt)
  if segment_ids_bt is None:
    return start_bt
  return start_bt & (segment_ids_bt != 0)


def _back(
  x_bt: Int[Array, 'b t'], num: int, segment_ids_bt: Any
) -> Int[Array, 'b t']:
  """What stands `num` places earlier in the same document; -1 if nothing."""
  move = lambda x: jnp.pad(x, ((0, 0), (num, 0)))[:, : x.shape[1]]
  is_there_bt = jnp.arange(x_bt.shape[1])[None] >= num
  if segment_ids_bt is not None:
    is_there_bt = is_there_bt & (move(segment_ids_bt) == segment_ids_bt)
  return jnp.where(is_there_bt, move(x_bt), -1)


def _bytes(tokens_bt: Int[Array, 'b t'], offset: int) -> Int[Array, 'b t']:
  """Byte values; -1 for ids that are no bytes."""
  byte_bt = tokens_bt - offset
  return jnp.where((byte_bt >= 0) & (byte_bt < 256), byte_bt, -1)


def check_offset(name: str, rule: Any, tokenizer: Any) -> None:
  """Checks that a rule takes the tokenizer's ids for the bytes that they are.

  Args:
    name: Of the field that holds the rule, for the message.
    rule: A segmenter, or anything else; one without `offset` reads no bytes.
    tokenizer: See `tokenizers.base`.

  Raises:
    ValueError: If an id stands for another byte than `id - rule.offset`.
  """
  if not hasattr(rule, 'offset') or _first_byte(tokenizer, [rule.offset]) >= 0:
    return
  found = _first_byte(tokenizer, range(tokenizer.vocab_size - 255))
  fix = (
    f'has byte 0 at id {found}. Set {name}.offset={found}.'
    if found >= 0
    else 'has no ids for the 256 bytes in their order. Use tokenizers.bytes, '
    'or a rule that reads no bytes, like segmenters.Stride.'
  )
  raise ValueError(
    f'{name}.offset={rule.offset}: {type(rule).__name__} takes id '
    f'{rule.offset} for byte 0, but {tokenizer!r} {fix}'
  )


def _first_byte(tokenizer: Any, offsets: Any) -> int:
  """The first of the offsets from which ids are bytes in order; -1 if none.

  Ids of special tokens may lie among them, as in the map of H-Net.
  """
  special = tokenizer.special.ids()

  def fits(byte: int, token: int) -> bool:
    if not 0 <= token < tokenizer.vocab_size:
      return False
    return token in special or tokenizer.token_bytes(token) == bytes([byte])

  for offset in offsets:
    if all(fits(byte, offset + byte) for byte in range(256)):
      return offset
  return -1


def place_in_unit(start_bt: Start) -> Int[Array, 'b t']:
  """Distance of each position from the beginning of its unit."""
  index_t = jnp.arange(start_bt.shape[1])
  begin_bt = jax.lax.cummax(jnp.where(start_bt, index_t, 0), axis=1)
  return index_t - begin_bt


def limit(start_bt: Start, longest: int) -> Start:
  """Cuts units after every `longest` positions; 0 means never."""
  if not longest:
    return start_bt
  return start_bt | (place_in_unit(start_bt) % longest == 0)


def limit_characters(
  start_bt: Start, longest: int, tokens_bt: Int[Array, 'b t'], offset: int = 0
) -> Start:
  """Cuts units of more than `longest` bytes, between UTF-8 characters.

  The character that would be too much begins the next part, as its first byte
  tells; only one that is longer itself is cut. As `words.chunk_words`, but
  causal.

  Args:
    start_bt: Where units begin; the first position of a row does.
    longest: Bytes of a part; static.
    tokens_bt: Tokens.
    offset: The id of byte 0; ids that are no bytes are characters of one.
  """
  b, t = start_bt.shape
  byte_bt = _bytes(tokens_bt, offset)
  size_bt = 1 + _between(byte_bt, 0xC2, 0xF4).astype(jnp.int32)
  size_bt += _between(byte_bt, 0xE0, 0xF4).astype(jnp.int32)
  size_bt += _between(byte_bt, 0xF0, 0xF4)
  unit_bt = jnp.cumsum(start_bt, axis=1)
  # Where the next part begins if one begins here; t: not in this unit.
  next_bt = jnp.full((b, t), t)
  for back in range(min(4, longest)):  # The earliest is written last.
    index_t = jnp.arange(t) + longest - back
    take = lambda x, at=index_t: x[:, jnp.minimum(at, t - 1)]
    is_cut_bt = (take(size_bt) > back) & (take(unit_bt) == unit_bt)
    next_bt = jnp.where(is_cut_bt & (index_t < t), index_t, next_bt)
  rows_b1 = jnp.arange(b)[:, None]
  # Parts by doubling: those of the first 1, 3, 7, ... cuts of each unit.
  for _ in range((t // max(longest - 3, 1)).bit_length()):
    found_bt = jnp.zeros((b, t + 1), bool).at[rows_b1, next_bt].max(start_bt)
    start_bt = start_bt | found_bt[:, :t]
    end_b1 = jnp.full((b, 1), t)
    next_bt = jnp.take_along_axis(
      jnp.concatenate([next_bt, end_b1], axis=1), next_bt, axis=1
    )
  return start_bt


@configclass
class Whitespace:
  """A unit ends with each Unicode white-space character.

  The rule of HAT (Neitemeier et al. 2025, arXiv:2501.10322, section 3):
  white space belongs to the unit before it. Invalid UTF-8 never ends one.
  """

  offset: int = 0  # The id of byte 0; see `tokenizers.bytes`.

  def __call__(self, tokens_bt, segment_ids_bt=None):
    byte_bt = _bytes(tokens_bt, self.offset)
    z, y, x = (_back(byte_bt, n, segment_ids_bt) for n in (1, 2, 3))
    one = (z == 0x20) | ((z >= 0x09) & (z <= 0x0D))
    two = (y == 0xC2) & ((z == 0x85) | (z == 0xA0))
    quad = (z >= 0x80) & (z <= 0x8A) | (z == 0xA8) | (z == 0xA9) | (z == 0xAF)
    three = (
      ((x == 0xE1) & (y == 0x9A) & (z == 0x80))
      | ((x == 0xE2) & (y == 0x80) & quad)
      | ((x == 0xE2) & (y == 0x81) & (z == 0x9F))
      | ((x == 0xE3) & (y == 0x80) & (z == 0x80))
    )
    # Behind what is no byte, and at it, a unit begins.
    start_bt = one | two | three | (byte_bt < 0) | (z < 0)
    return _finish(start_bt, segment_ids_bt)


@configclass
class Words:
  """`tokenizers.words.uax29_words`, decided at the first byte of each word.

  HAT's rule of appendix C: a single space belongs to the word behind it,
  punctuation to the one before it; words end before capitals in lower case. On
  ASCII the units are the same words. Where Unicode's tables would be needed, so
  that a word would be decided by bytes still to come, it is simpler: other
  characters are letters, except that those with first byte 0xE4 to 0xE9, most
  ideographs, are words of their own.
  """

  offset: int = 0  # The id of byte 0.

  def __call__(self, tokens_bt, segment_ids_bt=None):
    byte_bt = _bytes(tokens_bt, self.offset)
    z, y, x = (_back(byte_bt, n, segment_ids_bt) for n in (1, 2, 3))
    # A text or punctuation joins one space; not two, which are a word.
    is_after_space_bt = (z == 0x20) & (y != 0x20)
    joins_bt = jnp.where(
      _is_punctuation(byte_bt),
      ~_is_space(z) | is_after_space_bt,
      is_after_space_bt & ~_is_space(byte_bt),
    )
    is_case_bt = _between(z, 0x61, 0x7A) & _between(byte_bt, 0x41, 0x5A)
    joins_bt |= _is_letter(z) & _is_letter(byte_bt) & ~is_case_bt
    joins_bt |= (z == 0x20) & (byte_bt == 0x20)
    joins_bt |= (z == 0x0D) & (byte_bt == 0x0A)
    is_inside_bt = _between(byte_bt, 0x80, 0xBF)
    is_ideograph_bt = _between(byte_bt, 0xE4, 0xE9) & ~is_after_space_bt
    is_ideograph_bt |= _between(x, 0xE4, 0xE9) & ~_is_punctuation(byte_bt)
    joins_bt = (joins_bt & ~is_ideograph_bt) | is_inside_bt
    # Behind what is no byte, and at it, a unit begins.
    start_bt = ~joins_bt | (byte_bt < 0) | (z < 0)
    return _finish(start_bt, segment_ids_bt)


def _between(byte_bt: Int[Array, 'b t'], low: int, high: int) -> Start:
  return (byte_bt >= low) & (byte_bt <= high)


def _is_space(byte_bt: Int[Array, 'b t']) -> Start:
  return (byte_bt == 0x20) | _between(byte_bt, 0x09, 0x0D)


def _is_letter(byte_bt: Int[Array, 'b t']) -> Start:
  """ASCII letters and digits, and all that is not ASCII."""
  between = lambda low, high: _between(byte_bt, low, high)
  return (
    between(0x30, 0x39)
    | between(0x41, 0x5A)
    | between(0x61, 0x7A)
    | (byte_bt >= 0x80)
  )


def _is_punctuation(byte_bt: Int[Array, 'b t']) -> Start:
  """Of ASCII; `$+<=>^|~` and the grave accent are symbols."""
  is_one_bt = jnp.zeros(byte_bt.shape, bool)
  for char in b'!"#%&\'()*,-./:;?@[\\]_{}':
    is_one_bt |= byte_bt == char
  return is_one_bt


@configclass
class Spacelike:
  """A unit begins at a spacelike byte that follows another byte.

  Slagle 2024, arXiv:2404.14408, section 3: spacelike is what is neither an
  ASCII letter or digit nor a UTF-8 continuation byte. At these bytes SpaceByte
  runs its global blocks: they predict the word that comes next.
  """

  offset: int = 0  # The id of byte 0.

  def __call__(self, tokens_bt, segment_ids_bt=None):
    byte_bt = _bytes(tokens_bt, self.offset)
    before_bt = _back(byte_bt, 1, segment_ids_bt)
    is_new_bt = _is_spacelike(byte_bt) & ~_is_spacelike(before_bt)
    return _finish(is_new_bt | (byte_bt < 0), segment_ids_bt)


def _is_spacelike(byte_bt: Int[Array, 'b t']) -> Bool[Array, 'b t']:
  between = lambda low, high: (byte_bt >= low) & (byte_bt <= high)
  is_word_bt = between(48, 57) | between(65, 90) | between(97, 122)
  return ~is_word_bt & ~between(0x80, 0xBF) & (byte_bt >= 0)


@configclass
class Stride:
  """Units of `size` positions, counted from the document's first (MegaByte)."""

  size: int = 6

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f'size={self.size} must be >= 1.')

  def __call__(self, tokens_bt, segment_ids_bt=None):
    start_bt = first(tokens_bt, segment_ids_bt)
    return _finish(limit(start_bt, self.size), segment_ids_bt)


RULES = ('global', 'monotonic', 'both')


@configclass
class Entropy:
  """A unit begins where the next byte was hard to predict.

  Pagnoni et al. 2024, arXiv:2412.09871, section 2.3. The second position of a
  document begins a unit too: the first unit has length 1, so that a decoder
  can see the unit before.
  """

  rule: str = 'global'  # H > threshold; 'monotonic': its rise; or 'both'.
  threshold: float = 1.335  # Of H; with 'monotonic' of its rise. Nats.
  least_rise: float = 0.0  # With 'both': what the rise has to exceed.
  longest: int = 0  # Positions of a unit; 0 means no limit.

  def __post_init__(self):
    if self.rule not in RULES:
      raise ValueError(f'rule={self.rule!r} must be one of {", ".join(RULES)}.')
    if self.longest < 0:
      raise ValueError(f'longest={self.longest} must be >= 0.')
    if self.least_rise and self.rule != 'both':
      raise ValueError(
        f"least_rise={self.least_rise} is of the rule 'both', but rule="
        f"{self.rule!r}. Set rule='both', or threshold for the rule "
        "'monotonic'."
      )

  def __call__(
    self,
    entropy_bt: Float[Array, 'b t'],
    segment_ids_bt: Int[Array, '#b t'] | None = None,
  ) -> Start:
    """Beginnings of units.

    Args:
      entropy_bt: From `entropies`: at t, of what stands at t + 1.
      segment_ids_bt: Documents; 0 is padding.
    """
    shift = lambda x: jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]
    is_first_bt = first(entropy_bt, segment_ids_bt)
    # Entropies of another document say nothing.
    start_bt = is_first_bt | shift(self._is_high(entropy_bt) | is_first_bt)
    return _finish(limit(start_bt, self.longest), segment_ids_bt)

  def ends(
    self,
    entropy_bt: Float[Array, 'b t'],
    segment_ids_bt: Int[Array, '#b t'] | None = None,
  ) -> Start:
    """Positions behind which another unit of the document would begin.

    Unlike beginnings, they do not depend on whether the document goes on.
    """
    is_first_bt = first(entropy_bt, segment_ids_bt)
    end_bt = self._is_high(entropy_bt) | is_first_bt
    if self.longest:
      place_bt = place_in_unit(self(entropy_bt, segment_ids_bt))
      end_bt = end_bt | (place_bt % self.longest == self.longest - 1)
    return end_bt if segment_ids_bt is None else end_bt & (segment_ids_bt != 0)

  def _is_high(self, entropy_bt):
    """By the rule; of a document's first position it means nothing."""
    before_bt = jnp.pad(entropy_bt, ((0, 0), (1, 0)))[:, :-1]
    is_high_bt = entropy_bt > self.threshold
    rise_bt = entropy_bt - before_bt
    return {
      'global': is_high_bt,
      'monotonic': rise_bt > self.threshold,
      # An entropy is >= 0: the threshold of both would be that of the rise.
      'both': is_high_bt & (rise_bt > self.least_rise),
    }[self.rule]


def entropies(model: Any, tokens_bt: Int[Array, 'b t'], **kwargs) -> Any:
  """Entropy of the next token at each position, nats, float32.

  Args:
    model: Any language model; see `models.base`.
    tokens_bt: Tokens of its own vocabulary.
    **kwargs: Of the model's call: `positions`, `segment_ids`, `cache`.

  Returns:
    float32 [b, t]; with a cache, also the longer cache.
  """
  output = model(tokens_bt, **kwargs)
  logprob_btv = jax.nn.log_softmax(model.logits(output.hidden_btd), axis=-1)
  # 0 log 0 = 0, also where a logit is -inf.
  term_btv = jnp.where(
    jnp.isneginf(logprob_btv), 0.0, jnp.exp(logprob_btv) * logprob_btv
  )
  entropy_bt = -term_btv.sum(axis=-1)
  return (entropy_bt, output.cache) if 'cache' in kwargs else entropy_bt


class CosineGate(nnx.Module):
  """A unit begins where a state points away from the one before it.

  Hwang et al. 2025, arXiv:2507.07955, section 2.2 (H-Net's routing): `p_t =
  (1 - cos(W_q x_{t-1}, W_k x_t)) / 2`, a beginning where p > 1/2, p = 1 at the
  first position of a document. Both maps begin as the identity.
  """

  def __init__(self, dim: int):
    eye = lambda: nnx.Param(jnp.eye(dim), axes=('embed', 'mlp'))
    self.q, self.k = eye(), eye()

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    segment_ids_bt: Int[Array, '#b t'] | None = None,
  ) -> Decision:
    """See `Gate`."""
    x = x_btd.astype(jnp.float32)
    q_btd = jnp.pad(x @ self.q[...], ((0, 0), (1, 0), (0, 0)))[:, :-1]
    k_btd = x @ self.k[...]
    dot = lambda a, b: (a * b).sum(axis=-1)
    square_bt = dot(q_btd, q_btd) * dot(k_btd, k_btd)
    # A state of zeros has no direction: as if at a right angle.
    cos_bt = dot(q_btd, k_btd) * jax.lax.rsqrt(jnp.maximum(square_bt, 1e-24))
    is_first_bt = first(cos_bt, segment_ids_bt)
    prob_bt = jnp.where(is_first_bt, 1.0, (1 - cos_bt) / 2)
    start_bt = _finish(prob_bt > 0.5, segment_ids_bt)
    return Decision(start_bt, jnp.clip(prob_bt, 0.0, 1.0))
