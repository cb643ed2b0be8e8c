# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Watch a masked diffusion model decide
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxtok/jaxtok/blob/main/colabs/watch_diffusion_decode.ipynb)
#
# A masked diffusion model predicts all hidden tokens at once. Which of them to
# write down now, and which to predict again later, is up to a *selector*: a
# rule on confidences, or a small network trained for it
# ([arXiv:2512.09106](https://arxiv.org/abs/2512.09106)). This notebook shows
# both at work, step by step, on a game whose probabilities are known exactly,
# so that no language model has to be trained.

# %%
import sys

if 'google.colab' in sys.modules:
  # %pip install -q "jaxtok[plots]==0.1.0"
  pass

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.diffusion import (
  cloning,
  policy,
  rl,
  rollout,
  samplers,
  selectors,
)
from jaxtok.runs import plots
from jaxtok.tasks import base, dice_countdown

TINY = bool(os.environ.get('JAXTOK_TINY'))

# %% [markdown]
# ## The game
#
# The prompt is a total. The answer is a roll of a die, what is left of the
# total, the next roll, what is left, ... until nothing is left; then EOS. Any
# legal chain is right. A first roll may be anything, so its confidence is low,
# but two rolls that are written down together may not fit.

# %%
task = dice_countdown.DiceCountdown()
rows = base.batch(task, seed=0, start=0, num=64)


def show(token):
  """One token in letters: numbers, D1..D6 for rolls, '.' for EOS."""
  if token <= task.max_total:
    return str(token)
  roll = token - task.max_total
  return {task.eos: '.', task.mask_id: '_'}.get(token, f'D{roll}')


for row in rows[:3]:
  print(' '.join(map(show, row.tolist())))

# %% [markdown]
# ## A rule
#
# `Threshold(0.7)` writes every token that is at least that sure, and the surest
# one anyway. One compiled loop decodes all rows; a row is charged only for the
# calls in which it had something hidden.

# %%
denoiser = jax.tree_util.Partial(task.exact_denoiser)
answer = jnp.broadcast_to(base.answer_positions(task), rows.shape)
settings = dict(prompt_len=task.prompt_len, mask_id=task.mask_id)
decode_rows = jax.jit(
  lambda selector: samplers.decode(
    denoiser,
    samplers.start(jnp.asarray(rows), answer, task.mask_id),
    selector,
    samplers.row_rngs(jax.random.key(0), len(rows)),
    **settings,
  )
)


def score(selector):
  """Accuracy and mean calls, and the decoded rows."""
  out = decode_rows(selector)
  right = task.is_correct(np.asarray(out.tokens_bt)).mean()
  return f'{right:.2f} right, {out.num_calls_b.mean():.1f} calls', out


rule = selectors.Threshold(0.7)
print(score(rule)[0])

# %% [markdown]
# ## A policy
#
# The policy sees one number per position, the confidence, and says which
# positions to reveal. It first imitates the rule, then learns from whole
# decodings: the reward is 1 for a right answer, times a factor that falls with
# the calls.

# %%
model = policy.Config(
  hidden=32, mlp_dim=64, time_dim=32, time_max_period=1e4, bias=-1.0
).make(nnx.Rngs(0))
prompts = rows[np.unique(rows[:, 0], return_index=True)[1]]
shown = jax.jit(
  lambda: rollout.play(
    denoiser,
    samplers.start(jnp.asarray(prompts), answer[: len(prompts)], task.mask_id),
    model,
    samplers.row_rngs(jax.random.key(1), len(prompts)),
    expert=rule,
    is_expert_b=jnp.ones(len(prompts), bool),
    **settings,
  )
)()
model, nats = cloning.clone(
  model, shown, cloning.Config(steps=100 if TINY else 1200)
)
print('imitation:', score(policy.Policy(model, 0.25))[0])

# %%
trainer = rl.Trainer(
  rl.Config(
    alpha=3.0,
    steps=20 if TINY else 100,
    num_prompts=8 if TINY else 16,
    lr=2e-3,
  ),
  denoiser,
  task.is_correct,
  model=model,
  **settings,
)
for step in range(trainer.config.steps):
  batch = base.batch(task, 1, step * 16, trainer.config.num_prompts)
  numbers = trainer.update(batch, jax.random.key(step))
  if step % 10 == 9:
    print(step + 1, {k: round(v, 2) for k, v in numbers.items()})
learned = policy.Policy(trainer.current(), 0.25)
print('learned:', score(learned)[0])

# %% [markdown]
# ## Side by side
#
# Each picture is one row; time goes down. Dark squares are tokens as they are
# written, pale ones stand already, and empty ones are still hidden.

# %%


def draw(axes, out, row, title):
  """The steps of one row."""
  first = task.prompt_len
  steps = np.asarray(out.reveal_step_bt)[row, first:]
  tokens = np.asarray(out.tokens_bt)[row, first:]
  count = int(out.num_calls_b[row])
  when = np.arange(count)[:, None]
  shade = np.where(steps == when, 1.0, np.where(steps < when, 0.3, 0.0))
  axes.imshow(shade, cmap='Blues', vmin=0, vmax=1.2, aspect='auto')
  for place, (step, token) in enumerate(zip(steps, tokens, strict=True)):
    for line in range(max(step, 0), count):
      axes.text(
        place,
        line,
        show(int(token)),
        ha='center',
        va='center',
        fontsize=7,
        color='white' if line == step else 'black',
      )
  axes.set_title(f'{title}: {count} calls', loc='left')
  axes.set_xlabel('position in the answer')
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.yaxis.get_major_locator().set_params(integer=True)
  axes.set_ylabel('call')
  axes.grid(visible=False)


with plots.style():
  axes = plots.panels(2, 4.6)
  axes[0].figure.set_size_inches(12, 4.6)
  for panel, (name, selector) in zip(
    axes,
    {'Threshold(0.7)': rule, 'learned policy': learned}.items(),
    strict=True,
  ):
    draw(panel, decode_rows(selector), 0, f'total {rows[0, 0]}, {name}')
  picture = plots.Picture(axes[0].figure)
picture

# %% [markdown]
# ## Next
#
# * The whole comparison, every rule on a dense grid and a trained denoiser:
#   `python -m experiments.unmasking --workdir=runs/dice
#   --config=experiments/unmasking/configs/dice.py:tiny`.
# * Other games: `jaxtok.tasks` has addition, sudoku, countdown, brackets.
