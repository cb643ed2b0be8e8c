# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""DiT over tokens: a bidirectional transformer that is told the time.

Peebles and Xie 2022, arXiv:2212.09748, as Sahoo et al. 2024 (MDLM,
arXiv:2406.07524) and Lou et al. 2023 (SEDD) use it for text: rotary attention,
LayerNorm without bias, and in each block a shift, a scale and a gate of either
branch, computed from the time (adaLN). These projections and the output start
at zero, so that the network begins as the identity and all tokens are equally
likely.

  output = model(tokens_bt, context=times_b)   # None means time 0.

Axes: b rows, t positions, d width, v vocabulary, c conditioning, f features.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.cache import kv
from jaxtok.config import configclass
from jaxtok.models import base, transformer
from jaxtok.nn import block, linear, masks, norms


@configclass
class Config(transformer.Config):
  """Hyper-parameters of `DiT`; MDLM's small model is 768 x 12 x 12.

  `gated=True, activation='silu'` makes MD4's network.
  """

  norm: str = 'layer'
  norm_eps: float = 1e-5
  mlp_bias: bool = True
  is_causal: bool = False
  is_tied: bool = False
  cond_dim: int = 128  # Width c of the conditioning.
  num_features: int = 256  # f, sines and cosines of the time; even.
  time_scale: float = 1000.0  # Multiplies times in [0, 1] first.

  def __post_init__(self):
    super().__post_init__()
    if self.cond_dim < 1:
      raise ValueError(f'cond_dim={self.cond_dim} must be >= 1.')
    if self.num_features < 2 or self.num_features % 2:
      raise ValueError(
        f'num_features={self.num_features} must be even and >= 2.'
      )
    fixed = dict(is_pre_norm=True, is_causal=False, is_tied=False, remat=False)
    for name, value in fixed.items():
      if getattr(self, name) != value:
        raise ValueError(
          f'{name}={getattr(self, name)}, but a DiT needs {value}.'
        )
    if self.position == 't5':
      raise ValueError("position='t5' is not there for a DiT. Use 'rope'.")

  def make(self, rngs: nnx.Rngs) -> 'DiT':
    """Builds the model; see `transformer.Config.make`."""
    if self.vocab_size < 1:
      raise ValueError(f"vocab_size={self.vocab_size}: set the tokenizer's.")
    return DiT(self, rngs=rngs)


def time_features(times_b: Float[Array, 'b'], num: int) -> Float[Array, 'b f']:
  """Cosines and sines at `num` / 2 frequencies from 1 down to 1e-4."""
  half = num // 2
  freq_f = jnp.exp(-math.log(1e4) * jnp.arange(half) / half)
  angle_bf = times_b[:, None] * freq_f
  return jnp.concatenate([jnp.cos(angle_bf), jnp.sin(angle_bf)], axis=-1)


def modulate(
  x_btd: Float[Array, 'b t d'],
  shift_b1d: Float[Array, 'b 1 d'],
  scale_b1d: Float[Array, 'b 1 d'],
) -> Float[Array, 'b t d']:
  """Scales by 1 + scale, then shifts."""
  return (x_btd * (1 + scale_b1d) + shift_b1d).astype(x_btd.dtype)


class Modulation(nnx.Module):
  """`num` vectors of width d from the conditioning, zero at the start."""

  def __init__(self, config: Config, num: int, *, rngs: nnx.Rngs):
    self.num = num
    self.proj = linear.Linear(
      (config.cond_dim,),
      (num * config.dim,),
      axes=('cond', 'embed'),
      use_bias=True,
      rngs=rngs,
    )
    self.proj.kernel[...] = jnp.zeros_like(self.proj.kernel[...])

  def __call__(self, cond_bc: Float[Array, 'b c']) -> list[Array]:
    """The vectors, [b, 1, d] each."""
    return jnp.split(self.proj(cond_bc)[:, None], self.num, axis=-1)


def _norm(config: Config) -> norms.Norm:
  return norms.Norm(
    config.dim, kind=config.norm, eps=config.norm_eps, use_bias=False
  )


class Block(block.Block):
  """Attention and MLP, each shifted, scaled and gated."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    super().__init__(config.block_config(False), rngs=rngs)
    self.attention_norm, self.mlp_norm = _norm(config), _norm(config)
    self.modulation = Modulation(config, 6, rngs=rngs)

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    cond_bc: Float[Array, 'b c'],
    context: block.Context,
    *,
    layer: int,
    cache: Any = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """Applies the block; see `nn.block.Block`."""
    shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(cond_bc)
    rngs = block.split(rng, 2)

    def add(x_btd, gate_b1d, y_btd, rng):
      y_btd = (gate_b1d * y_btd).astype(x_btd.dtype)
      return x_btd + block.dropout(y_btd, self.config.dropout, rng)

    y_btd = modulate(self.attention_norm(x_btd), shift1, scale1)
    y_btd, cache = self._self_attention(y_btd, context, layer, cache)
    x_btd = add(x_btd, gate1, y_btd, rngs[0])
    y_btd = self.mlp(modulate(self.mlp_norm(x_btd), shift2, scale2))
    return add(x_btd, gate2, y_btd, rngs[1]), cache


class Stack(nnx.Module):
  """The blocks, a norm, and what turns the time into their conditioning."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    dense = lambda num: linear.Linear(
      (num,), (c.cond_dim,), axes=('time', 'cond'), use_bias=True, rngs=rngs
    )
    self.time1, self.time2 = dense(c.num_features), dense(c.cond_dim)
    self.blocks = nnx.List(Block(c, rngs=rngs) for _ in range(c.num_layers))
    self.norm = _norm(c)
    self.modulation = Modulation(c, 2, rngs=rngs)

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    times_b: Float[Array, 'b'],
    context: block.Context,
    *,
    cache: Any = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """Final states and the cache."""
    c = self.config
    features_bf = time_features(c.time_scale * times_b, c.num_features)
    cond_bc = self.time2(jax.nn.silu(self.time1(features_bf)))
    cond_bc = jax.nn.silu(cond_bc)
    for layer, blk in enumerate(self.blocks):
      key = None if rng is None else jax.random.fold_in(rng, layer)
      x_btd, cache = blk(
        x_btd, cond_bc, context, layer=layer, cache=cache, rng=key
      )
    return modulate(self.norm(x_btd), *self.modulation(cond_bc)), cache


class DiT(transformer.Transformer):
  """A transformer whose blocks are told the time."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    super().__init__(config, rngs=rngs)
    self.head.out.kernel[...] = jnp.zeros_like(self.head.out.kernel[...])

  def _stack(self, num_layers, is_causal, has_cross, rngs):
    del num_layers, is_causal, has_cross
    return Stack(self.config, rngs=rngs)

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Float[Array, 'b'] | None = None,
    cache: kv.KVCache | None = None,
    mask: masks.Mask | None = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions; see `Transformer`.

    Args:
      tokens_bt: Token ids.
      positions: Positions within the document.
      segment_ids: Documents of a packed row.
      context: Time of each row, 0 (clean) to 1; None means 0.
      cache: Keys and values of other tokens. They depend on the time too.
      mask: Replaces the default, which is full.
      rng: Turns dropout on.
    """
    b, t = tokens_bt.shape
    embed_rng, stack_rng = block.split(rng, 2)
    slots_bt = None
    if cache is not None:
      cache, slots_bt = cache.reserve(positions, segment_ids, t)
    seen = masks.Segments() & (masks.Full() if mask is None else mask)
    shared = self._context(
      None, t, positions, seen, segment_ids, cache, slots_bt
    )
    positions = slots_bt if positions is None else positions
    x_btd, cache = self.stack(
      self._embed(tokens_bt, positions, embed_rng),
      jnp.zeros(b) if context is None else context,
      shared,
      cache=cache,
      rng=stack_rng,
    )
    return base.Output(hidden_btd=x_btd, cache=cache)

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """See `Transformer`; 'time' is what the conditioning costs."""
    c = self.config
    wide = (6 * c.num_layers + 2) * c.dim
    time = 2.0 * shape.b * c.cond_dim * (c.num_features + c.cond_dim + wide)
    return super().flops(shape) | {'time': time}
