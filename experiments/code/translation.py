# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a translator of programs and measures it on others.

The source's lexical units are merged in the encoder; the decoder writes tokens,
greedily, with a cache.
"""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.code import fit, pairs, pretrained
from jaxtok.config import configclass
from jaxtok.decoding import autoregressive, sampling
from jaxtok.evals import bleu
from jaxtok.models import base, code_merge, code_translate
from jaxtok.nn import ragged
from jaxtok.runs import files
from jaxtok.tokenizers import hf
from jaxtok.train import optim as optim_lib

_BATCH = 64  # Rows that are translated at once.


@configclass
class Config(fit.Run):
  """A run."""

  model: code_translate.Config
  task: pairs.Config = dataclasses.field(default_factory=pairs.Config)
  # A published model (see `pretrained`): a T5, or an encoder, to which a new
  # decoder of model.num_layers blocks is added. Of `model`, only these,
  # dropout, how and layer are used then.
  init: str = ''
  prefix: tuple[str, ...] = ()  # With init: see `pretrained.ends`.
  vocab_size: int = 1000  # Of the BPE tokens, trained on both sides.
  length: int = 128  # Tokens of a side; longer pairs are left out.
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(lr=1e-3, warmup_steps=50)
  )
  steps: int = 1000
  batch_size: int = 16
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Data:
  """A tokenizer, what it puts around programs, and both splits."""

  tokenizer: Any
  ends: pretrained.Ends
  train: pairs.Rows
  test: pairs.Rows


def data(config: Config) -> Data:
  """Reads and encodes the pairs."""
  train, test = config.task.load(config.seed)
  if config.init:
    tokenizer = pretrained.tokenizer(config.init)
    ends = pretrained.ends(config.init, tokenizer, config.prefix)
  else:
    tokenizer = hf.Train(vocab_size=config.vocab_size).make(
      lambda: [side for pair in train for side in pair]
    )
    bos, eos = tokenizer.special.bos, tokenizer.special.eos
    ends = pretrained.Ends((bos,), (eos,), start=bos, stop=eos)
  encode = lambda part: pairs.rows(
    tokenizer, part, config.length, ends, language=config.task.rules
  )
  found = Data(tokenizer, ends, encode(train), encode(test))
  for name, part in (('training', found.train), ('test', found.test)):
    print(
      f'{len(part.pairs)} pairs for {name}; {part.num_long} with more than '
      f'{config.length} tokens on a side are left out.'
    )
  return found


def run(
  config: Config, parts: Data | None = None, path: pathlib.Path | None = None
) -> dict[str, float]:
  """Trains and tests one model.

  Args:
    config: The run; `model.vocab_size` is set by the data.
    parts: The result of `data`, if runs share it.
    path: Where to write source, reference and translation of each test pair;
      or None.

  Returns:
    bleu: `evals.bleu.corpus_bleu` of the test's translations, words being what
      white space separates, in [0, 1].
    exact_match: Share of translations with the reference's words.
    nats: Mean negative log-likelihood of a token of the test's references.
    flops: Matmul FLOPs of a forward pass over a test pair of mean lengths.
    positions_kept: Positions behind the merge for each token of the test's
      sources; 1 if nothing is merged.
    test_pairs: How many were translated.
  """
  parts = parts or data(config)
  train, test = parts.train, parts.test
  most = max(int(part.units_bs.max()) + 1 for part in (train, test))
  model = _make(config, parts, most)
  fit.fit(
    model,
    _loss,
    train.arrays,
    optim=config.optim,
    steps=config.steps,
    batch_size=config.batch_size,
    seed=config.seed,
    name=f'{config.model.how.value}: ',
  )
  nats, outputs = _test(model, parts, config.length)
  if path is not None:
    _write(path, test.pairs, outputs)
  found = list(map(_words, outputs))
  wanted = [_words(target) for _, target in test.pairs]
  tokens, units = (test.units_bs >= 0).sum(), (test.units_bs.max(1) + 1).sum()
  is_merged = config.model.how is not code_merge.How.NONE
  num = len(test.pairs)
  mean = base.Shape(
    b=1,
    t=round((test.targets_bt[:, 1:] >= 0).sum() / num),
    s=round(tokens / num),
  )
  return {
    'bleu': bleu.corpus_bleu(found, wanted),
    'exact_match': bleu.exact_match(found, wanted),
    'nats': nats,
    'flops': sum(model.flops(mean, units=round(units / num)).values()),
    'positions_kept': float(units / tokens) if is_merged else 1.0,
    'test_pairs': num,
  }


def _words(text: bytes) -> list[str]:
  return text.decode('utf-8', 'replace').split()


def _make(config: Config, parts: Data, most: int) -> Any:
  """The model of a run, with room for `most` units."""
  capacity = ragged.Capacity(policy='ratio', ratio=most / config.length)
  rngs = nnx.Rngs(config.seed)
  if not config.init:
    vocab_size = parts.tokenizer.vocab_size
    return dataclasses.replace(
      config.model, vocab_size=vocab_size, capacity=capacity
    ).make(rngs)
  model = pretrained.load(
    config.init,
    dropout=config.model.dropout,
    length=config.length,
    vocabulary=parts.tokenizer,
  )
  fields = dict(how=config.model.how, layer=config.model.layer)
  is_classifier = isinstance(model, code_merge.CodeMerge)
  if is_classifier or not model.config.is_encoder_decoder:
    fields |= dict(num_layers=config.model.num_layers)
  return code_translate.adopt(model, rngs=rngs, capacity=capacity, **fields)


def _nats(model: Any, batch: Any, rng: Any = None) -> tuple[Any, Any]:
  """Nats of each target token, and whether it is one."""
  tokens_bs, units_bs, targets_bt = batch
  encoded = model.encode(tokens_bs, units_bs=units_bs, rng=rng)
  inputs_bt, wanted_bt = targets_bt[:, :-1], targets_bt[:, 1:]
  is_real_bt = wanted_bt >= 0
  output = model(jnp.maximum(inputs_bt, 0), context=encoded, rng=rng)
  nats_bt = optax.softmax_cross_entropy_with_integer_labels(
    model.logits(output.hidden_btd), jnp.maximum(wanted_bt, 0)
  )
  return jnp.where(is_real_bt, nats_bt, 0.0), is_real_bt


def _loss(model: Any, batch: Any, rng: Any) -> Any:
  nats_bt, is_real_bt = _nats(model, batch, rng)
  return nats_bt.sum() / is_real_bt.sum()


def _test(model: Any, parts: Data, length: int) -> tuple[float, list[bytes]]:
  """Mean nats of a token, and the translations."""
  tokenizer, rows, stop = parts.tokenizer, parts.test, parts.ends.stop
  others = [i for i in tokenizer.special.ids() if i != stop]
  banned = sampling.ban(
    model.config.vocab_size, others, num_real=tokenizer.vocab_size
  )
  encode = nnx.jit(lambda model, x, units: model.encode(x, units_bs=units))
  likelihood = nnx.jit(_nats)
  sums, outputs, num = np.zeros(2), [], len(rows.pairs)
  for start in range(0, num, _BATCH):
    index = np.arange(start, start + _BATCH) % num
    count = min(_BATCH, num - start)  # The last rows are there twice.
    batch = tuple(jnp.asarray(x[index]) for x in rows.arrays)
    parts_bt = likelihood(model, batch)
    sums += [float(x[:count].sum()) for x in parts_bt]
    generation = autoregressive.generate(
      model,
      np.full((_BATCH, 1), parts.ends.start, np.int32),
      num_tokens=length - 1,
      stop=(stop,),
      banned_v=banned,
      context=encode(model, *batch[:2]),
    )
    ids_bt = np.asarray(generation.tokens)
    lengths_b = np.asarray(generation.lengths)
    for ids, size in zip(ids_bt[:count], lengths_b[:count], strict=True):
      outputs.append(tokenizer.decode(ids[:size]))
  return float(sums[0] / sums[1]), outputs


def _write(
  path: pathlib.Path, texts: pairs.Pairs, outputs: list[bytes]
) -> None:
  lines = []
  for (source, target), output in zip(texts, outputs, strict=True):
    lines += [b'source  ' + source, b'wanted  ' + target]
    lines += [b'found   ' + output.replace(b'\n', b' '), b'']
  files.write_atomic(path, b'\n'.join(lines))
