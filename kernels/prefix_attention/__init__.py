# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention of many sequences over prefixes that they share."""

from jaxtok_kernels.prefix_attention.api import shared_prefix_attention
from jaxtok_kernels.prefix_attention.levels import PrefixLevel

__all__ = ['PrefixLevel', 'shared_prefix_attention']
