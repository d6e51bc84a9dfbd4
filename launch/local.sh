#!/usr/bin/env bash
# Trains on this machine in one process: on its CPU, on its GPU, or on all of its GPUs.
#
#   launch/local.sh --gin_file=recipes/tiny.gin --model_dir=runs/tiny
#
# Needs: pip install -e '.[train]'; for NVIDIA GPUs also pip install -U 'jax[cuda13]'.
# Every argument goes to `python -m music_diffusion.train`, whose own help is shown by
# `launch/local.sh -- --help`. PYTHON is the Python to use; JAX_PLATFORMS=cpu leaves GPUs alone.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  -h | --help) usage; exit ;;
  --) shift ;;
esac
(($#)) || die "nothing to train: give --gin_file=RECIPE and --model_dir=DIR"

check_devices
exec "$python" -m music_diffusion.train "$@"
