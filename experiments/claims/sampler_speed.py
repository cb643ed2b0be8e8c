# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One compiled loop against loops in Python, same model, same result.

Public code for masked diffusion decodes with a loop in Python: a call of the
model per step, then tokens are chosen by array operations one after another,
row by row where the number to choose differs (LLaDA, arXiv:2502.09992, and
Fast-dLLM, arXiv:2505.22618, take a top-k of each row), and the loop asks after
each step whether anything is still masked.

Check: 64 rows of the dice task (20 tokens), Threshold(0.9), a random-weight
transformer of 64 x 3. (a) `samplers.decode`, compiled as a whole; (b) the loop
in Python, which chooses for all rows at once: the model is compiled, the rest
are calls of jax.numpy. Both must write the same tokens at the same number of
calls. speedup is the ratio of the median times of 7 repetitions,
speedup_one_row the same for a single row, tokens_per_second that of (a) at 64.
speedup_over_rows is over one run of the loop that chooses row by row in
jax.numpy, as public code does in torch; how slow that is says more about
indexing outside of compiled code than about loops, so no threshold asks for it.

speedup_uneven is speedup for rows that need different numbers of calls (the
logits multiplied by 3.5, see below), where (a) leaves out rows that are done
(`denoisers.OpenRows`); open_rows is what that gains over (a) as it is.

retraces counts compilations of (a) over 10 further batches of equal shape, 640
prompts.

batch_to_slowest: steps that the loop makes over the calls charged to its
slowest row; 1 means that no step is made for nobody. Steps are counted by the
denoiser, which the host hears of at each call, in a run that is not timed. Its
logits are multiplied by 3.5: as they are, every row takes one token per call
and all are done at the last step. So rows need fewest_calls to most_calls,
mean_calls on average, far fewer than the 20 of a loop of fixed length.

Why 64 rows gain little: a call is 0.42 GFLOP, about 6 ms of arithmetic on two
cores in either loop, and what a step of the Python loop adds is 2 to 3 ms.
"""

import dataclasses
import functools
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from experiments.unmasking import denoiser, selection
from jaxtok.diffusion import denoisers, samplers, selectors
from jaxtok.tasks import base, dice_countdown

TITLE = 'Compiled sampler'
PAPER = ''
CLAIM = 'A compiled decoding loop is at least three times as fast as Python.'
THRESHOLD = {
  'speedup': '>= 3',
  'rows_that_differ': 'every <= 0',
  'retraces': 'every <= 0',
  'batch_to_slowest': 'every <= 1.3',
}
SEEDS = (0,)
_THRESHOLD, _ROWS, _REPEATS = 0.9, 64, 7
_SHARPER = 3.5  # Logits of the run whose steps are counted.


def python_loop(choose, model, tokens, masked, first: int, mask_id: int):
  """The same decoding, step by step; returns tokens and calls per row."""
  calls = np.zeros(len(tokens), int)
  while bool(masked.any()):
    logits = model(tokens)[:, first:].at[..., mask_id].set(-jnp.inf)
    probs = jax.nn.softmax(logits, axis=-1)
    confidence = jnp.where(masked[:, first:], probs.max(-1), -jnp.inf)
    chosen = choose(confidence) & masked[:, first:]
    chosen = jnp.pad(chosen, ((0, 0), (first, 0)))
    drawn = jnp.pad(logits.argmax(-1), ((0, 0), (first, 0)))
    calls += np.asarray(masked.any(-1))
    tokens = jnp.where(chosen, drawn, tokens)
    masked = masked & ~chosen
  return tokens, calls


def choose_rows(confidence):
  """Row by row: those above the threshold, and the most confident one."""
  chosen = jnp.zeros(confidence.shape, bool)
  for row in range(len(confidence)):
    number = max(int((confidence[row] >= _THRESHOLD).sum()), 1)
    _, places = jax.lax.top_k(confidence[row], number)
    chosen = chosen.at[row, places].set(True)
  return chosen


def choose_all(confidence):
  """The same, all rows at once."""
  best = jax.nn.one_hot(confidence.argmax(-1), confidence.shape[1])
  return (confidence >= _THRESHOLD) | (best > 0)


def sharper(model, tokens):
  """Logits with which rows need different numbers of calls."""
  return _SHARPER * model(tokens)


def counted(decode, model):
  """What `decode(model)` returns, and how often the model was called."""
  num_calls = 0

  def tick():
    nonlocal num_calls
    num_calls += 1

  def counting(tokens):
    io_callback(tick, None, ordered=True)
    return model(tokens)

  out = jax.block_until_ready(jax.jit(lambda: decode(counting))())
  jax.effects_barrier()
  return out, num_calls


def steps_made(task, model, rows, decode=samplers.decode) -> dict[str, float]:
  """Numbers of rows that need different numbers of calls."""
  judge = selection.Judge(task, model, rows)
  out, steps = counted(
    lambda model: decode(
      model,
      judge.canvas(rows),
      selectors.Threshold(_THRESHOLD),
      samplers.row_rngs(jax.random.key(0), len(rows)),
      prompt_len=task.prompt_len,
      mask_id=task.mask_id,
    ),
    functools.partial(sharper, model),
  )
  calls = np.asarray(out.num_calls_b)
  return {
    'batch_to_slowest': steps / float(calls.max()),
    'fewest_calls': float(calls.min()),
    'most_calls': float(calls.max()),
    'mean_calls': float(calls.mean()),
  }


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  del workdir
  task = dice_countdown.DiceCountdown()
  model = denoiser.make(task, denoiser.Config(seed=seed))
  rows = base.batch(task, seed, 0, _ROWS)
  judge = selection.Judge(task, model, rows)
  rule = selectors.Threshold(jnp.asarray(_THRESHOLD))
  uneven = jax.tree_util.Partial(sharper, model)
  open_rows = denoisers.OpenRows(uneven, task.mask_id, task.prompt_len)
  canvas = judge.canvas(rows)
  args = canvas.tokens_bt, canvas.is_masked_bt, task.prompt_len, task.mask_id
  compiled = jax.jit(lambda model, tokens: model(tokens))
  call = functools.partial(compiled, model)
  decode = lambda found, rows: dataclasses.replace(
    judge, denoiser=found
  ).decode(rule, rows)
  # A row of its own for a batch of one.
  one = jax.tree.map(lambda x: x[:1], (args[0], args[1]))
  ways = {
    'compiled': lambda: decode(model, rows),
    'all': lambda: python_loop(choose_all, call, *args),
    'compiled_one': lambda: decode(model, rows[:1]),
    'one': lambda: python_loop(choose_all, call, *one, *args[2:]),
    'rows': lambda: python_loop(choose_rows, call, *args),
    'uneven': lambda: decode(uneven, rows),
    'uneven_open': lambda: decode(open_rows, rows),
    'uneven_all': lambda: python_loop(
      choose_all, functools.partial(compiled, uneven), *args
    ),
  }
  differs = np.zeros(_ROWS, bool)
  for ours, theirs in (
    ('compiled', 'all'),
    ('compiled', 'rows'),
    ('uneven_open', 'uneven_all'),
  ):
    out, (tokens, calls) = ways[ours](), ways[theirs]()
    differs |= (np.asarray(out.tokens_bt) != tokens).any(-1)
    differs |= np.asarray(out.num_calls_b) != calls
  repeats = {name: _REPEATS for name in ways} | {'rows': 1}
  seconds = {name: _median(way, repeats[name]) for name, way in ways.items()}
  before = selection.decode_rows._cache_size()
  for start in range(10):
    judge.decode(rule, base.batch(task, seed + 1, start * _ROWS, _ROWS))
  retraces = selection.decode_rows._cache_size() - before
  return {
    'speedup': seconds['all'] / seconds['compiled'],
    'speedup_one_row': seconds['one'] / seconds['compiled_one'],
    'speedup_over_rows': seconds['rows'] / seconds['compiled'],
    'speedup_uneven': seconds['uneven_all'] / seconds['uneven_open'],
    'open_rows': seconds['uneven'] / seconds['uneven_open'],
    'rows_that_differ': float(differs.sum()),
    'retraces': float(retraces),
    'tokens_per_second': _ROWS * task.answer_len / seconds['compiled'],
  } | steps_made(task, model, rows)


def _median(way, repeats: int) -> float:
  jax.block_until_ready(jax.tree.leaves(way()))  # Compiles.
  times = []
  for _ in range(repeats):
    begin = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(way()))
    times.append(time.perf_counter() - begin)
  return statistics.median(times)
