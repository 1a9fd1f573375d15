# Sourced by the sbatch scripts: one job step that trains; near the end of its time it leaves a checkpoint and queues the job again.
# train_step OPTIONS_OF_SRUN -- [--dry_run] OPTIONS_OF_TRAIN
train_step() {
    local options=() arguments=() dry_run=no again=no status=0 step
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    for argument; do
        if [ "$argument" = --dry_run ]; then dry_run=yes; else arguments+=("$argument"); fi
    done
    if [ ${#arguments[@]} = 0 ]; then
        echo "error: give the options of launch/train.py, at least --config=FILE.py and --workdir=FOLDER." >&2
        return 2
    fi
    local command=(srun "${options[@]}" "${ROBUSTJAX_VENV:-.venv}/bin/python" launch/train.py "${arguments[@]}")
    if [ "$dry_run" = yes ]; then
        printf '%q ' "${command[@]}"
        echo
        return
    fi
    "${command[@]}" &
    step=$!
    # srun hands SIGTERM on to every task; launch/train.py then writes a checkpoint of the step that it has reached.
    trap 'again=yes; kill -TERM "$step"' USR1
    trap 'kill -TERM "$step"' TERM
    # A trap ends `wait`, and the step goes on.
    while kill -0 "$step" 2>/dev/null; do
        wait "$step" && status=0 || status=$?
    done
    trap - USR1 TERM
    if [ "$again" = yes ] && [ "$status" != 0 ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}
