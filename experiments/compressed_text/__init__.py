# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Neurally compressed text: `python -m experiments.compressed_text`."""
