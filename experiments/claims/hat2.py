# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Words of a stream of bytes need no marks between them.

arXiv:2603.15953 trains HAT at 7 billion parameters with encoder and decoder
that go over the whole text, and without a mark behind each word; what it gains
over HAT (Neitemeier et al. 2025, arXiv:2501.10322) was not at hand in numbers.

Check: both models trained on Python's standard library with the same FLOPs,
1e12, with the widths, layers and rows of the claim `hat` (128 and 64; 256
tokens, of which HAT spends some on marks), the same room for words, and a
window of 64 bytes (HAT's encoder counts 65 keys, its decoder 33). Held-out
files, all bytes of them: bits per byte, the marks' included, of the new model
over HAT's, and positions of its backbone per byte of text. A byte of the new
model sees bytes of the words before its own, which HAT's decoder does not, and
pays for no marks: that it is no worse for the same FLOPs is what the change has
to show.

Measured (three seeds) it needs 1.10 times HAT's bits, 2.69 to 2.46, in 321
steps to HAT's 337. Before three things were changed that were not HAT's it
needed 1.21 times, no less than a flat transformer: the vectors of words began
48 times as large as bytes, attention counted all 256 keys, and there was room
for a word in three bytes.

Generation with nested caches equals arg max without on all of 50 prompts in
`tests/models/hat2_test.py`.
"""

import pathlib

from experiments.byte_lm.configs import hat, hat2
from experiments.claims import spacebyte
from jaxtok import train

TITLE = 'HAT of 2026'
PAPER = 'arXiv:2603.15953'
CLAIM = (
  'At equal FLOPs a HAT over a stream of bytes without marks needs no more '
  'bits per byte than HAT with marks, with a position of its trunk for four '
  'bytes.'
)
THRESHOLD = {'hat2_to_hat': '<= 1', 'words_per_byte': '<= 0.25'}
SEEDS = (0, 1, 2)


def measure(
  workdir: pathlib.Path, *, seed: int, flops: float = 1e12
) -> dict[str, float]:
  """Trains the two models; see the module."""
  rows = {}
  for name, config_file in {'hat': hat, 'hat2': hat2}.items():
    config = spacebyte.prepare(config_file.get_config('tiny'), seed, flops)
    run = train.run(config, pathlib.Path(workdir) / name)
    rows[name] = run.metrics('eval/val')[-1]
  new = rows['hat2']
  lost = [row['lost_targets'] for row in run.metrics('train')]
  return {f'bpb_{name}': row['bpb'] for name, row in rows.items()} | {
    'hat2_to_hat': new['bpb'] / rows['hat']['bpb'],
    'words_per_byte': new['units_per_token'] * new['tokens_per_byte'],
    'lost_targets': sum(lost) / len(lost),
  }
