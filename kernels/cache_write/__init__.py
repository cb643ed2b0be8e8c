# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes new keys and values into caches, in place where donated."""

from jaxtok_kernels.cache_write.api import (
  compact_kv,
  ring_slots,
  ring_write,
  write_kv,
  write_rows,
)

__all__ = ['compact_kv', 'ring_slots', 'ring_write', 'write_kv', 'write_rows']
