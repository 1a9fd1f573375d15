#!/usr/bin/env bash
# Trains on all machines of the slice; the first one writes the workdir, to its own disk. Run again, it goes on from the last checkpoint.
#   TPU_ZONE=us-east5-b launch/tpu/train.sh --config=configs/spider/cifar10.py --workdir=runs/spider [--dry_run]
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
if [ ${#arguments[@]} = 0 ]; then
    echo "error: give the options of launch/train.py, at least --config=FILE.py and --workdir=FOLDER." >&2
    exit 2
fi
on_all_workers "bash robustjax/launch/tpu/worker.sh train$(printf ' %q' "${arguments[@]}")"
