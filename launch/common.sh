# Sourced by the other scripts: errors, help, and what JAX sees. Needs bash and awk.
# shellcheck shell=bash

python=${PYTHON:-python}

die() { # MESSAGE...: one line and exit code 2
  echo "${0##*/}: $*" >&2
  exit 2
}

# The comment at the top of the calling script.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

need() { # COMMAND ADVICE: that the command is there
  command -v "$1" >/dev/null || die "$1 is not there; $2"
}

need_python() { need "$python" "activate the environment of the project, or set PYTHON"; }

# How many devices JAX sees, their platform and kind: "1 gpu NVIDIA H100".
jax_devices() {
  "$python" -c '
import importlib.util, sys
for name in ("jax", "music_diffusion"):
    if importlib.util.find_spec(name) is None:
        sys.exit(f"{sys.executable} has no {name}")
import jax
devices = jax.local_devices()
print(len(devices), devices[0].platform, devices[0].device_kind)'
}

# Says what JAX sees; stops where the machine has a GPU that JAX does not see.
check_devices() {
  need_python
  local found
  found=$(jax_devices) || die "$python cannot use JAX (see above): pip install -e '.[train]'"
  if [[ $found == *" cpu "* && -z ${JAX_PLATFORMS:-} ]] && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    die "there is a GPU, and JAX does not see it: pip install -U 'jax[cuda13]'," \
      "or set JAX_PLATFORMS=cpu to train on the CPU"
  fi
  echo "JAX sees: $found" >&2
}
