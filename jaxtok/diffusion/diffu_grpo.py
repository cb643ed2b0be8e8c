# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains the weights of a denoiser by group-relative policy gradients.

diffu-GRPO of d1, Zhao et al. 2025, arXiv:2504.12216. The probability of an
answer is replaced by the mean-field estimate: one call in which the whole
answer is masked, and the product of what it gives to each token. Prompt tokens
are masked too, with a small probability, anew for each update of a batch and
alike for the policy that sampled, the policy being trained and the reference,
so that a batch can be learned from several times. The estimate is that of
temperature 1, also where answers are sampled at another. It is exact if the
tokens of an answer are independent given the prompt, and biased otherwise;
`Estimate.COUPLED` scores tokens beside others, see `estimates`.

What is trained are the `params` of a denoiser, see `Trainable`. That holds for
`denoisers.OfModel` of any model, also of a LLaDA from a checkpoint; its class
would have to keep frozen weights in another field to train adapters only, as
d1 does. A batch goes through the model in one call; three copies of `params`
(before and after an update, reference) and Adam's two moments are held.
`pretrained.Denoiser` cannot be trained: its logits are filtered.

`rl` trains the order of revealing instead, with the denoiser frozen.

Axes: n inner updates, b rows (prompts times group members), t positions, p
positions of the prompt, s positions of the answer, v vocabulary.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.diffusion import (
  ending,
  estimates,
  returns,
  rl,
  samplers,
  selectors,
)


@runtime_checkable
class Trainable(Protocol):
  """A denoiser that is a dataclass and a pytree, e.g. `denoisers.OfModel`.

  Attributes:
    params: A pytree of floats: what is trained. Other fields are not.
  """

  params: Any

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']: ...


class Estimate(enum.Enum):
  """Which log-probability stands for an answer's, see `estimates`."""

  MEAN_FIELD = 'mean_field'  # The paper's.
  COUPLED = 'coupled'  # Twice the work; also beside revealed tokens.


class Average(enum.Enum):
  """How losses of tokens make the loss of a batch."""

  ROW = 'row'  # Each answer weighs the same: the paper's.
  TOKEN = 'token'  # Each token weighs the same, whatever its answer's length.


@configclass
class Config:
  """Settings of the training; the paper's where it fits a laptop."""

  steps: int = 60  # Batches of answers.
  num_prompts: int = 16  # Per batch.
  group: int = 8  # Answers per prompt; the paper's 6.
  num_inner: int = 4  # Updates per batch; the paper's 12.
  estimate: Estimate = Estimate.MEAN_FIELD
  prompt_mask_rate: float = 0.15
  temperature: float = 0.9  # Of tokens, when answers are sampled.
  block: int = 0  # Of the decoding; 0 decodes all at once, the paper's 32.
  max_calls: int = 0  # Bound on the calls; 0: the answer's length.
  clip_ratio: float = 0.5
  kl_weight: float = 0.04
  sync_every: int = 64  # Updates after which the reference catches up; 0 never.
  average: Average = Average.ROW
  lr: float = 3e-4  # The paper's is 3e-6, of adapters of rank 128.
  warmup_updates: int = 10
  weight_decay: float = 0.1
  clip_norm: float = 0.2

  def __post_init__(self):
    rules = {
      'steps': (self.steps >= 1, '>= 1'),
      'num_prompts': (self.num_prompts >= 1, '>= 1'),
      'group': (self.group >= 2, '>= 2: answers are compared with each other'),
      'num_inner': (self.num_inner >= 1, '>= 1'),
      'prompt_mask_rate': (0 <= self.prompt_mask_rate < 1, 'in [0, 1)'),
      'temperature': (
        self.temperature > 0,
        '> 0: at 0 all answers to a prompt may be the same',
      ),
      'block': (self.block >= 0, '>= 0'),
      'max_calls': (self.max_calls >= 0, '>= 0'),
      'clip_ratio': (self.clip_ratio > 0, '> 0'),
      'kl_weight': (self.kl_weight >= 0, '>= 0'),
      'sync_every': (self.sync_every >= 0, '>= 0'),
      'lr': (self.lr > 0, '> 0'),
      'warmup_updates': (self.warmup_updates >= 0, '>= 0'),
      'weight_decay': (self.weight_decay >= 0, '>= 0'),
      'clip_norm': (self.clip_norm > 0, '> 0'),
    }
    for name, (is_fine, rule) in rules.items():
      if not is_fine:
        raise ValueError(
          f'diffu_grpo.{name}={getattr(self, name)} must be {rule}.'
        )

  def optimizer(self) -> optax.GradientTransformation:
    """AdamW of a constant rate behind a bound on the norm of the gradient."""
    rate = optax.constant_schedule(self.lr)
    if self.warmup_updates:
      rate = optax.warmup_constant_schedule(
        0.1 * self.lr, self.lr, self.warmup_updates
      )
    return optax.chain(
      optax.clip_by_global_norm(self.clip_norm),
      optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=self.weight_decay),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """Answers to learn from.

  Attributes:
    tokens_bt: Whole rows.
    advantage_b: Of the answers.
    is_scored_bs: Tokens of the answers that carry loss; see `scored`.
  """

  tokens_bt: Int[Array, 'b t']
  advantage_b: Float[Array, 'b']
  is_scored_bs: Bool[Array, 'b s']

  @property
  def prompt_len(self) -> int:
    return self.tokens_bt.shape[1] - self.is_scored_bs.shape[1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Masks:
  """What is masked in one update; in `learn` there is one for each, stacked.

  Attributes:
    is_hidden_bp: Tokens of prompts.
    is_first_bs: Of `estimates.coupled_log_prob`; None is the mean field.
  """

  is_hidden_bp: Bool[Array, '*n b p']
  is_first_bs: Bool[Array, '*n b s'] | None = None

  @classmethod
  def draw(cls, rng: Array, batch: Batch, config: Config) -> 'Masks':
    """For an update of `batch`."""
    num_rows, num_answer = batch.is_scored_bs.shape
    is_hidden_bp = estimates.hide_prompts(
      rng, num_rows, batch.prompt_len, config.prompt_mask_rate
    )
    if config.estimate is Estimate.MEAN_FIELD:
      return cls(is_hidden_bp)
    rng = jax.random.fold_in(rng, 1)
    return cls(is_hidden_bp, estimates.split_answers(rng, num_rows, num_answer))

  def log_prob(
    self,
    denoiser: samplers.Denoiser,
    tokens_bt: Int[Array, 'b t'],
    mask_id: int,
  ) -> Float[Array, 'b s']:
    """Of each answer token, see `estimates`."""
    if self.is_first_bs is None:
      return estimates.mean_field_log_prob(
        denoiser, tokens_bt, self.is_hidden_bp, mask_id
      )
    return estimates.coupled_log_prob(
      denoiser, tokens_bt, self.is_hidden_bp, self.is_first_bs, mask_id
    )


def scored(
  tokens_bt: Int[Array, 'b t'],
  prompt_len: int,
  mask_id: int,
  eos_ids: tuple[int, ...] = (),
) -> Bool[Array, 'b s']:
  """Answer tokens that carry loss.

  Those that were never revealed carry none, and none behind the first of
  `eos_ids`, which itself counts.
  """
  is_on_bs = tokens_bt[:, prompt_len:] != mask_id
  for eos in eos_ids:
    is_text_bs = ending.is_text(tokens_bt, eos, prompt_len)[:, prompt_len:]
    is_on_bs &= jnp.pad(
      is_text_bs[:, :-1], ((0, 0), (1, 0)), constant_values=True
    )
  return is_on_bs


def weights(
  is_scored_bs: Bool[Array, 'b s'], average: Average
) -> Float[Array, 'b s']:
  """What each token weighs in the loss."""
  if average is Average.TOKEN:
    return is_scored_bs / jnp.maximum(is_scored_bs.sum(), 1)
  length_b1 = is_scored_bs.sum(-1, keepdims=True)
  return is_scored_bs / jnp.maximum(length_b1, 1) / is_scored_bs.shape[0]


def divergence(
  log_prob_bs: Float[Array, 'b s'], reference_bs: Float[Array, 'b s']
) -> Float[Array, 'b s']:
  """KL divergence from the reference by one token each, never negative.

  The estimate r - 1 - log r with r the reference's probability over the
  policy's (k3), which has the right mean for tokens of the policy.
  """
  log_ratio_bs = reference_bs - log_prob_bs
  return jnp.expm1(log_ratio_bs) - log_ratio_bs


def loss(
  denoiser: samplers.Denoiser,
  batch: Batch,
  old_bs: Float[Array, 'b s'],
  reference_bs: Float[Array, 'b s'],
  masks: Masks,
  *,
  mask_id: int,
  config: Config,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """The loss of one update; to be minimised.

  Args:
    denoiser: The policy.
    batch: Answers.
    old_bs: `masks.log_prob` of the policy that sampled, and
    reference_bs: of the reference.
    masks: The same for all three.
    mask_id: Static.
    config: Static.

  Returns:
    The loss, and numbers: `kl` per token, and `clipped`, the share of tokens
    whose ratio is out of bounds.
  """
  log_prob_bs = masks.log_prob(denoiser, batch.tokens_bt, mask_id)
  weight_bs = weights(batch.is_scored_bs, config.average)
  total = lambda x_bs: jnp.where(batch.is_scored_bs, weight_bs * x_bs, 0).sum()
  gain_bs = jax.vmap(rl.surrogate, (1, 1, None, None), 1)(
    log_prob_bs, old_bs, batch.advantage_b, config.clip_ratio
  )
  kl = total(divergence(log_prob_bs, reference_bs))
  is_clipped_bs = jnp.abs(jnp.expm1(log_prob_bs - old_bs)) > config.clip_ratio
  numbers = {'kl': kl, 'clipped': total(is_clipped_bs)}
  return config.kl_weight * kl - total(gain_bs), numbers


@functools.partial(jax.jit, static_argnames=('prompt_len', 'mask_id', 'config'))
def sample(
  denoiser: samplers.Denoiser,
  tokens_bt: Int[Array, 'b t'],
  selector: selectors.Selector,
  rng: Array,
  *,
  prompt_len: int,
  mask_id: int,
  config: Config,
) -> samplers.Canvas:
  """Answers to prompts (whole rows, what stands behind prompts is not read)."""
  is_answer_t = jnp.arange(tokens_bt.shape[1]) >= prompt_len
  masked_bt = jnp.broadcast_to(is_answer_t, tokens_bt.shape)
  return samplers.decode(
    denoiser,
    samplers.start(tokens_bt, masked_bt, mask_id),
    selector,
    samplers.row_rngs(rng, tokens_bt.shape[0]),
    prompt_len=prompt_len,
    mask_id=mask_id,
    block=config.block,
    temperature=config.temperature,
    max_steps=config.max_calls,
  )


@functools.partial(jax.jit, static_argnames=('mask_id', 'config'))
def learn(
  denoiser: Trainable,
  reference: Any,
  opt_state: Any,
  batch: Batch,
  rng: Array,
  *,
  mask_id: int,
  config: Config,
) -> tuple[Any, Any, dict[str, Float[Array, '']]]:
  """Learns from a batch, `num_inner` times.

  Args:
    denoiser: The policy that sampled.
    reference: Its `params` to stay close to.
    opt_state: Of `config.optimizer()`.
    batch: Answers.
    rng: Of the masks.
    mask_id: Static.
    config: Static.

  Returns:
    The new `params`, the optimizer's state, and the mean over updates of the
    numbers of `loss` and of `norm`, that of the gradient.
  """
  draw = lambda rng: Masks.draw(rng, batch, config)
  masks_n = jax.vmap(draw)(jax.random.split(rng, config.num_inner))
  policy = lambda params: dataclasses.replace(denoiser, params=params)
  score = lambda policy: jax.lax.map(
    lambda masks: masks.log_prob(policy, batch.tokens_bt, mask_id), masks_n
  )
  old_nbs = score(denoiser)
  # Without a weight the divergence is reported from the policy that sampled.
  reference_nbs = score(policy(reference)) if config.kl_weight else old_nbs
  optimizer = config.optimizer()

  def update(state, given):
    params, opt_state = state
    grads, numbers = jax.grad(
      lambda params: loss(
        policy(params), batch, *given, mask_id=mask_id, config=config
      ),
      has_aux=True,
    )(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    numbers |= {'norm': optax.tree.norm(grads)}
    return (optax.apply_updates(params, updates), opt_state), numbers

  (params, opt_state), numbers = jax.lax.scan(
    update, (denoiser.params, opt_state), (old_nbs, reference_nbs, masks_n)
  )
  return params, opt_state, {k: v.mean() for k, v in numbers.items()}


@dataclasses.dataclass
class Trainer:
  """Trains one denoiser; two compiled programs, to sample and to learn.

  Attributes:
    config: Settings.
    denoiser: The denoiser at the start; later, as trained so far.
    reward: Whole rows [b, t] to rewards [b], in NumPy, e.g. `is_correct` of a
      task. Answers that are not finished after `max_calls` earn 0.
    prompt_len: Positions before the answer.
    mask_id: The mask token.
    selector: Of the sampling; the paper's is `TopK(2)`.
    eos_ids: Tokens that end an answer; what is behind them carries no loss.
  """

  config: Config
  denoiser: Trainable
  reward: Callable[[np.ndarray], np.ndarray]
  prompt_len: int
  mask_id: int
  selector: selectors.Selector
  eos_ids: tuple[int, ...] = ()

  def __post_init__(self):
    for path, leaf in jax.tree.leaves_with_path(self.denoiser.params):
      if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        raise ValueError(
          f'denoiser.params{jax.tree_util.keystr(path)} is '
          f'{jnp.result_type(leaf)}: only floats can be trained. Keep it in '
          'another field of the denoiser.'
        )
    self.reference = self.denoiser.params
    self.opt_state = self.config.optimizer().init(self.denoiser.params)
    self.step = 0

  @property
  def state(self) -> dict[str, Any]:
    """What training goes on from, with `step`: see `restore`."""
    return {
      'params': self.denoiser.params,
      'reference': self.reference,
      'opt_state': self.opt_state,
    }

  def restore(self, state: dict[str, Any], step: int) -> None:
    """Goes on from a `state` after so many batches."""
    self.denoiser = dataclasses.replace(self.denoiser, params=state['params'])
    self.reference, self.opt_state = state['reference'], state['opt_state']
    self.step = step

  def update(self, prompts_bt: np.ndarray, rng: Array) -> dict[str, float]:
    """Samples answers to one batch of prompts and learns from them.

    Args:
      prompts_bt: Whole rows [num_prompts, t]; answers are not read.
      rng: Decides the answers and the masks.

    Returns:
      Means: `reward` and `calls` of the answers, and the numbers of `learn`.
    """
    c = self.config
    if len(prompts_bt) != c.num_prompts:
      raise ValueError(
        f'{len(prompts_bt)} prompts were given, but '
        f'diffu_grpo.num_prompts={c.num_prompts}.'
      )
    tokens_bt = jnp.repeat(jnp.asarray(prompts_bt), c.group, axis=0)
    sample_rng, mask_rng = jax.random.split(rng)
    fixed = dict(mask_id=self.mask_id, config=c)
    canvas = sample(
      self.denoiser,
      tokens_bt,
      self.selector,
      sample_rng,
      prompt_len=self.prompt_len,
      **fixed,
    )
    is_open_b = np.asarray(canvas.is_masked_bt).any(-1)
    reward_b = np.asarray(self.reward(np.asarray(canvas.tokens_bt)))
    reward_b = np.where(is_open_b, 0, reward_b).astype(np.float32)
    advantage_b = returns.advantages(reward_b, c.group)
    learnt = {'kl': 0.0, 'clipped': 0.0, 'norm': 0.0}
    # Without a difference inside any group there is nothing to learn.
    if np.abs(advantage_b).max() >= 1e-6:
      batch = Batch(
        canvas.tokens_bt,
        jnp.asarray(advantage_b),
        scored(canvas.tokens_bt, self.prompt_len, self.mask_id, self.eos_ids),
      )
      params, self.opt_state, learnt = learn(
        self.denoiser, self.reference, self.opt_state, batch, mask_rng, **fixed
      )
      self.denoiser = dataclasses.replace(self.denoiser, params=params)
    self.step += 1
    self._sync()
    return {
      'reward': float(reward_b.mean()),
      'calls': float(canvas.num_calls_b.mean()),
      **{name: float(value) for name, value in learnt.items()},
    }

  def _sync(self) -> None:
    """Makes the policy the reference each `sync_every` updates.

    Between batches: one that falls due inside a batch waits for its end. A
    batch from which nothing was learned counts like the others.
    """
    c = self.config
    if not c.sync_every:
      return
    due = lambda step: step * c.num_inner // c.sync_every
    if due(self.step) > due(self.step - 1):
      self.reference = self.denoiser.params
