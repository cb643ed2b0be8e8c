# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One file per config; `get_config(size)` returns an `experiment.Config`."""
