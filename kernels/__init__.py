# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention kernels for TPU, GPU and CPU; needs jax and numpy only."""
