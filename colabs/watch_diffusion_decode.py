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
# so that no language model has to be trained. It ends with this picture, and
# with what each rule costs and gets right:
#
# ![One row, call by call](https://raw.githubusercontent.com/jaxtok/jaxtok/main/docs/pictures/unmasking_steps.png)

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
from matplotlib import patches

from jaxtok.diffusion import (
  cloning,
  policy,
  rl,
  rollout,
  samplers,
  selectors,
)
from jaxtok.evals import pareto
from jaxtok.runs import plots
from jaxtok.tasks import base, dice_countdown

TINY = bool(os.environ.get('JAXTOK_TINY'))

# %% [markdown]
# ## The game
#
# The prompt is a total. The answer is a roll of a die, what is left of the
# total, the next roll, what is left, ... until nothing is left; the rest of the
# row is filled with the token for the end. Any legal chain is right. A first
# roll may be anything, so its confidence is low, but two rolls that are written
# down together may not fit.

# %%
task = dice_countdown.DiceCountdown()
rows = base.batch(task, seed=0, start=0, num=64)


def show(token):
  """One token in letters: numbers, D1..D6 for rolls, E for the end."""
  if token <= task.max_total:
    return str(token)
  roll = token - task.max_total
  return {task.eos: 'E', task.mask_id: '_'}.get(token, f'D{roll}')


for row in rows[:3]:
  print(' '.join(map(show, row.tolist())))

# %% [markdown]
# ## A rule
#
# `Threshold(0.7)` writes every token that is at least that sure, and the surest
# one anyway. One compiled loop decodes all rows; a row is charged only for the
# calls in which it had something hidden. There are no more prompts than totals,
# so that each is decoded once; a selector with chance decodes it 20 times.

# %%
denoiser = jax.tree_util.Partial(task.exact_denoiser)
settings = dict(prompt_len=task.prompt_len, mask_id=task.mask_id)
prompts = rows[np.unique(rows[:, 0], return_index=True)[1]]


def hidden(rows):
  """Rows of which only the prompt is to be seen."""
  answer = jnp.broadcast_to(base.answer_positions(task), rows.shape)
  return samplers.start(jnp.asarray(rows), answer, task.mask_id)


@jax.jit
def decode_rows(rows, selector):
  rngs = samplers.row_rngs(jax.random.key(0), len(rows))
  return samplers.decode(denoiser, hidden(rows), selector, rngs, **settings)


def decode(selector):
  """Every prompt, decoded once or, by a selector with chance, 20 times."""
  has_chance = isinstance(selector, policy.Policy | selectors.Random)
  return decode_rows(np.tile(prompts, (20 if has_chance else 1, 1)), selector)


def score(name, selector):
  """Accuracy and calls, by prompt."""
  out = decode(selector)
  by_prompt = lambda x: np.reshape(x, (-1, len(prompts))).mean(0)
  right = task.is_correct(np.asarray(out.tokens_bt))
  return pareto.Point(name, by_prompt(right), by_prompt(out.num_calls_b))


def words(point):
  return f'{point.accuracy:.2f} right, {point.calls:.1f} calls'


rule = selectors.Threshold(jnp.float32(0.7))
print(words(score('rule', rule)))

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
shown = jax.jit(
  lambda: rollout.play(
    denoiser,
    hidden(prompts),
    model,
    samplers.row_rngs(jax.random.key(1), len(prompts)),
    expert=rule,
    is_expert_b=jnp.ones(len(prompts), bool),
    **settings,
  )
)()
model, nats, _ = cloning.clone(
  model, shown, cloning.Config(steps=100 if TINY else 1200)
)
learned = lambda t: policy.Policy(model, jnp.float32(t))
print('imitation:', words(score('imitation', learned(0.25))))

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
model = trainer.current()
print('learned:', words(score('learned', learned(0.25))))

# %% [markdown]
# ## Side by side
#
# One prompt, decoded by both; time goes down. A **blue** square is still hidden
# when the model is called: the darker, the surer the model is of the token in
# it, which is what it would write there. An **orange frame** marks what the
# selector has written down at this call; from then on the token stands, on
# white. The last line says at which call each position was written.

# %%
says = jax.jit(task.exact_denoiser)


def replay(out, row):
  """What the model said at each call.

  Returns the confidence and the most probable token [call, position] of the
  hidden positions of the answer, and 0 and what stands of the others.
  """
  reveal, tokens = (
    np.asarray(x)[row] for x in (out.reveal_step_bt, out.tokens_bt)
  )
  is_hidden = reveal >= np.arange(task.answer_len)[:, None]
  log_probs = np.asarray(says(np.where(is_hidden, task.mask_id, tokens)))
  confidence = np.where(is_hidden, np.exp(log_probs.max(-1)), 0)
  guess = np.where(is_hidden, log_probs.argmax(-1), tokens)
  part = np.s_[: int(out.num_calls_b[row]), task.prompt_len :]
  return confidence[part], guess[part]


# %%
WRITTEN = '#d55e00'


def draw(axes, selector, row, name):
  """The calls of one row."""
  out = decode(selector)
  confidence, guess = replay(out, row)
  steps = np.asarray(out.reveal_step_bt)[row, task.prompt_len :]
  count, length = confidence.shape
  shade = np.ma.masked_equal(confidence, 0)
  image = axes.imshow(shade, cmap='Blues', vmin=0, vmax=1, aspect='auto')
  text = dict(ha='center', va='center')
  for line, place in np.ndindex(count, length):
    is_dark = confidence[line, place] > 0.7
    is_new, stands = line == steps[place], line > steps[place]
    axes.text(
      place,
      line,
      show(int(guess[line, place])),
      color='#808080' if stands else 'white' if is_dark else 'black',
      weight='bold' if is_new else 'normal',
      fontsize=8,
      **text,
    )
    if is_new:
      corner = (place - 0.46, line - 0.46)
      axes.add_patch(
        patches.Rectangle(
          corner, 0.92, 0.92, fill=False, edgecolor=WRITTEN, linewidth=1.6
        )
      )
  for place, step in enumerate(steps):
    axes.text(place, count, step + 1, color=WRITTEN, fontsize=8, **text)
  is_right = task.is_correct(np.asarray(out.tokens_bt))[row]
  ending = 'right' if is_right else 'wrong'
  axes.set_title(f'{name}: {count} calls, {ending}', loc='left')
  axes.set_xlabel('position in the answer')
  axes.set_xticks(range(4, length, 5), range(5, length + 1, 5))
  axes.set_yticks(range(count + 1), [*range(1, count + 1), 'written at'])
  axes.set_ylim(count + 0.5, -0.5)
  axes.grid(visible=False)
  return image


# %%
with plots.style():
  axes = plots.panels(2, 4.6)
  axes[0].figure.set_size_inches(12, 4.6)
  row = 3
  draw(axes[0], rule, row, 'Threshold(0.7)')
  image = draw(axes[1], learned(0.25), row, 'Policy, temperature 0.25')
  most = max(panel.get_ylim()[0] for panel in axes)
  for panel in axes:  # The slower one decides how far down both go.
    panel.set_ylim(most, -0.5)
  axes[0].set_ylabel('denoiser call')
  axes[0].figure.suptitle(
    f'Prompt: {prompts[row, 0]}. D6 is a roll of 6, a number is what is left '
    'after it, E is the end.\n'
    'Blue: hidden, with the token that is most probable now. Framed: written '
    'at this call. Grey: stands.',
    x=0.01,
    ha='left',
    fontsize=10,
  )
  axes[0].figure.colorbar(image, ax=axes, label='confidence in the token shown')
  steps_picture = plots.Picture(axes[0].figure)
steps_picture

# %% [markdown]
# ## What it costs and what it gets right
#
# One prompt proves nothing. Here is the accuracy on all prompts against the
# mean number of calls, for thresholds on a grid, for other rules, and for the
# policy at several temperatures (1: as in training; towards 0: it writes what
# it would write with probability over 1/2). Lines join the best settings of a
# rule; the blue dot is the threshold of the picture above. **Up and to the left
# is better.** There are only 13 prompts, on which the policy has been trained:
# this is about finding a fast way, not about new prompts.

# %%
number = jnp.float32
counts = (1, 2, 3, 4, 6, 8)
rules = {
  'entropy bound': [
    selectors.EntropyBound(number(x)) for x in np.geomspace(0.02, 8, 24)
  ],
  'factor': [selectors.Factor(number(x)) for x in np.geomspace(0.1, 4, 16)],
  'top-k': [selectors.TopK(jnp.int32(k)) for k in counts],
  'margin': [selectors.Margin(jnp.int32(k)) for k in counts],
  'random': [selectors.Random(jnp.int32(k)) for k in counts],
  'threshold': [
    selectors.Threshold(number(x)) for x in np.arange(15, 100, 2) / 100
  ],
}
points = {
  name: [score(name, selector) for selector in found]
  for name, found in rules.items()
}
policies = [
  score(f'{t:g}', learned(t)) for t in (0.1, 0.25, 0.5, 0.7, 1.0, 1.4)
]
for point in policies:
  print(f'policy at temperature {point.name}:', words(point))

# %%
dashes = iter(['-', '--', ':', '-.', (0, (1, 3))])
with plots.style():
  axes = plots.panels(1, 4.2)[0]
  axes.figure.set_size_inches(8.4, 4.2)
  for name, found in points.items():
    look = dict(color='#999999', linewidth=1)
    if name == 'threshold':
      look = dict(color='#0072b2', linewidth=2)
      used = score('0.7', rule)
      axes.plot(used.calls, used.accuracy, 'o', markersize=8, **look)
    else:
      look['linestyle'] = next(dashes)
    kept = pareto.front(found)
    # To the right: more calls than the best setting needs do no harm.
    axes.plot(
      [*(p.calls for p in kept), task.answer_len],
      [*(p.accuracy for p in kept), kept[-1].accuracy],
      drawstyle='steps-post',
      label=name,
      **look,
    )
  axes.plot(
    [p.calls for p in policies],
    [p.accuracy for p in policies],
    color=WRITTEN,
    marker='o',
    markersize=8,
    linewidth=1,
    label='learned policy,\nby temperature',
  )
  for point in [*policies, used]:
    axes.annotate(
      point.name,
      (point.calls, point.accuracy),
      (-5, 5),
      textcoords='offset points',
      ha='right',
      color='#0072b2' if point is used else WRITTEN,
      fontsize=8,
    )
  axes.text(0.02, 0.95, '\u2196 better', transform=axes.transAxes)
  axes.set_xlabel('denoiser calls per answer (mean)')
  axes.set_ylabel('accuracy (share of right answers)')
  axes.set_xlim(0, task.answer_len + 0.5)
  axes.set_xticks(range(0, task.answer_len + 1, 4))
  axes.set_ylim(0, 1.1)
  axes.legend(loc='center left', bbox_to_anchor=(1.0, 0.5))
  frontier_picture = plots.Picture(axes.figure)
frontier_picture

# %% [markdown]
# When this was written, the policy was better than all thresholds between four
# and ten calls: right in 0.92 at 9.4 calls, where thresholds are in 0.69. It
# was not better than all rules: an entropy bound was right in 1.00 at 9.0 calls
# and `factor` in 0.85 at 5.4. A hundred updates are few. What longer training
# finds, and in how many seeds, is in
# [docs/unmasking.md](https://github.com/jaxtok/jaxtok/blob/main/docs/unmasking.md).

# %% [markdown]
# ## Next
#
# * The whole comparison, every rule on a dense grid and a trained denoiser:
#   `python -m experiments.unmasking --workdir=runs/dice
#   --config=experiments/unmasking/configs/dice.py:tiny`.
# * Other games: `jaxtok.tasks` has addition, sudoku, countdown, brackets.
