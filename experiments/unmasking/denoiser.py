# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains the frozen denoiser of a task.

A bidirectional transformer without time, masked diffusion with the linear
schedule: a share t of the answer is masked and the cross-entropy of the masked
positions is weighted by 1/t (arXiv:2406.07524). Training that was stopped goes
on from what it last saved.

Axes: b rows, t positions, v vocabulary.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import config as config_lib
from jaxtok.config import configclass
from jaxtok.models import transformer
from jaxtok.runs import files
from jaxtok.tasks import base

_CHUNK = 100  # Updates per compiled call.
# Updates after which training is saved, at the end of a call, in case it stops.
_SAVE_EVERY = 500


@configclass
class Source:
  """Where a frozen denoiser comes from."""


@configclass
class Config(Source):
  """Size and training of the denoiser."""

  dim: int = 64
  num_layers: int = 3
  num_heads: int = 4
  steps: int = 2500
  batch_size: int = 64
  lr: float = 3e-3
  seed: int = 0

  def __post_init__(self):
    least_1 = ('dim', 'num_layers', 'num_heads', 'steps', 'batch_size')
    counts = {name: getattr(self, name) for name in least_1}
    base.require(
      'denoiser',
      **{name: (n, n >= 1, '>= 1') for name, n in counts.items()},
      lr=(self.lr, self.lr > 0, '> 0'),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Denoiser:
  """Logits of all positions; see `samplers.decode`."""

  model: transformer.Transformer

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    return self.model.logits(self.model(tokens_bt).hidden_btd)


def make(task: base.Task, config: Config) -> Denoiser:
  """A denoiser with random weights."""
  model = transformer.Config.gpt2(
    vocab_size=task.vocab_size,
    dim=config.dim,
    num_layers=config.num_layers,
    num_heads=config.num_heads,
    max_len=task.prompt_len + task.answer_len,
    is_causal=False,
    is_tied=False,
  )
  return Denoiser(model.make(nnx.Rngs(config.seed)))


def nelbo(denoiser: Denoiser, tokens_bt, prompt_len: int, mask_id: int, rng):
  """Upper bound on nats per answer token, one mask per row."""
  b, t = tokens_bt.shape
  time_rng, mask_rng = jax.random.split(rng)
  # One time per stratum of the batch.
  share_b = (jnp.arange(b) + jax.random.uniform(time_rng, (b,))) / b
  share_b = jnp.maximum(share_b, 1e-3)
  is_masked_bt = jax.random.uniform(mask_rng, (b, t)) < share_b[:, None]
  is_masked_bt &= jnp.arange(t) >= prompt_len
  logits_btv = denoiser(jnp.where(is_masked_bt, mask_id, tokens_bt))
  logits_btv = logits_btv.at[..., mask_id].set(-jnp.inf)
  nats_bt = optax.softmax_cross_entropy_with_integer_labels(
    logits_btv, tokens_bt
  )
  sum_b = jnp.where(is_masked_bt, nats_bt, 0).sum(-1) / share_b
  return sum_b.mean() / (t - prompt_len)


def made_by(task: base.Task, config: Config) -> dict[str, Any]:
  """What decides the parameters of a trained denoiser, for `save`."""
  return {'task': task, 'denoiser': config}


def train(
  task: base.Task,
  config: Config,
  log: Callable[[str], None],
  path: pathlib.Path | None = None,
) -> tuple[Denoiser, float]:
  """Trains a denoiser; returns it and its last NELBO, nats per token.

  That is the mean over the last 500 steps, or the last fifth of fewer than
  2,500, so that the steps that learned most do not count.

  Args:
    task: The task.
    config: Settings.
    log: Prints a line of progress.
    path: Of a file that keeps how far training has come, each
      `_SAVE_EVERY` steps; what it holds is gone on from. None keeps nothing.

  Raises:
    ValueError: If another config wrote the file.
  """
  graphdef, params = nnx.split(make(task, config).model)
  optimizer = _optimizer(config)
  run = _program(task, graphdef, optimizer)
  state, done = (params, optimizer.init(params)), 0
  rngs = jax.random.split(jax.random.key(config.seed), config.steps)
  begin, nats = time.perf_counter(), np.zeros(0)
  if path is not None and path.exists():
    (state, nats), numbers = load_tree(
      path, (state, nats), made_by=made_by(task, config)
    )
    # A mean of float32 numbers would be another one.
    nats, done = np.asarray(nats, np.float64), int(numbers['step'])
    log(f'denoiser goes on after step {done}/{config.steps}, from {path}')
  for start in range(done, config.steps, _CHUNK):
    num = min(_CHUNK, config.steps - start)
    rows = base.batch(
      task, config.seed, start * config.batch_size, num * config.batch_size
    )
    batches = rows.reshape(num, config.batch_size, -1)
    state, new = run(state, (batches, rngs[start : start + num]))
    nats, done = np.append(nats, new), start + num
    is_due = done // _SAVE_EVERY > start // _SAVE_EVERY
    if path is not None and is_due and done < config.steps:
      save_tree(path, (state, nats), made_by=made_by(task, config), step=done)
    log(
      f'denoiser step {done}/{config.steps}: nelbo '
      f'{new.mean():.3f} nats/token, {time.perf_counter() - begin:.0f} s'
    )
  last = min(500, -(-config.steps // 5))
  return Denoiser(nnx.merge(graphdef, state[0])), float(nats[-last:].mean())


def _optimizer(config: Config) -> optax.GradientTransformation:
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, 100, max(config.steps, 101)
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, b2=0.99, weight_decay=0.01),
  )


def _program(task: base.Task, graphdef: Any, optimizer: Any) -> Callable:
  """The compiled program of a chunk of updates."""

  def update(state, batch):
    params, opt_state = state
    tokens_bt, rng = batch
    nats, grads = jax.value_and_grad(
      lambda p: nelbo(
        Denoiser(nnx.merge(graphdef, p)),
        tokens_bt,
        task.prompt_len,
        task.mask_id,
        rng,
      )
    )(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), nats

  return jax.jit(lambda state, batches: jax.lax.scan(update, state, batches))


def save(
  path: pathlib.Path, module: nnx.Module, *, made_by: Any, **numbers: float
) -> None:
  """Writes the parameters of a module, and numbers, to one .npz file.

  Args:
    path: Of the file.
    module: Its `nnx.Param` are written.
    made_by: What decides the parameters (configs in a dict or tuple); `load`
      compares.
    **numbers: Come back from `load`.
  """
  state = nnx.to_pure_dict(nnx.state(module, nnx.Param))
  save_tree(path, state, made_by=made_by, **numbers)


def save_tree(
  path: pathlib.Path, tree: Any, *, made_by: Any, **numbers: float
) -> None:
  """`save` of any pytree of arrays."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  arrays = {jax.tree_util.keystr(k): np.asarray(x) for k, x in leaves}
  arrays |= {f'#{k}': x for k, x in numbers.items()}
  files.write_npz(path, arrays | {'made_by': np.asarray(_text(made_by))})


def load(
  path: pathlib.Path, module: Any, *, made_by: Any
) -> tuple[Any, dict[str, float]]:
  """The module with the parameters that `save` wrote, and the numbers.

  Raises:
    ValueError: If the file was written with another `made_by`, or is no .npz.
  """
  graphdef, state = nnx.split(module)
  pure, numbers = load_tree(path, nnx.to_pure_dict(state), made_by=made_by)
  nnx.replace_by_pure_dict(state, pure)
  return nnx.merge(graphdef, state), numbers


def load_tree(
  path: pathlib.Path, tree: Any, *, made_by: Any
) -> tuple[Any, dict[str, float]]:
  """`load` of what `save_tree` wrote; `tree` is one of the same structure."""
  leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
  stored = files.read_npz(path, 'Delete it to train anew.')
  found = str(stored.get('made_by', '{}'))
  if found != _text(made_by):
    raise ValueError(
      f'{path} was written with another config ({_difference(found, made_by)}'
      '). Choose another --workdir, or delete the file to train anew.'
    )
  arrays = [jnp.asarray(stored[jax.tree_util.keystr(k)]) for k, _ in leaves]
  numbers = {k[1:]: float(stored[k]) for k in stored if k[0] == '#'}
  return jax.tree.unflatten(treedef, arrays), numbers


def _text(made_by: Any) -> str:
  return json.dumps(config_lib.to_dict(made_by), sort_keys=True)


def _difference(found: str, made_by: Any) -> str:
  """The first fields that differ, for the error."""
  have, want = (dict(_leaves(json.loads(x))) for x in (found, _text(made_by)))
  differing = [k for k in want | have if have.get(k) != want.get(k)]
  return ', '.join(
    f'{k}: {have.get(k, "absent")} there, {want.get(k, "absent")} asked for'
    for k in differing[:3]
  )


def _leaves(tree: Any, name: str = '') -> Iterator[tuple[str, Any]]:
  if not isinstance(tree, dict | list):
    yield name, tree
    return
  items = tree.items() if isinstance(tree, dict) else enumerate(tree)
  for key, value in items:
    yield from _leaves(value, f'{name}.{key}' if name else str(key))
