#!/usr/bin/env bash
# Builds the wheel and checks that it works outside the checkout.
set -euo pipefail
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$BIN/python" -m build --wheel --outdir "$out/dist" . >"$out/build.log" 2>&1 || {
  cat "$out/build.log"
  exit 1
}
"$BIN/python" -m pip install --quiet --disable-pip-version-check --no-deps \
  --target "$out/site" "$out"/dist/*.whl
cd "$out"
PYTHONPATH="$out/site" JAX_PLATFORMS=cpu "$BIN/python" - "$out/site" <<'PY'
import pathlib
import sys

import jaxtok
import jaxtok_kernels
from jaxtok import data, models, runs, tokenizers, train  # noqa: F401

site = pathlib.Path(sys.argv[1])
for package in (jaxtok, jaxtok_kernels):
  assert site in pathlib.Path(package.__file__).parents, package.__file__
for name in ('experiments', 'tests', 'launch', 'colabs', 'kernels'):
  assert not (site / name).exists(), f'{name}/ must not be in the wheel'
from jaxtok.tokenizers import neural

tokenizer = neural.NeuralCompressionTokenizer()  # Reads the model's files.
assert tokenizer.decode(tokenizer.encode(b'the wheel')) == b'the wheel'
print(f'wheel of jaxtok {jaxtok.__version__} imports outside the checkout')
PY
