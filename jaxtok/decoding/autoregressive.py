# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One token after another: prefill, then cached steps, in one jitted call.

  prompt --model--> cache, first token --+
                                         v
            loop: token --model with cache--> next token      (lax.while_loop)

The newest token of a row is never in the cache yet; the next model call puts
it there. The loop ends when all rows have stopped, or after `num_tokens`.

Compilations: shapes are rounded up to `bucket` sizes (16, 24, 32, 48, 64, ...),
so a program is compiled once for each bucket of the longest prompt and bucket
of `num_tokens`, for each number of rows, sampling config and model config, and
is kept for the life of the process. Parameters, prompts, stop ids and bans may
change freely.

Token i of row b depends on `rng`, i and b only, so `stream` and `generate` give
the same tokens, and rows do not influence one another.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.decoding import sampling as sampling_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generation:
  """What was generated, without the prompt.

  Attributes:
    tokens: int32 [b, n]; `pad_id` behind the end of a row.
    lengths: int32 [b], tokens of each row; a stop token counts.
    logprobs: float32 [b, n], of each token under the model itself (before
      temperature and filters), nats; 0 behind the end.
    stats: Sums over rows: `tokens`, `prompt_tokens`; and `model_calls`, each
      for all rows at once.
  """

  tokens: Any
  lengths: Any
  logprobs: Any
  stats: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
  """What the next step needs; `newest_b` is not in the cache yet."""

  cache: Any
  newest_b: Any
  is_done_b: Any
  num: Any  # Tokens generated so far per row that is not done.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Choice:
  """How a token is chosen, and what ends a row."""

  config: sampling_lib.Config = dataclasses.field(metadata=dict(static=True))
  rng: Any
  stop_n: Any  # Filled up with -1.
  banned_v: Any
  pad_id: Any


def bucket(size: int, smallest: int = 16) -> int:
  """The least of 16, 24, 32, 48, 64, 96, ... that is not below `size`."""
  power = smallest
  while power < size:
    power *= 2
  return (
    power * 3 // 4 if power > smallest and power * 3 // 4 >= size else power
  )


def padded_width(model: Any, longest: int) -> int:
  """What to pad rows to: a bucket, or all positions that the model has.

  Raises:
    ValueError: If the longest row exceeds them.
  """
  limit = getattr(model, 'max_len', 0)
  if limit and longest > limit:
    raise ValueError(
      f'{longest} tokens exceed the {limit} positions of the model. Shorten '
      'the prompt (keep its end).'
    )
  return min(bucket(longest), limit) if limit else bucket(longest)


def pad_prompts(
  prompts: Sequence[Any], pad_id: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of different lengths as one array, padded at the end.

  Returns:
    int32 tokens [b, t] and lengths [b].
  """
  if empty := [i for i, prompt in enumerate(prompts) if not len(prompt)]:
    raise ValueError(
      f'prompt {empty[0]} has no tokens; begin each one with the BOS token.'
    )
  lengths = np.asarray([len(prompt) for prompt in prompts], np.int32)
  tokens = np.full((len(prompts), lengths.max(initial=1)), pad_id, np.int32)
  for row, prompt in zip(tokens, prompts, strict=True):
    row[: len(prompt)] = prompt
  return tokens, lengths


def generate(
  model: Any,
  prompt_bt: Int[Array | np.ndarray, 'b t'],
  prompt_len_b: Int[Array | np.ndarray, 'b'] | None = None,
  *,
  num_tokens: int,
  rng: Array | None = None,
  sampling: sampling_lib.Config | None = None,
  stop: Sequence[int] = (),
  banned_v: np.ndarray | None = None,
  context: Any = None,
  pad_id: int = 0,
) -> Generation:
  """Continues prompts.

  Args:
    model: See `models.base`.
    prompt_bt: Prompts, padded at the end; at least one token per row, usually
      BOS. Of an encoder-decoder: what its decoder begins with.
    prompt_len_b: Their lengths; None means t.
    num_tokens: Most tokens to generate per row.
    rng: A `jax.random.key`; needed unless the temperature is 0.
    sampling: How to choose tokens; None means greedily.
    stop: Tokens that end a row.
    banned_v: True for tokens never to be drawn; see `sampling.ban`.
    context: What an encoder-decoder reads, see its model.
    pad_id: Fills rows behind their end.

  Returns:
    The continuations, `num_tokens` wide.

  Raises:
    ValueError: If prompts and lengths do not fit each other or the model.
  """
  (generation,) = stream(
    model,
    prompt_bt,
    prompt_len_b,
    num_tokens=num_tokens,
    chunk=num_tokens,
    rng=rng,
    sampling=sampling,
    stop=stop,
    banned_v=banned_v,
    context=context,
    pad_id=pad_id,
  )
  return generation


def stream(
  model: Any,
  prompt_bt: Int[Array | np.ndarray, 'b t'],
  prompt_len_b: Int[Array | np.ndarray, 'b'] | None = None,
  *,
  num_tokens: int,
  chunk: int = 16,
  rng: Array | None = None,
  sampling: sampling_lib.Config | None = None,
  stop: Sequence[int] = (),
  banned_v: np.ndarray | None = None,
  context: Any = None,
  pad_id: int = 0,
) -> Iterator[Generation]:
  """Like `generate`, but yields every `chunk` tokens what has become known.

  Args are those of `generate`. The pieces, put side by side, are what
  `generate` returns; `lengths` and `stats` of a piece are of that piece. The
  last piece may be narrower, and there is none after all rows have stopped.
  """
  sampling = sampling or sampling_lib.Config(temperature=0.0)
  prompt_bt, prompt_len_b = _check(
    prompt_bt, prompt_len_b, num_tokens, chunk, rng, sampling
  )
  choice = _Choice(
    config=sampling,
    rng=jax.random.key(0) if rng is None else rng,
    stop_n=np.asarray([*stop, *[-1] * (-len(stop) % 8)], np.int32),
    banned_v=banned_v,
    pad_id=np.int32(pad_id),
  )
  width, max_len = _sizes(model, prompt_len_b, num_tokens)
  prompt_bt = prompt_bt[:, :width]
  prompt_bt = np.pad(prompt_bt, ((0, 0), (0, width - prompt_bt.shape[1])))
  graph, params = nnx.split(model)
  start = functools.partial(
    _start, graph, params, prompt_bt, prompt_len_b, context, max_len=max_len
  )
  advance = functools.partial(_advance, graph, params)
  return _pieces(start, advance, choice, num_tokens, chunk)


def _pieces(
  start: Callable[..., tuple[_State, Generation]],
  advance: Callable[..., tuple[_State, Generation]],
  choice: _Choice,
  num_tokens: int,
  chunk: int,
) -> Iterator[Generation]:
  room, state = bucket(chunk), None
  for begin in range(0, num_tokens, chunk):
    limit = min(chunk, num_tokens - begin)
    if state is None:
      state, piece = start(choice=choice, limit=limit, room=room)
    else:
      state, piece = advance(state=state, choice=choice, limit=limit, room=room)
    yield dataclasses.replace(
      piece,
      tokens=piece.tokens[:, :limit],
      logprobs=piece.logprobs[:, :limit],
    )
    if begin + limit < num_tokens and bool(state.is_done_b.all()):
      return


def _check(
  prompt_bt: Any,
  prompt_len_b: Any,
  num_tokens: int,
  chunk: int,
  rng: Any,
  sampling: sampling_lib.Config,
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts and lengths on the host."""
  prompt_bt = np.asarray(prompt_bt, np.int32)
  b, t = prompt_bt.shape
  lengths = t if prompt_len_b is None else prompt_len_b
  lengths = np.broadcast_to(np.asarray(lengths, np.int32), (b,))
  if num_tokens < 1 or chunk < 1:
    raise ValueError(f'num_tokens={num_tokens} and chunk={chunk} must be >= 1.')
  if prompt_bt.min(initial=0) < 0:
    raise ValueError(
      f'prompt_bt holds the id {prompt_bt.min()}; ids begin with 0. Pad with '
      'any id and give prompt_len_b.'
    )
  if b == 0 or lengths.min() < 1 or lengths.max() > t:
    raise ValueError(
      f'prompt_len_b={lengths.tolist()} must be 1 to {t}, the width of '
      'prompt_bt: begin empty prompts with the BOS token.'
    )
  if rng is None and sampling.temperature > 0:
    raise ValueError(
      f'rng is None, but temperature={sampling.temperature} draws tokens. Give '
      'rng=jax.random.key(seed), or set temperature=0.'
    )
  return prompt_bt, lengths


def _sizes(
  model: Any, prompt_len_b: np.ndarray, num_tokens: int
) -> tuple[int, int]:
  """Width of the padded prompts, and slots of the cache."""
  longest, limit = int(prompt_len_b.max()), getattr(model, 'max_len', 0)
  # The last token is never read by the model.
  if limit and longest + num_tokens - 1 > limit:
    raise ValueError(
      f'a prompt of {longest} tokens and num_tokens={num_tokens} exceed the '
      f'{limit} positions of the model. Shorten the prompt (keep its end), or '
      f'generate at most {max(limit - longest + 1, 0)} tokens.'
    )
  max_len = bucket(longest) + bucket(num_tokens)
  width = padded_width(model, longest)
  return width, min(max_len, limit) if limit else max_len


@functools.partial(jax.jit, static_argnames=('graph', 'max_len', 'room'))
def _start(
  graph: Any,
  params: Any,
  prompt_bt: Int[Array, 'b t'],
  prompt_len_b: Int[Array, 'b'],
  context: Any,
  *,
  choice: _Choice,
  limit: Any,
  max_len: int,
  room: int,
) -> tuple[_State, Generation]:
  """Reads the prompts and generates the first piece."""
  model = nnx.merge(graph, params)
  cache = model.init_cache(prompt_bt.shape[0], max_len)
  output = model(prompt_bt, cache=cache, context=context)
  # Padding was appended too; it is forgotten, and overwritten later.
  cache = output.cache.truncate(prompt_len_b)
  last_b11 = (prompt_len_b - 1)[:, None, None]
  last_b1d = jnp.take_along_axis(output.hidden_btd, last_b11, axis=1)
  state = _State(
    cache=cache,
    newest_b=jnp.zeros_like(prompt_len_b),
    is_done_b=jnp.zeros_like(prompt_len_b, bool),
    num=jnp.int32(0),
  )
  piece = _empty(prompt_bt.shape[0], room, choice)
  piece.stats['prompt_tokens'] = prompt_len_b.sum()
  state, piece = _choose(model.logits(last_b1d)[:, 0], state, piece, choice)
  return _loop(model, state, piece, choice, limit)


@functools.partial(
  jax.jit, static_argnames=('graph', 'room'), donate_argnames='state'
)
def _advance(
  graph: Any,
  params: Any,
  *,
  state: _State,
  choice: _Choice,
  limit: Any,
  room: int,
) -> tuple[_State, Generation]:
  """Generates the next piece."""
  model = nnx.merge(graph, params)
  piece = _empty(state.newest_b.shape[0], room, choice)
  return _loop(model, state, piece, choice, limit)


def _empty(b: int, room: int, choice: _Choice) -> Generation:
  """A piece with nothing in it yet."""
  names = ('tokens', 'prompt_tokens', 'model_calls')
  return Generation(
    tokens=jnp.full((b, room), choice.pad_id),
    lengths=jnp.zeros(b, jnp.int32),
    logprobs=jnp.zeros((b, room)),
    stats={name: jnp.int32(0) for name in names},
  )


def _loop(
  model: Any, state: _State, piece: Generation, choice: _Choice, limit: Any
) -> tuple[_State, Generation]:
  """Steps until the piece has `limit` tokens or all rows have stopped."""

  def is_unfinished(carry):
    state, piece = carry
    return (piece.stats['model_calls'] < limit) & ~state.is_done_b.all()

  def step(carry):
    state, piece = carry
    output = model(state.newest_b[:, None], cache=state.cache)
    state = dataclasses.replace(state, cache=output.cache)
    logits_bv = model.logits(output.hidden_btd)[:, 0]
    return _choose(logits_bv, state, piece, choice)

  return jax.lax.while_loop(is_unfinished, step, (state, piece))


def _choose(
  logits_bv: Float[Array, 'b v'],
  state: _State,
  piece: Generation,
  choice: _Choice,
) -> tuple[_State, Generation]:
  """Draws one token per row and writes it down."""
  drawn = sampling_lib.sample(
    logits_bv,
    jax.random.fold_in(choice.rng, state.num),
    choice.config,
    choice.banned_v,
  )
  is_new_b = ~state.is_done_b
  token_b = jnp.where(is_new_b, drawn.token, choice.pad_id)
  column = piece.stats['model_calls']
  num_new = is_new_b.sum(dtype=jnp.int32)
  piece = Generation(
    tokens=piece.tokens.at[:, column].set(token_b),
    lengths=piece.lengths + is_new_b,
    logprobs=piece.logprobs.at[:, column].set(
      jnp.where(is_new_b, drawn.logprob, 0.0)
    ),
    stats=piece.stats
    | {
      'tokens': piece.stats['tokens'] + num_new,
      'model_calls': column + 1,
    },
  )
  state = _State(
    cache=state.cache,
    newest_b=token_b,
    is_done_b=state.is_done_b | jnp.isin(token_b, choice.stop_n),
    num=state.num + 1,
  )
  return state, piece
