# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The same GPT-2 in jaxtok: the training step and the decoder users get."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from experiments.speed import spec as spec_lib
from jaxtok.decoding import autoregressive, sampling
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.train import host_memory, optim, sharding, state
from jaxtok.train import step as step_lib


def build(spec: spec_lib.Spec) -> transformer.Config:
  """GPT-2: learned positions, LayerNorm, tanh-GELU, biases, a tied head."""
  return transformer.Config.gpt2(
    vocab_size=spec.vocab_size,
    dim=spec.dim,
    num_layers=spec.num_layers,
    num_heads=spec.num_heads,
    max_len=max(spec.seq_len, spec.prompt_len + spec.num_tokens),
  )


def prepare(spec: spec_lib.Spec) -> Callable[[], None]:
  """Returns one compiled, warmed-up training step or generate call."""
  make = _train_step if spec.task == 'train' else _decode_step
  step = make(build(spec), spec)
  for _ in range(2):
    step()
  return step


def _train_step(config, spec: spec_lib.Spec) -> Callable[[], None]:
  host_memory.keep_freed()  # As `train.run` does.
  layout = state.plan(
    config.make,
    optimizer=optim.Config(lr=1e-4, warmup_steps=0),
    steps=1000,
    mesh=sharding.Config().make(),
  )
  batch = _batch(spec)
  step_fn = step_lib.make_step(layout, next_token.Config().make(), seed=0)
  compiled = step_lib.compile_step(layout, step_fn, batch)
  carry = [layout.init(0)]

  def step() -> None:
    carry[0], metrics = compiled(carry[0], batch)
    jax.block_until_ready((carry[0], metrics))

  return step


def _batch(spec: spec_lib.Spec) -> dict[str, jax.Array]:
  shape = (spec.batch_size, spec.seq_len)
  tokens = np.random.default_rng(0).integers(
    0, spec.vocab_size, (shape[0], shape[1] + 1), dtype=np.int32
  )
  return jax.tree.map(
    jax.numpy.asarray,
    {
      'tokens_bt': tokens[:, :-1],
      'targets_bt': tokens[:, 1:],
      'loss_mask_bt': np.ones(shape, np.float32),
      'segment_ids_bt': np.ones(shape, np.int32),
      'positions_bt': np.tile(
        np.arange(shape[1], dtype=np.int32), (shape[0], 1)
      ),
      'num_bytes_bt': np.ones(shape, np.int32),
    },
  )


def _decode_step(config, spec: spec_lib.Spec) -> Callable[[], None]:
  model = config.make(nnx.Rngs(0))
  prompt = np.random.default_rng(0).integers(
    0, spec.vocab_size, (spec.batch_size, spec.prompt_len), dtype=np.int32
  )
  rngs = nnx.Rngs(1)

  def step() -> None:
    out = autoregressive.generate(
      model,
      prompt,
      num_tokens=spec.num_tokens,
      rng=rngs(),
      sampling=sampling.Config(),
    )
    jax.block_until_ready(out.tokens)

  return step


if __name__ == '__main__':
  spec_lib.serve(prepare)
