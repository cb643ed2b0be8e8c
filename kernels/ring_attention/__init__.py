# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention over sequences that are sharded over devices."""

from jaxtok_kernels.ring_attention.api import ring_attention
from jaxtok_kernels.ring_attention.layout import sharded_order

__all__ = ['ring_attention', 'sharded_order']
