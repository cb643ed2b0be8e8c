# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What can be said about tokens and runs: functions that return arrays."""
