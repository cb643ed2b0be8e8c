# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Policies come back from files as they were, or not at all."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import (
  policy,
  policy_files,
  pretrained,
  rollout,
  samplers,
  selectors,
)
from jaxtok.models import transformer
from jaxtok.tasks import base, free_choice

TASK = free_choice.FreeChoice(num_groups=2)
SMALL = policy.Config(hidden=8, mlp_dim=8, time_dim=8, top_p=2, bias=-0.3)


MODEL = SMALL.make(nnx.Rngs(3))


def made(**fields):
  return policy.Policy(MODEL, **dict(temperature=0.7, scale=1.2) | fields)


def decode(selector):
  rows = jnp.asarray(base.batch(TASK, 0, 0, 8))
  masked = jnp.broadcast_to(base.answer_positions(TASK), rows.shape)
  return samplers.decode(
    TASK.exact_denoiser,
    samplers.start(rows, masked, TASK.mask_id),
    selector,
    samplers.row_rngs(jax.random.key(1), 8),
    prompt_len=TASK.prompt_len,
    mask_id=TASK.mask_id,
  )


@pytest.mark.parametrize(
  'selector',
  [
    made(),
    rollout.InBlocks(
      rollout.OfMostConfident(made(actions=policy.OneToken()), 2), 3
    ),
    rollout.InBlocks(made(actions=policy.PlackettLuce(), scale=0.9), 2),
  ],
  ids=['policy', 'one token', 'blocks'],
)
def test_a_policy_that_was_saved_decodes_as_before(selector, tmp_path):
  path = tmp_path / 'new' / 'p.npz'
  policy_files.save(path, selector, accuracy=0.5)
  assert [p.name for p in path.parent.iterdir()] == ['p.npz']
  back = policy_files.load(path)
  assert policy_files.numbers_of(path) == {'accuracy': 0.5}
  flat = lambda x: jax.tree_util.tree_flatten_with_path(x)[0]
  for (a, x), (b, y) in zip(flat(selector), flat(back), strict=True):
    assert a == b
    np.testing.assert_array_equal(x, y)
  inner = lambda x: inner(x.selector) if hasattr(x, 'selector') else x
  assert inner(back).actions == inner(selector).actions
  assert inner(back).model.config == SMALL
  want, got = decode(selector), decode(back)
  np.testing.assert_array_equal(got.reveal_step_bt, want.reveal_step_bt)
  # Another policy decides otherwise: the comparison can fail.
  other = decode(selectors.TopK(6))
  assert not np.array_equal(other.reveal_step_bt, want.reveal_step_bt)


def test_a_policy_from_a_file_generates_with_a_language_model(tmp_path):
  policy_files.save(tmp_path / 'p.npz', rollout.InBlocks(made(), 2))
  model = transformer.Config(
    vocab_size=9, dim=8, num_layers=1, num_heads=2, is_causal=False
  ).make(nnx.Rngs(0))
  canvas = pretrained.generate(
    model,
    jnp.asarray([[1, 2, 3]]),
    pretrained.Config(length=4, steps=4),
    mask_id=8,
    selector=policy_files.load(tmp_path / 'p.npz'),
    rng=jax.random.key(0),
  )
  assert not canvas.is_masked_bt.any()
  steps = np.asarray(canvas.reveal_step_bt[0, 3:])
  assert steps[:2].max() < steps[2:].min()


@pytest.mark.parametrize('kept', [0, 1, 200, -1])
def test_a_damaged_file_is_named(kept, tmp_path):
  path = tmp_path / 'p.npz'
  policy_files.save(path, made())
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError, match=r'p\.npz is empty or damaged'):
    policy_files.load(path)


def test_a_file_with_a_wrong_byte_is_named(tmp_path):
  path = tmp_path / 'p.npz'
  policy_files.save(path, made())
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 255
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r'p\.npz is empty or damaged'):
    policy_files.load(path)


def changed(path, **changes):
  """The file with another text about itself, or other arrays."""
  with np.load(path) as stored:
    arrays = {key: stored[key] for key in stored.files}
  about = json.loads(str(arrays.pop('about')))
  if 'about' in changes:
    changes['about'](about)
  arrays = changes.get('arrays', lambda x: x)(arrays)
  with open(path, 'wb') as file:
    np.savez(file, about=np.asarray(json.dumps(about)), **arrays)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(about=lambda x: x.update(format='a')), 'is no policy that'),
    (dict(about=lambda x: x.update(actions='Dice')), 'the unknown Dice'),
    (dict(about=lambda x: x['model'].update(new=1)), 'the unknown new'),
    (
      dict(arrays=lambda x: {k: v for k, v in x.items() if 'head' not in k}),
      r"not hold the parameters .*\['head'\]\['bias'\]",
    ),
    (dict(about=lambda x: x['model'].update(hidden=16)), 'not hold the param'),
    (dict(arrays=lambda x: x | {'more': np.ones(3)}), 'its own config: more'),
  ],
)
def test_a_file_of_something_else_is_named(changes, message, tmp_path):
  path = tmp_path / 'p.npz'
  policy_files.save(path, made())
  changed(path, **changes)
  with pytest.raises(ValueError, match=rf'p\.npz .*{message}'):
    policy_files.load(path)


def test_an_array_file_without_a_policy_is_named(tmp_path):
  np.savez(tmp_path / 'p.npz', a=np.ones(3))
  with pytest.raises(ValueError, match=r'p\.npz is no policy .*folder polici'):
    policy_files.load(tmp_path / 'p.npz')
  with pytest.raises(FileNotFoundError):
    policy_files.load(tmp_path / 'none.npz')


def test_a_rule_is_no_policy(tmp_path):
  with pytest.raises(ValueError, match='selector=InBlocks must be a policy'):
    policy_files.save(
      tmp_path / 'p.npz', rollout.InBlocks(selectors.TopK(2), 2)
    )
  assert not list(tmp_path.iterdir())


def test_an_ablation_stays_one(tmp_path):
  config = dataclasses.replace(SMALL, zeroed=policy.Zeroed.TIME)
  policy_files.save(tmp_path / 'p.npz', policy.Policy(config.make(nnx.Rngs(0))))
  assert policy_files.load(tmp_path / 'p.npz').model.config == config


def test_a_config_of_other_fields_has_the_defaults_of_now(tmp_path):
  # A field that is added later is absent in files of today.
  path = tmp_path / 'p.npz'
  policy_files.save(path, made())
  changed(path, about=lambda x: x['model'].pop('zeroed'))
  model = policy_files.load(path).model
  assert dataclasses.asdict(model.config) == dataclasses.asdict(SMALL)
