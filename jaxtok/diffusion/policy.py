# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A learned unmasking policy and its action distributions.

Learning Unmasking Policies for Diffusion Language Models, arXiv:2512.09106. A
one-block transformer reads the confidence of each position, whether it is
masked and the share of denoiser calls spent; it gives one logit per position.

Differs from the official code: log-probabilities use log-sigmoid in float32
instead of clamped probabilities.

Axes: b rows, t positions of the answer, d width, n heads, h head width.
"""

import dataclasses
import enum
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.diffusion import selectors


class Zeroed(enum.Enum):
  """An input that is always zero, to see what it is worth (an ablation)."""

  NOTHING = 'nothing'
  TIME = 'time'  # Calls so far.
  MASK = 'mask'  # What is masked; published to hurt most.


@configclass
class Config:
  """Hyper-parameters of `UnmaskingPolicy`; the defaults are the paper's."""

  hidden: int = 128
  mlp_dim: int = 512
  num_heads: int = 2
  time_dim: int = 128  # Of the embedding of time, before and after its MLP.
  time_max_period: float = 1.0  # 1 makes all frequencies equal, as published.
  top_p: int = 1  # Largest probabilities of a position that are inputs.
  bias: float = -2.0  # Of the logits at the start.
  rope_theta: float = 10_000.0
  zeroed: Zeroed = Zeroed.NOTHING

  def __post_init__(self):
    if self.hidden % (2 * self.num_heads):
      raise ValueError(
        f'hidden={self.hidden} must be a multiple of 2 num_heads='
        f'{2 * self.num_heads}, so that heads can be rotated.'
      )
    if self.time_dim % 2 or self.time_dim < 2:
      raise ValueError(f'time_dim={self.time_dim} must be even and >= 2.')
    if self.top_p < 1:
      raise ValueError(f'top_p={self.top_p} must be >= 1.')

  def make(self, rngs: nnx.Rngs) -> 'UnmaskingPolicy':
    return UnmaskingPolicy(self, rngs=rngs)

  def check_vocabulary(self, size: int) -> None:
    """Asks whether a distribution over `size` tokens has `top_p` of them.

    Raises:
      ValueError: If it has fewer.
    """
    if self.top_p > size:
      raise ValueError(
        f'policy.model.top_p={self.top_p} must be at most {size}, the size of '
        f'the vocabulary, whose largest probabilities are read. Use '
        f'top_p={size} or less.'
      )

  def read(self, probs_btv: Float[Array, 'b t v']) -> Float[Array, 'b t p']:
    """The `top_p` largest probabilities of each position, largest first.

    Raises:
      ValueError: See `check_vocabulary`.
    """
    self.check_vocabulary(probs_btv.shape[-1])
    return jax.lax.top_k(probs_btv, self.top_p)[0]


def _rotate(x_btnh: Float[Array, 'b t n h'], theta: float):
  """Rotary embedding by index; pairs are (i, i + h/2)."""
  t, half = x_btnh.shape[1], x_btnh.shape[-1] // 2
  angle_th = jnp.arange(t)[:, None] * theta ** (-jnp.arange(half) / half)
  cos, sin = jnp.cos(angle_th)[:, None], jnp.sin(angle_th)[:, None]
  a, b = x_btnh[..., :half], x_btnh[..., half:]
  return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class UnmaskingPolicy(nnx.Module):
  """One adaLN transformer block over confidences; gates are 1 + a."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    d = c.hidden
    linear = lambda i, o: nnx.Linear(i, o, rngs=rngs)
    norm = lambda: nnx.LayerNorm(d, epsilon=1e-5, rngs=rngs)
    self.confidence = linear(c.top_p, d)
    self.mask_embed = nnx.Embed(2, d, rngs=rngs)
    self.time_in, self.time_out = linear(c.time_dim, d), linear(d, d)
    zeros = nnx.initializers.zeros_init()
    self.modulation = nnx.Linear(d, 6 * d, kernel_init=zeros, rngs=rngs)
    self.norm_1, self.norm_2, self.norm_out = norm(), norm(), norm()
    self.query, self.key, self.value = linear(d, d), linear(d, d), linear(d, d)
    self.out = linear(d, d)
    self.mlp_up, self.mlp_down = linear(d, c.mlp_dim), linear(c.mlp_dim, d)
    self.head = nnx.Linear(
      d, 1, bias_init=nnx.initializers.constant(c.bias), rngs=rngs
    )

  def __call__(
    self,
    confidence_btp: Float[Array, 'b t p'],
    is_masked_bt: Bool[Array, 'b t'],
    progress_b: Float[Array, 'b'],
  ) -> Float[Array, 'b t']:
    """Logits of revealing each position.

    Args:
      confidence_btp: The `top_p` largest probabilities, largest first.
      is_masked_bt: Positions not yet revealed.
      progress_b: Denoiser calls so far over positions.
    """
    c = self.config
    if c.zeroed is Zeroed.TIME:
      progress_b = jnp.zeros_like(progress_b)
    if c.zeroed is Zeroed.MASK:
      is_masked_bt = jnp.zeros_like(is_masked_bt)
    half = c.time_dim // 2
    frequency = c.time_max_period ** (-jnp.arange(half) / half)
    angle_bd = progress_b[:, None] * frequency
    time_bd = jnp.concatenate([jnp.cos(angle_bd), jnp.sin(angle_bd)], axis=-1)
    time_bd = self.time_out(nnx.silu(self.time_in(time_bd)))
    cond_btd = self.mask_embed(is_masked_bt.astype(jnp.int32))
    parts = self.modulation(cond_btd + time_bd[:, None])
    scale1, shift1, gate1, scale2, shift2, gate2 = jnp.split(parts, 6, axis=-1)
    h_btd = self.confidence(confidence_btp)
    z_btd = self.norm_1(h_btd) * (1 + scale1) + shift1
    h_btd = h_btd + (1 + gate1) * self._attend(z_btd)
    z_btd = self.norm_2(h_btd) * (1 + scale2) + shift2
    z_btd = self.mlp_down(nnx.gelu(self.mlp_up(z_btd), approximate=False))
    h_btd = h_btd + (1 + gate2) * z_btd
    return self.head(self.norm_out(h_btd))[..., 0]

  def _attend(self, z_btd):
    b, t, d = z_btd.shape
    heads = lambda x: x.reshape(b, t, self.config.num_heads, -1)
    turn = lambda x: _rotate(heads(x), self.config.rope_theta)
    q_btnh, k_bsnh = turn(self.query(z_btd)), turn(self.key(z_btd))
    scale = 1 / math.sqrt(q_btnh.shape[-1])
    score_bnts = jnp.einsum('btnh,bsnh->bnts', q_btnh, k_bsnh) * scale
    weight_bnts = jax.nn.softmax(score_bnts, axis=-1)
    mixed = jnp.einsum('bnts,bsnh->btnh', weight_bnts, heads(self.value(z_btd)))
    return self.out(mixed.reshape(b, t, d))


@functools.lru_cache
def structure(config: Config) -> Any:
  """The graph of a policy, the same object for equal configs.

  Two policies of one config differ in their initializers, so that programs that
  are compiled for the graph of one would be compiled again for the other.
  """
  return nnx.graphdef(config.make(nnx.Rngs(0)))


def bernoulli_log_prob(
  logits_bt: Float[Array, 'b t'],
  action_bt: Bool[Array, 'b t'],
  allowed_bt: Bool[Array, 'b t'],
) -> Float[Array, 'b']:
  """Log-probability of independent reveals of the allowed positions."""
  signed_bt = jnp.where(action_bt, logits_bt, -logits_bt)
  return jnp.where(allowed_bt, jax.nn.log_sigmoid(signed_bt), 0).sum(-1)


def dpls_sample(
  logits_bt: Float[Array, 'b t'],
  allowed_bt: Bool[Array, 'b t'],
  rngs_b: Any,
) -> Int[Array, 'b t']:
  """Draws an ordered, non-empty set by dynamic Plackett-Luce.

  The first position is drawn from the softmax; then positions without
  replacement together with a STOP item of logit 0, until STOP.

  Returns:
    Positions in the order drawn, then -1; only -1 in rows without choice.
  """
  num = logits_bt.shape[1]

  def row(logits, allowed, rng):
    first_rng, rest_rng = jax.random.split(rng)
    logits = jnp.where(allowed, logits, -jnp.inf)
    draw = lambda r, x: x + jax.random.gumbel(r, x.shape, mode='high')
    first = jnp.argmax(draw(first_rng, logits))
    keys = draw(rest_rng, jnp.append(logits, 0.0))
    keys = keys.at[first].set(jnp.inf)
    order = jnp.argsort(-keys)
    stop = jnp.argmax(order == num)
    chosen = jnp.where(jnp.arange(num + 1) < stop, order, -1)[:num]
    return jnp.where(allowed.any(), chosen, -1)

  return jax.vmap(row)(logits_bt, allowed_bt, rngs_b)


def dpls_log_prob(
  logits_bt: Float[Array, 'b t'],
  order_bt: Int[Array, 'b t'],
  allowed_bt: Bool[Array, 'b t'],
) -> Float[Array, 'b']:
  """Log-probability of what `dpls_sample` returned; 0 without a choice."""

  def row(logits, order, allowed):
    # Finite everywhere, so that gradients of unused branches are too.
    logits = jnp.where(allowed, logits, -1e30)
    total = jax.nn.log_softmax(logits)[order[0]]

    def step(carry, index):
      total, is_left, is_open = carry
      # What may come next: positions not yet drawn, and STOP.
      items = jnp.append(jnp.where(is_left, logits, -1e30), 0.0)
      log_p = jax.nn.log_softmax(items)
      is_stop = index < 0
      gain = jnp.where(is_stop, log_p[-1], log_p[index])
      total = total + jnp.where(is_open, gain, 0)
      is_left = is_left & (jnp.arange(len(logits)) != index)
      return (total, is_left, is_open & ~is_stop), None

    is_left = allowed & (jnp.arange(len(logits)) != order[0])
    steps = jnp.append(order[1:], -1)
    (total, _, _), _ = jax.lax.scan(step, (total, is_left, True), steps)
    return jnp.where(allowed.any(), total, 0)

  return jax.vmap(row)(logits_bt, order_bt, allowed_bt)


@dataclasses.dataclass(frozen=True)
class Bernoulli:
  """Each allowed position is revealed independently; none is possible too.

  An action is the set, bool [b, t].
  """

  def sample(self, logits_bt, allowed_bt, rngs_b) -> Bool[Array, 'b t']:
    draw = lambda rng: jax.random.uniform(rng, logits_bt.shape[1:])
    noise_bt = jax.vmap(draw)(rngs_b)
    return (noise_bt < jax.nn.sigmoid(logits_bt)) & allowed_bt

  def reveal(
    self, logits_bt, allowed_bt, rngs_b, temperature=1.0, scale=1.0
  ) -> Bool[Array, 'b t']:
    """At inference: `min(1, scale sigmoid(logit / temperature))` for each.

    A row that drew none reveals the allowed position of the largest logit.
    """
    prob_bt = scale * jax.nn.sigmoid(logits_bt / temperature)
    draw = lambda rng: jax.random.uniform(rng, prob_bt.shape[1:])
    drawn_bt = (jax.vmap(draw)(rngs_b) < prob_bt) & allowed_bt
    best_bt = allowed_bt & (selectors.ranks(logits_bt, allowed_bt) == 0)
    return jnp.where(drawn_bt.any(-1, keepdims=True), drawn_bt, best_bt)

  def log_prob(self, logits_bt, action_bt, allowed_bt) -> Float[Array, 'b']:
    return bernoulli_log_prob(logits_bt, action_bt, allowed_bt)

  def to_set(self, action_bt) -> Bool[Array, 'b t']:
    return action_bt

  def from_set(self, select_bt, confidence_bt) -> Bool[Array, 'b t']:
    del confidence_bt
    return select_bt


@dataclasses.dataclass(frozen=True)
class PlackettLuce:
  """Dynamic Plackett-Luce; an action is an ordered, non-empty set."""

  def sample(self, logits_bt, allowed_bt, rngs_b) -> Int[Array, 'b t']:
    return dpls_sample(logits_bt, allowed_bt, rngs_b)

  def reveal(
    self, logits_bt, allowed_bt, rngs_b, temperature=1.0, scale=1.0
  ) -> Bool[Array, 'b t']:
    """At inference: a position has weight `scale exp(logit / temperature)`.

    STOP has weight 1, so that 1 and 1 draw as in training. Our choice.
    """
    logits_bt = logits_bt / temperature + jnp.log(scale)
    return self.to_set(self.sample(logits_bt, allowed_bt, rngs_b))

  def log_prob(self, logits_bt, action_bt, allowed_bt) -> Float[Array, 'b']:
    return dpls_log_prob(logits_bt, action_bt, allowed_bt)

  def to_set(self, action_bt) -> Bool[Array, 'b t']:
    # -1 is no class: its one-hot vector is zero.
    hot_bst = jax.nn.one_hot(action_bt, action_bt.shape[1], dtype=bool)
    return hot_bst.any(1)

  def from_set(self, select_bt, confidence_bt) -> Int[Array, 'b t']:
    """The set in the order of falling confidence."""
    rank_bt = selectors.ranks(confidence_bt, select_bt)
    order_bt = jnp.argsort(rank_bt, axis=-1)
    num_b1 = select_bt.sum(-1, keepdims=True)
    return jnp.where(jnp.arange(select_bt.shape[1]) < num_b1, order_bt, -1)


@dataclasses.dataclass(frozen=True)
class OneToken:
  """One allowed position per call, drawn from the softmax of the logits.

  Hong et al. 2025, arXiv:2510.05725. An action is a set of one position, bool
  [b, t]; empty in rows without a choice.
  """

  def sample(self, logits_bt, allowed_bt, rngs_b) -> Bool[Array, 'b t']:
    draw = lambda rng, x_t: jax.random.categorical(rng, x_t, mode='high')
    logits_bt = jnp.where(allowed_bt, logits_bt, -jnp.inf)
    chosen_b = jax.vmap(draw)(rngs_b, logits_bt)
    hot_bt = jax.nn.one_hot(chosen_b, logits_bt.shape[1], dtype=bool)
    return hot_bt & allowed_bt

  def reveal(
    self, logits_bt, allowed_bt, rngs_b, temperature=1.0, scale=1.0
  ) -> Bool[Array, 'b t']:
    """At inference: drawn from softmax(logits / temperature).

    One position is revealed whatever `scale` is.
    """
    del scale
    return self.sample(logits_bt / temperature, allowed_bt, rngs_b)

  def log_prob(self, logits_bt, action_bt, allowed_bt) -> Float[Array, 'b']:
    # Finite everywhere, so that gradients of unused branches are too.
    log_p_bt = jax.nn.log_softmax(jnp.where(allowed_bt, logits_bt, -1e30))
    return jnp.where(action_bt & allowed_bt, log_p_bt, 0).sum(-1)

  def to_set(self, action_bt) -> Bool[Array, 'b t']:
    return action_bt

  def from_set(self, select_bt, confidence_bt) -> Bool[Array, 'b t']:
    """The most confident position of the set."""
    return select_bt & (selectors.ranks(confidence_bt, select_bt) == 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Policy:
  """A trained policy as a selector.

  Attributes:
    model: The network.
    temperature: See `reveal` of the action distribution.
    scale: Likewise.
    actions: The action distribution that it was trained with. Static.
  """

  model: UnmaskingPolicy
  temperature: Any = 1.0
  scale: Any = 1.0
  actions: Any = dataclasses.field(
    default=Bernoulli(), metadata=dict(static=True)
  )

  def __call__(self, view: selectors.View) -> Bool[Array, 'b t']:
    confidence_btp = self.model.config.read(view.probs_btv)
    logits_bt = self.model(confidence_btp, view.is_masked_bt, view.progress_b)
    return self.actions.reveal(
      logits_bt, view.allowed_bt, view.rngs_b, self.temperature, self.scale
    )
