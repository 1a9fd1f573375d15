#!/usr/bin/env bash
# Copies the last commit of this checkout to ~/robustjax of all machines of the slice and installs it there, with jax for TPUs.
#   TPU_ZONE=us-east5-b launch/tpu/install.sh [--dry_run]
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
archive=${TMPDIR:-/tmp}/robustjax.tar.gz
run git archive --format=tar.gz "--output=$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$name:" "${place[@]}" --worker=all
on_all_workers "mkdir -p robustjax && tar xzf robustjax.tar.gz -C robustjax && bash robustjax/launch/tpu/worker.sh install"
