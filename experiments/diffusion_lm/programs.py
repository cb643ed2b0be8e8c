# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Whole programs of LLaDA and Dream at any size, as shapes without numbers.

`generate` decodes answers with `jaxtok.diffusion.pretrained`, from the first
call of the model to the last; `likelihood` is one call of the model that bounds
the negative log-likelihood of the answers. See `compile` for what is done with
them; as a program of its own, this module compiles what stdin asks for.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtok_kernels import dispatch

from jaxtok.config import configclass
from jaxtok.diffusion import any_order, pretrained
from jaxtok.models import interop, transformer
from jaxtok.models.interop import llada
from jaxtok.train import chips, sharding

_TINY = dict(vocab_size=64, dim=64, num_layers=2, num_heads=8, mlp_dim=128)


@dataclasses.dataclass(frozen=True)
class Model:
  """A model and how it generates.

  Attributes:
    config: Of the model, without `dtype`.
    mask_id: The mask token.
    eos_ids: Tokens that end a text.
    is_dream: Shifted logits, revealed by entropy.
  """

  config: transformer.Config
  mask_id: int
  eos_ids: tuple[int, ...]
  is_dream: bool = False

  @classmethod
  def published(cls, config: transformer.Config, model_type: str) -> 'Model':
    """With the ids of the published vocabulary."""
    its = interop.conventions({'model_type': model_type})
    return cls(config, its.mask_id, its.eos_ids, its.is_shifted)


MODELS: dict[str, Callable[[], Model]] = {
  'llada_8b': lambda: Model.published(llada.llada_8b(), 'llada'),
  'llada_tiny': lambda: Model(llada.llada_8b(**_TINY), 63, (61, 62)),
  'dream_7b': lambda: Model.published(llada.dream_7b(), 'Dream'),
  'dream_tiny': lambda: Model(
    llada.dream_7b(**_TINY, num_kv_heads=4), 63, (62,), True
  ),
}
PROGRAMS = ('generate', 'likelihood')


@configclass
class Config:
  """What is compiled."""

  model: str = 'llada_8b'  # One of `MODELS`.
  program: str = 'generate'  # One of `PROGRAMS`.
  cache: str = 'none'  # Of 'generate'; see `pretrained.CACHES`.
  rows: int = 1  # Texts at a time.
  prompt: int = 256  # Tokens of a prompt.
  length: int = 256  # Tokens of an answer, each revealed by a call of its own.
  block: int = 32  # Tokens of a block.
  dtype: str = 'bfloat16'  # Of the parameters and of the matmuls.
  data: int = 1  # Devices that rows are split over; the rest split the model.

  def __post_init__(self):
    for name, allowed in (
      ('model', tuple(MODELS)),
      ('program', PROGRAMS),
      ('cache', pretrained.CACHES),
    ):
      if getattr(self, name) not in allowed:
        raise ValueError(
          f'{name}={getattr(self, name)!r} must be one of {", ".join(allowed)}.'
        )
    for name in ('rows', 'prompt', 'data'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 1.')
    if self.program != 'generate' and self.cache != 'none':
      raise ValueError(
        f'cache={self.cache!r} is for program=generate. Leave it none.'
      )
    self.decoding()

  def decoding(self) -> pretrained.Config:
    """How answers are generated."""
    fields = dict(
      length=self.length,
      block=self.block,
      steps=self.length,
      cache=self.cache,
    )
    if MODELS[self.model]().is_dream:
      fields |= dict(shift=True, order='entropy')
    return pretrained.Config(**fields)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A program and the shapes of its arguments, which no memory is filled for.

  Attributes:
    run: The program, `run(params, inputs)`.
    params: Shapes of the parameters, with shardings.
    inputs: Shapes of the other arguments, with shardings.
    unsharded: Parameter axes that do not divide by the devices; those of all
      layers together.
  """

  run: Callable[[Any, Any], Any]
  params: Any
  inputs: Any
  unsharded: list[str]


def plan(config: Config, mesh: jax.sharding.Mesh) -> Plan:
  """Works out a program; the parameters lie as the library's rules say.

  Raises:
    ValueError: If the rows do not divide by the data axis.
  """
  model = MODELS[config.model]()
  sharding.check_batch_size(config.rows, mesh.shape)
  made = dataclasses.replace(model.config, dtype=config.dtype)
  graph, params, rest = nnx.split(
    nnx.eval_shape(lambda: made.make(nnx.Rngs(0))), nnx.Param, ...
  )
  if jax.tree.leaves(rest):
    raise ValueError(f'{config.model} has variables besides parameters.')
  axes = sharding.parameter_axes(params)
  params = nnx.to_pure_dict(params)
  shapes = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, config.dtype, sharding=s),
    params,
    sharding.shardings(params, axes, mesh),
  )
  make = {'generate': _generate, 'likelihood': _likelihood}[config.program]
  run, row = make(config, model)
  inputs = sharding.batch_shapes(row, config.rows, mesh)
  merged = lambda params, inputs: run(nnx.merge(graph, params, rest), inputs)
  unsharded = {
    re.sub(r'\.\d+\.', '.*.', line)
    for line in sharding.unsharded(params, axes, mesh)
  }
  return Plan(merged, shapes, inputs, sorted(unsharded))


def _generate(config: Config, model: Model):
  """The decoding loop, and the shapes of a row."""

  def run(network, inputs):
    canvas = pretrained.generate(
      network,
      inputs['prompt_bt'],
      config.decoding(),
      mask_id=model.mask_id,
      eos_ids=model.eos_ids,
      rng=jax.random.key(0),
    )
    return canvas.tokens_bt, canvas.num_calls_b

  return run, {'prompt_bt': jax.ShapeDtypeStruct((config.prompt,), 'int32')}


def _likelihood(config: Config, model: Model):
  """The any-order bound with one mask per row, and the shapes of a row."""
  objective = any_order.Config(mask_id=model.mask_id, eval_samples=1).make()

  def run(network, inputs):
    tokens_bt = inputs['tokens_bt']
    is_answer_t = jnp.arange(tokens_bt.shape[1]) >= config.prompt
    full = lambda x: jnp.broadcast_to(x, tokens_bt.shape)
    batch = {
      'targets_bt': tokens_bt,
      'loss_mask_bt': full(is_answer_t).astype(jnp.float32),
      'positions_bt': full(jnp.arange(tokens_bt.shape[1])),
      'segment_ids_bt': full(jnp.int32(1)),
      'num_bytes_bt': full(jnp.int32(1)),
    }
    if model.is_dream:
      network = pretrained.Aligned(network)
    found = objective.per_row(network, batch, jax.random.key(0))
    return found['nats_bound'].total

  length = config.prompt + config.length
  return run, {'tokens_bt': jax.ShapeDtypeStruct((length,), 'int32')}


def compile_here(request: dict[str, Any]) -> dict[str, Any]:
  """Compiles for devices that need not be here; returns numbers in bytes.

  A program that the compiler finds too large has no memory but `too_large`.
  """
  config = Config(**request['config'])
  devices = chips.devices(request['chip'], request['layout'])
  if len(devices) % config.data:
    raise ValueError(
      f'data={config.data} must divide the {len(devices)} devices.'
    )
  mesh = sharding.Config(data=config.data, model=-1).make(devices)
  program = plan(config, mesh)
  leaves = jax.tree.leaves(program.params)
  begin = time.perf_counter()
  found = {
    'devices': len(devices),
    'device': devices[0].device_kind,
    'mesh': dict(mesh.shape),
    'parameters': sum(x.size for x in leaves),
    'parameter_bytes': sum(map(_bytes_per_device, leaves)),
    'unsharded': program.unsharded,
    'jax': jax.__version__,
  }
  try:
    with (
      dispatch.lowering_platforms(chips.platform(request['chip'])),
      jax.set_mesh(mesh),
    ):
      compiled = jax.jit(program.run).lower(
        program.params, program.inputs
      ).compile()  # fmt: skip
    found |= chips.memory_of(compiled)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    found['too_large'] = str(error).strip().splitlines()[0]
  return found | {'seconds': time.perf_counter() - begin}


def _bytes_per_device(x: jax.ShapeDtypeStruct) -> int:
  return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


if __name__ == '__main__':
  chips.answer(compile_here)
