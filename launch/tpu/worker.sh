#!/usr/bin/env bash
# What install.sh and train.sh run on each machine of a slice: worker.sh install, or worker.sh train OPTIONS_OF_TRAIN.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
case ${1:-} in
install)
    # The machines' own Python is 3.10.
    python3 -m pip install --quiet --user uv
    [ -x .venv/bin/python ] || python3 -m uv venv --quiet --seed --python=3.12 .venv
    export ROBUSTJAX_PYTHON=.venv/bin/python
    set -- tpu
    source launch/setup_environment.sh
    ;;
train)
    shift
    # An earlier run goes on when its ssh is cut off, and holds the chips: it gets the time to write a checkpoint.
    running=${TMPDIR:-/tmp}/robustjax.pid log=${TMPDIR:-/tmp}/robustjax.log
    if [ -e "$running" ] && kill -TERM "$(cat "$running")" 2>/dev/null; then
        timeout 180 tail --pid="$(cat "$running")" -f /dev/null || { echo "error: process $(cat "$running") does not end." >&2; exit 2; }
    fi
    export JAX_NUM_PROCESSES=${JAX_NUM_PROCESSES:-auto}
    # In a session of its own and with a file to write to, so that it outlives the ssh, which only reads along.
    : >"$log"
    setsid "${ROBUSTJAX_VENV:-.venv}/bin/python" launch/train.py "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$running"
    tail --pid=$! --lines=+1 -f "$log" || true
    wait $!
    ;;
*)
    echo "error: worker.sh install, or worker.sh train OPTIONS." >&2
    exit 2
    ;;
esac
