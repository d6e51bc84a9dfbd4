#!/usr/bin/env bash
# Runs one of t5x's programs with a recipe of this project: train, eval or infer.
#
#   launch/t5x.sh train --gin_file=recipes/tiny.gin --gin.MODEL_DIR="'runs/tiny'"
#   launch/t5x.sh infer --gin_file=recipes/tiny.gin --gin.MODEL_DIR="'runs/tiny'" \
#       --gin.OUTPUT_DIR="'out/infer'"
#
# Needs: t5x (docs/t5x.md), and jax[cuda13] or jax[tpu] for a GPU or TPU.
# It says where the project's gin files lie and puts runs/t5x_train.gin (eval, infer) before the
# recipe; every argument goes to `python -m t5x.train`. Of several processes each is given
# --distributed, as with the built-in trainer; t5x's eval and infer run in one.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  -h | --help) usage; exit ;;
  train | eval | infer) ;;
  *) die "which program? train, eval or infer: see --help" ;;
esac
program=$1
shift
[[ ${1:-} != -- ]] || shift
(($#)) || die "nothing to $program: give --gin_file=RECIPE and --gin.MODEL_DIR=\"'DIR'\""

arguments=()
for argument in "$@"; do
  if [[ $argument == --distributed ]]; then
    [[ $program == train ]] || die "t5x's $program runs in one process, without --distributed"
    argument=--multiprocess_gpu # on TPUs, too: it makes t5x call jax.distributed.initialize
  fi
  arguments+=("$argument")
done

need_python
gin=$("$python" -c '
import importlib.util, sys
for name in ("music_diffusion", "t5x"):
    if importlib.util.find_spec(name) is None:
        sys.exit(f"{sys.executable} has no {name}")
from music_diffusion.gin_setup import gin_root
print(gin_root())') || die "$python cannot use t5x (see above); docs/t5x.md tells how it is installed"
exec "$python" -m "t5x.$program" --gin_search_paths="$gin" --gin_file="runs/t5x_$program.gin" \
  "${arguments[@]}"
