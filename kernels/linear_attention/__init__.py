# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear attention in chunks, with a bidirectional prefix and decay."""

from jaxtok_kernels.linear_attention.api import LinearState, linear_attention
from jaxtok_kernels.linear_attention.features import feature_dim, feature_map

__all__ = ['LinearState', 'feature_dim', 'feature_map', 'linear_attention']
