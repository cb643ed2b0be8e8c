# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes masked rows with a selector, as one compiled loop.

A step is one call of the denoiser, a selection and a commit. Rows go on
independently: a row's result and its number of calls do not depend on the
others, and calls made for slower rows are not charged to it.

Semi-autoregressive blocks: Nie et al. 2025, arXiv:2502.09992. Drawing one
token at a random position per step is the first-hitting sampler without times
(Zheng et al. 2024, arXiv:2409.02908), exact for denoisers that ignore time.

Axes: b rows, t positions of the whole row, v vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import selectors

Denoiser = Callable[[Int[Array, 'b t']], Float[Array, 'b t v']]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Canvas:
  """Rows while they are decoded.

  Attributes:
    tokens_bt: Tokens; what stands at masked positions is the mask token.
    is_masked_bt: Positions still to be revealed.
    num_calls_b: Denoiser calls in which the row had a masked position.
    reveal_step_bt: Step at which a position was revealed; -1 if it was not.
    psi_bt: Probability of a revealed token when it was revealed; 1 if given.
  """

  tokens_bt: Int[Array, 'b t']
  is_masked_bt: Bool[Array, 'b t']
  num_calls_b: Int[Array, 'b']
  reveal_step_bt: Int[Array, 'b t']
  psi_bt: Float[Array, 'b t']


@runtime_checkable
class Remask(Protocol):
  """Chooses what is masked again after a step of `decode`."""

  def __call__(
    self,
    canvas: Canvas,
    is_free_bt: Bool[Array, 'b t'],
    num_new_b: Int[Array, 'b'],
  ) -> Bool[Array, 'b t']:
    """Revealed positions among `is_free_bt`, fewer than `num_new_b` in a row.

    Args:
      canvas: After the step.
      is_free_bt: Positions that were masked at the start.
      num_new_b: How many the step has revealed.
    """
    ...


def start(
  tokens_bt: Int[Array, 'b t'], is_masked_bt: Bool[Array, 'b t'], mask_id: int
) -> Canvas:
  """A canvas on which the given positions are masked.

  Raises:
    ValueError: If `mask_id` is negative.
  """
  if mask_id < 0:
    raise ValueError(
      f'mask_id={mask_id} must be >= 0: the id of the mask token, that of the '
      'objective which the model was trained with.'
    )
  return Canvas(
    tokens_bt=jnp.where(is_masked_bt, mask_id, tokens_bt),
    is_masked_bt=is_masked_bt,
    num_calls_b=jnp.zeros(tokens_bt.shape[0], jnp.int32),
    reveal_step_bt=jnp.full(tokens_bt.shape, -1, jnp.int32),
    psi_bt=jnp.ones(tokens_bt.shape, jnp.float32),
  )


def row_rngs(rng: Array, num_rows: int) -> Array:
  """One key per row, which does not depend on the number of rows."""
  return jax.vmap(lambda row: jax.random.fold_in(rng, row))(
    jnp.arange(num_rows)
  )


def chunks(num_rows: int, rows_per_call: int) -> list[np.ndarray]:
  """Indices of rows in parts of one length, of which each is one program.

  As few and as even as possible; the last part repeats the last row.

  Args:
    num_rows: Of the batch.
    rows_per_call: The most that a part may have; 0 means all.

  Raises:
    ValueError: If it is negative.
  """
  if rows_per_call < 0:
    raise ValueError(f'rows_per_call={rows_per_call} must be >= 0 (0: all).')
  num = -(-num_rows // (rows_per_call or num_rows))
  size = -(-num_rows // num)
  starts = range(0, num_rows, size)
  return [np.minimum(np.arange(i, i + size), num_rows - 1) for i in starts]


def rows_that_fit(length: int, vocab_size: int, num_bytes: int = 2**31) -> int:
  """Rows whose float32 distributions over an answer take so many bytes.

  A step of `decode` holds a few such arrays at once. At least one row.
  """
  return max(1, num_bytes // (4 * length * vocab_size))


def answer_logits(
  denoiser: Any, tokens_bt: Int[Array, 'b t'], prompt_len: int
) -> Float[Array, 'b s v']:
  """Logits of the positions from `prompt_len` on.

  A denoiser that has a method `answer_logits(tokens_bt, prompt_len)` need not
  make those of the prompt.
  """
  if hasattr(denoiser, 'answer_logits'):
    return denoiser.answer_logits(tokens_bt, prompt_len)
  return denoiser(tokens_bt)[:, prompt_len:]


def block_of(is_masked_bt: Bool[Array, 'b t'], prompt_len: int, block: int):
  """Masked answer positions of the first unfinished block of each row.

  Args:
    is_masked_bt: Over the answer alone if `prompt_len` is 0.
    prompt_len: Positions before the first block; static.
    block: Length of blocks; 0 means one block. Static.
  """
  if not block:
    return is_masked_bt
  index_t = (jnp.arange(is_masked_bt.shape[1]) - prompt_len) // block
  last = jnp.iinfo(jnp.int32).max
  first_b = jnp.where(is_masked_bt, index_t, last).min(-1)
  return is_masked_bt & (index_t == first_b[:, None])


def decode(
  denoiser: Denoiser,
  canvas: Canvas,
  selector: selectors.Selector,
  rngs_b: Any,
  *,
  prompt_len: int,
  mask_id: int,
  block: int = 0,
  temperature: float = 0.0,
  filters: sampling_lib.Config | None = None,
  max_steps: int = 0,
  remask: Remask | None = None,
) -> Canvas:
  """Reveals masked positions until none is left.

  Jit it with the keywords static; denoiser, selector and remask may be pytrees.

  Args:
    denoiser: Logits of whole rows. Column `mask_id`, if any, is ignored.
    canvas: From `start`. Positions before `prompt_len` must not be masked.
    selector: Sees the positions from `prompt_len` on.
    rngs_b: Keys of the rows, see `row_rngs`.
    prompt_len: Static.
    mask_id: Token that is never written; static.
    block: Length of blocks decoded left to right; 0 decodes all at once.
    temperature: Of tokens, drawn from softmax(logits / temperature); 0 takes
      the most probable. The selector sees the distribution at temperature 1.
    filters: In place of `temperature`: its own, and top-k, top-p and min-p, of
      tokens alone; the selector sees none of it. Static.
    max_steps: Bound on the steps; 0 means the number of answer positions.
    remask: Masks revealed positions again after each step, see `remdm.Lowest`;
      None: none.

  Returns:
    The canvas at the end.

  Raises:
    ValueError: If a static argument is out of range.
  """
  length = canvas.tokens_bt.shape[1] - prompt_len
  if prompt_len < 0 or length < 1:
    raise ValueError(
      f'prompt_len={prompt_len} must be in [0, {canvas.tokens_bt.shape[1]}), '
      'the length of the rows.'
    )
  if block < 0 or temperature < 0 or max_steps < 0:
    raise ValueError(
      f'block={block}, temperature={temperature} and max_steps={max_steps} '
      'must be >= 0.'
    )

  is_free_bt = canvas.is_masked_bt

  def body(state):
    canvas, step = state
    view = look(
      denoiser,
      canvas,
      rngs_b,
      step,
      prompt_len=prompt_len,
      mask_id=mask_id,
      block=block,
      temperature=temperature,
      filters=filters,
    )
    select_bt = selector(view) & view.allowed_bt
    canvas = commit(canvas, view, select_bt, step)
    if remask is not None:
      drop_bt = remask(canvas, is_free_bt, select_bt.sum(-1))
      canvas = mask_again(canvas, drop_bt, mask_id)
    return canvas, step + 1

  def is_open(state):
    return state[0].is_masked_bt.any() & (state[1] < (max_steps or length))

  return jax.lax.while_loop(is_open, body, (canvas, jnp.int32(0)))[0]


def look(
  denoiser: Denoiser,
  canvas: Canvas,
  rngs_b: Any,
  step: Int[Array, '...'],
  *,
  prompt_len: int,
  mask_id: int,
  block: int = 0,
  temperature: float = 0.0,
  filters: sampling_lib.Config | None = None,
) -> selectors.View:
  """Calls the denoiser: what a selector sees at a step of `decode`.

  `step` is one number, or one per row; it chooses the random numbers.

  Raises:
    ValueError: If there are two temperatures.
  """
  if temperature and filters is not None:
    raise ValueError(
      f'temperature={temperature} and filters={filters} both have a '
      'temperature. Leave temperature 0.'
    )
  logits_btv = answer_logits(denoiser, canvas.tokens_bt, prompt_len)
  logits_btv = logits_btv.astype(jnp.float32)
  is_mask_v = jnp.arange(logits_btv.shape[-1]) == mask_id
  logits_btv = jnp.where(is_mask_v, -jnp.inf, logits_btv)
  step_b = jnp.broadcast_to(step, logits_btv.shape[:1])
  step_rngs_b = jax.vmap(jax.random.fold_in)(rngs_b, step_b)
  select_rngs_b, token_rngs_b = jax.vmap(jax.random.split, out_axes=1)(
    step_rngs_b
  )
  masked_bt = canvas.is_masked_bt[:, prompt_len:]
  return selectors.View(
    probs_btv=jax.nn.softmax(logits_btv, axis=-1),
    tokens_bt=_tokens(logits_btv, token_rngs_b, temperature, filters),
    is_masked_bt=masked_bt,
    allowed_bt=block_of(masked_bt, 0, block),
    progress_b=canvas.num_calls_b / logits_btv.shape[1],
    rngs_b=select_rngs_b,
  )


def _tokens(logits_btv, rngs_b, temperature, filters):
  """Proposed tokens."""
  if filters is not None and filters.temperature:
    return draw(sampling_lib.filter_logits(logits_btv, filters), rngs_b)
  if not temperature:
    return logits_btv.argmax(-1)
  return draw(logits_btv / temperature, rngs_b)


def draw(logits_btv: Float[Array, 'b t v'], rngs_b: Any) -> Int[Array, 'b t']:
  """Tokens of the distribution, all of it.

  The default Gumbel noise of float32 is cut off at 15.9, so that tokens of
  probability 1e-8 would never be drawn.
  """
  of_row = lambda rng, x_tv: jax.random.categorical(rng, x_tv, mode='high')
  return jax.vmap(of_row)(rngs_b, logits_btv)


def commit(
  canvas: Canvas,
  view: selectors.View,
  select_bt: Bool[Array, 'b s'],
  step: Int[Array, '...'],
) -> Canvas:
  """Writes the selected tokens of the answer and counts the call.

  `step` is one number, or one per row.
  """
  pad = ((0, 0), (canvas.tokens_bt.shape[1] - select_bt.shape[1], 0))
  wide = lambda x_bt: jnp.pad(x_bt, pad)
  select_wide = wide(select_bt)
  put = lambda new, old: jnp.where(select_wide, new, old)
  is_open_b = canvas.is_masked_bt.any(-1)
  return Canvas(
    tokens_bt=put(
      wide(view.tokens_bt).astype(canvas.tokens_bt.dtype), canvas.tokens_bt
    ),
    is_masked_bt=canvas.is_masked_bt & ~select_wide,
    num_calls_b=canvas.num_calls_b + is_open_b,
    reveal_step_bt=put(jnp.reshape(step, (-1, 1)), canvas.reveal_step_bt),
    psi_bt=put(wide(view.token_probs_bt), canvas.psi_bt),
  )


def mask_again(
  canvas: Canvas, drop_bt: Bool[Array, 'b t'], mask_id: int
) -> Canvas:
  """Masks revealed positions as if they had never been revealed."""
  return dataclasses.replace(
    canvas,
    tokens_bt=jnp.where(drop_bt, mask_id, canvas.tokens_bt),
    is_masked_bt=canvas.is_masked_bt | drop_bt,
    reveal_step_bt=jnp.where(drop_bt, -1, canvas.reveal_step_bt),
    psi_bt=jnp.where(drop_bt, 1.0, canvas.psi_bt),
  )
