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
# # Language models over compressed text
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxtok/jaxtok/blob/main/colabs/compressed_text.ipynb)
#
# A small byte model, M1, and arithmetic coding compress text better than any
# tokenizer. Can a language model, M2, read what comes out? Lester et al. 2024
# ([arXiv:2404.03626](https://arxiv.org/abs/2404.03626)) found: not if the text
# is coded in one go, but yes if it is cut into **Equal-Info Windows**, pieces
# that each compress to the same number of bits. This notebook shows windows,
# looks for structure in their bits, and trains an M2 on each kind of token. It
# takes some minutes on a CPU.

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
from jaxtok.analysis import (
  compressed_text,
  pictures,
  places,
  stability,
  trivial,
  window_texts,
)
from jaxtok.data import text
from jaxtok.entropy import table
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.runs import compare
from jaxtok.tokenizers import arithmetic, neural
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import optim

TINY = bool(os.environ.get('JAXTOK_TINY'))
folder = tempfile.mkdtemp()
print(f'jaxtok {jaxtok.__version__}, jax {jax.__version__}, {jax.devices()}')

# %% [markdown]
# ## M1 and its windows
#
# Any next-byte model will do, as long as it is exact: decoding must see the
# same numbers as encoding. Here it is a table of how often each byte follows
# each context, counted on Python's standard library.

# %%
corpus = text.Stdlib(max_bytes=400_000 if TINY else 3_000_000)
learn = list(text.Config(source=corpus).documents('train'))
test = compressed_text.examples(
  text.Config(source=corpus).documents('validation'), 4_096
)[: 8 if TINY else 60]
m1 = table.fit(learn, order=2 if TINY else 3, num_rows=1 << 12)

# %%
windows = neural.NeuralCompressionTokenizer(m1)
sentence = b'    for name in sorted(names):\n      print(name)\n'
ids, offsets = windows.encode_with_offsets(sentence)
for word, (a, b) in zip(ids.tolist(), offsets.tolist(), strict=True):
  print(f'{word:016b}  {sentence[a:b]!r}')
assert windows.decode(ids) == sentence

# %% [markdown]
# Each row is a token of 16 bits. Likely text makes long pieces. Any 16 bits
# mean something, so whatever a model writes can be read:

# %%
print(windows.decode([12_345, 54_321, 31_415]))

# %% [markdown]
# ## How far it compresses, and what is left to learn
#
# Bits per byte of a model that knows nothing (uniform), and of one that knows
# how frequent each token is (unigram). The last ones are the paper's other
# codes: without windows, with byte frequencies in place of M1, and gzip.

# %%
tokenizers = compressed_text.make_tokenizers(
  m1, learn, window_bits=(16, 64) if TINY else (16, 32, 64)
)
found = {k: trivial.measure(t, test) for k, t in tokenizers.items()}
pictures.draw_trivial(found)

# %% [markdown]
# The bits of a good code look like coin tosses. In short windows they do not
# quite: that is what a model can get hold of. (KL divergence of n-grams of bits
# from uniform, with the 5th and 95th percentile over parts of the text.)

# %%
pictures.draw_divergence(
  *compressed_text.bits(tokenizers, test, num_parts=5 if TINY else 20)
)

# %% [markdown]
# ## The same words, the same tokens?
#
# One sentence behind many different words. Windows soon fall into step again;
# an arithmetic code never does.

# %%
words = stability.common_words(learn, 40 if TINY else 300)
pictures.draw_stability(
  {
    name: stability.measure(tokenizer, compressed_text.SENTENCE, words)
    for name, tokenizer in tokenizers.items()
    if name != 'GZip'
  }
)

# %% [markdown]
# With two tokens of 8 bits per window, the first one tells how the text of the
# window begins; the second one means something else after each first.

# %%
pictures.draw_window_texts(
  window_texts.collect(tokenizers['EqualInfo b=16'], test)
)

# %% [markdown]
# ## M2 on three kinds of tokens
#
# The same model, the same number of tokens.


# %%
def make_config(tokenizer, tokens_per_window=1):
  steps = 60 if TINY else 600
  return train.Config(
    data=text.Config(source=corpus, seq_len=64),
    tokenizer=tokenizer,
    model=transformer.Config(
      dim=64 if TINY else 128,
      num_layers=2,
      num_heads=4,
      activation='relu',
      phases=tokens_per_window if tokens_per_window > 1 else 0,
    ),
    objective=next_token.Config(places=tokens_per_window),
    optim=optim.Config(lr=3e-3, warmup_steps=steps // 20),
    evals={'val': bpb.Config(every_steps=steps // 6, max_bytes=20_000)},
    steps=steps,
    batch_size=16,
    log_every=steps // 30,
  )


m1_settings = dict(order=m1.order, num_rows=1 << 12, token_bits=8)

# %%
by_bytes = train.run(make_config(byte_tokenizer.Config()), f'{folder}/bytes')

# %%
by_windows = train.run(
  make_config(neural.Train(**m1_settings), tokens_per_window=2),
  f'{folder}/windows',
)

# %%
by_code = train.run(
  make_config(arithmetic.Train(**m1_settings), tokens_per_window=2),
  f'{folder}/arithmetic',
)

# %%
comparison = compare.compare([by_bytes, by_windows, by_code], x='tokens')
comparison.picture()

# %%
comparison

# %% [markdown]
# On the arithmetic code nothing is learned: its curve stays where a uniform
# model is, at what M1 alone can do. On windows, the second token, which sees
# the first one of its window, is where most is gained as training goes on:

# %%
pictures.draw_places(places.accuracy(by_windows, first_steps=10))

# %%
for run in (by_bytes, by_windows):
  continued = run.generate(b'import ', num_bytes=80, temperature=0.7, seed=0)
  print(f'{run.name}: import {continued.decode(errors="replace")}\n')
print('arithmetic:', by_code.generate(num_bytes=80, seed=0)[:80])

# %% [markdown]
# ## Next
#
# * All methods at matched tokens and FLOPs:
#   `python -m experiments.compressed_text.suite --workdir=runs/suite`.
# * All analyses: `python -m jaxtok.analysis.compressed_text --help`.
# * Compress a file: `python -m jaxtok.entropy compress FILE -o FILE.jtz`.
