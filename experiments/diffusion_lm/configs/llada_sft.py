# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA's fine-tuning on questions and answers, with exact-match accuracy.

Nie et al. 2025, arXiv:2502.09992, algorithm 2.

  python -m experiments.diffusion_lm --workdir=runs/llada_sft \\
      --config=experiments/diffusion_lm/configs/llada_sft.py:tiny \\
      [--init_from=runs/llada] [--data=gsm8k/train.jsonl]

Without --data: generated word problems (`jaxtok.tasks.word_problems`) in the
format of GSM8K. With it: JSON lines with the fields "question" and "answer";
`--config.data.held_out=gsm8k/test.jsonl` takes the held-out pairs from another
file. Model and tokenizer are those of llada.py of the same size, so that its
runs can be started from; without --init_from it is trained from scratch. All
answers have one length, filled up with the end of text. Accuracy is that of the
first questions; `--config.evals.answers.max_bytes=0` takes all. Sizes: tiny,
quickstart, small.
"""

from experiments import sizes
from experiments.diffusion_lm.configs import llada as pretraining
from jaxtok import train
from jaxtok.data import answers
from jaxtok.diffusion import exact_match, llada, pretrained
from jaxtok.tasks import word_problems


def get_config(size: str = 'small') -> train.Config:
  """A fine-tuning run of the given size."""
  task, prompt_len, answer_len, batch_size, steps = sizes.pick(
    size,
    tiny=(dict(max_steps=1, largest=9), 72, 32, 16, 200),
    quickstart=(dict(max_steps=2, largest=20), 112, 56, 32, 3000),
    small=(dict(max_steps=3, largest=99), 512, 512, 64, 20_000),
  )
  config = pretraining.get_config(size)
  mask_id = config.objective.mask_id
  config.data = answers.Config(
    source=word_problems.WordProblems(**task),
    prompt_len=prompt_len,
    answer_len=answer_len,
  )
  config.objective = llada.FineTuning(mask_id=mask_id)
  config.batch_size, config.steps, config.train_flops = batch_size, steps, 0.0
  every = config.checkpoint_every = max(steps // 4, 1)
  config.log_every = max(steps // 20, 1)
  config.optim.warmup_steps = min(100, steps // 10)
  config.evals['val'].every_steps = every
  config.evals['val'].max_bytes = 2_000
  config.evals['answers'] = exact_match.Config(
    every_steps=every,
    max_bytes=2_000 if size == 'tiny' else 10_000,
    mask_id=mask_id,
    decoding=pretrained.Config(length=answer_len, steps=answer_len),
  )
  return config
