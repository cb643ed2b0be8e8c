# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA and Dream load from their files in bounded memory, with right logits.

Nie et al. 2025, arXiv:2502.09992 (LLaDA): a Llama without causal mask. Ye et
al. 2025, arXiv:2508.15487 (Dream): a Qwen 2 without, whose logits at a place
are those of the place after it.

Check, logits: a Llama and a Qwen 2 of `transformers` with random weights, in
torch, with a mask that hides nothing; their weights in files as the two models'
are published (names and config.json), read by `interop.load`; the largest
difference of logits, and how far those with a causal mask are from them.
Differences of float32 in another order of summation are below 1e-4.

Check, memory: a LLaDA of 20 layers of width 1024 in bfloat16, 0.6 GB in files
of 100 MB, loaded as bfloat16 in a process of its own; highest anonymous memory
(pages of mapped files are the kernel's to drop) less that before, over the size
of the files. On top of the weights come a copy of the largest tensor, here an
eighth of the whole, and what tracing takes. Needs torch, transformers, Linux.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtok.models import interop, transformer

TITLE = 'LLaDA and Dream checkpoints'
PAPER = 'Nie et al. 2025, arXiv:2502.09992; Ye et al. 2025, arXiv:2508.15487'
CLAIM = (
  'Checkpoints of LLaDA and Dream give the logits of independent code, and '
  'loading needs at most 1.2 times the memory of the files.'
)
THRESHOLD = {
  'error_llada': 'every <= 1e-4',
  'error_dream': 'every <= 1e-4',
  'causal_llada': 'every >= 1e-2',
  'causal_dream': 'every >= 1e-2',
  'memory_to_file': 'every <= 1.2',
}
SEEDS = (0,)
_VOCAB, _LENGTH = 96, 24
# Part of a Llama's name -> part of LLaDA's.
LLADA_NAMES = {
  'model.embed_tokens.': 'model.transformer.wte.',
  'model.norm.': 'model.transformer.ln_f.',
  'lm_head.': 'model.transformer.ff_out.',
  'model.layers.': 'model.transformer.blocks.',
  'self_attn.o_proj.': 'attn_out.',
  'self_attn.': '',
  'mlp.gate_proj.': 'ff_proj.',
  'mlp.up_proj.': 'up_proj.',
  'mlp.down_proj.': 'ff_out.',
  'post_attention_layernorm.': 'ff_norm.',
  'input_layernorm.': 'attn_norm.',
}
_SIZES = dict(
  vocab_size=_VOCAB,
  hidden_size=64,
  intermediate_size=112,
  num_hidden_layers=3,
  num_attention_heads=4,
  max_position_embeddings=64,
  rms_norm_eps=1e-5,
)


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  try:
    import torch
    import transformers
  except ImportError as error:
    raise ValueError(
      f'this claim compares with torch and transformers, but {error.name} is '
      "not installed: pip install 'jaxtok[parity]'."
    ) from error
  torch.manual_seed(seed)
  numbers = {}
  for name, kind, heads, theta in (
    ('llada', 'Llama', 4, 500_000.0),
    ('dream', 'Qwen2', 2, 1e6),
  ):
    rope = dict(rope_type='default', rope_theta=theta)
    sizes = _SIZES | dict(num_key_value_heads=heads, rope_parameters=rope)
    config = getattr(transformers, f'{kind}Config')(**sizes)
    theirs = getattr(transformers, f'{kind}ForCausalLM')(config).eval()
    with torch.no_grad():
      for parameter in theirs.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    folder = pathlib.Path(workdir) / name
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder, name, sizes, theta, theirs.state_dict())
    error, causal = _compare(torch, theirs, folder, seed)
    numbers |= {f'error_{name}': error, f'causal_{name}': causal}
  return numbers | {'memory_to_file': _memory(pathlib.Path(workdir) / 'large')}


def write_checkpoint(folder, name: str, sizes, theta: float, tensors) -> None:
  """Files in the form in which the checkpoint of that name is published.

  Args:
    folder: Where config.json and model.safetensors go.
    name: 'llada' or 'dream'.
    sizes: Settings of a Llama or Qwen 2 in `transformers`.
    theta: Of the rotary positions.
    tensors: Weights by their names in `transformers`.
  """
  from safetensors.torch import save_file

  if name == 'llada':
    for old, new in LLADA_NAMES.items():
      tensors = {k.replace(old, new): v for k, v in tensors.items()}
    raw = llada_config(sizes, theta)
  else:
    raw = dict(sizes, model_type='Dream', hidden_act='silu', rope_theta=theta)
    del raw['rope_parameters']
  tensors = {key: value.contiguous() for key, value in tensors.items()}
  save_file(tensors, folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(raw))


def llada_config(sizes, theta: float) -> dict[str, Any]:
  """config.json of a LLaDA with a Llama's sizes."""
  return dict(
    model_type='llada',
    block_type='llama',
    activation_type='silu',
    layer_norm_type='rms',
    rope=True,
    d_model=sizes['hidden_size'],
    mlp_hidden_size=sizes['intermediate_size'],
    n_layers=sizes['num_hidden_layers'],
    n_heads=sizes['num_attention_heads'],
    n_kv_heads=sizes['num_key_value_heads'],
    vocab_size=sizes['vocab_size'],
    embedding_size=sizes['vocab_size'],
    rms_norm_eps=sizes['rms_norm_eps'],
    rope_theta=theta,
    weight_tying=False,
  )


def _compare(torch, theirs, folder, seed: int) -> tuple[float, float]:
  """Largest difference of logits; and that from a causal model's."""
  config, ours = interop.load(folder)
  if config.is_causal:
    raise AssertionError(f'{folder} was read as a causal model')
  ids = np.random.default_rng(seed).integers(2, _VOCAB, (2, _LENGTH))
  with torch.no_grad():
    everything = torch.zeros(2, 1, _LENGTH, _LENGTH)  # Added to the scores.
    want = theirs(torch.tensor(ids), attention_mask=everything).logits.numpy()
    causal = theirs(torch.tensor(ids)).logits.numpy()
  run = nnx.jit(lambda model, x: model.logits(model(x).hidden_btd))
  got = np.asarray(run(ours, jnp.asarray(ids, jnp.int32)))
  return float(np.abs(got - want).max()), float(np.abs(got - causal).max())


def _memory(folder: pathlib.Path) -> float:
  """Highest anonymous memory while loading, over the size of the files."""
  if not folder.exists():
    config = transformer.Config.llama(
      vocab_size=32_000, dim=1024, num_layers=20, num_heads=16, is_causal=False
    )
    model = config.make(nnx.Rngs(0))
    interop.save(
      model,
      folder,
      model_type='llada',
      dtype='bfloat16',
      max_shard_bytes=100_000_000,
    )
  size = sum(file.stat().st_size for file in folder.glob('*.safetensors'))
  command = [sys.executable, '-m', __name__, str(folder)]
  printed = subprocess.run(command, check=True, capture_output=True, text=True)
  return int(printed.stdout) / size


def _anonymous() -> int:
  """Bytes of this process that are not pages of files."""
  status = pathlib.Path('/proc/self/status').read_text()
  line = next(x for x in status.splitlines() if x.startswith('RssAnon'))
  return 1024 * int(line.split()[1])


def _highest(folder: str) -> int:
  """Loads the model and prints what the memory rose by."""
  import threading

  jax.block_until_ready(jnp.ones(1))
  before, is_done, seen = _anonymous(), threading.Event(), [0]

  def watch():
    while not is_done.wait(0.002):
      seen.append(_anonymous())

  watcher = threading.Thread(target=watch)
  watcher.start()
  _, model = interop.load(folder, dtype='bfloat16')
  jax.block_until_ready(jax.tree.leaves(nnx.state(model)))
  is_done.set()
  watcher.join()
  return max(*seen, _anonymous()) - before


if __name__ == '__main__':
  print(_highest(sys.argv[1]))
