# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The first run: bytes against BPE at equal training FLOPs."""
