# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Language models over text; run with `python -m experiments.byte_lm`."""
