# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The `transformers` GPT-2 in torch eager mode, float32, on CPU."""

from collections.abc import Callable

import torch
import transformers

from experiments.speed import spec as spec_lib


def build(spec: spec_lib.Spec) -> torch.nn.Module:
  """A randomly initialised GPT-2 of the given sizes, without dropout."""
  config = transformers.GPT2Config(
    vocab_size=spec.vocab_size,
    n_embd=spec.dim,
    n_layer=spec.num_layers,
    n_head=spec.num_heads,
    n_positions=max(spec.seq_len, spec.prompt_len + spec.num_tokens),
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=None,
  )
  return transformers.GPT2LMHeadModel(config)


def prepare(spec: spec_lib.Spec) -> Callable[[], None]:
  """Returns one warmed-up training step or generate call."""
  torch.set_num_threads(spec.threads)
  torch.manual_seed(0)
  model = build(spec)
  make = _train_step if spec.task == 'train' else _decode_step
  step = make(model, spec)
  for _ in range(2):
    step()
  return step


def _train_step(model, spec: spec_lib.Spec) -> Callable[[], None]:
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
  tokens = torch.randint(
    0, spec.vocab_size, (spec.batch_size, spec.seq_len + 1)
  )
  inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

  def step() -> None:
    optimizer.zero_grad(set_to_none=True)
    logits = model(inputs).logits
    loss = torch.nn.functional.cross_entropy(
      logits.reshape(-1, spec.vocab_size), targets.reshape(-1)
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  return step


def _decode_step(model, spec: spec_lib.Spec) -> Callable[[], None]:
  model.eval()
  prompt = torch.randint(0, spec.vocab_size, (spec.batch_size, spec.prompt_len))
  mask = torch.ones_like(prompt)

  @torch.inference_mode()
  def step() -> None:
    out = model.generate(
      prompt,
      attention_mask=mask,
      max_new_tokens=spec.num_tokens,
      min_new_tokens=spec.num_tokens,
      do_sample=True,
      top_k=0,
    )
    if out.shape[1] != spec.prompt_len + spec.num_tokens:
      raise RuntimeError(f'generate stopped early: {tuple(out.shape)}')

  return step


if __name__ == '__main__':
  spec_lib.serve(prepare)
