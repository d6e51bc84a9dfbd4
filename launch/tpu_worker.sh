#!/usr/bin/env bash
# What tpu.sh lets every worker of a TPU do; it lies there, with the checkout, in music_diffusion/.
#
#   launch/tpu_worker.sh install | mount BUCKET | start train ARGS... | start t5x ARGS... | status | stop
#
# Needs: a TPU VM. The log is training.log; the exit code ends up in training.code.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$HOME/.local/bin:$PATH

# By its command, too: after a restart of the machine its number may be another's.
alive() { # FILE with the number of a process
  [[ -f $1 ]] && grep -qs -e music_diffusion -e t5x "/proc/$(<"$1")/cmdline"
}

# Until the code is written down, by the shell that waits for the end.
running() {
  [[ ! -s training.code ]] && { alive training.pid || alive training.shell; }
}

install() {
  # The system's Python is too old; uv fetches another.
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv
  [[ -x .venv/bin/python ]] || uv venv --quiet --seed --python 3.12 .venv
  uv pip install --quiet --python .venv/bin/python -e '.[train,data]' 'jax[tpu]'
}

mount_bucket() { # BUCKET: at bucket/, without caches, so that all workers see the same
  local version=3.7.1 deb=gcsfuse.deb
  mountpoint -q bucket && return
  if ! command -v gcsfuse >/dev/null; then
    curl -fsSL -o "$deb" \
      "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$version/gcsfuse_${version}_amd64.deb"
    sudo apt-get install -qq -y "./$deb"
  fi
  mkdir -p bucket
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$1" bucket
}

start() { # train ARGS... or t5x ARGS...
  local what=$1 run
  shift
  running && die "training is running already; launch/tpu.sh stop ends it"
  case $what in
    train) run=(.venv/bin/python -m music_diffusion.train "$@" --distributed) ;;
    t5x)
      run=(env PYTHON=.venv/bin/python launch/t5x.sh "$@")
      if [[ ${1:-} == train ]]; then run+=(--distributed); fi
      ;;
    *) die "start $what: train or t5x" ;;
  esac
  rm -f training.pid training.code training.shell
  # Lives on when the connection ends.
  # shellcheck disable=SC2016
  setsid nohup bash -c '
    echo "$$" >training.shell
    "$@" & echo "$!" >training.pid
    code=0; wait "$!" || code=$?
    echo "$code" >training.code' bash "${run[@]}" </dev/null >>training.log 2>&1 &
  until [[ -s training.pid ]]; do sleep 0.1; done
}

case ${1:-} in
  install) install ;;
  mount) mount_bucket "${2:?the name of a bucket}" ;;
  start) (($# > 1)) || die "start what? train or t5x"; shift; start "$@" ;;
  status)
    if running; then
      echo running
    elif [[ -s training.code ]]; then
      echo "ended with $(<training.code)"
    elif [[ -f training.pid ]]; then
      echo interrupted
    else
      echo new
    fi
    ;;
  stop)
    running && alive training.pid || die "nothing is running"
    kill -TERM "$(<training.pid)"
    ;;
  *) usage ;;
esac
