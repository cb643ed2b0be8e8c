# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures claims, records the numbers, and writes docs/methods.md."""
