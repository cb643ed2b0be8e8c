# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact byte-level probabilities of a model over tokens.

Phan et al. 2024, arXiv:2410.09303. A model over tokens, asked for what follows
a text that ends inside a token, gives a biased answer: the encoding of the text
so far is one that the tokenizer would not have made. The probability that a
text begins with bytes x is the sum over all token sequences that *cover* x:
their bytes begin with x, and all but the last token end before x does
(Byte-Token Representation Lemma). Conditionals are ratios of such sums.

  model = ByteModel(lm, tokenizer)
  state = model.start([b'def ma'], num_bytes=32)
  state.logprobs()             # float64 [b, 257]: bytes, and the text's end.
  state.append([ord('i')])     # One call of the language model at most.
  sample_bytes(model, [b'def ma'], num_bytes=32, rng=rng)

Valid covers are beginnings of encodings (`covers.Canonical`). A trained model
gives invalid ones some probability: that is what is missing from the sum of the
law, see `missing` of the state. With `validity='all'` no sequence is excluded,
the law is that of the model itself, and the number of covers grows with each
byte: `max_covers` keeps the heaviest (a beam over bytes), and `dropped` says
what that costs.

A tokenizer may put bytes before each text, as SentencePiece does a space
(`tokenizers.base.Led`). Then sequences that do not begin with these bytes are
no texts, whatever `validity` says, and prompts and laws are without them.

Differs from the paper: several covers may end exactly at x, as tokenizers that
look ahead have several beginnings of encodings of the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxtok.decoding import covers
from jaxtok.decoding import sampling as sampling_lib
from jaxtok.decoding.cover_state import Config, CoverState, logsumexp
from jaxtok.decoding.covers import END
from jaxtok.tokenizers import base

__all__ = [
  'END',
  'ByteModel',
  'Config',
  'CoverState',
  'Ensemble',
  'continue_bytes',
  'sample_bytes',
  'score_bytes',
]


class ByteModel:
  """A language model over tokens, seen as one over bytes."""

  def __init__(self, model: Any, tokenizer: Any, config: Config | None = None):
    """Sorts the vocabulary.

    Args:
      model: See `models.base`; with a cache.
      tokenizer: Of kind 'concat', or `tokenizers.base.Led`; with a BOS or EOS
        token. With `validity='canonical'`, its encoding must agree with that of
        each beginning of a token sequence, as that of BPE does.
      config: Which covers count.

    Raises:
      TypeError: If the model has no cache, or ids of the tokenizer stand for
        no fixed bytes.
      ValueError: If the model has too few ids, or no text can begin.
    """
    self.model, self.tokenizer = model, tokenizer
    self.config = config or Config()
    is_led = isinstance(tokenizer, base.Led)
    self.lead = tokenizer.lead if is_led else b''
    self.inner = tokenizer.inner if is_led else tokenizer
    self.vocabulary = covers.Vocabulary(self.inner)
    self.canonical = covers.Canonical(self.inner, self.vocabulary)
    special = tokenizer.special
    self.bos = special.eos if special.bos is None else special.bos
    if self.bos is None:
      raise ValueError(
        f'{tokenizer!r} has neither a BOS nor an EOS token, so no text can '
        'begin or end.'
      )
    self.num_ids = _num_ids(model)
    if self.num_ids < tokenizer.vocab_size:
      raise ValueError(
        f'the model has {self.num_ids} ids and {tokenizer!r} has '
        f'{tokenizer.vocab_size}. Use the tokenizer that the model was trained '
        'with.'
      )

  def start(
    self,
    prompts: Sequence[base.Data],
    num_bytes: int,
    before: Sequence[int] | Sequence[Sequence[int]] | None = None,
  ) -> 'CoverState':
    """The state behind prompts.

    Args:
      prompts: Any bytes, or a str for its UTF-8; may end inside a token, or be
        empty.
      num_bytes: Bytes that will be appended, as far as known. There is room
        for more, at the cost of compiling again each time it doubles.
      before: Ids before all prompts, at least one, or a list of such for each
        prompt; None means the BOS token.

    Raises:
      TypeError: If a prompt is no text.
      ValueError: If there are no prompts, if they exceed the positions of the
        model, or if one has probability 0.
    """
    prompts = covers.as_texts(prompts, 'prompts')
    if not prompts or num_bytes < 0:
      raise ValueError(
        f'{len(prompts)} prompts and num_bytes={num_bytes}: there must be at '
        'least one prompt, and num_bytes >= 0.'
      )
    heads = self._heads(before, len(prompts))
    settled = [self.settled(prompt) for prompt in prompts]
    rows = [h + ids for h, (ids, _) in zip(heads, settled, strict=True)]
    led = [self.lead + prompt for prompt in prompts]
    rest = [text[at:] for text, (_, at) in zip(led, settled, strict=True)]
    room = max(map(len, rows)) + max(map(len, rest)) + num_bytes
    state = CoverState(self, room, len(prompts))
    state.begin([(i, row, 0.0, b'') for i, row in enumerate(rows)])
    if self.lead:
      is_new = [at == 0 for _, at in settled]
      state.read_lead(self.lead, is_new)
      skip = len(self.lead)
      rest = [r[skip * n :] for r, n in zip(rest, is_new, strict=True)]
    for place in range(max(map(len, rest))):
      state.append([r[place] if place < len(r) else -1 for r in rest])
    return state

  def _heads(self, before: Any, num: int) -> list[tuple[int, ...]]:
    """The ids before each prompt; see `start`."""
    before = (self.bos,) if before is None else tuple(before)
    is_shared = not before or np.ndim(before[0]) == 0
    heads = [before] * num if is_shared else [tuple(ids) for ids in before]
    if len(heads) != num:
      raise ValueError(
        f'before has {len(heads)} lists of ids for {num} prompts; give one for '
        'each.'
      )
    for head in heads:
      if not head or not all(0 <= i < self.num_ids for i in head):
        raise ValueError(
          f'before={head} must be one id or more, each in [0, '
          f'{self.num_ids}), the ids of the model.'
        )
    return heads

  def settled(self, prompt: bytes) -> tuple[tuple[int, ...], int]:
    """The tokens of a prompt that no continuation changes.

    Returns:
      Ids, and how many bytes of lead and prompt they stand for.
    """
    if self.config.validity != 'canonical' or not prompt:
      return (), 0
    return self.canonical.settled(self.lead + prompt)

  def split_logits(
    self, logits_v: Float[np.ndarray, 'v']
  ) -> tuple[Float[np.ndarray, 'n'], float]:
    """Log-probabilities of the sorted tokens, and of the end; float64."""
    logits_v = logits_v.astype(np.float64)
    logits_v = logits_v - logsumexp(logits_v)
    vocabulary = self.vocabulary
    return (
      logits_v[vocabulary.ids_n],
      logsumexp(logits_v[vocabulary.end_ids]),
    )


def _num_ids(model: Any) -> int:
  """How many ids a model gives probabilities to; computes nothing."""
  if not hasattr(model, 'init_cache'):
    raise TypeError(
      f'{type(model).__name__} has no init_cache. Byte probabilities need a '
      'causal model with a cache.'
    )
  graph, params = nnx.split(model)

  def first(params):
    model = nnx.merge(graph, params)
    tokens_bt = jnp.zeros((1, 1), jnp.int32)
    output = model(tokens_bt, cache=model.init_cache(1, 1))
    return model.logits(output.hidden_btd)

  return jax.eval_shape(first, params).shape[-1]


class Ensemble:
  """The mean of the laws of several models, whatever their vocabularies."""

  def __init__(self, models: Sequence[ByteModel]):
    if not models:
      raise ValueError('an ensemble needs at least one model.')
    self.models = tuple(models)

  def start(
    self, prompts: Sequence[base.Data], num_bytes: int
  ) -> 'EnsembleState':
    """The state behind prompts; see `ByteModel.start`."""
    return EnsembleState([m.start(prompts, num_bytes) for m in self.models])


class EnsembleState:
  """States of all members, which read the same bytes."""

  def __init__(self, states: Sequence[CoverState]):
    self.states = states

  def logprobs(self) -> Float[np.ndarray, 'b 257']:
    """Logarithm of the mean of the members' laws, nats."""
    laws = np.stack([state.logprobs() for state in self.states])
    return np.logaddexp.reduce(laws, axis=0) - np.log(len(laws))

  def append(self, bytes_b: Sequence[int]) -> None:
    """Reads a byte of each text; see `CoverState.append`."""
    for state in self.states:
      state.append(bytes_b)


def score_bytes(
  model: ByteModel | Ensemble, texts: Sequence[base.Data], *, ends: bool = False
) -> list[Float[np.ndarray, 'n']]:
  """Log-probability of each byte given those before it, nats.

  Args:
    model: One model or several.
    texts: Any bytes, or a str for its UTF-8.
    ends: Whether the end of the text is scored too, as one more number.

  Raises:
    ValueError: If a text has probability 0.
  """
  texts = covers.as_texts(texts, 'texts')
  if not texts:
    return []
  longest = max(map(len, texts))
  state = model.start([b''] * len(texts), longest)
  scores = [np.zeros(len(text) + ends) for text in texts]
  for place in range(longest + ends):
    law = state.logprobs()
    symbols = [t[place] if place < len(t) else -1 for t in texts]
    for i, (text, symbol) in enumerate(zip(texts, symbols, strict=True)):
      if symbol >= 0:
        scores[i][place] = law[i, symbol]
      elif ends and place == len(text):
        scores[i][place] = law[i, END]
    if place < longest:
      state.append(symbols)
  return scores


def sample_bytes(
  model: ByteModel | Ensemble,
  prompts: Sequence[base.Data],
  *,
  num_bytes: int,
  rng: Any = None,
  sampling: sampling_lib.Config | None = None,
) -> list[bytes]:
  """Continues prompts byte by byte.

  Args:
    model: One model or several.
    prompts: Any bytes, or a str for its UTF-8; may end inside a token.
    num_bytes: Most bytes of each continuation.
    rng: A `jax.random.key`; needed unless the temperature is 0.
    sampling: How to choose bytes; None means the most likely.
  """
  state = model.start(prompts, num_bytes)
  return continue_bytes(state, num_bytes=num_bytes, rng=rng, sampling=sampling)


def continue_bytes(
  state: CoverState | EnsembleState,
  *,
  num_bytes: int,
  rng: Any = None,
  sampling: sampling_lib.Config | None = None,
) -> list[bytes]:
  """Continues the texts of a state; see `sample_bytes`."""
  sampling = sampling or sampling_lib.Config(temperature=0.0)
  if rng is None and sampling.temperature > 0:
    raise ValueError(
      f'rng is None, but temperature={sampling.temperature} draws bytes. Give '
      'rng=jax.random.key(seed), or set temperature=0.'
    )
  rng = jax.random.key(0) if rng is None else rng
  texts = [bytearray() for _ in state.logprobs()]
  is_open = [True] * len(texts)
  for place in range(num_bytes):
    law = state.logprobs()
    key = jax.random.fold_in(rng, place)
    drawn = sampling_lib.sample(
      jax.numpy.asarray(law, jax.numpy.float32), key, sampling
    )
    symbols = np.asarray(drawn.token).tolist()
    is_open = [o and s != END for o, s in zip(is_open, symbols, strict=True)]
    for text, symbol, is_on in zip(texts, symbols, is_open, strict=True):
      if is_on:
        text.append(symbol)
    if not any(is_open) or place == num_bytes - 1:
      break
    state.append(
      [s if o else -1 for s, o in zip(symbols, is_open, strict=True)]
    )
  return [bytes(text) for text in texts]
