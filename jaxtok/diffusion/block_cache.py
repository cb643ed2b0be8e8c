# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes blocks from left to right with cached keys and values.

A denoiser sees all positions, so what it computed for one of them is out of
date as soon as another is revealed. Inside a block it changes little. Wu et al.
2025 (Fast-dLLM, arXiv:2505.22618): the first call of a block runs over the
whole row and fills the cache, the others compute part of it:

  kind      first call      other calls        sees of the rest
  prefix    whole row       block and behind   old keys before the block
  dual      whole row       block              old keys before and behind
  exact     last block and  block              nothing behind
            the block

'prefix' and 'dual' are approximations, 'exact' is not: it is for denoisers with
the mask `nn.block_masks.BlockCausal`, whose finished blocks never change
(Arriola et al. 2025, arXiv:2503.09573). The block before is computed once more,
with its final tokens, in the first call of the next one; the published code
spends a call of its own on that.

All rows are in the same block; a row that is done with it waits, which changes
neither its result nor its number of calls. Selectors see the block alone.

Axes: b rows, t positions, w positions of a window, v vocabulary.
"""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import ending, samplers, selectors

KINDS = ('prefix', 'dual', 'exact')


@runtime_checkable
class Windowed(Protocol):
  """Protocol of denoisers that can run on a window of the row.

  Attributes:
    lookback: 1 if the logits of a position are computed at the one before
      (Dream), else absent or 0.
  """

  def init_cache(self, tokens_bt: Int[Array, 'b t']) -> Any:
    """An empty cache for rows of this shape."""
    ...

  def window(
    self,
    tokens_bw: Int[Array, 'b w'],
    cache: Any,
    start: Int[Array, ''] | int,
    *,
    offset: Int[Array, ''] | int,
    size: int,
  ) -> tuple[Float[Array, 'b s v'], Any]:
    """Runs on positions `start` to `start + w` and stores their keys.

    Returns:
      What the model says at `size` (static) positions of the window, from
      `offset` on, and the cache.
    """
    ...


@dataclasses.dataclass(frozen=True)
class _Plan:
  """The static arguments of `decode`."""

  kind: str
  prompt_len: int
  mask_id: int
  block: int
  refresh_every: int
  temperature: float
  filters: sampling_lib.Config | None
  length: int  # Of the row.
  lookback: int

  def enter(self, start, is_first: bool):
    """First position (maybe traced) and size of a block's first call."""
    if self.kind != 'exact' or is_first:
      return 0, self.length
    return start - self.block - self.lookback, 2 * self.block + self.lookback

  def inside(self, start):
    """Likewise, of the others; `start` is static for 'prefix'."""
    begin = start - self.lookback
    if self.kind == 'prefix':
      return begin, self.length - begin
    return begin, self.block + self.lookback

  @property
  def calls_per_round(self) -> int:
    """Calls of a block between one over the whole row and the next."""
    return self.refresh_every or self.block


def decode(
  denoiser: Windowed,
  canvas: samplers.Canvas,
  selector: selectors.Selector,
  rngs_b: Any,
  *,
  kind: str,
  prompt_len: int,
  mask_id: int,
  block: int,
  refresh_every: int = 0,
  temperature: float = 0.0,
  filters: sampling_lib.Config | None = None,
  end: ending.Ending | None = None,
) -> samplers.Canvas:
  """`samplers.decode` in blocks, with a cache.

  Jit it with the keywords static; denoiser and selector may be pytrees. With
  'prefix', the program grows with the number of blocks.

  Args:
    denoiser: E.g. `denoisers.OfModel`, or `pretrained.Denoiser`.
    canvas: See `samplers.decode`.
    selector: Sees the positions of the block; `progress_b` is relative to the
      whole answer.
    rngs_b: See `samplers.decode`.
    kind: One of `KINDS`; static.
    prompt_len: Static. A multiple of `block` if `kind` is 'exact'.
    mask_id: Static.
    block: Length of blocks, static; divides the length of the answer.
    refresh_every: Calls of a block after which the whole row is computed anew;
      1 is `samplers.decode`, 0 means only at the first. Static.
    temperature: See `samplers.decode`.
    filters: See `samplers.decode`.
    end: After each block, rows that have come to their end are filled up and
      cost no more calls; the loop ends with the last row. None goes on to the
      end of the canvas.

  Returns:
    The canvas at the end. A row is charged one call for each in which it had
    something masked in the block, whatever the call's size.

  Raises:
    ValueError: If a static argument is out of range.
  """
  plan = _Plan(
    kind,
    prompt_len,
    mask_id,
    block,
    refresh_every,
    temperature,
    filters,
    canvas.tokens_bt.shape[1],
    getattr(denoiser, 'lookback', 0),
  )
  _check(plan)
  step = functools.partial(_step, denoiser, selector, rngs_b, plan)
  state = (canvas, denoiser.init_cache(canvas.tokens_bt))
  run = functools.partial(_decode_block, step, plan, end)
  state = run(prompt_len, state, is_first=True)
  num_blocks = (plan.length - prompt_len) // block
  if kind == 'prefix':
    for i in range(1, num_blocks):
      state = run(prompt_len + i * block, state)
    return state[0]
  return jax.lax.while_loop(
    lambda s: (s[0] < num_blocks) & s[1][0].is_masked_bt.any(),
    lambda s: (s[0] + 1, run(prompt_len + s[0] * block, s[1])),
    (jnp.int32(1), state),
  )[1][0]


def _check(plan: _Plan) -> None:
  answer = plan.length - plan.prompt_len
  if plan.kind not in KINDS:
    raise ValueError(f'kind={plan.kind!r} must be one of {", ".join(KINDS)}.')
  if plan.prompt_len < plan.lookback or answer < 1:
    raise ValueError(
      f'prompt_len={plan.prompt_len} must be in [{plan.lookback}, '
      f'{plan.length}), the length of the rows.'
    )
  if plan.block < 1 or answer % plan.block:
    raise ValueError(
      f'block={plan.block} must be >= 1 and divide the {answer} positions of '
      'the answer.'
    )
  if plan.refresh_every < 0 or plan.temperature < 0:
    raise ValueError(
      f'refresh_every={plan.refresh_every} and temperature='
      f'{plan.temperature} must be >= 0.'
    )
  if plan.kind == 'exact' and plan.refresh_every:
    raise ValueError(
      f"refresh_every={plan.refresh_every}, but kind='exact' never goes out of "
      'date. Leave it 0.'
    )
  if plan.kind == 'exact' and plan.prompt_len % plan.block:
    raise ValueError(
      f'prompt_len={plan.prompt_len} must be a multiple of block={plan.block} '
      "with kind='exact': its blocks count from the first token. Give the rest "
      'of the prompt as revealed tokens of the first block.'
    )


def _decode_block(step, plan, end, start, state, is_first: bool = False):
  """All calls of one block; then rows may end."""
  at = lambda x_bt: jax.lax.dynamic_slice_in_dim(x_bt, start, plan.block, 1)
  is_open = lambda canvas: at(canvas.is_masked_bt).any()

  def calls(state):
    canvas, cache, num = state
    begin, size = plan.enter(start, is_first)
    canvas, cache = step(canvas, cache, start, begin, size)
    if plan.calls_per_round == 1:
      return canvas, cache, num + 1
    begin, size = plan.inside(start)
    return jax.lax.while_loop(
      lambda s: is_open(s[0]) & (s[2] < jnp.minimum(last(num), plan.block)),
      lambda s: (*step(s[0], s[1], start, begin, size), s[2] + 1),
      (canvas, cache, num + 1),
    )

  last = lambda num: num + plan.calls_per_round
  # A block always enters an exact cache, even if nothing in it is masked.
  must = plan.kind == 'exact'
  going = lambda s: (is_open(s[0]) & (s[2] < plan.block)) | (must & (s[2] == 0))
  canvas, cache, _ = jax.lax.while_loop(going, calls, (*state, jnp.int32(0)))
  if end is not None:
    canvas = end(canvas, start + plan.block, plan.prompt_len)
  return canvas, cache


def _step(denoiser, selector, rngs_b, plan, canvas, cache, start, begin, size):
  """One call over `size` positions from `begin`; reveals in the block."""
  slice_of = lambda x_bt, begin, size: jax.lax.dynamic_slice_in_dim(
    x_bt, begin, size, axis=1
  )
  logits_bsv, cache = denoiser.window(
    slice_of(canvas.tokens_bt, begin, size),
    cache,
    begin,
    offset=start - plan.lookback - begin,
    size=plan.block,
  )
  is_row = lambda x: x.ndim == 2
  part = jax.tree.map(
    lambda x: slice_of(x, start, plan.block) if is_row(x) else x, canvas
  )
  view = samplers.look(
    lambda tokens_bs: logits_bsv,
    part,
    rngs_b,
    part.num_calls_b,
    prompt_len=0,
    mask_id=plan.mask_id,
    temperature=plan.temperature,
    filters=plan.filters,
  )
  answer = plan.length - plan.prompt_len
  view = dataclasses.replace(view, progress_b=part.num_calls_b / answer)
  select_bs = selector(view) & view.allowed_bt
  part = samplers.commit(part, view, select_bs, part.num_calls_b)
  put = lambda whole, new: (
    jax.lax.dynamic_update_slice_in_dim(whole, new, start, axis=1)
    if is_row(whole)
    else new
  )
  return jax.tree.map(put, canvas, part), cache
