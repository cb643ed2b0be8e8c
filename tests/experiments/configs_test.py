# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every config of a training run trains for two steps at `:tiny`."""

import dataclasses
import math
import pathlib

import jax
import pytest
from flax import nnx

from experiments import config_path
from jaxtok import train
from jaxtok.data import text
from jaxtok.nn import pooling_shorteners, shorteners

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(
  path
  for path in (ROOT / 'experiments').glob('*/configs/*.py')
  if path.name != '__init__.py'
)
# Experiments that are more than one training run have tests of their own.
OWN_TESTS = {'code', 'denoiser_rl', 'dna', 'unmasking'}
# Like another one but for data, tokenizer or objective with their own tests.
ALIKE = {
  'byte_lm/mrt5_edits',
  *('compressed_text/arithmetic', 'compressed_text/static_arithmetic'),
  *('diffusion_lm/bd3lm', 'diffusion_lm/llada', 'diffusion_lm/md4'),
  *('diffusion_lm/bd3lm_clipped', 'diffusion_lm/sedd'),
}


def shown(path: pathlib.Path) -> str:
  return f'{path.parent.parent.name}/{path.stem}'


TRAINED = [
  pytest.param(
    path,
    marks=[pytest.mark.slow] if shown(path) in ALIKE else [],
    id=shown(path),
  )
  for path in CONFIGS
  if path.parent.parent.name not in OWN_TESTS
]


def test_there_are_configs():
  assert CONFIGS


@pytest.mark.parametrize('path', CONFIGS, ids=shown)
def test_docstring_has_the_command_that_runs_it(path):
  doc = path.read_text()
  assert f'--config={path.relative_to(ROOT)}' in doc
  assert f'python -m experiments.{path.parent.parent.name}' in doc


@pytest.mark.parametrize(
  'name, field, value',
  [
    ('byte_lm/hat2:tiny_first', 'looks', 'first'),
    ('byte_lm/mrt5:tiny_control', 'shortener', None),
    ('byte_lm/mrt5:tiny_random', 'shortener', shorteners.Random()),
    ('byte_lm/mrt5:tiny_fixed', 'shortener', shorteners.Fixed()),
    (
      'byte_lm/mrt5:tiny_boundaries',
      'shortener',
      pooling_shorteners.Boundaries(),
    ),
    (
      'byte_lm/mrt5_edits:tiny_convolution',
      'shortener',
      pooling_shorteners.Convolution(),
    ),
    ('byte_lm/mrt5:tiny_scratch', 'score_weight', 0.5),
    ('dna/mergedna:tiny_dtem', 'relaxation', 'top_k'),
    ('dna/mergedna:tiny_window', 'scope', 'window'),
  ],
)
def test_sizes_have_kinds(name, field, value):
  experiment, file = name.split('/')
  folder = f'experiments/{experiment}/configs'
  path, size = file.split(':')
  config = config_path.load(f'{ROOT / folder / path}.py:{size}')
  model = getattr(config, 'pretrain', config).model
  assert getattr(model, field) == value
  with pytest.raises(ValueError, match=f"size 'tiny_x' .* tiny, .*{size}"):
    config_path.load(f'{ROOT / folder / path}.py:tiny_x')


def test_sizes_of_blt_have_kinds_and_the_papers_name():
  path = f'{ROOT}/experiments/byte_lm/configs/blt.py'
  load = lambda size: config_path.load(f'{path}:{size}')
  assert load('paper') == load('1b')
  assert load('paper_patcher').model == load('1b_patcher').model
  for size in ('paper_x', 'large'):
    with pytest.raises(ValueError, match=r'Use one of: .* 1b_entropy, paper,'):
      load(size)


def test_a_lexinvariant_run_can_end_with_text_in_ciphers():
  path = f'{ROOT}/experiments/byte_lm/configs/lexinvariant.py'
  plain = config_path.load(f'{path}:tiny')
  config = config_path.load(f'{path}:tiny_decipher')
  keys = {'plain': 0, 'ciphered': 1, 'switched': 2}
  assert set(config.evals) == {*plain.evals, *keys, 'decipher'}
  for name, num in keys.items():
    its = config.evals.pop(name)
    assert (its.num_keys, its.edges[0]) == (num, 0)
    # The three curves have the same windows, one of which begins at T/2.
    assert config.data.seq_len // 2 in its.edges
  del config.evals['decipher']
  assert config == plain


@pytest.mark.parametrize('name', ['transformer', 'bpe'])
def test_paper_sizes_are_those_that_hat_is_compared_with(name):
  """16 layers and 64k tokens are said to have 1.1 B parameters."""
  path = f'{ROOT}/experiments/byte_lm/configs/{name}.py:paper'
  config = config_path.load(path)
  assert config.model.num_layers == 16
  # The tables of 64k tokens hold 0.27 B of them.
  rows = getattr(config.tokenizer, 'vocab_size', 258)
  its = dataclasses.replace(config.model, vocab_size=rows)
  model = nnx.eval_shape(lambda: its.make(nnx.Rngs(0)))
  num = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
  wanted = 1.1e9 if name == 'bpe' else 1.1e9 - 0.27e9
  assert num == pytest.approx(wanted, rel=0.05)


def test_hat_of_the_papers_size_trains_as_its_baselines():
  load = lambda name: config_path.load(
    f'{ROOT}/experiments/byte_lm/configs/{name}.py:paper'
  )
  hat, flat = load('hat'), load('transformer')
  for name in ('steps', 'batch_size', 'data'):
    assert getattr(hat, name) == getattr(flat, name)
  assert hat.optim.warmup_steps == flat.optim.warmup_steps == 500
  # 18 heads of the backbone, 16 of the flat model.
  assert (hat.optim.lr * 18, flat.optim.lr * 16) == pytest.approx(
    (3e-4 * 32,) * 2
  )


@pytest.mark.parametrize('path', TRAINED)
def test_tiny_trains_and_reports_bits_per_byte(path, tmp_path):
  config = config_path.load(f'{path}:tiny')
  config.steps = config.log_every = 2
  config.mesh.data = 1
  for source in getattr(config.data.source, 'sources', ()):
    if (
      isinstance(source, text.Files) and not pathlib.Path(source.path).exists()
    ):
      pytest.skip(f'needs JAXTOK_DATA with {source.path}')
  if isinstance(config.data.source, text.Stdlib):
    config.data.source = text.Stdlib(max_bytes=200_000)
  for each in config.evals.values():
    each.every_steps = 2
    each.max_bytes = 2_000
  run = train.run(config, tmp_path / 'run')
  [row] = run.metrics('train')
  assert row['step'] == 2
  assert math.isfinite(row['loss'])
  for name in config.evals:
    values = run.metrics(f'eval/{name}')[-1]
    if 'exact_match' in values:
      assert 0 <= values['exact_match'] <= 1
      continue
    [kind] = {'bpb', 'bpb_bound'} & set(values)
    # 8 bits and a little; a bound is estimated with few masks.
    assert 0 < values[kind] < (10 if kind == 'bpb' else 12)
