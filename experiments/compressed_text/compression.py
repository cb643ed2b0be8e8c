# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the file compressor and the shipped M1 with general compressors.

  JAXTOK_DATA=DATA python -m experiments.compressed_text.compression

Whole files as they would lie on a disk, checksums included, of English that M1
was not trained on. The model is not counted in the table, as it comes with the
package. The last lines say from which size on a novel-like text is smaller than
with xz although the model is counted.
"""

import argparse
import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Sequence

import zstandard

from experiments import cli
from experiments.compressed_text import texts
from jaxtok.entropy import container, shipped

Compressor = Callable[[bytes], int]

_XZ = lzma.PRESET_EXTREME | 9


def with_m1(data: bytes, verify: bool = False) -> int:
  """Bytes of the compressed file; may also decompress and compare it."""
  target = io.BytesIO()
  model = shipped.model()
  container.compress(io.BytesIO(data), target, model, verify=verify)
  return target.tell()


def with_xz(data: bytes) -> int:
  """Bytes of xz -9e's file."""
  return len(lzma.compress(data, preset=_XZ))


COMPRESSORS: dict[str, Compressor] = {
  'gzip -9': lambda data: len(gzip.compress(data, 9)),
  'bz2 -9': lambda data: len(bz2.compress(data, 9)),
  'xz -9e': with_xz,
  'zstd -19': lambda data: len(
    zstandard.ZstdCompressor(level=19).compress(data)
  ),
}


def rates(data: bytes, verify: bool) -> list[float]:
  """Bits per byte of M1 and of each other compressor."""
  sizes = [with_m1(data, verify)]
  sizes += [compress(data) for compress in COMPRESSORS.values()]
  return [8 * size / len(data) for size in sizes]


def winning_size(bits_per_byte: float, model_bytes: int) -> tuple[int, float]:
  """From which size on a text of novels is smaller than with xz -9e.

  Of xz the true sizes of growing texts are taken, made of all novels; of M1
  its rate on a novel it has not seen, and its own size.

  Args:
    bits_per_byte: M1's rate.
    model_bytes: Size of the model's file.

  Returns:
    The size in bytes, to 5 %, or 0 if it is more than there is; and xz's bits
    per byte at that size or at the end.
  """
  whole = texts.prose(1 << 30)
  low, high = 1 << 18, len(whole)

  def wins(size):
    return bits_per_byte * size / 8 + model_bytes < with_xz(whole[:size])

  if wins(high):
    while high > 1.05 * low:  # What wins goes on winning: models amortise.
      middle = int((low * high) ** 0.5)
      low, high = (low, middle) if wins(middle) else (middle, high)
    return high, 8 * with_xz(whole[:high]) / high
  return 0, 8 * with_xz(whole) / len(whole)


@cli.one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
  """Prints the table and the size."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--verify', action='store_true', help='decompress with M1 and compare too'
  )
  verify = parser.parse_args(argv).verify
  print('| text | bytes | M1 | ' + ' | '.join(COMPRESSORS) + ' |')
  print('| --- ' * (3 + len(COMPRESSORS)) + '|', flush=True)
  found = {}
  for name, data in texts.held_out().items():
    found[name] = rates(data, verify)
    shown = ' | '.join(f'{x:.3f}' for x in found[name])
    print(f'| {name} | {len(data):,} | {shown} |', flush=True)
  bits = found['novel'][0]
  model_bytes = (shipped.FOLDER / shipped.MODEL).stat().st_size
  size, rate = winning_size(bits, model_bytes)
  print(f'the file of M1 has {model_bytes:,} bytes')
  if size:
    print(f'with it M1 wins from {size:,} bytes on (xz: {rate:.3f} bits/byte)')
    return
  print(f'with it M1 does not win on all novels (xz: {rate:.3f} bits/byte)')
  if rate > bits:
    at_rate = 8 * model_bytes / (rate - bits)
    print(f'if xz stayed at that rate, M1 would win from {at_rate:,.0f} on')


if __name__ == '__main__':
  main()
