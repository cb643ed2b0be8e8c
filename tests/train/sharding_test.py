# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxtok import partition
from jaxtok.train import sharding

MESH = {'data': 2, 'model': 4}


@pytest.mark.parametrize(
  'axes, shape, want',
  [
    (('embed', 'mlp'), (8, 16), P('data', 'model')),
    (('vocab', 'embed'), (264, 8), P('model', 'data')),
    (('heads', 'head_dim', 'embed'), (4, 3, 8), P('model', None, 'data')),
    (('layers', 'embed', 'mlp'), (3, 8, 16), P(None, 'data', 'model')),
    (('embed', 'kv', 'head_dim'), (8, 2, 4), P('data', None, None)),
    (('embed', 'embed'), (8, 8), P('data', None)),
    (('embed',), (8,), P()),
    (('layers', 'embed'), (3, 8), P()),
    (None, (8, 8), P()),
  ],
)
def test_parameters_are_split_by_the_rules(axes, shape, want):
  assert partition.parameter_spec(axes, shape, MESH) == want


def test_a_parameter_needs_a_name_for_each_axis():
  with pytest.raises(ValueError, match=r'name each axis .* \(8, 8, 8\)'):
    partition.parameter_spec(('embed', 'mlp'), (8, 8, 8), MESH)


@pytest.mark.parametrize(
  'config, want',
  [
    (dict(), {'data': 8, 'model': 1}),
    (dict(model=2), {'data': 4, 'model': 2}),
    (dict(data=2, model=2), {'data': 2, 'model': 2}),
    (dict(seq=2, replica=2), {'replica': 2, 'data': 2, 'seq': 2, 'model': 1}),
  ],
)
def test_the_mesh_takes_the_rest_of_the_devices(config, want):
  mesh = sharding.Config(**config).make()
  assert dict(mesh.shape) == want


def test_a_mesh_that_does_not_fit_says_what_would():
  with pytest.raises(ValueError, match=r'mesh\.model=3 needs a multiple of 3'):
    sharding.Config(model=3).make()
  with pytest.raises(ValueError, match='needs a multiple of 16 devices, but'):
    sharding.Config(data=16).make()
  with pytest.raises(ValueError, match=r'mesh\.model must be >= 1, or -1'):
    sharding.Config(model=0)
  with pytest.raises(ValueError, match='twice'):
    sharding.Config(data=-1, model=-1)


def test_a_batch_that_cannot_be_dealt_says_what_can():
  with pytest.raises(ValueError) as e:  # noqa: PT011 (whole message below)
    sharding.check_batch_size(6, {'data': 4, 'model': 1})
  assert str(e.value) == (
    'batch_size=6 must divide by the data axis (4 devices). Use 8 or set '
    'mesh.data=2.'
  )
  with pytest.raises(ValueError, match=r'2 x 4 devices.* Use 16 or change'):
    sharding.check_batch_size(12, {'data': 4}, num_microbatches=2)
  sharding.check_batch_size(16, {'replica': 2, 'data': 4}, 2)


def test_activations_are_constrained_only_on_a_mesh():
  x = jnp.zeros((4, 6, 8))
  assert partition.constrain(x, 'batch', 'length', None) is x
  mesh = sharding.Config(data=2, model=2, seq=2).make()
  with jax.set_mesh(mesh):
    place = jax.jit(lambda x: partition.constrain(x, 'batch', 'length', 'mlp'))
    assert place(x).sharding.spec == P('data', 'seq', 'model')
    odd = place(jnp.zeros((4, 5, 8)))  # 5 positions stay together.
    assert odd.sharding.spec == P('data', None, 'model')
  with pytest.raises(ValueError, match=r'2 names .* shape \(4, 6, 8\)'):
    partition.constrain(x, 'batch', 'length')


def test_axes_that_stay_whole_are_reported():
  mesh = sharding.Config(data=2, model=4).make()
  params = {'a': {'kernel': jnp.zeros((8, 2, 4)), 'bias': jnp.zeros(3)}}
  axes = {'a': {'kernel': ('embed', 'kv', 'head_dim'), 'bias': ('mlp',)}}
  assert sharding.unsharded(params, axes, mesh) == [
    'a.kernel: kv=2 over 4 devices'
  ]
