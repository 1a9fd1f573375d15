# Sourced by the sbatch scripts: one job step that trains; near the end of its time it leaves a checkpoint and queues the job again.
# train_step OPTIONS_OF_SRUN -- [--dry_run] OPTIONS_OF_TRAIN
# ROBUSTJAX_GRACE: seconds that the tasks have for their checkpoint, default 150; less than --signal of sbatch says.
train_step() {
    local options=() arguments=() dry_run=no again=no woken=no status step timer
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    for argument; do
        if [ "$argument" = --dry_run ]; then dry_run=yes; else arguments+=("$argument"); fi
    done
    if [ ${#arguments[@]} = 0 ]; then
        echo "error: give the options of launch/train.py, at least --config=FILE.py and --workdir=FOLDER." >&2
        return 2
    fi
    # Of sbatch's options this one alone does not reach srun by itself (since Slurm 22.05).
    options+=("--cpus-per-task=${SLURM_CPUS_PER_TASK:-8}")
    local command=(srun "${options[@]}" "${ROBUSTJAX_VENV:-.venv}/bin/python" launch/train.py "${arguments[@]}")
    if [ "$dry_run" = yes ]; then
        printf '%q ' "${command[@]}"
        echo
        return
    fi
    "${command[@]}" &
    step=$!
    # SIGTERM to srun would kill the tasks. scancel hands it to the tasks alone, and launch/train.py writes a checkpoint of where it is.
    trap 'trap : USR1; again=yes woken=yes; scancel --signal=TERM "$SLURM_JOB_ID"; late_queue_again & timer=$!' USR1
    # Slurm itself signals the tasks too; the script stays to see how they end.
    trap 'woken=yes' TERM
    # A trap ends `wait`, and the step goes on.
    while
        wait "$step"
        status=$?
        [ "$woken" = yes ]
    do woken=no; done
    trap - USR1 TERM
    if [ "$again" = yes ]; then
        kill "$timer" 2>/dev/null
        # Done, or failed for a reason that would be there again.
        [ "$status" != 143 ] || queue_again
    fi
    return "$status"
}

# A job that never comes as far as its first checkpoint would be queued for ever.
queue_again() {
    if [ "${SLURM_RESTART_COUNT:-0}" -ge 50 ]; then
        echo "error: the job was started again $SLURM_RESTART_COUNT times; if the run has come further, submit it once more." >&2
    else
        scontrol requeue "$SLURM_JOB_ID"
    fi
}

# A step that outlives its grace is ended by Slurm, and with it the job, unless it is queued before.
late_queue_again() {
    sleep "${ROBUSTJAX_GRACE:-150}" >/dev/null 2>&1
    queue_again
}
