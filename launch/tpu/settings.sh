# Sourced by the scripts beside it: which TPU, by environment variables; --dry_run prints commands in place of running them.
# TPU_ZONE: where; TPU_NAME: of the machine and of its queued resource, default robustjax. TPU_PROJECT: default gcloud's own.
# TPU_TYPE and TPU_RUNTIME: default v6e-8, and what https://cloud.google.com/tpu/docs/runtimes lists for it. TPU_SPOT=1: may be taken away.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dry_run=no
arguments=()
for argument; do
    if [ "$argument" = --dry_run ]; then dry_run=yes; else arguments+=("$argument"); fi
done
name=${TPU_NAME:-robustjax}
place=("--zone=${TPU_ZONE:?error: set it to the zone of the TPU}" ${TPU_PROJECT:+"--project=$TPU_PROJECT"})

# Runs a command, or prints it as a line for the shell.
run() {
    if [ "$dry_run" = yes ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

# Runs a line of shell on all machines of the slice.
on_all_workers() {
    run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all "--command=$1"
}
