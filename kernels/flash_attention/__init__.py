# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention with masks as data."""

from jaxtok_kernels.flash_attention.api import flash_attention

__all__ = ['flash_attention']
