# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps the folder `kernels/` to the import name `jaxtok_kernels`.

A top-level package called `kernels` would shadow the Hugging Face package of
that name, which `transformers` probes for.
"""

from setuptools import find_packages, setup

setup(
  packages=[
    *find_packages(include=['jaxtok', 'jaxtok.*']),
    'jaxtok_kernels',
    *(f'jaxtok_kernels.{name}' for name in find_packages('kernels')),
  ]
)
