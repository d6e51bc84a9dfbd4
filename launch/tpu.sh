#!/usr/bin/env bash
# Trains on a Cloud TPU, from a single host to a pod: creates it, installs, starts, follows, fetches.
#
#   launch/tpu.sh create my-tpu --zone=us-central1-a --accelerator-type=v5litepod-16
#   launch/tpu.sh install my-tpu --zone=us-central1-a --bucket my-bucket
#   launch/tpu.sh train my-tpu --zone=us-central1-a -- --gin_file=recipes/tiny.gin \
#       --model_dir=bucket/runs/tiny
#   launch/tpu.sh log my-tpu --zone=us-central1-a
#   launch/tpu.sh delete my-tpu --zone=us-central1-a
#
# Needs: gcloud, logged in, with the Cloud TPU API enabled; this checkout. Commands:
#   create   make the TPU at once; fails where there is none to be had
#   queue    ask for it in the queue (a queued resource of the same name); add --spot for spot TPUs
#   state    of the queued resource, or of the TPU where there is none
#   install  copy this checkout to every worker, install it, and mount --bucket BUCKET at bucket/
#   train    start `python -m music_diffusion.train ... --distributed` on every worker, in the background
#   t5x      start `launch/t5x.sh ...` instead: -- train --gin_file=...
#   run      any command in the checkout of every worker: -- COMMAND ARGS
#   status   running, ended with CODE, interrupted or new, of every worker
#   log      follow the log of the first worker; Ctrl-C stops following, not training
#   stop     SIGTERM: save, and end with 143
#   fetch    copy from the first worker: -- FROM TO
#   keep     do it all until training ends: queue, install, train; and again after each preemption
#   delete   the TPU, and its request in the queue
# Between NAME and -- stand options of gcloud (--zone, --project, --accelerator-type, --spot, ...).
# Relative paths are below the checkout on the workers, so bucket/... is in the bucket, which has to
# be made with --enable-hierarchical-namespace: else a checkpoint is not renamed in one piece.
# Of more than one worker all write parts of each checkpoint: --model_dir must be in the bucket.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/common.sh
source "$here/common.sh"

case ${1:-} in
  -h | --help) usage; exit ;;
  create | queue | state | install | train | t5x | run | status | log | stop | fetch | keep | delete) ;;
  "") die "which command? create, queue, install, train, keep ...: see --help" ;;
  *) die "there is no command $1; see --help" ;;
esac
command=$1
name=${2:-}
[[ -n $name && $name != -* ]] || die "$command wants the name of the TPU: launch/tpu.sh $command NAME"
shift 2

where=()  # which TPU: for every call of gcloud
making=() # what TPU: for calls that make one
bucket=
accelerator=
version=
while (($#)); do
  case $1 in
    --) shift; break ;;
    --bucket) (($# > 1)) || die "--bucket wants a name"; bucket=$2; shift 2 ;;
    --bucket=*) bucket=${1#*=}; shift ;;
    --accelerator-type=*) accelerator=${1#*=}; shift ;;
    --version=* | --runtime-version=*) version=${1#*=}; shift ;;
    --zone=* | --project=*) where+=("$1"); shift ;;
    --*=* | --spot) making+=("$1"); shift ;;
    *) die "$1: write options as --option=value, and what goes to the trainer after --" ;;
  esac
done
bucket=${bucket#gs://}
case $command in
  train | t5x | keep) (($#)) || die "nothing to train: give -- --gin_file=RECIPE --model_dir=DIR" ;;
esac
need gcloud "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tpus() { gcloud compute tpus "$@" ${where[@]+"${where[@]}"}; }

# On WORKER (a number, or all), in the folder of the checkout.
on() {
  local worker=$1 line
  shift
  printf -v line '%q ' "$@"
  tpus tpu-vm ssh "$name" --worker="$worker" --command="cd music_diffusion && $line"
}

# What gcloud needs to make the TPU.
wanted() {
  [[ -n $accelerator ]] || die "which TPU? --accelerator-type=v4-8, v5litepod-8, v5p-8, v6e-8 ..."
  if [[ -z $version ]]; then
    case $accelerator in
      v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
      v5litepod-*) version=v2-alpha-tpuv5-lite ;;
      v5p-*) version=v2-alpha-tpuv5 ;;
      v6e-*) version=v2-alpha-tpuv6e ;;
      *) die "which software goes with $accelerator? --version=... (https://cloud.google.com/tpu/docs/runtimes)" ;;
    esac
  fi
  making+=("--accelerator-type=$accelerator" "--$1=$version")
}

queue() { tpus queued-resources create "$name" --node-id="$name" "${making[@]}"; }

# Of the queued resource; NONE where there is none.
state() {
  local answer
  if answer=$(tpus queued-resources describe "$name" --format='value(state.state)' 2>&1); then
    echo "${answer##*$'\n'}"
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo NONE
  else
    echo "$answer" >&2
    return 1
  fi
}

# What git knows and what is new, without what git ignores, as music_diffusion.tgz.
pack() {
  git -C "$here/.." ls-files --cached --others --exclude-standard -z >"$scratch/files" &&
    tar -C "$here/.." -czf "$scratch/music_diffusion.tgz" --null --files-from="$scratch/files"
}

install() {
  pack &&
    tpus tpu-vm scp "$scratch/music_diffusion.tgz" "$name:" --worker=all &&
    tpus tpu-vm ssh "$name" --worker=all \
      --command="mkdir -p music_diffusion && tar -xzf music_diffusion.tgz -C music_diffusion" &&
    on all launch/tpu_worker.sh install || return
  if [[ -n $bucket ]]; then on all launch/tpu_worker.sh mount "$bucket"; fi
}

# Of training, on the first worker; "new" before there is a checkout, "unknown" without an answer.
progress() {
  local answer
  answer=$(tpus tpu-vm ssh "$name" --worker=0 \
    --command="cd music_diffusion && launch/tpu_worker.sh status || echo new" 2>/dev/null) || answer=unknown
  echo "${answer##*$'\n'}"
}

# Looks every TPU_POLL seconds (60) at what there is, and does what comes next.
keep() {
  wanted runtime-version
  local there ended crashes=0
  while true; do
    there=$(state) || there=unknown
    case $there in
      NONE) queue ;;
      SUSPENDED) tpus queued-resources delete "$name" --force --quiet ;;
      FAILED) die "the request failed; gcloud compute tpus queued-resources describe $name tells why" ;;
      ACTIVE)
        ended=$(progress)
        case $ended in
          running | unknown) ;;
          "ended with 0" | "ended with 2") finish "${ended##* }" ;;
          "ended with 143" | interrupted | new) if install; then begin "$@"; fi ;;
          # One worker's preemption may bring the others down with any code.
          *) if ((++crashes > 3)); then finish "${ended##* }"; else begin "$@"; fi ;;
        esac
        ;;
    esac
    sleep "${TPU_POLL:-60}"
  done
}

begin() {
  on all launch/tpu_worker.sh start train "$@" || echo "tpu.sh: not every worker could start yet" >&2
}

finish() { # CODE
  echo "tpu.sh: training ended with $1; $name is still there, and costs: launch/tpu.sh delete $name" >&2
  exit "$1"
}

case $command in
  create) wanted version; tpus tpu-vm create "$name" "${making[@]}" ;;
  queue) wanted runtime-version; queue ;;
  state)
    there=$(state)
    if [[ $there == NONE ]]; then there=$(tpus tpu-vm describe "$name" --format='value(state)'); fi
    echo "$there"
    ;;
  install) install ;;
  train) on all launch/tpu_worker.sh start train "$@" ;;
  t5x) on all launch/tpu_worker.sh start t5x "$@" ;;
  run) (($#)) || die "run what? -- COMMAND ARGS"; on all "$@" ;;
  status) on all launch/tpu_worker.sh status ;;
  log) on 0 tail -n 100 -F training.log ;;
  stop) on all launch/tpu_worker.sh stop ;;
  fetch)
    (($# == 2)) || die "fetch wants -- FROM TO, such as -- runs/tiny runs/"
    tpus tpu-vm scp --recurse "$name:music_diffusion/$1" "$2" --worker=0
    ;;
  keep) keep "$@" ;;
  delete)
    there=$(state)
    if [[ $there == NONE ]]; then
      tpus tpu-vm delete "$name" --quiet
    else
      tpus queued-resources delete "$name" --force --quiet
    fi
    ;;
esac
