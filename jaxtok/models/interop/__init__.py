# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes checkpoints that `transformers` reads and writes.

  config, model = interop.load('path/to/folder')
  interop.save(model, 'path/to/new/folder')

A checkpoint is a folder with config.json and safetensors files. Families:
Llama, Qwen 2 and 3, GPT-2, BERT, RoBERTa (with CodeBERT, GraphCodeBERT and
UniXcoder), T5 and ByT5; LLaDA and Dream, which `transformers` reads with code
that comes with their checkpoints; BLT, DNABERT-2 and classifiers of RoBERTa's
family, which are read only.
"""

from jaxtok.models.interop.checkpoint import (
  FAMILIES,
  differences,
  load,
  read_config,
  save,
)
from jaxtok.models.interop.llada import Conventions, conventions
from jaxtok.models.interop.mapping import Unsupported, by_rules
from jaxtok.models.interop.safetensors import FormatError, MissingError

__all__ = [
  'FAMILIES',
  'Conventions',
  'FormatError',
  'MissingError',
  'Unsupported',
  'by_rules',
  'conventions',
  'differences',
  'load',
  'read_config',
  'save',
]
