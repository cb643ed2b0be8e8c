# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Code lengths beside those of `constriction`, for the same integer CDFs.

  JAXTOK_DATA=DATA python -m experiments.compressed_text.code_length

Codes the beginning of a novel with the stream coder and with constriction's
range coder (`pip install constriction`), under the shipped M1 and under an
order-1 table, and prints both lengths and the entropy in bits.
"""

from typing import Any

import jax
import numpy as np

from experiments import cli
from experiments.compressed_text import texts
from jaxtok.entropy import quantize, shipped, stream, table

_NUM_BYTES = 20_000


def _cdfs(model: Any, symbols_t: np.ndarray) -> np.ndarray:
  """The CDF before each symbol, [t, 258]."""

  @jax.jit
  def run(symbols_t):
    def body(state, symbol):
      cdf_bv = model.next_cdf(state)
      return model.step(state, symbol[None]), cdf_bv[0]

    return jax.lax.scan(body, model.init_state(1), symbols_t)[1]

  return np.asarray(run(symbols_t))


def compare(model: Any, text: bytes) -> tuple[int, int, float]:
  """Bits of our code and of constriction's, and the entropy.

  Args:
    model: Of level TABLE or INTEGER.
    text: What is coded.

  Raises:
    ImportError: If constriction is not installed.
  """
  import constriction

  symbols = np.frombuffer(text, np.uint8).astype(np.int32)
  pmf_tv = np.diff(_cdfs(model, symbols).astype(np.float64))
  pmf_tv /= quantize.TOTAL
  encoder = constriction.stream.queue.RangeEncoder()
  for symbol, pmf_v in zip(symbols, pmf_tv, strict=True):
    # Off by less than 257 of its 2**24 shares; exact ones take a second each.
    its = constriction.stream.model.Categorical(pmf_v, perfect=False)
    encoder.encode(np.array([symbol], np.int32), its)
  ours = stream.encode_stream(symbols[None], [len(symbols)], model)
  entropy = -np.log2(pmf_tv[np.arange(len(symbols)), symbols]).sum()
  return 16 * int(ours.num_digits_b[0]), encoder.num_bits(), float(entropy)


@cli.one_line_errors()
def main() -> None:
  """Prints the lengths."""
  cli.no_arguments(__doc__)
  text = texts.novel()[:_NUM_BYTES]
  models = {'M1': shipped.model(), 'order-1 table': table.fit([text], order=1)}
  for name, model in models.items():
    ours, theirs, entropy = compare(model, text)
    print(
      f'{name}, {len(text)} bytes: {ours} bits, constriction {theirs} bits '
      f'({100 * (ours / theirs - 1):+.4f} %), entropy {entropy:.1f} bits',
      flush=True,
    )


if __name__ == '__main__':
  main()
