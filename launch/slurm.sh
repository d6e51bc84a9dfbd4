#!/usr/bin/env bash
# Trains on a Slurm cluster, on one node or several; goes on by itself after preemption or time limit.
#
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8 --time=24:00:00 \
#       launch/slurm.sh --gin_file=recipes/tiny.gin --model_dir=runs/tiny
#
# Needs: pip install -e '.[train]' and pip install -U 'jax[cuda13]' in an environment that all nodes
# see and that is active where sbatch is called, and data and --model_dir on a shared file system.
# Options of sbatch come before the script's name; every argument behind it goes to
# `python -m music_diffusion.train`, in --ntasks processes: one for each GPU as above, or
# one for each node (--ntasks-per-node=1) that has all GPUs of the node.
# Three minutes before the time limit, and at preemption, Slurm sends SIGTERM: the trainer saves and
# ends with 143, and the job is put into the queue again. Any other exit code ends the job.

#SBATCH --job-name=music_diffusion
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# Slurm runs a copy of this file, so it stands alone.
set -euo pipefail

die() {
  echo "slurm.sh: $*" >&2
  exit 2
}

case ${1:-} in
  -h | --help) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; exit ;;
  --) shift ;;
esac
(($#)) || die "nothing to train: give --gin_file=RECIPE and --model_dir=DIR"
[[ -n ${SLURM_JOB_ID:-} ]] || die "not a Slurm job: start it with sbatch, see --help"
command -v srun >/dev/null || die "srun is not there; this runs on the nodes of a Slurm cluster"
python=${PYTHON:-python}
command -v "$python" >/dev/null || die "$python is not there; activate the environment before sbatch, or set PYTHON"

# JAX gives process i of a node the GPU i. That is wrong where a process has several, and where
# Slurm shows each process only its own, which is then number 0.
gpus=
nodes=${SLURM_JOB_NUM_NODES:-1}
tasks=${SLURM_NTASKS:-$((nodes * ${SLURM_NTASKS_PER_NODE:-1}))}
if [[ -n ${SLURM_GPUS_PER_TASK:-} ]]; then
  gpus=${SLURM_GPUS_PER_TASK##*:} # as in a100:2
elif ((tasks == nodes)); then
  gpus=${SLURM_GPUS_ON_NODE:-}
fi
if [[ -n $gpus && -z ${JAX_LOCAL_DEVICE_IDS:-} ]]; then
  JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi
# srun does not take it from sbatch.
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

trap : TERM # the processes get it too; wait for them
code=0
srun --kill-on-bad-exit=1 "$python" -m music_diffusion.train "$@" --distributed || code=$?

# A job that is being preempted Slurm queues by itself, and one that was cancelled shall not return:
# neither is in the state RUNNING.
if ((code == 143)) && [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
  echo "slurm.sh: stopped by SIGTERM; job $SLURM_JOB_ID goes back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
