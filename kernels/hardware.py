# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Peak rates of accelerators and the time that a kernel takes at least."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """Peak rates of one chip.

  Attributes:
    flops: Dense bf16 FLOP/s.
    bandwidth: Main memory bytes/s.
    exps: Exponentials/s; infinite where they are never the limit.
    link: Bytes/s per direction of one link to a neighbour; 0 if unknown.
    fast_memory: Bytes of on-chip memory that one kernel instance can use.
    practical_bandwidth: Bytes/s that a device copy reaches; 0 if not measured.
  """

  flops: float
  bandwidth: float
  exps: float = float('inf')
  link: float = 0.0
  fast_memory: int = 0
  practical_bandwidth: float = 0.0


_MIB = 2**20

# TPU rates are those of jax's own tables, per chip; fast memory is per core.
CHIPS = {
  'v4': Chip(275e12, 1.23e12, link=45e9, fast_memory=16 * _MIB),
  'v5e': Chip(197e12, 0.82e12, link=45e9, fast_memory=128 * _MIB),
  'v5p': Chip(459e12, 2.46e12, link=90e9, fast_memory=64 * _MIB),
  'v6e': Chip(920e12, 1.64e12, link=90e9, fast_memory=128 * _MIB),
  'tpu7x': Chip(2310e12, 7.4e12, link=100e9, fast_memory=64 * _MIB),
  'h100': Chip(989e12, 3.35e12, 3.7e12, 25e9, 227 * 1024),
  'h200': Chip(989e12, 4.8e12, 3.7e12, 25e9, 227 * 1024, 4.3e12),
}


@dataclasses.dataclass(frozen=True)
class Work:
  """What one call of a kernel has to do.

  Attributes:
    flops: Multiplications and additions of matmuls over visible pairs only.
    num_bytes: Main memory bytes if every operand is moved once.
    exps: Exponentials.
  """

  flops: float
  num_bytes: float
  exps: float = 0.0


def roofline_seconds(chip: str, work: Work) -> float:
  """Least time of `work` on a chip.

  Args:
    chip: A key of `CHIPS`.
    work: From a kernel's `cost` module.

  Raises:
    KeyError: For an unknown chip.
  """
  if chip not in CHIPS:
    raise KeyError(f'chip={chip!r} is unknown; use one of {sorted(CHIPS)}.')
  rates = CHIPS[chip]
  return max(
    work.flops / rates.flops,
    work.num_bytes / rates.bandwidth,
    work.exps / rates.exps,
  )
