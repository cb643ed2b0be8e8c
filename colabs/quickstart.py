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
# # jaxtok in five minutes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxtok/jaxtok/blob/main/colabs/quickstart.ipynb)
#
# A model that reads bytes and a model that reads BPE tokens cannot be compared
# by their loss per token. They can be compared in **bits per byte** of the
# source text. This notebook trains one of each for the same number of FLOPs,
# draws that comparison, and lets both continue a prompt. It takes a few
# minutes on a CPU and seconds on a GPU.

# %%
import sys

if 'google.colab' in sys.modules:
  # %pip install -q "jaxtok[plots]==0.1.0"
  pass

# %%
import os
import tempfile

import jax

import jaxtok
from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.runs import compare
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import hf
from jaxtok.train import optim

TINY = bool(os.environ.get('JAXTOK_TINY'))
folder = tempfile.mkdtemp()
print(f'jaxtok {jaxtok.__version__}, jax {jax.__version__}, {jax.devices()}')

# %% [markdown]
# ## Text and tokenizers
#
# The default corpus needs no download: it is the standard library of this
# Python, split by file. A tokenizer turns bytes into ids and says which source
# bytes each id stands for; that is what the models will be charged for.

# %%
corpus = text.Stdlib(max_bytes=300_000 if TINY else 0)
characters = byte_tokenizer.Config().make()
pieces = hf.Train(vocab_size=512 if TINY else 2048).make(
  lambda: text.Config(source=corpus).documents('train')
)
sentence = b'def __init__(self, name=None):'
for tokenizer in (characters, pieces):
  ids, offsets = tokenizer.encode_with_offsets(sentence)
  shown = [sentence[a:b].decode() for a, b in offsets]
  print(f'{len(ids):>3} tokens: {"|".join(shown)}')
  assert tokenizer.decode(ids) == sentence

# %% [markdown]
# ## Two runs, equal FLOPs
#
# A run is a tree of small config objects. Nothing is global: change a field
# and train again. `train_flops` ends both runs at the same budget.


# %%
def make_config(tokenizer, seq_len):
  return train.Config(
    data=text.Config(source=corpus, seq_len=seq_len),
    tokenizer=tokenizer,
    model=transformer.Config(
      dim=32 if TINY else 128, num_layers=2, num_heads=2
    ),
    objective=next_token.Config(),
    optim=optim.Config(lr=3e-3, warmup_steps=20),
    evals={'val': bpb.Config(every_steps=20, max_bytes=30_000)},
    train_flops=3e10 if TINY else 6e11,
    batch_size=16,
    log_every=10,
  )


# %%
by_bytes = train.run(
  make_config(byte_tokenizer.Config(), seq_len=256), f'{folder}/bytes'
)

# %%
by_pieces = train.run(
  make_config(hf.Train(vocab_size=pieces.vocab_size), seq_len=96),
  f'{folder}/bpe',
)

# %% [markdown]
# ## What was learned
#
# `plot` draws a run, `generate` continues any bytes, and `runs.compare` sets
# runs side by side: bits per byte of held-out files at equal training FLOPs.

# %%
by_bytes.plot()

# %%
for run in (by_bytes, by_pieces):
  continued = run.generate(b'import ', num_bytes=80, temperature=0.7, seed=0)
  print('import ' + continued.decode(errors='replace'), end='\n\n')

# %%
comparison = compare.compare([by_bytes, by_pieces])
comparison.picture()

# %%
comparison

# %% [markdown]
# ## Next
#
# * The same from a terminal: `python -m experiments.byte_lm --list`.
# * Your own text: `text.Config(source=text.Files(path='my_folder'))`.
# * A model of your own: `docs/adding_a_method.md`.
