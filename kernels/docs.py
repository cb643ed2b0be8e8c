# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/kernels.md from the code and from what was measured.

  python -m jaxtok_kernels.docs [--folder=docs]

Reads `aot_<chip>.json` (written by `aot --write`), `bench_<device>.json` (by
`bench --out`) and `check_<device>.json` (by `check --out`) in `docs/kernels`. A
test fails if the page is stale.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

# Kernel, implementation, how tests verify it (levels below).
VERIFIED = (
  ('flash_attention', 'xla', 'V0 gradients stress'),
  ('flash_attention', 'tpu', 'V1 V2 V3 gradients'),
  ('flash_attention', 'triton', 'V1 V6 gradients'),
  ('flash_attention', 'mosaic_gpu', 'V7 V8'),
  ('shared_prefix_attention', 'xla', 'V0 gradients'),
  ('shared_prefix_attention', 'tpu', 'V1 V3'),
  ('shared_prefix_attention', 'triton', 'V1 V6'),
  ('shared_prefix_attention', 'mosaic_gpu', 'V7, nightly V8'),
  ('tree_attention', 'xla', 'V0'),
  ('tree_attention', 'tpu', 'V1 V3'),
  ('tree_attention', 'triton', 'V1 V6'),
  ('paged_tree_attention', 'xla', 'V0'),
  ('paged_tree_attention', 'tpu', 'V1 V3'),
  ('paged_tree_attention', 'triton', 'V1 V6'),
  ('gather_decode', 'xla', 'V0 gradients'),
  ('gather_decode', 'tpu', 'V1 V2 V3'),
  ('gather_decode', 'triton', 'V1 V6'),
  ('block_decode', 'xla', 'V0'),
  ('block_decode', 'tpu', 'V1 V3'),
  ('block_decode', 'triton', 'V1 V6'),
  ('paged_decode', 'xla', 'V0'),
  ('paged_decode', 'tpu', 'V1 V3'),
  ('paged_decode', 'triton', 'V1 V6'),
  ('column_sums', 'xla', 'V0'),
  ('column_sums', 'tpu', 'V1 V3'),
  ('column_sums', 'triton', 'V1 V6'),
  ('decode_scores', 'xla', 'V0'),
  ('decode_scores', 'tpu', 'V1 V3'),
  ('decode_scores', 'triton', 'V1 V6'),
  ('soft_vote', 'xla', 'V0'),
  ('soft_vote', 'tpu', 'V1 V3'),
  ('soft_vote', 'triton', 'V1 V6'),
  ('topk_threshold', 'xla', 'V0'),
  ('topk_threshold', 'tpu', 'V1 V3'),
  ('topk_threshold', 'triton', 'V1 V6'),
  ('linear_attention', 'xla', 'V0 gradients'),
  ('linear_attention', 'tpu', 'V1 V3 gradients'),
  ('linear_attention', 'triton', 'V1 V6 gradients'),
  ('ring_attention', 'xla', 'V0 gradients, 4 devices'),
  ('ring_attention', 'tpu', 'V1, 2 devices'),
  ('ring_attention', 'triton', 'V1, 2 devices'),
  ('write_kv', 'xla', 'V0, no copy'),
  ('write_kv', 'tpu', 'V1 V2 V3'),
  ('write_kv', 'triton', 'V1 V6'),
  ('write_rows', 'xla', 'V0'),
  ('write_rows', 'tpu', 'V1'),
  ('write_rows', 'triton', 'V1'),
  ('ring_write', 'xla', 'V0'),
  ('ring_write', 'tpu', 'as write_kv'),
  ('ring_write', 'triton', 'as write_kv'),
  ('compact_kv', 'xla', 'V0'),
  ('compact_kv', 'tpu', 'V1 V2 V3'),
  ('compact_kv', 'triton', 'V1 V6'),
)

_HEAD = """# Kernels

<!-- Written by `python -m jaxtok_kernels.docs`; do not edit. -->

`jaxtok_kernels` needs jax and numpy only; for 'mosaic_gpu' jax itself needs
absl-py. Each kernel has one public function with `implementation=`: 'reference'
(dense, the meaning; in a ring every device gathers all keys), 'xla' (runs
everywhere, the default on CPU), 'tpu' and 'triton' (Pallas), 'mosaic_gpu'
(Pallas, Hopper). 'auto' takes the best one that can serve the call, never
'reference'; `last_dispatch()` tells which and why. A named one that cannot
serve raises `NotImplementedError` with the argument that it cannot take.

How a row was verified, all on CPUs in the default tests unless said otherwise:

| level | meaning |
|---|---|
| V0 | against float64 NumPy or the dense reference |
| V1 | the Pallas kernel interpreted, against the reference |
| V2 | simulated TPU memories: no race, no missing wait, nothing uninitialised |
| V3 | lowers for TPU |
| V6, V7 | lowers for NVIDIA GPUs (Triton, Mosaic GPU) |
| V8 | simulated Hopper memories and barriers, no race |
| AOT | compiled by the device's own compiler without the device |
| ran | timed on the device, see the numbers below |
| checked | values and gradients there equal the reference's, reruns too |

Interpretation proves arithmetic, compilation proves that a program exists;
neither is a speed. On a machine with a GPU or TPU, `launch/check_kernels.sh`
compares every kernel with its reference there and times it. The commands, each
with `--help`:

```
python -m jaxtok_kernels.check   # values and gradients on this device
python -m jaxtok_kernels.bench   # times, on CPU too
python -m jaxtok_kernels.tune    # tiles for this device
python -m jaxtok_kernels.aot     # compiles for devices that are not there
```

'auto' takes Mosaic GPU on Hopper alone, Triton on other NVIDIA GPUs. To export
or compile for a device that is not there, trace inside
`jaxtok_kernels.lowering_platforms('tpu')`: without it a CPU's program is
traced.

Bundles are VLIW instructions of the whole kernel; MXU fill is the share of the
matrix unit's slots that is used between its first and its last instruction.
Both are static: without stalls and copies. The public splash kernel reads 2037
bundles at fill 0.89 on v5e for tiles of 512 x 512 at width 128 (other
compiler). CI compiles a subset and fails if bundles or spills grow by 5 %.

## What limits them on an H200

Three sessions on three cards, jax 0.11.2, device copies at 3.3 to 3.5 TB/s and
a matrix product at 793 to 840 TFLOP/s by the same benchmark. Times of kernels
under 0.15 ms differed by up to a half between sessions; those above by 5 %.

- Flash attention forward, causal `[2,8192,16,128]`: Mosaic 594, 606 and (while
  tuning) 646 TFLOP/s, 1.03 times cuDNN in the same run; Triton 384 to 396.
  Goals 580, 0.9 and 360. What is left to the matrix unit's 800 is the softmax,
  which two warpgroups hide in turn, and the diagonal. Sinks with a window are
  slow in Mosaic (1.09 ms against Triton's 0.44): its tile ranges are one
  interval, so it computes what lies between the sinks and the window.
- Backward: Triton 351 TFLOP/s with the forward pass, 0.67 times cuDNN; 7
  matmuls where one fused kernel needs 5. At width 256 tiles of 32 x 32 hold it
  back.
- Shared prefixes: 256 sequences 0.252 ms, 15.2 times cuDNN on unshared caches
  (goal 16); 1024 sequences 21.3 times. Of 0.252 ms the matmuls over the prefix
  need 0.11 at full speed, the suffixes' 134 MB 0.03; the rest is clearing
  values past the prefix's end, gathering queries, merging parts.
- Decoding: pages reach 3.96 to 4.31 TB/s of 4.8, blocks 3.86 (goal 80 % of
  practical), at 1/8 of 64k keys 7.2 times as fast as all of them (goal 5.6).
  Token lists took 0.06 and 0.12 ms in two sessions, 2.2 and 1.1 TB/s (goal 55
  to 70 % of 4.3): five short kernels around 31 microseconds of reading.
- Top-k: 0.10 to 0.14 ms, 1.5 to 2.0 times `jax.lax.top_k` (goal 2).
- Linear attention of 32k tokens: 3.4 to 3.8 ms, 2.6 to 3.0 times flash
  attention (goal 4): the features of each chunk are computed once per block of
  32 values, three times; the column of ones costs a block of its own.
"""


_NONE = {'rows': []}


def load(folder: pathlib.Path, prefix: str) -> dict[str, dict[str, Any]]:
  """Results by chip or device."""
  return {
    path.stem.removeprefix(prefix): json.loads(path.read_text())
    for path in sorted((folder / 'kernels').glob(f'{prefix}*.json'))
  }


def render(folder: pathlib.Path) -> str:
  """The page.

  Args:
    folder: The repository's `docs`.
  """
  aot, bench = load(folder, 'aot_'), load(folder, 'bench_')
  checks = load(folder, 'check_')
  parts = [
    _HEAD,
    '| kernel | implementation | verified | compiled for | ran on |\n'
    '|---|---|---|---|---|',
  ]
  for kernel, implementation, how in VERIFIED:
    mine = lambda x, k=kernel, i=implementation: [
      y for y in x['rows'] if (y['kernel'], y['implementation']) == (k, i)
    ]
    compiled = [chip for chip, x in aot.items() if _all_right(mine(x))]
    ran = [device for device, x in bench.items() if _all_right(mine(x))]
    ran = [
      f'{device} (checked)'
      if _checked(mine(checks.get(device, _NONE)))
      else device
      for device in ran
    ]
    cells = [
      f'`{kernel}`',
      implementation,
      how,
      ', '.join(compiled) or '-',
      ', '.join(ran) or '-',
    ]
    parts.append(f'| {" | ".join(cells)} |')
  for device, found in checks.items():
    count = lambda x, rows=found['rows']: sum(y['result'] == x for y in rows)
    parts += [
      '',
      f'`jaxtok_kernels.check` on {device} (jax {found["jax"]}): '
      f'{count("ok")} comparisons ok, {count("wrong")} wrong, '
      f'{count("refused")} refused with the reason.',
    ]
  for device, found in bench.items():
    parts += ['', *_bench_table(device, found)]
  for chip, found in aot.items():
    parts += ['', *_aot_table(chip, found)]
  return '\n'.join(parts) + '\n'


def _checked(rows: list[dict[str, Any]]) -> bool:
  results = {x['result'] for x in rows}
  return 'ok' in results and 'wrong' not in results


def _all_right(rows: list[dict[str, Any]]) -> bool:
  return bool(rows) and not any(
    'failed' in x or isinstance(x.get('error'), str) for x in rows
  )


def _bench_table(device: str, found: dict[str, Any]) -> list[str]:
  lines = [
    f'## Measured on {device} (jax {found["jax"]})',
    '',
    '`speed-up` is over `jax.nn.dot_product_attention` (cuDNN on GPUs).',
    '',
    '| kernel | case | implementation | ms | TFLOP/s | GB/s | roofline '
    '| temporary MiB | speed-up |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for row in found['rows']:
    rival = [v for k, v in row.items() if k.startswith('speedup_over_jax')]
    cells = [
      f'`{row["kernel"]}`',
      row['case'],
      row['implementation'],
      *(
        str(row.get(x, '-'))
        for x in ('ms', 'tflops', 'gbps', 'roofline', 'temp_mib')
      ),
      str(rival[0]) if rival else '-',
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return lines


def _aot_table(chip: str, found: dict[str, Any]) -> list[str]:
  lines = [
    f'## Compiled for {chip} without one (jax {found["jax"]})',
    '',
    '| kernel | case | implementation | bundles | MXU fill | spills '
    '| VMEM MiB | temporary MiB |',
    '|---|---|---|---|---|---|---|---|',
  ]
  for row in found['rows']:
    names = ('bundles', 'mxu_fill', 'spills', 'vmem_mib', 'temp_mib')
    cells = [
      f'`{row["kernel"]}`',
      row['case'],
      row['implementation'],
      *(str(row.get(x, '-')) for x in names),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return lines


def main(argv: list[str] | None = None) -> int:
  """Writes the page."""
  parser = argparse.ArgumentParser(prog='python -m jaxtok_kernels.docs')
  parser.add_argument('--folder', default='docs', type=pathlib.Path)
  folder = parser.parse_args(argv).folder
  (folder / 'kernels.md').write_text(render(folder))
  return 0


if __name__ == '__main__':
  sys.exit(main())
