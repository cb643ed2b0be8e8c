# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the patches of BLT end, decided by the tokens so far.

  end_bt, cache = patcher(tokens_bt, documents_bt, cache, slots_bt)

A rule for tokens (`nn.segmenters.Stride`, `Spacelike`) marks the last bytes of
patches; `Entropy` asks a language model of its own, which is trained before and
does not change (Pagnoni et al. 2024, arXiv:2412.09871, section 2.3).

Axes: b rows, t tokens, s stored ones.
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, transformer
from jaxtok.nn import masks, ragged, segmenters


class Frozen(nnx.Variable):
  """A parameter that training does not change; checkpoints hold it."""


@configclass
class Entropy:
  """A patch ends where the model is unsure of the next byte.

  `path` is a folder with the weights, as `models.interop.save` writes it for a
  run's model of the type 'llama', whose config must be `model`. Without it they
  are random, until a checkpoint of the whole model is loaded. The folder is
  read whenever the model is made.
  """

  model: transformer.Config = dataclasses.field(
    default_factory=lambda: transformer.Config.llama(is_tied=False)
  )
  rule: segmenters.Entropy = dataclasses.field(
    default_factory=segmenters.Entropy
  )
  window: int = 512  # Tokens that the model sees; 0 means all.
  path: str = ''

  def __post_init__(self):
    if self.window < 0:
      raise ValueError(f'window={self.window} must be >= 0 (0 sees all).')


def make(config: Any, vocab_size: int, rngs: nnx.Rngs) -> nnx.Module:
  """The patcher that a config describes; see the module."""
  if isinstance(config, Entropy):
    return EntropyPatcher(config, vocab_size, rngs=rngs)
  return TokenPatcher(config)


def ends_of_lengths(
  lengths_bw: Int[Array, 'b w'], num_tokens: int
) -> Bool[Array, 'b t']:
  """Ends of patches, given their lengths, as `transformers` takes them.

  A patch of length 0 is none. Where the lengths of a row sum to `num_tokens`,
  its last byte does not end a patch: what comes next is not known. Where they
  sum to one more, it does.

  Args:
    lengths_bw: Lengths; the first of each row must be 1.
    num_tokens: t, static.
  """
  starts_bw = jnp.cumsum(lengths_bw, axis=1)[:, :-1]
  last_t = jnp.arange(num_tokens) + 1
  return (starts_bw[:, :, None] == last_t).any(axis=1)


def threshold(
  entropy_bt: Float[Array, 'b t'], length: float, *, warmup: int = 16
) -> float:
  """The threshold of the rule 'global' for a mean length of patches.

  Args:
    entropy_bt: From `segmenters.entropies`, rows of text.
    length: Wanted bytes per patch.
    warmup: Positions at the beginning of each row that are left out.
  """
  if length <= 1:
    raise ValueError(f'length={length} bytes per patch must be > 1.')
  return float(jnp.quantile(entropy_bt[:, warmup:], 1 - 1 / length))


class TokenPatcher(nnx.Module):
  """A `segmenters.Segmenter`, whose positions end patches."""

  def __init__(self, rule: Any):
    self.rule = rule

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    documents_bt: Int[Array, 'b t'],
    cache: nested.NestedCache | None,
    slots_bt: Int[Array, 'b t'] | None,
  ) -> tuple[Bool[Array, 'b t'], Any]:
    """Ends of patches, and the cache."""
    if cache is None:
      return self.rule(tokens_bt, documents_bt), None
    end_bs = self.rule(cache.tokens_bs, cache.segment_ids_bs)
    return ragged.gather(end_bs, slots_bt), cache

  def init_cache(self, batch_size: int, max_len: int) -> tuple[tuple, dict]:
    """Caches and states of its own, for a `NestedCache`."""
    del batch_size, max_len
    return (), {}

  def flops(self, shape: base.Shape) -> float:
    """Matmul FLOPs of a call."""
    del shape
    return 0.0


class EntropyPatcher(nnx.Module):
  """See `Entropy`."""

  def __init__(self, config: Entropy, vocab_size: int, *, rngs: nnx.Rngs):
    self.config = config
    model_config = dataclasses.replace(config.model, vocab_size=vocab_size)
    if config.path:
      model = _load(config.path, model_config)
    else:
      model = model_config.make(rngs)
    self.model = freeze(model)

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    documents_bt: Int[Array, 'b t'],
    cache: nested.NestedCache | None,
    slots_bt: Int[Array, 'b t'] | None,
  ) -> tuple[Bool[Array, 'b t'], Any]:
    """Ends of patches, and the cache."""
    mask = masks.Causal()
    if self.config.window:
      mask = mask & masks.Window(self.config.window)
    shared = dict(segment_ids=documents_bt, mask=mask)
    if cache is None:
      entropy_bt = segmenters.entropies(self.model, tokens_bt, **shared)
      return self.config.rule.ends(entropy_bt, documents_bt), None
    *others, own = cache.local
    entropy_bt, own = segmenters.entropies(
      self.model, tokens_bt, cache=own, **shared
    )
    cache = dataclasses.replace(cache, local=(*others, own))
    cache = cache.put('entropy', slots_bt, entropy_bt)
    end_bs = self.config.rule.ends(
      cache.states['entropy'], cache.segment_ids_bs
    )
    return ragged.gather(end_bs, slots_bt), cache

  def init_cache(self, batch_size: int, max_len: int) -> tuple[tuple, dict]:
    """Caches and states of its own, for a `NestedCache`."""
    states = {'entropy': jnp.zeros((batch_size, max_len))}
    return (self.model.init_cache(batch_size, max_len),), states

  def flops(self, shape: base.Shape) -> float:
    """Matmul FLOPs of a call, all keys counted."""
    return float(sum(self.model.flops(shape).values()))


def freeze(model: nnx.Module) -> nnx.Module:
  """Makes all parameters `Frozen`, in place."""
  for _, module in nnx.iter_modules(model):
    for name, value in vars(module).items():
      if isinstance(value, nnx.Param):
        axes = value.get_metadata().get('axes')
        setattr(module, name, Frozen(value[...], axes=axes))
  return model


def _load(path: str, config: transformer.Config) -> Any:
  # `interop` knows all models, this one's too.
  from jaxtok.models import interop

  try:
    found, model = interop.load(path)
  except FileNotFoundError as e:
    raise FileNotFoundError(
      f'model.patcher.path={os.fspath(path)!r}: {e} Patches by entropy need a '
      'language model that is trained first and written there, for size tiny '
      'by\n'
      '  python -m experiments.byte_lm --workdir=runs/patcher '
      '--config=experiments/byte_lm/configs/blt.py:tiny_patcher\n'
      '  python -c "from jaxtok import runs; from jaxtok.models import interop;'
      " interop.save(runs.load('runs/patcher').model, "
      f'{os.fspath(path)!r})"\n'
      'Or set model.patcher.path to the folder of another one.'
    ) from e
  state = lambda m: nnx.to_pure_dict(nnx.state(m))
  shapes = lambda m: jax.tree.map(lambda x: x.shape, state(m))
  wanted = dataclasses.replace(config, vocab_multiple=1)
  if shapes(model) != shapes(nnx.eval_shape(lambda: wanted.make(nnx.Rngs(0)))):
    raise ValueError(
      f'path={os.fspath(path)} holds a model of other sizes than '
      f"patcher.model: {found}. Give the config of that run's model."
    )
  return model
