#!/usr/bin/env bash
# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Checks and times all kernels on the GPU or TPU of this machine, in one go.
# Needs a Python with jax for the device, on Hopper GPUs also absl-py.
#
#   launch/check_kernels.sh [OUT] [PYTHON]
#
# Writes OUT/check_<device>.json and OUT/bench_<device>.json (default OUT:
# kernels_out). To publish: copy them to docs/kernels and run
# `python -m jaxtok_kernels.docs`. Times are written even where a check failed.
set -euo pipefail
out=$(mkdir -p "${1:-kernels_out}" && cd "${1:-kernels_out}" && pwd)
python=${2:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
ln -s "$root/kernels" "$site/jaxtok_kernels"
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"

device=$("$python" -c 'from jaxtok_kernels import bench
print(bench.device_name().replace(" ", "_"))')
echo "device: $device"
status=0
case "$device" in
  h*) jobs=$(( $(nproc) > 2 ? $(nproc) / 2 : 1 )) ;;
  *) jobs=1 ;;  # A TPU belongs to one process.
esac
"$python" -m jaxtok_kernels.check --jobs="$jobs" \
  --out="$out/check_$device.json" || status=1
"$python" -m jaxtok_kernels.bench --threads="$jobs" \
  --out="$out/bench_$device.json" || status=1
exit $status
