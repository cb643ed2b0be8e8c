# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps a policy near a rule that is known to work, its reference.

Unmasking Policy Optimization, Hong et al. 2025, arXiv:2510.05725: the order in
which one token per call is revealed is learned from right and wrong answers,
and regularised towards a rule.

  top_k       drawn from the most confident positions, all alike: KL divergence
  softmax     drawn from softmax(confidence / temperature): KL divergence
  confidence  the most confident position: cross-entropy, as the divergence from
              a rule without chance is infinite

The divergence is that of whole orders, `E[log p - log reference]` over rollouts
of the policy p. Its gradient is that of a reward: `Config.excess`, which is
subtracted from what a rollout earns. (The official code multiplies it by the
clipped ratio of the policy to the one that played, which is 1 at the first
update.)

Differs from the official code: 'softmax' has the largest probability of a
position in the exponent, not a sum over the vocabulary of such exponentials,
which at a temperature of 0.05 is nearly the same.

Axes: s steps, b rows, t positions of the answer.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxtok.config import configclass
from jaxtok.diffusion import rollout


class Reference(enum.Enum):
  """A rule; see the module."""

  TOP_K = 'top_k'
  SOFTMAX = 'softmax'
  CONFIDENCE = 'confidence'


@configclass
class Config:
  """How near to which rule, and of how many positions one is chosen."""

  kl: float = 0.0  # Weight of the divergence, in rewards per nat.
  reference: Reference = Reference.SOFTMAX
  temperature: float = 0.05  # Of Reference.SOFTMAX.
  num_candidates: int = 0  # Most confident positions to choose from; 0: all.

  def __post_init__(self):
    if self.kl < 0 or self.temperature <= 0 or self.num_candidates < 0:
      raise ValueError(
        f'upo.kl={self.kl} and num_candidates={self.num_candidates} must be '
        f'>= 0 and temperature={self.temperature} > 0.'
      )
    is_top_k = self.reference is Reference.TOP_K
    if self.kl and is_top_k and not self.num_candidates:
      raise ValueError(
        f'upo.num_candidates={self.num_candidates} must be >= 1 with '
        "reference='top_k', which draws from so many positions."
      )

  def excess(self, played: rollout.Rollout) -> Float[Array, 'b'] | float:
    """Times `kl`: log-probability of each order less that of the reference.

    Of one token per call; 0 if there is no reference with chance.
    """
    if not self.kl or self.reference is Reference.CONFIDENCE:
      return 0.0
    log_reference_sbt = jax.vmap(
      lambda *x: log_reference(*x, self.reference, self.temperature)
    )(played.confidence_sbtp[..., 0], played.allowed_sbt)
    chosen_sbt = played.action_sbt & played.allowed_sbt
    reference_sb = jnp.where(chosen_sbt, log_reference_sbt, 0).sum(-1)
    difference_sb = played.log_prob_sb - reference_sb
    return self.kl * jnp.where(played.is_open_sb, difference_sb, 0).sum(0)

  def cross_entropy(
    self, logits_bt, confidence_bt, allowed_bt
  ) -> Float[Array, 'b'] | float:
    """Times `kl`: nats at a step, see `cross_entropy`; 0 if it is not used."""
    if not self.kl or self.reference is not Reference.CONFIDENCE:
      return 0.0
    return self.kl * cross_entropy(logits_bt, confidence_bt, allowed_bt)


def log_reference(
  confidence_bt: Float[Array, 'b t'],
  allowed_bt: Bool[Array, 'b t'],
  reference: Reference,
  temperature: float = 0.05,
) -> Float[Array, 'b t']:
  """Log-probability of revealing each position next; of others a huge negative.

  Args:
    confidence_bt: Largest probability of each position.
    allowed_bt: What may be revealed: of `TOP_K` the most confident already.
    reference: The rule; `CONFIDENCE` shares ties out equally.
    temperature: Of `SOFTMAX`.
  """
  if reference is Reference.TOP_K:
    score_bt = jnp.zeros_like(confidence_bt)
  elif reference is Reference.SOFTMAX:
    score_bt = confidence_bt / temperature
  else:
    allowed_bt = most_confident(confidence_bt, allowed_bt)
    score_bt = jnp.zeros_like(confidence_bt)
  return jax.nn.log_softmax(jnp.where(allowed_bt, score_bt, -1e30), axis=-1)


def most_confident(confidence_bt, allowed_bt) -> Bool[Array, 'b t']:
  """The most confident of the allowed positions; all of them if they tie."""
  inside_bt = jnp.where(allowed_bt, confidence_bt, -jnp.inf)
  return allowed_bt & (inside_bt == inside_bt.max(-1, keepdims=True))


def cross_entropy(
  logits_bt: Float[Array, 'b t'],
  confidence_bt: Float[Array, 'b t'],
  allowed_bt: Bool[Array, 'b t'],
) -> Float[Array, 'b']:
  """Nats by which a softmax policy misses the most confident position.

  0 in rows without a choice; positions of equal confidence share.
  """
  log_p_bt = jax.nn.log_softmax(jnp.where(allowed_bt, logits_bt, -1e30))
  best_bt = most_confident(confidence_bt, allowed_bt)
  total_b = jnp.where(best_bt, log_p_bt, 0).sum(-1)
  return -total_b / jnp.maximum(best_bt.sum(-1), 1)
