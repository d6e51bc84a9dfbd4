#!/usr/bin/env bash
# Trains on several NVIDIA GPUs of this machine: one process with all of them, or one for each.
#
#   launch/gpus.sh --gin_file=recipes/tiny.gin --gin.MeshConfig.fsdp=2 --model_dir=runs/tiny
#   launch/gpus.sh --gpus 0,1 --process_per_gpu -- --gin_file=recipes/tiny.gin --model_dir=runs/tiny
#
# Needs: pip install -e '.[train]', pip install -U 'jax[cuda13]' and the driver's nvidia-smi.
#   --gpus LIST         which of them; CUDA_VISIBLE_DEVICES, else all
#   --process_per_gpu   a process for each GPU: the batches, too, are then read by several processes
# What follows goes to `python -m music_diffusion.train`. How the GPUs share the work says the mesh:
# --gin.MeshConfig.data, .fsdp and .model (docs/training.md). SIGTERM and Ctrl-C reach every process.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/common.sh
source "$here/common.sh"

gpus=${CUDA_VISIBLE_DEVICES:-}
process_per_gpu=
while (($#)); do
  case $1 in
    -h | --help) usage; exit ;;
    --gpus) (($# > 1)) || die "--gpus wants a list such as 0,1"; gpus=$2; shift 2 ;;
    --gpus=*) gpus=${1#*=}; shift ;;
    --process_per_gpu) process_per_gpu=1; shift ;;
    --) shift; break ;;
    *) break ;;
  esac
done
(($#)) || die "nothing to train: give --gin_file=RECIPE and --model_dir=DIR"
need nvidia-smi "install the NVIDIA driver, or use launch/local.sh"
need_python
if [[ -z $gpus ]]; then
  gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd, -)
fi
[[ -n $gpus ]] || die "nvidia-smi lists no GPU; use launch/local.sh"

if [[ -z $process_per_gpu ]]; then
  CUDA_VISIBLE_DEVICES=$gpus exec "$here/local.sh" -- "$@"
fi

IFS=, read -ra list <<<"$gpus"
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
set -m # each process gets a group of its own, so that Ctrl-C reaches it once, through `forward`
pids=()
stopping=
forward() {
  stopping=1
  for pid in "${pids[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}
trap 'forward TERM' TERM
trap 'forward INT' INT
for i in "${!list[@]}"; do
  CUDA_VISIBLE_DEVICES=${list[i]} "$python" -m music_diffusion.train "$@" \
    --coordinator "127.0.0.1:$port" --processes "${#list[@]}" --process "$i" &
  pids+=("$!")
done

# The exit code is that of the first process that fails; the others would wait for it for ever.
code=0
while ((${#pids[@]})); do
  sleep 0.2 &
  wait "$!" || true
  alive=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      alive+=("$pid")
      continue
    fi
    ended=0
    wait "$pid" || ended=$?
    ((code)) || code=$ended
  done
  pids=(${alive[@]+"${alive[@]}"})
  if ((code)) && [[ -z $stopping ]]; then forward TERM; fi
done
exit "$code"
