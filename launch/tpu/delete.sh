#!/usr/bin/env bash
# Gives the TPU, its disks and its queued resource back. Fetch the workdir first: launch/README.md says how.
#   TPU_ZONE=us-east5-b launch/tpu/delete.sh [--dry_run]
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
