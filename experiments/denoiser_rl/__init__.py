# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reinforcement learning of denoisers on tasks with verifiers."""
