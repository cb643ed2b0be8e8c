# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import random

import pytest

from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import optim, sharding


@pytest.fixture(scope='session')
def corpus(tmp_path_factory):
  """A folder of 40 short files, some of which are held out."""
  folder = tmp_path_factory.mktemp('corpus')
  words = [
    'the',
    'bank',
    'of',
    'a',
    'river',
    'runs',
    'under',
    'one',
    'old',
    'bridge',
  ]
  rng = random.Random(0)
  for i in range(40):
    content = ' '.join(rng.choice(words) for _ in range(60))
    (folder / f'{i:02}.txt').write_text(content)
  return folder


@pytest.fixture(scope='session')
def make_config(corpus):
  """Configs of runs that take a second, on one device unless told otherwise."""

  def make(**changes):
    fields = dict(
      data=text.Config(source=text.Files(path=str(corpus)), seq_len=16),
      tokenizer=byte_tokenizer.Config(),
      model=transformer.Config(dim=16, num_layers=1, num_heads=2),
      objective=next_token.Config(num_chunks=1),
      optim=optim.Config(lr=1e-2, warmup_steps=2),
      mesh=sharding.Config(data=1),
      evals={'val': bpb.Config(every_steps=4, max_bytes=300)},
      steps=8,
      batch_size=8,
      log_every=2,
      checkpoint_every=4,
    )
    return train.Config(**(fields | changes))

  return make
