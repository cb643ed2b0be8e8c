# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding against selected tokens, selected blocks, or pages."""

from jaxtok_kernels.selected_decode.api import (
  block_decode,
  gather_decode,
  paged_decode,
)
from jaxtok_kernels.selected_decode.pages import PagedKV

__all__ = ['PagedKV', 'block_decode', 'gather_decode', 'paged_decode']
