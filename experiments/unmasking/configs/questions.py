# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word problems, answered by a language model that was trained before.

arXiv:2512.09106. The denoiser is a run of `experiments.diffusion_lm`, whose
questions are asked; first, for tiny:

  python -m experiments.diffusion_lm --workdir=runs/llada_sft \\
      --config=experiments/diffusion_lm/configs/llada_sft.py:tiny \\
      --config.steps=1600
  python -m experiments.unmasking --workdir=runs/questions \\
      --config=experiments/unmasking/configs/questions.py:tiny

`--config.denoiser.path` names another run. tiny takes answers of 32 bytes all
at once. `llada` and `llada_blocks` are the paper's setting: a folder with the
weights of LLaDA-8B-Instruct at `--config.denoiser.path`; GSM8K in JSON lines at
`--config.task.data.source.path`, `.validation` (some hundred lines that are set
aside from its training set) and `.test`; answers of 256 tokens, all at once or
in blocks of 32; policies of 331,265 parameters. `llada_steered` is all at once
with an expert in each group, Threshold(0.9) in blocks of 32. (The paper trains
each from random weights; here a pressure begins where the one before ended.)
They have not been run; docs/unmasking.md says what memory they take.
"""

from experiments import sizes
from experiments.unmasking import experiment, questions, training
from jaxtok.data import answers, jsonl
from jaxtok.diffusion import policy, rl

# LLaDA's chat template.
_CHAT = dict(
  before='<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n',
  behind='<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
)


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  size, kind = sizes.split(size, 'blocks', 'steered')
  if size == 'llada':
    return _llada(32 if kind == 'blocks' else 0, int(kind == 'steered'))
  steps = sizes.pick(size, tiny=60, small=300)
  return experiment.Config(
    task=questions.Config(),
    denoiser=questions.OfRun(path='runs/llada_sft'),
    policy=training.Config(
      clone=None,
      learn=rl.Config(steps=steps, lr=3e-3, num_prompts=8),
      alphas=(0.4, 1.0, 3.0),
      num_validation=64,
      temperatures=(0.25, 0.7),
    ),
    seeds=(0,),
    num_test=sizes.pick(size, tiny=128, small=512),
    temperatures=(0.1, 0.25, 0.5, 1.0),
  )


def _llada(block: int, num_experts: int) -> experiment.Config:
  """The paper's setting: GSM8K, 256 tokens."""
  return experiment.Config(
    task=questions.Config(
      data=answers.Config(
        source=jsonl.Jsonl(path='gsm8k/train.jsonl', test='gsm8k/test.jsonl'),
        prompt_len=256,
        answer_len=256,
        **_CHAT,
      )
    ),
    denoiser=questions.Published(path='LLaDA-8B-Instruct'),
    policy=training.Config(
      model=policy.Config(),
      clone=None,
      learn=rl.Config(
        steps=938,
        lr=3e-5,
        warmup_steps=100,
        is_cosine=False,
        num_experts=num_experts,
        block=block,
      ),
      expert_threshold=0.9,
      expert_block=32,
      alphas=(0.3, 1.0, 3.0, 10.0),
      temperatures=(0.5 if block else 1.0,),
    ),
    seeds=(0, 1),
    num_test=512,
    temperatures=(0.25, 0.5, 1.0),
  )
