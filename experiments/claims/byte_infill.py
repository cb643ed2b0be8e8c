# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gaps that begin inside a token are best filled by the sum over covers.

Phan et al. 2024, arXiv:2410.09303, report 18 % more on code infilling (Code
Llama, from prompts that end inside tokens) than with token-level prompts, and
always more than with token healing. Check at small scale, of the same effect: a
small transformer over 1,024 tokens and three marks is trained on Python's
standard library with gaps at random bytes (`data.fim`; nine of ten pieces, half
of them SPM, whose prefix and middle are encoded as one text, as for Code
Llama). In held-out text, gaps of 4 to 16 bytes begin inside a token. After SPM
prompts, by the sum over covers, token healing and the encoding of the prefix as
it is (`tokens`):

* Share of the gaps whose first four bytes are what the most likely bytes one
  after the other are (`match`), the analogue of solved tasks.
* Bits per byte of the missing bytes.

Beside them, without a threshold: the same after PSM prompts by the encoding of
the prefix (`psm_tokens_bpb`), on which PSM rows are trained, cut tokens and
all; and the solutions of HumanEval (`humaneval_`), each with the end of its
question before it. These are never trained on. Needs JAXTOK_DATA.
"""

import json
import os
import pathlib
import zipfile

from experiments.byte_lm.configs import byte_infill as config_file
from jaxtok import train
from jaxtok.decoding import byte_probs
from jaxtok.evals import gaps

TITLE = 'Infilling at the byte level'
PAPER = 'Phan et al. 2024, arXiv:2410.09303'
CLAIM = (
  'Where a gap begins inside a token, the sum over covers fills it in better '
  'than the token-level prompt, and no worse than token healing.'
)
THRESHOLD = {
  'match / tokens_match': '>= 1.18',
  'match_above_healed': '>= 0',
  'healed_less_exact': '>= 0',
  'tokens_less_exact': '>= 0',
}
SEEDS = (0,)

_BEFORE, _BEHIND = 64, 128  # Bytes of a question, and of its solution.


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 500, num_gaps: int = 200
) -> dict[str, float]:
  """Measures the claim; see the module.

  Args:
    workdir: Where the model is trained.
    seed: Of the training.
    steps: Of the training.
    num_gaps: In held-out text; HumanEval has one per task.
  """
  texts, firsts = human_eval()
  config = config_file.get_config('tiny')
  config.tokenizer.vocab_size = 1024 + len(config.data.names)
  config.data.seq_len, config.data.piece_bytes = 128, _BEFORE + _BEHIND
  config.seed, config.steps, config.mesh.data = seed, steps, 1
  config.evals['val'].every_steps = 0
  choice = config.evals['gaps']
  choice.num_gaps, choice.gap_bytes, choice.max_bytes = num_gaps, 16, 200_000
  choice.text_bytes = config.data.piece_bytes
  run = train.run(config, pathlib.Path(workdir) / 'model')
  found = {
    name: value
    for name, value in run.metrics('eval/gaps')[-1].items()
    if name.endswith(('bpb', 'bits', 'match'))
  }
  model = byte_probs.ByteModel(run.model, run.tokenizer)
  cuts = gaps.cut(texts, run.tokenizer, choice, firsts)
  other = gaps.measure(model, cuts, choice)
  found |= {
    f'humaneval_{name}': value
    for name, value in other.items()
    if name.endswith(('bpb', 'match'))
  }
  return found | {
    'match_above_healed': found['match'] - found['healed_match'],
    'healed_less_exact': found['healed_bpb'] - found['bpb'],
    'tokens_less_exact': found['tokens_bpb'] - found['bpb'],
    'val_bpb': run.metrics('eval/val')[-1]['bpb'],
  }


def human_eval() -> tuple[list[bytes], list[int]]:
  """Questions' ends with their solutions, and where each solution begins.

  Raises:
    ValueError: If JAXTOK_DATA names no folder that has them.
  """
  path = pathlib.Path(os.environ.get('JAXTOK_DATA', ''))
  path = path / 'code' / 'humaneval_mbpp.zip'
  if not path.is_file():
    raise ValueError(
      f'{path} does not exist. Set JAXTOK_DATA to the folder of data sets, '
      'which has code/humaneval_mbpp.zip.'
    )
  with zipfile.ZipFile(path) as archive:
    lines = archive.read('HumanEval.jsonl').splitlines()
  texts, firsts = [], []
  for line in filter(None, lines):
    record = json.loads(line)
    before = record['prompt'].encode()[-_BEFORE:]
    texts.append(before + record['canonical_solution'].encode()[:_BEHIND])
    firsts.append(len(before))
  return texts, firsts
