# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training and decoding speed against `transformers` in torch eager mode."""
