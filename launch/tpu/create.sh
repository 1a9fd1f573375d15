#!/usr/bin/env bash
# Asks for a TPU as a queued resource and waits until it is there; settings.sh has the variables.
#   TPU_ZONE=us-east5-b TPU_TYPE=v6e-8 launch/tpu/create.sh [--dry_run]
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
run gcloud compute tpus queued-resources create "$name" "${place[@]}" "--node-id=$name" "--accelerator-type=${TPU_TYPE:-v6e-8}" \
    "--runtime-version=${TPU_RUNTIME:-v2-alpha-tpuv6e}" ${TPU_SPOT:+--spot}
if [ "$dry_run" = yes ]; then
    exit
fi
while state=$(gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format='value(state.state)'); do
    case $state in
    ACTIVE) exit ;;
    FAILED | SUSPENDED)
        echo "error: the queued resource $name is $state; launch/tpu/delete.sh, then ask again." >&2
        exit 2
        ;;
    esac
    echo "$name: $state" >&2
    sleep 30
done
exit 2
