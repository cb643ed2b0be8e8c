# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Free digits and a verdict on them: the fastest right decoding is known.

The prompt is one salt s in 0..4 per group; the answer is a triple (a, b, c) per
group: digits a and b are free, and c says whether (a + b + s) mod 5 is not 0.
Revealing all digits in one call and all verdicts in the next is always right;
no rule on confidence alone does it, since a verdict (0.8) is more confident
than a digit (0.1) but must wait. Our design; no paper.

Tokens: 0..9 digits or salts, 10 NO, 11 YES, 12 the mask.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtok.config import configclass
from jaxtok.tasks import base

NO, YES, _MASK = 10, 11, 12
_MODULUS = 5


@configclass
class FreeChoice:
  """The task."""

  num_groups: int = 8

  def __post_init__(self):
    num = self.num_groups
    base.require('FreeChoice', num_groups=(num, num >= 1, '>= 1'))

  mask_id = _MASK
  vocab_size = _MASK + 1

  @property
  def prompt_len(self) -> int:
    return self.num_groups

  @property
  def answer_len(self) -> int:
    return 3 * self.num_groups

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: salts and digits are uniform."""
    m = self.num_groups
    salt_m = rng.integers(0, _MODULUS, m)
    digit_m2 = rng.integers(0, 10, (m, 2))
    verdict_m = _verdict(digit_m2[:, 0], digit_m2[:, 1], salt_m)
    answer_m3 = np.concatenate([digit_m2, verdict_m[:, None]], axis=1)
    return np.concatenate([salt_m, answer_m3.reshape(-1)]).astype(np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`."""
    m = self.num_groups
    salt_bm = tokens_bt[:, :m]
    a, b, c = np.moveaxis(tokens_bt[:, m:].reshape(-1, m, 3), -1, 0)
    is_digit = (a < 10) & (b < 10)
    return (is_digit & (c == _verdict(a, b, salt_bm))).all(-1)

  def can_complete(self, tokens_bt: np.ndarray) -> np.ndarray:
    """Whether the masks can be filled so that the answer is right, bool [b]."""
    m = self.num_groups
    a, b, c = np.moveaxis(tokens_bt[:, m:].reshape(-1, m, 3), -1, 0)
    a_open, b_open, c_open = a == _MASK, b == _MASK, c == _MASK
    is_digit = (a_open | (a < 10)) & (b_open | (b < 10))
    # A free digit can make either verdict true.
    is_verdict = (c == NO) | (c == YES)
    fits = (c == _verdict(a, b, tokens_bt[:, :m])) | a_open | b_open
    return (is_digit & (c_open | (is_verdict & fits))).all(-1)

  def exact_denoiser(
    self, tokens_bt: Int[Array, 'b t']
  ) -> Float[Array, 'b t v']:
    """Log-probabilities given the revealed tokens, by conditioning a table.

    A verdict that contradicts its digits leaves all triples of these digits
    possible.
    """
    m = self.num_groups
    salt_bm1 = tokens_bt[:, :m, None]
    seen_bm3 = tokens_bt[:, m:].reshape(-1, m, 3)
    a, b = (x.reshape(-1) for x in jnp.mgrid[:10, :10])  # 100 pairs.
    c_bmn = jnp.where((a + b + salt_bm1) % _MODULUS != 0, YES, NO)
    fits = lambda seen, value: (seen == _MASK) | (seen == value)
    digits_bmn = fits(seen_bm3[..., :1], a) & fits(seen_bm3[..., 1:2], b)
    all_bmn = digits_bmn & fits(seen_bm3[..., 2:], c_bmn)
    keep_bmn = jnp.where(all_bmn.any(-1, keepdims=True), all_bmn, digits_bmn)
    p_bmn = keep_bmn / keep_bmn.sum(-1, keepdims=True)
    hot = lambda x: jax.nn.one_hot(x, self.vocab_size)
    answer_bm3v = jnp.stack(
      [
        p_bmn @ hot(a),
        p_bmn @ hot(b),
        jnp.einsum('bmn,bmnv->bmv', p_bmn, hot(c_bmn)),
      ],
      axis=2,
    )
    answer_btv = answer_bm3v.reshape(len(tokens_bt), 3 * m, -1)
    prompt_btv = hot(tokens_bt[:, :m])
    return jnp.log(jnp.concatenate([prompt_btv, answer_btv], axis=1) + 1e-30)


def _verdict(a, b, salt):
  return np.where((a + b + salt) % _MODULUS != 0, YES, NO)
