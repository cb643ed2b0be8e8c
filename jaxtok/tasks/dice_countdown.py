# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rolls of dice until a total is used up.

The prompt is a total N. The answer is p_1 r_1 p_2 r_2 ...: each roll p_k is at
most 6 and at most what is left, r_k = r_(k-1) - p_k with r_0 = N, and after
r_k = 0 nothing but EOS follows. Every legal chain is right, so most tokens can
be chosen freely alone but not together, and the length is open: what confident
decoding gets wrong. Our design; no paper.

Tokens: 0..max_total are numbers, then six faces, EOS and the mask.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtok.config import configclass
from jaxtok.tasks import base

FACES = 6
_LEAK = 1e-6  # Weight of a contradiction to what is revealed.


@configclass
class DiceCountdown:
  """The task; the defaults are those of the measurements in docs."""

  min_total: int = 12
  max_total: int = 24
  max_pairs: int = 10  # Chains with more rolls are never drawn.

  def __post_init__(self):
    lowest, highest, pairs = self.min_total, self.max_total, self.max_pairs
    base.require(
      'DiceCountdown',
      min_total=(lowest, 1 <= lowest <= highest, 'in [1, max_total]'),
      max_pairs=(pairs, pairs * FACES >= highest, '>= max_total / 6'),
    )

  prompt_len = 1

  @property
  def answer_len(self) -> int:
    return 2 * self.max_pairs

  @property
  def eos(self) -> int:
    return self.max_total + FACES + 1

  @property
  def mask_id(self) -> int:
    return self.eos + 1

  @property
  def vocab_size(self) -> int:
    return self.mask_id + 1

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: the total is uniform, rolls are fair."""
    total = int(rng.integers(self.min_total, self.max_total + 1))
    while True:
      left, chain = total, []
      while left and len(chain) < self.answer_len:
        roll = int(rng.integers(1, min(FACES, left) + 1))
        left -= roll
        chain += [self.max_total + roll, left]
      if not left:
        row = np.full(1 + self.answer_len, self.eos, np.int32)
        row[: 1 + len(chain)] = [total, *chain]
        return row

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`."""
    left_b = tokens_bt[:, 0]
    good_b = np.ones(len(tokens_bt), bool)
    for k in range(self.max_pairs):
      face_b, right_b = tokens_bt[:, 1 + 2 * k], tokens_bt[:, 2 + 2 * k]
      roll_b = face_b - self.max_total
      is_legal = (roll_b >= 1) & (roll_b <= np.minimum(FACES, left_b))
      is_legal &= right_b == left_b - roll_b
      is_over = (face_b == self.eos) & (right_b == self.eos)
      good_b &= np.where(left_b > 0, is_legal, is_over)
      left_b = np.where(is_legal, right_b, left_b)
    return good_b & (left_b == 0)

  def can_complete(self, tokens_bt: np.ndarray) -> np.ndarray:
    """Whether the masks can be filled so that the answer is right, bool [b]."""
    b, size = len(tokens_bt), self.max_total + 1
    reach_bi = np.arange(size) == tokens_bt[:, :1]  # What may be left.
    for k in range(self.max_pairs):
      face_b, right_b = tokens_bt[:, 1 + 2 * k], tokens_bt[:, 2 + 2 * k]
      fits = lambda seen_b, token: (seen_b == self.mask_id) | (seen_b == token)
      new_bi = np.zeros((b, size), bool)
      is_over_b = fits(face_b, self.eos) & fits(right_b, self.eos)
      new_bi[:, 0] = reach_bi[:, 0] & is_over_b
      right_bi = fits(right_b[:, None], np.arange(size))
      for roll in range(1, FACES + 1):
        is_rolled_b1 = fits(face_b, self.max_total + roll)[:, None]
        moved_bi = reach_bi[:, roll:] & is_rolled_b1 & right_bi[:, :-roll]
        new_bi[:, :-roll] |= moved_bi
      reach_bi = new_bi
    return reach_bi[:, 0]

  def exact_denoiser(
    self, tokens_bt: Int[Array, 'b t']
  ) -> Float[Array, 'b t v']:
    """Log-probabilities of each token given the revealed ones.

    Forward-backward over what is left, in time `max_pairs`. Revealed tokens
    that contradict each other have a small weight instead of none, so that
    rows without any legal completion have a distribution too.
    """
    return jax.vmap(functools.partial(_exact_row, self))(tokens_bt)


def _exact_row(task: DiceCountdown, tokens_t):
  """One row: see `exact_denoiser`. Axes: i left before, p faces, j after."""
  size, n = task.max_total + 1, task.max_pairs
  left_i, roll_p = jnp.arange(size), jnp.arange(FACES + 1)  # Roll 0: the end.
  limit_i = jnp.minimum(FACES, left_i)
  is_roll_ip = (roll_p >= 1) & (roll_p <= limit_i[:, None])
  prior_ip = jnp.where(is_roll_ip, 1 / jnp.maximum(limit_i, 1)[:, None], 0.0)
  prior_ip = prior_ip.at[0, 0].set(1.0)
  face_p = jnp.where(roll_p > 0, task.max_total + roll_p, task.eos)
  number_ip = jnp.where(roll_p > 0, left_i[:, None] - roll_p, task.eos)
  pairs_k2 = tokens_t[1:].reshape(n, 2)
  fits = lambda seen, token: jnp.where(
    (seen == task.mask_id) | (seen == token), 1.0, _LEAK
  )
  weight_kip = jax.vmap(
    lambda pair: prior_ip * fits(pair[0], face_p) * fits(pair[1], number_ip)
  )(pairs_k2)

  def arrive(flow_ip):  # Sum over the rolls that leave j.
    return sum(
      jnp.pad(flow_ip[p:, p], (0, min(p, size))) for p in range(FACES + 1)
    )

  def ahead(beta_i):  # What stands at i - p.
    kept = lambda p: beta_i[: max(size - p, 0)]
    shifted = [jnp.pad(kept(p), (min(p, size), 0)) for p in range(FACES + 1)]
    return jnp.stack(shifted, axis=-1)

  def forward(alpha_i, weight_ip):
    new_i = arrive(alpha_i[:, None] * weight_ip)
    return new_i / new_i.sum(), alpha_i

  def backward(beta_i, weight_ip):
    new_i = (weight_ip * ahead(beta_i)).sum(1)
    return new_i / new_i.max(), beta_i

  start_i = jax.nn.one_hot(tokens_t[0], size)
  end_i = jax.nn.one_hot(0, size)
  _, alpha_ki = jax.lax.scan(forward, start_i, weight_kip)
  _, beta_ki = jax.lax.scan(backward, end_i, weight_kip, reverse=True)
  joint_kip = alpha_ki[:, :, None] * weight_kip * jax.vmap(ahead)(beta_ki)
  v = task.vocab_size
  face_kv = joint_kip.sum(1) @ jax.nn.one_hot(face_p, v)
  rolled_kip = joint_kip.at[:, :, 0].set(0.0)
  number_kv = jnp.pad(jax.vmap(arrive)(rolled_kip), ((0, 0), (0, v - size)))
  number_kv = number_kv.at[:, task.eos].set(joint_kip[:, :, 0].sum(1))
  answer_tv = jnp.stack([face_kv, number_kv], axis=1).reshape(2 * n, v)
  answer_tv /= answer_tv.sum(-1, keepdims=True)
  row_tv = jnp.concatenate([jax.nn.one_hot(tokens_t[:1], v), answer_tv])
  return jnp.log(row_tv + 1e-30)
