# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cached keys in block decoding: what they save and what they cost.

Wu et al. 2025, arXiv:2505.22618 (Fast-dLLM): LLaDA-8B on GSM8K at 256 tokens
generates 3.2 times as fast with the dual cache and reveals the same number of
tokens per call (21.2 against 6.73 tokens/s), accuracy 79.5 against 79.3 %.

Check, speed: 4 rows of 512 tokens, 128 of them the prompt, blocks of 32, a
random-weight transformer of 128 x 4 over 256 tokens, the 4 most confident
tokens revealed per call, so that all ways make 96 calls. Numbers are ratios of
the median times of 3 repetitions of whole compiled decodings, measured one
after the other in one process: without a cache over with it.

Check, accuracy: denoisers of the dice task (64 x 3, 5000 steps, as in the claim
`policy`, one per seed), 512 test prompts of 13 kinds, Threshold(0.9), the 20
tokens of the answer in blocks of 4: right answers with the cache less without
it. Rows of one kind are decoded alike, so 13 rows decide. They are short, so
old keys are a larger part of what is seen than in the paper. The sizes are the
smallest at which a call is mostly arithmetic.

The denoiser has to be good at its task: weak_* is the same with 2500 steps.
"""

import functools
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.unmasking import denoiser as denoiser_lib
from experiments.unmasking import training
from jaxtok.diffusion import block_cache, denoisers, samplers, selectors
from jaxtok.models import transformer
from jaxtok.tasks import base, dice_countdown

TITLE = 'Block caches'
PAPER = 'Wu et al. 2025, arXiv:2505.22618'
CLAIM = (
  'At equally many tokens per call the dual cache makes decoding at least '
  'three times as fast and changes accuracy by at most one point.'
)
THRESHOLD = {
  'speedup_dual': '>= 3',
  'accuracy_change_dual': 'every >= -0.01',
  'rows_that_differ_fresh': 'every <= 0',
}
SEEDS = (0, 1, 2)
WAYS = ('none', 'prefix', 'dual')
_ROWS, _LENGTH, _PROMPT, _BLOCK, _MASK, _REPEATS = 4, 512, 128, 32, 255, 3


@functools.partial(
  jax.jit,
  static_argnames=('way', 'prompt_len', 'mask_id', 'block', 'refresh_every'),
)
def decode(denoiser, canvas, rule, rngs_b, *, way, refresh_every=0, **options):
  """Decodes in one of `WAYS`."""
  if way == 'none':
    return samplers.decode(denoiser, canvas, rule, rngs_b, **options)
  return block_cache.decode(
    denoiser,
    canvas,
    rule,
    rngs_b,
    kind=way,
    refresh_every=refresh_every,
    **options,
  )


def _canvas(tokens, prompt_len, mask_id):
  masked = jnp.broadcast_to(
    jnp.arange(tokens.shape[1]) >= prompt_len, tokens.shape
  )
  return samplers.start(jnp.asarray(tokens), masked, mask_id)


def speed(seed: int) -> dict[str, float]:
  """Ratios of times, and tokens per second of the dual cache."""
  config = transformer.Config(
    vocab_size=_MASK + 1, dim=128, num_layers=4, num_heads=4, is_causal=False
  )
  denoiser = denoisers.OfModel.make(config.make(nnx.Rngs(seed)))
  tokens = np.random.default_rng(seed).integers(0, _MASK, (_ROWS, _LENGTH))
  canvas = _canvas(tokens.astype(np.int32), _PROMPT, _MASK)
  rngs_b = samplers.row_rngs(jax.random.key(seed), _ROWS)
  options = dict(prompt_len=_PROMPT, mask_id=_MASK, block=_BLOCK)
  seconds, calls = {}, set()
  for way in WAYS:
    run = functools.partial(
      decode, denoiser, canvas, selectors.TopK(4), rngs_b, way=way, **options
    )
    calls |= set(np.asarray(run().num_calls_b).tolist())
    seconds[way] = _median(run)
  if calls != {(_LENGTH - _PROMPT) // 4}:
    raise AssertionError(f'calls {calls} differ')
  return {
    f'speedup_{way}': seconds['none'] / seconds[way] for way in WAYS[1:]
  } | {'tokens_per_second_dual': _ROWS * (_LENGTH - _PROMPT) / seconds['dual']}


def _median(run) -> float:
  times = []
  for _ in range(_REPEATS):
    begin = time.perf_counter()
    jax.block_until_ready(run().tokens_bt)
    times.append(time.perf_counter() - begin)
  return statistics.median(times)


def accuracy(workdir: pathlib.Path, seed: int, steps: int) -> dict[str, float]:
  """Right answers and calls of each way on the dice task.

  Args:
    workdir: Of the seed; denoisers are kept beside it.
    seed: Of the denoiser and of the rows' chance.
    steps: Of training the denoiser.
  """
  task = dice_countdown.DiceCountdown()
  shared = workdir.parent / 'denoisers' / f'steps_{steps}'
  config = denoiser_lib.Config(steps=steps, seed=seed)
  found = training.trained_denoiser(shared, task, config, print)
  denoiser = denoisers.OfModel.make(found.model)
  rows = base.batch(task, training.TEST, 0, 512)
  canvas = _canvas(rows, task.prompt_len, task.mask_id)
  run = functools.partial(
    decode,
    denoiser,
    canvas,
    selectors.Threshold(jnp.asarray(0.9)),
    samplers.row_rngs(jax.random.key(seed), len(rows)),
    prompt_len=task.prompt_len,
    mask_id=task.mask_id,
    block=4,
  )
  outs = {way: run(way=way) for way in WAYS}
  right = {
    way: task.is_correct(np.asarray(out.tokens_bt)).mean()
    for way, out in outs.items()
  }
  fresh = run(way='dual', refresh_every=1)
  differ = (fresh.tokens_bt != outs['none'].tokens_bt).any(-1)
  differ |= fresh.num_calls_b != outs['none'].num_calls_b
  numbers = {'rows_that_differ_fresh': float(differ.sum())}
  for way in WAYS:
    numbers[f'calls_{way}'] = float(outs[way].num_calls_b.mean())
    if way == 'none':
      numbers['accuracy_none'] = float(right[way])
    else:
      numbers[f'accuracy_change_{way}'] = float(right[way] - right['none'])
  return numbers


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  weak = accuracy(workdir, seed, 2500)
  return (
    speed(seed)
    | accuracy(workdir, seed, 5000)
    | {f'weak_{name}': value for name, value in weak.items()}
  )
