#!/usr/bin/env bash
# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
#
# One TPU VM or slice, from creation to deletion. Needs gcloud, logged in.
#
#   launch/tpu_vm.sh create  --name=NAME --zone=ZONE --type=v5litepod-16 [--spot]
#   launch/tpu_vm.sh install --name=NAME --zone=ZONE
#   launch/tpu_vm.sh run     --name=NAME --zone=ZONE -- python -m \
#       experiments.byte_lm --config=... --workdir=gs://BUCKET/runs/a
#   launch/tpu_vm.sh logs    --name=NAME --zone=ZONE
#   launch/tpu_vm.sh delete  --name=NAME --zone=ZONE
#
# `--print_only` prints every command instead of running it. `run` starts the
# command on all workers, detached; `logs` follows worker 0. A run of several
# workers needs a --workdir that all of them see (gs://...). Exit code 75 of
# the command means "preempted, start again": `run` does so by itself.
set -euo pipefail

usage() { sed -n '5,18s/^# \{0,1\}//p' "$0"; }

die() {
  echo "error: $*" >&2
  exit 2
}

action=${1:-}
case "$action" in
  create | install | run | logs | delete) shift ;;
  -h | --help) usage; exit 0 ;;
  '') usage >&2; exit 2 ;;
  *) die "action '$action' does not exist. Use create, install, run, logs or delete." ;;
esac

name='' zone='' type='' project='' version='' spot='' print_only=''
command=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --spot) spot=1 ;;
    --print_only) print_only=1 ;;
    --) shift; command=("$@"); break ;;
    *) die "flag '$1' does not exist. See launch/tpu_vm.sh --help." ;;
  esac
  shift
done
[ -n "$name" ] || die '--name is missing: what is the TPU VM called?'
[ -n "$zone" ] || die '--zone is missing, e.g. --zone=us-west4-a.'
[ -n "$print_only" ] || command -v gcloud >/dev/null ||
  die 'gcloud is not installed. Install the Google Cloud CLI, or use --print_only.'

do_it() {
  if [ -n "$print_only" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
tpu() {
  local verb=$1
  shift
  do_it gcloud compute tpus tpu-vm "$verb" "$name" --zone="$zone" \
    ${project:+--project="$project"} "$@"
}
on_workers() { tpu ssh --worker="$1" --command="$2"; }

# The runtime image that fits a chip, from its accelerator type.
default_version() {
  case "$type" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

case "$action" in
  create)
    [ -n "$type" ] || die '--type is missing, e.g. --type=v5litepod-16.'
    tpu create --accelerator-type="$type" \
      --version="${version:-$(default_version)}" ${spot:+--spot}
    ;;
  install)
    root=$(cd "$(dirname "$0")/.." && pwd)
    archive=$(mktemp -u -t jaxtok.XXXXXX).tar.gz
    do_it git -C "$root" archive --format=tar.gz --output="$archive" HEAD
    do_it gcloud compute tpus tpu-vm scp "$archive" "$name:jaxtok.tar.gz" \
      --zone="$zone" ${project:+--project="$project"} --worker=all
    on_workers all 'mkdir -p jaxtok && tar -xzf jaxtok.tar.gz -C jaxtok &&
      cd jaxtok && python3 -m venv .venv &&
      .venv/bin/pip install -q -e ".[tpu,plots,tfds]" &&
      .venv/bin/python -c "import jax; print(jax.local_devices())"'
    do_it rm -f "$archive"
    ;;
  run)
    [ ${#command[@]} -gt 0 ] ||
      die 'no command: put it after --, e.g. -- python -m experiments.byte_lm ...'
    line=$(printf '%q ' "${command[@]}")
    loop="while true; do $line; code=\$?; [ \$code -eq 75 ] || exit \$code; done"
    on_workers all "cd jaxtok && export PATH=\$PWD/.venv/bin:\$PATH &&
      nohup bash -c $(printf '%q' "$loop") > ../run.log 2>&1 < /dev/null &"
    ;;
  logs) on_workers 0 'tail -n 100 -F run.log' ;;
  delete) tpu delete --quiet ;;
esac
