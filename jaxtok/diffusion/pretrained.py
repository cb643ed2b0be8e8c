# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generation as LLaDA and Dream do it.

LLaDA (Nie et al. 2025, arXiv:2502.09992): blocks from left to right, each in a
fixed number of steps that reveal equally many tokens, the most confident ones;
guidance as in Nie et al. 2024, arXiv:2410.18514. Dream (Ye et al. 2025,
arXiv:2508.15487): all at once, with a schedule in time, logits shifted by one.

  config, model = interop.load('LLaDA-8B-Instruct')
  canvas = pretrained.generate(
    model, prompt_bt, pretrained.Config(length=256, block=32, steps=256),
    mask_id=126336, eos_ids=(126081, 126348), rng=jax.random.key(0))

Axes: b rows, t positions of prompt and answer, v vocabulary.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtok.cache import overwrite
from jaxtok.config import configclass
from jaxtok.decoding import sampling as sampling_lib
from jaxtok.diffusion import (
  block_cache,
  budgets,
  denoisers,
  fitting,
  samplers,
  schedules,
  selectors,
)

EOS_POLICIES = ('none', 'logits', 'confidence')
SCORES = ('model', 'drawn')
CACHES = ('none', 'prefix', 'dual')


@configclass
class Config:
  """How an answer is generated; defaults are LLaDA's."""

  length: int = 128  # Tokens of the answer.
  block: int = 0  # Tokens of a block, decoded left to right; 0 is all at once.
  # Over all blocks; each reveals at least one token. 0 is one token per step. A
  # selector makes its own.
  steps: int = 0
  order: str = 'confidence'  # What is revealed first; see `budgets.Budget`.
  # Above 0, positions are drawn without replacement from the softmax of their
  # scores over this (Dream's alg_temp).
  order_temperature: float = 0.0
  # How many a step reveals: 'even' (LLaDA), 'dream', or what a noise schedule
  # does, 'rounded' or 'binomial'; see `budgets`.
  schedule: str = 'even'
  alpha: str = 'linear'  # That noise schedule, one of `schedules.KINDS`.
  # The distribution whose confidence orders positions: the 'model' has its own
  # (LLaDA); 'drawn' is what tokens are drawn from by `sampling` (Dream), where
  # temperature 0 filters the model's own.
  scores: str = 'model'
  shift: bool = False  # Logits at a position are for the next one (Dream).
  guidance: float = 0.0  # Weight w: u + (w + 1) (c - u), u without the prompt.
  cache: str = 'none'  # Fast-dLLM's 'prefix' or 'dual'; see `block_cache`.
  refresh_every: int = 0  # Calls until the cache is filled anew; 0: per block.
  # What becomes of the end of text: 'logits' never writes the first of
  # `eos_ids`, 'confidence' reveals all of them last.
  eos: str = 'none'
  sampling: sampling_lib.Config = dataclasses.field(
    default_factory=lambda: sampling_lib.Config(temperature=0.0)
  )

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f'length={self.length} must be >= 1.')
    if self.steps < 0:
      raise ValueError(
        f'steps={self.steps} must be >= 0 (0 is length={self.length}).'
      )
    if self.block < 0 or self.length % (self.block or self.length):
      raise ValueError(
        f'length={self.length} must be a multiple of block={self.block}.'
      )
    too_many = self.steps > self.length
    too_many &= self.schedule not in budgets.PLANNED
    if self.steps % self.num_blocks or too_many:
      raise ValueError(
        f'steps={self.steps} must be a multiple of the {self.num_blocks} '
        f'blocks and at most length={self.length}: a step reveals at least one '
        'token. Set steps=0 for one token per step.'
      )
    for name, allowed in (
      ('order', budgets.ORDERS),
      ('eos', EOS_POLICIES),
      ('schedule', budgets.SCHEDULES),
      ('alpha', schedules.KINDS),
      ('scores', SCORES),
      ('cache', CACHES),
    ):
      if getattr(self, name) not in allowed:
        raise ValueError(
          f'{name}={getattr(self, name)!r} must be one of {", ".join(allowed)}.'
        )
    self._check_order()
    if self.cache == 'none' and self.refresh_every:
      raise ValueError(
        f"refresh_every={self.refresh_every} needs a cache. Set cache='dual'."
      )
    if self.schedule == 'dream' and self.block:
      raise ValueError(
        "schedule='dream' decodes all at once. Set block=0, or schedule='even'."
      )

  @property
  def num_blocks(self) -> int:
    """Blocks of an answer."""
    return self.length // (self.block or self.length)

  @property
  def num_steps(self) -> int:
    """Steps over all blocks."""
    return self.steps or self.length

  def _check_order(self) -> None:
    if not 0 <= self.order_temperature < float('inf'):
      raise ValueError(
        f'order_temperature={self.order_temperature} must be finite and >= 0 '
        '(0 takes the best positions).'
      )
    if self.order_temperature and self.order in ('random', 'origin'):
      raise ValueError(
        f'order_temperature={self.order_temperature} draws by scores, but '
        f"order={self.order!r} has none. Set order='entropy', or 0."
      )
    if self.order != 'origin':
      return
    if self.schedule != 'dream':
      raise ValueError(
        "order='origin' reveals with the probabilities of Dream's times. Set "
        "schedule='dream'."
      )
    if self.eos == 'confidence':
      raise ValueError(
        "eos='confidence' leaves the end of text for last, but order='origin' "
        "has no order. Use eos='none' or 'logits'."
      )

  @classmethod
  def dream(cls, **fields) -> 'Config':
    """Dream's own settings: by entropy, shifted, all at once."""
    own = dict(shift=True, schedule='dream', order='entropy', scores='drawn')
    return cls(**own | fields)


def shifted(logits_btv: Float[Array, 'b t v']) -> Float[Array, 'b t v']:
  """Logits of each position from the one before; the first keeps its own."""
  return jnp.concatenate([logits_btv[:, :1], logits_btv[:, :-1]], axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Aligned:
  """A model with shifted logits, for objectives: those of LLaDA fit Dream.

  The first token of each document of a row keeps its own state, as that of the
  row does: documents do not see each other.

  Attributes:
    model: A bidirectional `SequenceModel` whose logits are for the next token.
  """

  model: Any

  @property
  def config(self) -> Any:
    """That of `model`, e.g. for its `vocab_size`."""
    return self.model.config

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    segment_ids: Int[Array, 'b t'] | None = None,
    **options: Any,
  ) -> Any:
    """The states of `model`, each from the position before."""
    output = self.model(tokens_bt, segment_ids=segment_ids, **options)
    hidden_btd = shifted(output.hidden_btd)
    if segment_ids is not None:
      is_first_bt = (
        jnp.diff(segment_ids, axis=1, prepend=segment_ids[:, :1]) != 0
      )
      hidden_btd = jnp.where(
        is_first_bt[..., None], output.hidden_btd, hidden_btd
      )
    return dataclasses.replace(output, hidden_btd=hidden_btd)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """See `model`."""
    return self.model.logits(hidden_btd)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Denoiser:
  """The model as decoding wants it; two calls of it with guidance.

  A pytree, like `Aligned`: it may be an argument of jitted functions.

  The logits are those that confidences are of, with `-inf` at tokens that are
  never written. Where `config.scores` is 'model' they are the model's own, and
  whoever draws tokens applies `config.sampling`; else it is applied already.

  Attributes:
    model: A bidirectional `SequenceModel`.
    config: How to generate; static.
    prompt_len: Positions that guidance hides; static.
    mask_id: The mask token; static.
    late_v: The tokens that `config.eos` is about; None if that is 'none'.
    segment_ids_bt: 0 marks padding, which is not seen; None means none.
  """

  model: Any
  config: Config = dataclasses.field(metadata=dict(static=True))
  prompt_len: int = dataclasses.field(metadata=dict(static=True))
  mask_id: int = dataclasses.field(metadata=dict(static=True))
  late_v: Bool[Array, 'v'] | None = None
  segment_ids_bt: Any = None

  @property
  def lookback(self) -> int:
    """See `block_cache.Windowed`."""
    return int(self.config.shift)

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    def logits_of(tokens_bt):
      output = self.model(tokens_bt, segment_ids=self.segment_ids_bt)
      logits_btv = self.model.logits(output.hidden_btd)
      return shifted(logits_btv) if self.config.shift else logits_btv

    each = [logits_of(x_bt) for x_bt in self._inputs(tokens_bt, 0)]
    return self._combined(*each)

  def init_cache(self, tokens_bt: Int[Array, 'b t']) -> tuple[Any, ...]:
    """One cache for each call; see `block_cache.Windowed`."""
    return tuple(
      overwrite.Overwrite.of(self.model.init_cache(*x_bt.shape))
      for x_bt in self._inputs(tokens_bt, 0)
    )

  def window(
    self,
    tokens_bw: Int[Array, 'b w'],
    cache: tuple[Any, ...],
    start: Int[Array, ''] | int,
    *,
    offset: Int[Array, ''] | int,
    size: int,
  ) -> tuple[Float[Array, 'b s v'], tuple[Any, ...]]:
    """See `block_cache.Windowed`."""
    inputs = self._inputs(tokens_bw, start)
    segment_ids_bw = None
    if self.segment_ids_bt is not None:
      segment_ids_bw = jax.lax.dynamic_slice_in_dim(
        self.segment_ids_bt, start, tokens_bw.shape[1], axis=1
      )
    each, caches = zip(
      *(
        denoisers.logits_in_window(
          self.model,
          x_bw,
          c.at(start),
          offset=offset,
          size=size,
          segment_ids=segment_ids_bw,
        )
        for x_bw, c in zip(inputs, cache, strict=True)
      ),
      strict=True,
    )
    return self._combined(*each), caches

  def _inputs(self, tokens_bw, start):
    """The tokens, and with guidance those without the prompt."""
    if not self.config.guidance:
      return [tokens_bw]
    is_prompt_w = start + jnp.arange(tokens_bw.shape[1]) < self.prompt_len
    return [tokens_bw, jnp.where(is_prompt_w, self.mask_id, tokens_bw)]

  def _combined(self, logits_btv, free_btv=None):
    config = self.config
    if free_btv is not None:
      scale = config.guidance + 1
      logits_btv = free_btv + scale * (logits_btv - free_btv)
    # Filters must not count the mask, which is never written.
    banned_v = jnp.arange(logits_btv.shape[-1]) == self.mask_id
    if config.eos == 'logits':
      banned_v |= self.late_v
    if config.scores == 'model':
      return jnp.where(banned_v, -jnp.inf, logits_btv)
    # The most probable token is one that is left; scores are of all that are.
    filters = dataclasses.replace(
      config.sampling, temperature=config.sampling.temperature or 1.0
    )
    return sampling_lib.filter_logits(
      logits_btv, filters, banned_v, is_top_p_first=True
    )


def check_ids(
  vocab_size: int, *, mask_id: int, eos_ids: tuple[int, ...] = ()
) -> None:
  """Raises ValueError if a token is none of the model's."""
  ids = {'mask_id': (mask_id, [mask_id]), 'eos_ids': (eos_ids, eos_ids)}
  for name, (shown, each) in ids.items():
    if not all(0 <= i < vocab_size for i in each):
      raise ValueError(
        f'{name}={shown} must be in [0, {vocab_size}), ids of the model. Give '
        'those it was trained with: of a run, `config.objective.mask_id` and '
        "the tokenizer's eos; of a checkpoint, `interop.conventions`."
      )


def check_prompt(
  config: Config, prompt_len: int, is_prompt_bt: Bool[Array, 'b p'] | None
) -> None:
  """Raises ValueError for no prompt with shifted logits, or padding behind one.

  The latter is not noticed while `is_prompt_bt` is traced.
  """
  if config.shift and not prompt_len:
    raise ValueError(
      'prompt_bt is empty, but with shift=True the first answer token is '
      'predicted at the last prompt token. Begin with the BOS token.'
    )
  if is_prompt_bt is None or isinstance(is_prompt_bt, jax.core.Tracer):
    return
  is_prompt_bt = np.asarray(is_prompt_bt, bool)
  is_bad_b = (is_prompt_bt[:, :-1] & ~is_prompt_bt[:, 1:]).any(-1)
  if is_bad_b.any():
    raise ValueError(
      f'is_prompt_bt={is_prompt_bt[is_bad_b][0].tolist()} in row '
      f'{is_bad_b.argmax()} has padding behind prompt tokens, but the answer '
      'begins behind the last column. Put all padding before the prompt.'
    )


def generate(
  model: Any,
  prompt_bt: Int[Array, 'b p'],
  config: Config,
  *,
  mask_id: int,
  eos_ids: tuple[int, ...] = (),
  is_prompt_bt: Bool[Array, 'b p'] | None = None,
  selector: selectors.Selector | None = None,
  rng: Array,
) -> samplers.Canvas:
  """Answers prompts; jit it with all but arrays and the selector static.

  Args:
    model: A bidirectional `SequenceModel`, e.g. from `interop.load`.
    prompt_bt: Tokens of the prompts; Dream needs at least one.
    config: How to generate.
    mask_id: The mask token.
    eos_ids: Tokens that end a text, for `config.eos`. The first is the one that
      pads answers, the others end a turn: LLaDA's are (126081, 126348). With
      eos='logits' only the first is never written, an answer can still end.
    is_prompt_bt: False at padding before shorter prompts, never behind them.
      Padding counts as positions, which a model with relative positions does
      not notice.
    selector: What a call reveals in a block, e.g. `selectors.Threshold` or
      `policy.Policy`; the steps, order and schedule of the config are then
      not used. None is the number of tokens per step of `budgets.Budget`.
    rng: Key of the sampling.

  Returns:
    The canvas of prompts and answers; `num_calls_b` counts calls of the model,
    two per step with guidance.

  Raises:
    ValueError: If the model is no plain denoiser, see `fitting`, or has not all
      tokens, or the prompt is empty and logits are shifted, or padding is
      behind a prompt, or `config.eos` needs `eos_ids` or forbids a selector.
  """
  b, prompt_len = prompt_bt.shape
  fitting.check_model(model)
  check_ids(model.config.vocab_size, mask_id=mask_id, eos_ids=eos_ids)
  check_prompt(config, prompt_len, is_prompt_bt)
  if config.eos != 'none' and not eos_ids:
    raise ValueError(f'eos_ids is empty, but eos={config.eos!r} needs it.')
  if config.eos == 'confidence' and selector is not None:
    raise ValueError(
      f"eos='confidence' leaves the end of text for last, but selector="
      f"{type(selector).__name__} has an order of its own. Use eos='none' or "
      "'logits'."
    )
  late_v = jnp.zeros(model.config.vocab_size, bool)
  held_ids = eos_ids[:1] if config.eos == 'logits' else eos_ids
  late_v = late_v.at[jnp.asarray(held_ids, jnp.int32)].set(True)
  tokens_bt = jnp.pad(prompt_bt, ((0, 0), (0, config.length)))
  is_masked_bt = jnp.arange(tokens_bt.shape[1]) >= prompt_len
  is_masked_bt = jnp.broadcast_to(is_masked_bt, tokens_bt.shape)
  segment_ids_bt = None
  if is_prompt_bt is not None:
    segment_ids_bt = jnp.pad(
      is_prompt_bt.astype(jnp.int32),
      ((0, 0), (0, config.length)),
      constant_values=1,
    )
  canvas = _decode(
    Denoiser(model, config, prompt_len, mask_id, late_v, segment_ids_bt),
    samplers.start(tokens_bt, is_masked_bt, mask_id),
    samplers.row_rngs(rng, b),
    selector,
  )
  calls = 2 if config.guidance else 1
  return dataclasses.replace(canvas, num_calls_b=calls * canvas.num_calls_b)


def _decode(denoiser: Denoiser, canvas, rngs_b, selector) -> samplers.Canvas:
  """Decodes with the cache of the config, and its budget if need be."""
  config = denoiser.config
  block = config.block or config.length
  if selector is None:
    steps = config.num_steps // config.num_blocks
    counts_bc = None
    if config.schedule in budgets.PLANNED:
      # Steps are numbered from 0: theirs are other keys.
      last = jnp.iinfo(jnp.int32).max
      counts_bc = budgets.plan(
        config.schedule,
        schedules.make(config.alpha),
        block,
        steps,
        config.num_blocks,
        jax.vmap(jax.random.fold_in, (0, None))(rngs_b, last),
      )
    selector = budgets.Budget(
      steps=steps,
      length=config.length,
      order=config.order,
      schedule=config.schedule,
      order_temperature=config.order_temperature,
      late_v=denoiser.late_v if config.eos == 'confidence' else None,
      counts_bc=counts_bc,
    )
  # Logits of 'drawn' scores come filtered.
  if config.scores == 'model':
    chosen = dict(filters=config.sampling)
  else:
    chosen = dict(temperature=1.0 if config.sampling.temperature else 0.0)
  decode = samplers.decode
  if config.cache != 'none':
    decode = functools.partial(
      block_cache.decode, kind=config.cache, refresh_every=config.refresh_every
    )
  return decode(
    denoiser,
    canvas,
    selector,
    rngs_b,
    prompt_len=denoiser.prompt_len,
    mask_id=denoiser.mask_id,
    block=block,
    **chosen,
  )
