# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains an unmasking policy by group-relative policy gradients.

arXiv:2512.09106: rewards of a group of rollouts of one prompt minus their mean
(not divided by their deviation), a clipped ratio per step, a mean over the
steps of each rollout, no KL term. Expert steering adds rollouts of an expert to
each group and treats the behaviour as a mixture. GRPO: Shao et al. 2024,
arXiv:2402.03300.

Options that are not the paper's: an entropy bonus, a speed pressure that rises
during training, a bound on how far an update moves the policy (Schulman et al.
2015, arXiv:1502.05477, by scaling the update), credit for single steps.

Axes: s steps, b rows (prompts times group members), t positions, g groups.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxtok.config import configclass
from jaxtok.diffusion import (
  policy,
  returns,
  rollout,
  samplers,
  selectors,
  upo,
)


class Likelihood(enum.Enum):
  """The action distribution."""

  BERNOULLI = 'bernoulli'
  PLACKETT_LUCE = 'plackett_luce'
  ONE_TOKEN = 'one_token'

  def make(self) -> Any:
    return {
      Likelihood.BERNOULLI: policy.Bernoulli(),
      Likelihood.PLACKETT_LUCE: policy.PlackettLuce(),
      Likelihood.ONE_TOKEN: policy.OneToken(),
    }[self]


@configclass
class Config:
  """Settings of the training; the paper's where it fits a laptop."""

  alpha: float = 2.0  # Speed pressure; 0 rewards correctness alone.
  alpha_start: float = -1.0  # If >= 0, alpha rises from it over half the run.
  reward: returns.Reward = returns.Reward.PRODUCT
  likelihood: Likelihood = Likelihood.BERNOULLI
  credit: returns.Credit = returns.Credit.ALL
  steps: int = 160
  num_prompts: int = 16  # Per update.
  group: int = 8  # Rollouts of the policy per prompt.
  num_experts: int = 0  # Rollouts of the expert per prompt.
  clip_ratio: float = 0.2
  num_inner: int = 1  # Updates per batch of rollouts.
  max_kl: float = 0.0  # If > 0: nats per step that an update may change.
  entropy: float = 0.0  # Bonus per nat of a step's mean entropy per position.
  lr: float = 1e-3
  warmup_steps: int = 10
  is_cosine: bool = True  # After the warm-up lr falls to 0; else it stays.
  weight_decay: float = 0.1
  clip_norm: float = 0.2
  near: upo.Config = dataclasses.field(default_factory=upo.Config)
  block: int = 0  # Of the decoding; 0 decodes all at once.
  # A rollout that needs more fails; 0: the answer's length, and in blocks that
  # of a block for each.
  max_calls: int = 0

  def __post_init__(self):
    least = max(1, 2 - self.num_experts)
    rules = {
      'alpha': (self.alpha >= 0, '>= 0'),
      'steps': (self.steps >= 1, '>= 1'),
      'warmup_steps': (
        0 <= self.warmup_steps < self.steps * self.num_inner,
        'in [0, steps num_inner)',
      ),
      'num_prompts': (self.num_prompts >= 1, '>= 1'),
      'num_experts': (self.num_experts >= 0, '>= 0'),
      'group': (self.group >= least, f'>= {least} beside num_experts'),
      'clip_ratio': (self.clip_ratio > 0, '> 0'),
      'num_inner': (self.num_inner >= 1, '>= 1'),
      'max_kl': (self.max_kl >= 0, '>= 0'),
      'max_calls': (self.max_calls >= 0, '>= 0'),
      'entropy': (self.entropy >= 0, '>= 0'),
      'lr': (self.lr > 0, '> 0'),
      'clip_norm': (self.clip_norm > 0, '> 0'),
    }
    if self.entropy and self.likelihood is not Likelihood.BERNOULLI:
      raise ValueError(
        f'rl.entropy={self.entropy} is that of Bernoulli actions, but '
        f'rl.likelihood={self.likelihood.value!r}.'
      )
    self._check_one_token()
    if self.max_kl and self.num_inner > 1:
      raise ValueError(
        f'rl.max_kl={self.max_kl} bounds the one update of a batch, but '
        f'rl.num_inner={self.num_inner}. Use 1, or max_kl=0.'
      )
    for name, (is_fine, rule) in rules.items():
      if not is_fine:
        raise ValueError(f'rl.{name}={getattr(self, name)} must be {rule}.')

  def _check_one_token(self) -> None:
    is_one = self.likelihood is Likelihood.ONE_TOKEN
    if not is_one and (self.near.kl or self.near.num_candidates):
      raise ValueError(
        f'rl.near.kl={self.near.kl} and num_candidates='
        f'{self.near.num_candidates} must be 0 with rl.likelihood='
        f'{self.likelihood.value!r}: they are for the one token per call of '
        "'one_token'."
      )
    if is_one and (self.alpha or self.alpha_start > 0):
      raise ValueError(
        f"rl.alpha={self.alpha} must be 0 with rl.likelihood='one_token': each "
        'rollout takes as many calls as the answer has tokens.'
      )

  def selector(
    self,
    model: policy.UnmaskingPolicy,
    temperature: Any = 1.0,
    scale: Any = 1.0,
  ) -> selectors.Selector:
    """A policy that decodes as it was trained, see `policy.Policy`."""
    actions = self.likelihood.make()
    found = policy.Policy(model, temperature, scale, actions)
    if not self.near.num_candidates:
      return found
    return rollout.OfMostConfident(found, self.near.num_candidates)

  @property
  def rows_per_prompt(self) -> int:
    return self.group + self.num_experts

  def alpha_at(self, step: int) -> float:
    """Speed pressure of an update."""
    if self.alpha_start < 0:
      return self.alpha
    share = min(1.0, step / max(self.steps / 2, 1))
    return self.alpha_start + (self.alpha - self.alpha_start) * share

  def schedule(self) -> optax.Schedule:
    """Learning rate of each update, from a tenth of `lr`."""
    start, warmup = 0.1 * self.lr, self.warmup_steps
    if self.is_cosine:
      return optax.warmup_cosine_decay_schedule(
        start, self.lr, warmup, self.steps * self.num_inner
      )
    if not warmup:
      return optax.constant_schedule(self.lr)
    return optax.warmup_constant_schedule(start, self.lr, warmup)

  def optimizer(self) -> optax.GradientTransformation:
    """AdamW behind a bound on the norm of the gradient."""
    return optax.chain(
      optax.clip_by_global_norm(self.clip_norm),
      optax.adamw(self.schedule(), weight_decay=self.weight_decay),
    )


def expert_steering_log_prob(
  log_prob_b: Float[Array, 'b'], group: int, num_experts: int
) -> Float[Array, 'b']:
  """Log-probability of an expert's action under policy and expert mixed."""
  total = group + num_experts
  return jnp.logaddexp(
    math.log(group / total) + log_prob_b, math.log(num_experts / total)
  )


def surrogate(
  log_prob_b: Float[Array, 'b'],
  old_log_prob_b: Float[Array, 'b'],
  advantage_b: Float[Array, 'b'],
  clip_ratio: float,
) -> Float[Array, 'b']:
  """The clipped objective of each row at one step; to be maximised."""
  ratio_b = jnp.exp(log_prob_b - old_log_prob_b)
  clipped_b = jnp.clip(ratio_b, 1 - clip_ratio, 1 + clip_ratio)
  return jnp.minimum(ratio_b * advantage_b, clipped_b * advantage_b)


def _step_loss(params, graphdef, played, step, extra, config):
  """What one step of a packed record adds to the loss."""
  advantage_b, weight_b, is_expert_b = (x[step] for x in extra)
  actions = config.likelihood.make()
  model = nnx.merge(graphdef, params)
  log_prob_b, logits_bt = rollout.log_probs(model, played, step, actions)
  old_b = played.log_prob_sb[step]
  if config.num_experts:
    mix = lambda x: jnp.where(
      is_expert_b,
      expert_steering_log_prob(x, config.group, config.num_experts),
      x,
    )
    log_prob_b, old_b = mix(log_prob_b), mix(old_b)
  gain_b = surrogate(log_prob_b, old_b, advantage_b, config.clip_ratio)
  if config.entropy:
    allowed_bt = played.allowed_sbt[step]
    p_bt = jax.nn.sigmoid(logits_bt)
    nats_bt = jax.nn.softplus(logits_bt) - p_bt * logits_bt
    total_b = jnp.where(allowed_bt, nats_bt, 0).sum(-1)
    gain_b += config.entropy * total_b / jnp.maximum(allowed_bt.sum(-1), 1)
  gain_b -= config.near.cross_entropy(
    logits_bt, played.confidence_sbtp[step, ..., 0], played.allowed_sbt[step]
  )
  return -(weight_b * gain_b).mean()


def loss_and_gradient(
  graphdef: Any,
  params: Any,
  played: rollout.Rollout,
  advantage_sb: Float[Array, 's b'],
  is_expert_b: Bool[Array, 'b'],
  config: Config,
) -> tuple[Float[Array, ''], Any]:
  """The loss of a batch of rollouts and its gradient.

  A loop over what unfinished rows did, so that neither memory nor work grows
  with the steps that were not taken.
  """
  is_open_sb = played.is_open_sb
  # Finished rows have weight 0; each row's steps have weights that sum to 1.
  weight_sb = is_open_sb / jnp.maximum(is_open_sb.sum(0), 1)
  is_expert_sb = jnp.broadcast_to(is_expert_b, is_open_sb.shape)
  played, extra = rollout.packed(played, advantage_sb, weight_sb, is_expert_sb)

  def add(step, total):
    new = jax.value_and_grad(_step_loss)(
      params, graphdef, played, step, extra, config
    )
    return jax.tree.map(jnp.add, total, new)

  zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
  return jax.lax.fori_loop(0, played.num_steps, add, zero)


def divergence(
  graphdef: Any,
  params: Any,
  played: rollout.Rollout,
  is_expert_b: Bool[Array, 'b'],
  config: Config,
) -> Float[Array, '']:
  """KL divergence of the policy that played from a new one, nats per step.

  Estimated from the actions played, without those of experts: the mean of
  r - 1 - log r for the ratio r of new to old, which is never negative.
  """
  actions = config.likelihood.make()
  model = nnx.merge(graphdef, params)
  weight_sb = played.is_open_sb & ~is_expert_b
  played, (weight_sb,) = rollout.packed(played, weight_sb)

  def add(step, total):
    log_prob_b, _ = rollout.log_probs(model, played, step, actions)
    log_ratio_b = log_prob_b - played.log_prob_sb[step]
    nats_b = jnp.expm1(log_ratio_b) - log_ratio_b
    return total + jnp.where(weight_sb[step], nats_b, 0).sum()

  total = jax.lax.fori_loop(0, played.num_steps, add, jnp.float32(0))
  return total / jnp.maximum(weight_sb.sum(), 1)


@functools.partial(
  jax.jit, static_argnames=('graphdef', 'config', 'prompt_len', 'mask_id')
)
def _play_rows(
  denoiser,
  params,
  tokens_bt,
  rngs_b,
  expert,
  is_expert_b,
  *,
  graphdef,
  config,
  prompt_len,
  mask_id,
):
  """Plays whole rows from the start."""
  is_answer_t = jnp.arange(tokens_bt.shape[1]) >= prompt_len
  masked_bt = jnp.broadcast_to(is_answer_t, tokens_bt.shape)
  return rollout.play(
    denoiser,
    samplers.start(tokens_bt, masked_bt, mask_id),
    nnx.merge(graphdef, params),
    rngs_b,
    prompt_len=prompt_len,
    mask_id=mask_id,
    block=config.block,
    max_steps=config.max_calls,
    actions=config.likelihood.make(),
    num_candidates=config.near.num_candidates,
    expert=expert,
    is_expert_b=is_expert_b,
  )


@functools.partial(jax.jit, static_argnames=('graphdef', 'config'))
def _update(
  params, opt_state, played, advantage_sb, is_expert_b, *, graphdef, config
):
  """One step of the optimizer, shortened to a divergence of `max_kl`.

  Within a fifth, if there is a bound. Also returns the norm of the gradient and
  the divergence as made and as proposed.
  """
  _, grads = loss_and_gradient(
    graphdef, params, played, advantage_sb, is_expert_b, config
  )
  updates, opt_state = config.optimizer().update(grads, opt_state, params)
  norm = optax.tree.norm(grads)
  at = lambda scale: jax.tree.map(lambda x, u: x + scale * u, params, updates)
  measure = lambda scale: divergence(
    graphdef, at(scale), played, is_expert_b, config
  )
  proposed = measure(jnp.float32(1))
  scale, kl = jnp.float32(1), proposed
  if config.max_kl:
    # Close to the old policy the divergence is quadratic in the scale, so that
    # one correction is enough; farther away it takes a few.
    shorter = lambda state: state[0] * jnp.sqrt(config.max_kl / state[1])
    scale, kl = jax.lax.while_loop(
      lambda state: state[1] > 1.2 * config.max_kl,
      lambda state: (shorter(state), measure(shorter(state))),
      (scale, kl),
    )
  numbers = dict(norm=norm, kl=kl, kl_proposed=proposed)
  return at(scale), opt_state, numbers


@dataclasses.dataclass
class Trainer:
  """Trains one policy; two compiled programs, one to play, one to learn.

  Attributes:
    config: Settings.
    denoiser: Frozen, see `samplers.decode`; a pytree.
    is_correct: Whole rows [b, t] to correctness [b], in NumPy.
    prompt_len: Positions before the answer.
    mask_id: The mask token.
    model: The policy at the start.
    expert: Selector of the expert rollouts, if there are any.
    can_complete: Whether rows with masks can still become right, in NumPy;
      needed to blame steps.
    rows_per_call: Rows that are played at once, for the memory of their
      distributions; 0: all. They do the same in parts.
  """

  config: Config
  denoiser: Any
  is_correct: Callable[[np.ndarray], np.ndarray]
  prompt_len: int
  mask_id: int
  model: policy.UnmaskingPolicy
  expert: selectors.Selector | None = None
  can_complete: Callable[[np.ndarray], np.ndarray] | None = None
  rows_per_call: int = 0

  def __post_init__(self):
    c = self.config
    if c.credit is not returns.Credit.ALL and self.can_complete is None:
      raise ValueError(
        f'rl.credit={c.credit.value!r} needs can_complete of the task.'
      )
    if c.num_experts and self.expert is None:
      raise ValueError(f'rl.num_experts={c.num_experts} needs an expert.')
    self.graphdef = policy.structure(self.model.config)
    self.params = nnx.split(self.model)[1]
    self.opt_state = c.optimizer().init(self.params)
    self.step = 0
    member = np.arange(c.num_prompts * c.rows_per_prompt) % c.rows_per_prompt
    self._own_b = member < c.group
    self.is_expert_b = jnp.asarray(~self._own_b)
    # The pressure is not part of the programs: one of another compiles none.
    self._static = dict(
      graphdef=self.graphdef,
      config=dataclasses.replace(c, alpha=0.0, alpha_start=-1.0),
    )

  @property
  def state(self) -> dict[str, Any]:
    """What training goes on from, with `step`: see `restore`."""
    return {'params': self.params, 'opt_state': self.opt_state}

  def restore(self, state: dict[str, Any], step: int) -> None:
    """Goes on from a `state` after so many updates."""
    self.params, self.opt_state = state['params'], state['opt_state']
    self.step = step

  def _play(self, tokens_bt, rng):
    rngs_b = samplers.row_rngs(rng, len(tokens_bt))
    play_rows = lambda rows: _play_rows(
      self.denoiser,
      self.params,
      tokens_bt[rows],
      rngs_b[rows],
      self.expert if self.config.num_experts else None,
      self.is_expert_b[rows],
      prompt_len=self.prompt_len,
      mask_id=self.mask_id,
      **self._static,
    )
    return rollout.play_chunks(play_rows, len(tokens_bt), self.rows_per_call)

  def _learn(self, played, advantage_sb):
    self.params, self.opt_state, numbers = _update(
      self.params,
      self.opt_state,
      played,
      advantage_sb,
      self.is_expert_b,
      **self._static,
    )
    return numbers

  def update(self, prompts_bt: np.ndarray, rng: Array) -> dict[str, float]:
    """Plays one batch of prompts (whole rows) and learns from it."""
    c = self.config
    tokens_bt = np.repeat(np.asarray(prompts_bt), c.rows_per_prompt, axis=0)
    played = self._play(tokens_bt, rng)
    end = played.canvas
    out_bt, is_masked_bt, calls_b = jax.device_get(
      (end.tokens_bt, end.is_masked_bt, end.num_calls_b)
    )
    right_b = self.is_correct(out_bt) & ~is_masked_bt.any(-1)
    length = tokens_bt.shape[1] - self.prompt_len
    reward_b = returns.rewards(
      right_b, calls_b, length, c.alpha_at(self.step), c.reward
    )
    advantage_b = returns.advantages(
      reward_b - np.asarray(c.near.excess(played)), c.rows_per_prompt
    )
    fault_b = np.full(len(out_bt), -1)
    if c.credit is not returns.Credit.ALL:
      fault_b = self._faults(out_bt, np.asarray(end.reveal_step_bt))
    num_steps = c.max_calls or length
    advantage_sb = returns.credited(
      advantage_b, fault_b, calls_b, num_steps, c.credit
    )
    own_b = self._own_b
    numbers = dict(
      reward=float(reward_b[own_b].mean()),
      accuracy=float(right_b[own_b].mean()),
      calls=float(calls_b[own_b].mean()),
      norm=0.0,
      kl=0.0,
    )
    self.step += 1
    # Without a difference inside any group there is nothing to learn.
    if np.abs(advantage_b).max() >= 1e-6 or c.entropy or c.near.kl:
      for _ in range(c.num_inner):
        learnt = self._learn(played, advantage_sb)
      numbers |= {key: float(value) for key, value in learnt.items()}
    return numbers

  def _faults(self, out_bt, step_bt):
    """Step after which no right answer was possible, int [b]; -1 if none."""
    num_steps = self.config.max_calls or out_bt.shape[1] - self.prompt_len
    is_answer_t = np.arange(out_bt.shape[1]) >= self.prompt_len
    step_bt = np.where(is_answer_t & (step_bt < 0), num_steps, step_bt)
    after = lambda step: np.where(step_bt > step, self.mask_id, out_bt)
    could_sb = np.stack(
      [self.can_complete(after(step)) for step in range(num_steps)]
    )
    return np.where(could_sb.all(0), -1, could_sb.argmin(0))

  def go_back(self, model: policy.UnmaskingPolicy) -> None:
    """Goes on from another policy: a warm restart at the rate of now.

    Adam's moments begin at zero while its bias correction has ended, so that
    updates are at first up to four times as large as usual.
    """
    self.params = nnx.split(model)[1]
    forget = lambda x: jnp.zeros_like(x) if jnp.ndim(x) else x
    self.opt_state = jax.tree.map(forget, self.opt_state)

  def current(self) -> policy.UnmaskingPolicy:
    """The policy as trained so far."""
    return nnx.merge(self.graphdef, self.params)
