# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models of DNA: pre-training, then classification of sequences."""
