# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the key of a substitution cipher off a model's states.

Huang et al. 2023, arXiv:2305.16349, section 4.2: rows in ciphers, each with a
key of its own, go through a model that does not change. An MLP with a hidden
layer learns to name the plain letter from the state at a letter; what it says
at all places of a cipher letter is added up.

Axes: b rows, t positions, n letters or other symbols, d width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Float, Int

from jaxtok.config import configclass
from jaxtok.data import cipher
from jaxtok.evals import base

_NONE = -1  # No letter.


@configclass
class Config:
  """What to measure, and how often."""

  every_steps: int = 0  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 0  # Of source text from the split's start; 0: all.
  train_split: str = 'train'  # What the probe learns from.
  train_bytes: int = 200_000
  steps: int = 1500  # Of the probe.
  seed: int = 0  # Of the keys and the probe.

  def __post_init__(self):
    for name, least in (
      *(('every_steps', 0), ('max_bytes', 0), ('seed', 0)),
      *(('train_bytes', 1), ('steps', 1)),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f'{name} must be >= {least}, got {getattr(self, name)}.'
        )

  def make(self, context: base.Context) -> 'Decipher':
    """Builds the eval.

    Raises:
      ValueError: If letters are no tokens.
    """
    return Decipher(self, context)


class Decipher:
  """How much of the ciphers a probe of the states reads.

  Capital letters have the key of the small ones. Only the first document of a
  row counts.

  Returns:
    key: Share of the cipher letters in a row whose plain letter is found from
      all their places.
    letters: The same, each letter as often as it occurs.
    letters_alone: Share of letters named right from their own state.
    most_frequent: `letters` of who says the most frequent one of the training
      text everywhere.
    rows, bytes, corpus: On how much of what text.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config, self._context = config, context
    ids = cipher.letter_ids(context.tokenizer)
    self._letter_v = np.full(context.tokenizer.vocab_size, _NONE)
    self._letter_v[ids] = np.arange(26)
    self._states = jax.jit(_states, static_argnums=0)

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    del rng  # Keys and probe are the same each time.
    c = self._config
    train = self._rows(model, c.train_split, c.train_bytes, 1)
    is_letter = train['plain'] != _NONE
    plain_n = train['plain'][is_letter]
    probe = fit_probe(
      train['states'][is_letter], plain_n, 26, seed=c.seed, steps=c.steps
    )
    test = self._rows(model, c.split, c.max_bytes, 0)
    logprob_btn = np.asarray(jax.nn.log_softmax(probe(test['states']), axis=-1))
    names_bt, plain_bt = test['names'], test['plain']
    # At the end of a row, of all places.
    whole_btn = evidence(logprob_btn, names_bt, whole=True)
    right_bt = whole_btn.argmax(-1) == plain_bt
    is_letter = plain_bt != _NONE
    share = lambda right_bt: float(right_bt[is_letter].mean())
    found = [
      right_t[names_t == name][0]
      for right_t, names_t in zip(right_bt, names_bt, strict=True)
      for name in set(names_t) - {_NONE}
    ]
    if not found:
      raise ValueError(f'the {c.split} split has no letters to decipher.')
    most = np.bincount(plain_n, minlength=26).argmax()
    return {
      'key': float(np.mean(found)),
      'letters': share(right_bt),
      'letters_alone': share(logprob_btn.argmax(-1) == plain_bt),
      'most_frequent': share(plain_bt == most),
      'rows': len(names_bt),
      'bytes': test['bytes'],
      'corpus': self._context.corpus_id(c.split, c.max_bytes),
    }

  def _rows(self, model, split: str, max_bytes: int, part: int) -> dict:
    """States [b, t, d], and the letters as they are and as they stand there."""
    graph, params = nnx.split(model)
    parts, num_bytes = [], 0
    for batch in self._context.batches(split, max_bytes):
      tokens = np.asarray(batch['tokens_bt'])
      rng = np.random.default_rng((self._config.seed, part, len(parts)))
      tables = cipher.token_tables(self._context.tokenizer, rng, len(tokens))
      hidden = tables[np.arange(len(tokens))[:, None], 0, tokens]
      states = self._states(graph, params, dict(batch), jnp.asarray(hidden))
      is_first = np.asarray(batch['segment_ids_bt']) == 1
      letter = lambda ids, keep=is_first: np.where(
        keep, self._letter_v[ids], _NONE
      )
      parts.append((np.asarray(states), letter(tokens), letter(hidden)))
      num_bytes += int(np.asarray(batch['num_bytes_bt']).sum())
    if not parts:
      raise ValueError(f'the {split} split has no text.')
    states, plain, names = map(np.concatenate, zip(*parts, strict=True))
    return {
      'states': states,
      'plain': plain,
      'names': names,
      'bytes': num_bytes,
    }


def _states(graph, params, batch, tokens_bt):
  output = nnx.merge(graph, params)(
    tokens_bt,
    positions=batch['positions_bt'],
    segment_ids=batch['segment_ids_bt'],
  )
  return output.hidden_btd.astype(jnp.float32)


def evidence(
  logprob_btn: Float[np.ndarray, 'b t n'],
  names_bt: Int[np.ndarray, 'b t'],
  *,
  whole: bool = False,
) -> Float[np.ndarray, 'b t n']:
  """Sums of what a probe says at all places of a symbol, up to each place.

  Args:
    logprob_btn: Of each plain symbol, by the state at a place alone.
    names_bt: The symbol that stands there; < 0 is none, and gets zeros.
    whole: Whether places behind count too.
  """
  sums_btn = np.zeros(logprob_btn.shape, np.float64)
  for name in range(int(names_bt.max(initial=-1)) + 1):
    is_name_bt1 = (names_bt == name)[..., None]
    sum_btn = np.cumsum(np.where(is_name_bt1, logprob_btn, 0.0), axis=1)
    sum_btn = sum_btn[:, -1:] if whole else sum_btn
    sums_btn += np.where(is_name_bt1, sum_btn, 0.0)
  return sums_btn


def fit_probe(
  states_xd: Float[np.ndarray, '*x d'],
  symbols_x: Int[np.ndarray, '*x'],
  num: int,
  *,
  seed: int,
  steps: int = 1500,
) -> Callable[[Any], Any]:
  """Trains an MLP with one hidden layer of 128 from states to plain symbols.

  Args:
    states_xd: Of any number of places.
    symbols_x: The plain symbol of each, 0..num-1.
    num: Symbols.
    seed: Of weights and batches.
    steps: Of 1,024 places each.

  Returns:
    A function from states to logits.
  """
  dim, rngs = states_xd.shape[-1], nnx.Rngs(seed)
  model = nnx.Sequential(
    nnx.Linear(dim, 128, rngs=rngs), nnx.relu, nnx.Linear(128, num, rngs=rngs)
  )
  graph, params = nnx.split(model)
  x = jnp.asarray(states_xd.reshape(-1, dim))
  y = jnp.asarray(symbols_x.reshape(-1))
  optimizer = optax.adam(2e-3)

  def loss(params, index):
    logits = nnx.merge(graph, params)(x[index])
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, y[index]
    ).mean()

  def step(carry, rng):
    params, state = carry
    index = jax.random.randint(rng, (1024,), 0, len(x))
    updates, state = optimizer.update(jax.grad(loss)(params, index), state)
    return (optax.apply_updates(params, updates), state), None

  @jax.jit
  def run(params, rngs):
    return jax.lax.scan(step, (params, optimizer.init(params)), rngs)[0][0]

  rngs = jax.random.split(jax.random.key(seed), steps)
  return jax.jit(nnx.merge(graph, run(params, rngs)))
