"""Scripts for Slurm, Cloud TPU and GKE: they parse, print what they would run, and what they print runs."""

import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
import yaml

from robustjax.core import processes
from robustjax.core.check import InputError
from robustjax.io import log, results
from robustjax.train import guard
from tests.launch import commands

ROOT = commands.ROOT
QUICK = ("--config=configs/spider/digits.py:quick", "--config.data.limit_train=160", "--config.batch_size=32")
SCRIPTS = sorted(str(path.relative_to(ROOT)) for kind in ("sbatch", "sh") for path in (ROOT / "launch").glob(f"*/*.{kind}"))

# In place of the real ones: srun starts its command once for each of $TASKS, with Slurm's variables, and kills them when it gets SIGTERM;
# scancel signals them; gcloud runs --command on this machine, as its only worker; scontrol writes down what it was asked.
SRUN = """
import os, signal, subprocess, sys
command = [argument for i, argument in enumerate(sys.argv[1:]) if not argument.startswith("--") or "launch/train.py" in sys.argv[1:i + 1]]
count = int(os.environ["TASKS"])
tasks = [
    subprocess.Popen(command, env={
        **os.environ, "SLURM_STEP_NUM_TASKS": str(count), "SLURM_NTASKS": str(count), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_PROCID": str(i), "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": str(count),
    })
    for i in range(count)
]
signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])
open(os.environ["PIDS"], "w").write(" ".join(str(task.pid) for task in tasks))
statuses = [task.wait() for task in tasks]
sys.exit(max(128 - status if status < 0 else status for status in statuses))
"""
GCLOUD = """
import os, subprocess, sys
(line,) = (argument.removeprefix("--command=") for argument in sys.argv if argument.startswith("--command="))
sys.exit(subprocess.run(["bash", "-c", line], env={**os.environ, "JAX_NUM_PROCESSES": "1"}).returncode)
"""
SCANCEL = """
import os, signal, sys
assert sys.argv[1:] == ["--signal=TERM", os.environ["SLURM_JOB_ID"]]
for pid in open(os.environ["PIDS"]).read().split():
    os.kill(int(pid), signal.SIGTERM)
"""
SCONTROL = """
import os, sys
open(os.environ["ASKED"], "a").write(" ".join(sys.argv[1:]))
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def in_place_of_python(folder: Path, text: str) -> dict:
    """Returns what makes the scripts run lines of sh in `folder`, in place of launch/train.py."""
    executable(folder / "venv" / "bin" / "python", f"#!/bin/sh\ncd {shlex.quote(str(folder))}\n{text}\n")
    return {"ROBUSTJAX_VENV": str(folder / "venv")}


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path):
    """Returns the environment of a machine that has the commands of clusters."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scancel": SCANCEL, "gcloud": GCLOUD, "scontrol": SCONTROL}.items():
        executable(folder / name, f"#!{sys.executable}\n{text}")
    return commands.environment(
        PATH=f"{folder}:{os.environ['PATH']}",
        ROBUSTJAX_VENV=sys.prefix,
        SLURM_JOB_ID=str(os.getpid()),  # the port follows from it
        SLURM_SUBMIT_DIR=str(ROOT),
        ASKED=str(tmp_path / "asked"),
        PIDS=str(tmp_path / "pids"),
        TASKS="1",
        TPU_ZONE="zone",
        TMPDIR=str(tmp_path),
    )


def printed(script: str, *arguments: str, environment: dict) -> list[str]:
    out = subprocess.run(["bash", ROOT / "launch" / script, *arguments, "--dry_run"], env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout.splitlines()


def trained(workdir: Path) -> int:
    return results.read_json(workdir / "training.json")["step"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script):
    assert subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script.endswith(".sbatch")])
def test_jobs_are_queued_again_and_warned_in_time(script):
    # Kills: a job that Slurm ends without a word, or never starts again.
    text = (ROOT / script).read_text()
    for line in ("#SBATCH --requeue", "#SBATCH --signal=B:USR1@180", "#SBATCH --open-mode=append"):
        assert line in text.splitlines()


def test_commands_of_tpus_are_printed_and_nothing_is_run(cluster):
    # The fake gcloud would fail for each of these.
    (create,) = printed("tpu/create.sh", environment={**cluster, "TPU_NAME": "a", "TPU_SPOT": "1", "TPU_PROJECT": "p"})
    assert shlex.split(create)[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "a"]
    assert {"--zone=zone", "--project=p", "--node-id=a", "--accelerator-type=v6e-8", "--spot"} < set(shlex.split(create))
    archive, copy, install = map(shlex.split, printed("tpu/install.sh", environment=cluster))
    assert archive[:2] == ["git", "archive"] and copy[4] == "scp" and install[-1].endswith("worker.sh install")
    (delete,) = map(shlex.split, printed("tpu/delete.sh", environment=cluster))
    assert delete[3:6] == ["queued-resources", "delete", "robustjax"]


@pytest.mark.parametrize(
    ("script", "tasks"),
    [
        pytest.param("slurm/one_node.sbatch", "1", marks=pytest.mark.slow),  # but for quoting as the next test
        pytest.param("slurm/many_nodes.sbatch", "2", marks=pytest.mark.slow),
        pytest.param("tpu/train.sh", "1", marks=pytest.mark.slow),
    ],
)
def test_what_is_printed_trains(script, tasks, cluster, tmp_path):
    # Kills: options lost or split on the way (the workdir has a space); variables of Slurm that nobody reads.
    (command,) = printed(script, *QUICK, f"--workdir={tmp_path / 'a run'}", environment=cluster)
    (tmp_path / "robustjax").symlink_to(ROOT)  # as on a TPU's machines, in the home folder
    folder = tmp_path if script.startswith("tpu") else ROOT
    ran = subprocess.run(["bash", "-c", command], cwd=folder, env={**cluster, "TASKS": tasks}, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    assert trained(tmp_path / "a run") == 8 and ran.stdout.count("trained 8 steps") == 1


def test_a_job_near_its_end_leaves_a_checkpoint_and_is_queued_again(cluster, tmp_path):
    # Kills: a trap that ends the script and with it the step; SIGTERM to srun; a job that is queued again when it is done; one that never is.
    workdir = tmp_path / "a run"  # a space, which must not part it
    arguments = (*QUICK, "--config.epochs=400", "--config.validate_epochs=50", f"--workdir={workdir}")
    script = ["bash", str(ROOT / "launch" / "slurm" / "one_node.sbatch")]
    job = subprocess.Popen([*script, *arguments], env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(workdir / "checkpoints" / "200", job)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=60)
    assert job.returncode == guard.Stopped.status and "the same command goes on from there" in err, err
    assert (tmp_path / "asked").read_text() == f"requeue {cluster['SLURM_JOB_ID']}"
    again = subprocess.run([*script, *arguments], env=cluster, capture_output=True, text=True, timeout=180)
    assert again.returncode == 0 and "going on from step" in again.stderr and trained(workdir) == 1600
    assert (tmp_path / "asked").read_text().count("requeue") == 1
    assert [record["step"] for record in log.read_lines(workdir / "log.jsonl")] == list(range(200, 1601, 200))


@pytest.mark.parametrize(
    ("ends", "restarts", "status", "queued", "said"),
    [
        pytest.param("exit 143", 49, 143, 1, "", id="in time"),
        pytest.param(":", 0, 5, 1, "", id="later than its grace"),
        pytest.param("exit 2", 0, 2, 0, "", id="of a mistake"),
        pytest.param("exit 143", 50, 143, 0, "error: the job was started again 50 times", id="too often"),
    ],
)
def test_what_queues_a_job_again(ends, restarts, status, queued, said, cluster, tmp_path):
    # Kills: a step that outlives its grace and is not queued, or twice; jobs that are queued again for ever.
    late = {"ROBUSTJAX_GRACE": "0.1"} if ends == ":" else {}
    step = f"trap '{ends}' TERM; touch begun; until [ -e asked ]; do sleep 0.05; done; exit 5"
    given = {**cluster, **in_place_of_python(tmp_path, step), **late, "SLURM_RESTART_COUNT": str(restarts)}
    script = ["bash", str(ROOT / "launch" / "slurm" / "one_node.sbatch"), "--config=a.py"]
    job = subprocess.Popen(script, env=given, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "begun", job)
    wait_for(tmp_path / "pids", job)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=60)
    assert job.returncode == status and err.startswith(said), err
    asked = (tmp_path / "asked").read_text() if queued else ""
    assert asked.count("requeue") == queued and (tmp_path / "asked").exists() == bool(queued)


def test_a_step_that_is_over_at_once_hands_its_status_on(cluster, tmp_path):
    # Kills: looking whether the step is there before waiting for it: with a slow look it never is.
    line = 'kill() { sleep 0.5; builtin kill "$@"; }; source launch/slurm/step.sh; train_step -- --config=a.py'
    ran = subprocess.run(["bash", "-c", line], cwd=ROOT, env={**cluster, **in_place_of_python(tmp_path, "exit 7")}, capture_output=True)
    assert ran.returncode == 7


def test_tasks_get_the_cores_that_the_job_asked_for(cluster):
    # Kills: tasks bound to one core each; a printed command that parts what has a space.
    (command,) = printed("slurm/many_nodes.sbatch", *QUICK, "--workdir=a run", environment={**cluster, "SLURM_CPUS_PER_TASK": "16"})
    assert {"--cpus-per-task=16", "--workdir=a run"} < set(shlex.split(command))


def test_a_run_on_a_tpu_outlives_its_ssh(cluster, tmp_path):
    # Kills: a run that is hung up with its ssh, or ends at its next line since nobody reads it; a status that gets lost.
    run = "echo begun; until [ -e go ]; do sleep 0.05; done; echo more || exit; echo more; touch done; exit 7"
    given = {**cluster, **in_place_of_python(tmp_path, run)}
    command = ["bash", str(ROOT / "launch" / "tpu" / "worker.sh"), "train", "--config=a.py"]
    ssh = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert ssh.stdout.readline() == "begun\n"
    os.killpg(ssh.pid, signal.SIGKILL)
    ssh.communicate(timeout=60)
    (tmp_path / "go").touch()
    ended = time.monotonic() + 30
    while not (tmp_path / "done").exists() and time.monotonic() < ended:
        time.sleep(0.01)
    assert (tmp_path / "done").exists()
    again = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stdout) == (7, "begun\nmore\nmore\n"), again.stderr


def test_a_process_leaves_although_nobody_reads_what_it_says(monkeypatch):
    # Kills: an error in saying the error, after which the process waits for the others, and they for it.
    class Cut(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    def fail():
        raise InputError("said to nobody")

    monkeypatch.syspath_prepend(ROOT / "launch")
    import entry

    monkeypatch.setattr(entry, "cache_compilations", lambda: None)
    monkeypatch.setattr(entry, "_DEBUG", SimpleNamespace(value=False))
    monkeypatch.setattr(entry.app, "run", lambda wrapped, flags_parser: wrapped([]))
    monkeypatch.setattr(entry.logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(entry.warnings, "formatwarning", entry.warnings.formatwarning)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: None)
    left = []
    monkeypatch.setattr(processes.os, "_exit", left.append)
    with monkeypatch.context() as cut, pytest.raises(SystemExit):
        for name in ("stdout", "stderr"):
            cut.setattr(sys, name, Cut())
        entry.run(fail)
    assert left == [2]


def jobset(*options: str) -> dict:
    out = commands.run("gke/submit", "--name=try", "--image=i", "--dry_run", *options)
    assert out.returncode == 0, out.stderr
    return yaml.safe_load(out.stdout)


def pod(jobset: dict) -> tuple[dict, dict]:
    """Returns the Job's specification and the container's."""
    (job,) = jobset["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return job["template"]["spec"], container


def test_jobsets_ask_for_what_was_said():
    # Kills: a placeholder that stays; chips of another kind than the nodes'; a job that gives up after one failure.
    job, container = pod(jobset("--kind=tpu", "--hosts=4", "--topology=4x4", "--train=--config=a.py --workdir='/runs/x y'"))
    assert job["parallelism"] == job["completions"] == 4 and job["backoffLimit"] == 0
    assert container["command"] == ["python", "launch/train.py", "--config=a.py", "--workdir=/runs/x y"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    made = jobset("--kind=gpu", "--chips=1", "--accelerator=nvidia-l4", "--claim=disk", "--train=--config=a.py")
    job, container = pod(made)
    assert made["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and made["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert job["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"


def test_a_name_that_kubernetes_refuses_is_refused_here():
    out = commands.run("gke/submit", "--kind=gpu", "--name=A_b", "--image=i", "--train=--config=a.py", "--dry_run")
    assert out.returncode == 2 and "error: --name is at most 40 lower case letters, digits and '-'" in out.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hosts=4"], "a slice of topology 2x2 has 4 chips, --hosts=4 machines of 4 have 16"),
        (["--topology=4*4"], "--topology is two or three numbers with x between them, such as 4x4, got '4*4'"),
    ],
)
def test_a_slice_that_pods_would_wait_for_is_refused(options, message):
    out = commands.run("gke/submit", "--kind=tpu", "--name=a", "--image=i", "--train=--config=a.py", "--dry_run", *options)
    assert out.returncode == 2 and message in out.stderr


@pytest.mark.slow
def test_pods_of_a_jobset_train_together(tmp_path):
    # Kills: an address that only one pod listens to; two pods of one number.
    job, container = pod(jobset("--kind=gpu", "--hosts=2", f"--train={shlex.join([*QUICK, f'--workdir={tmp_path}'])}"))
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given.pop("JAX_PROCESS_ID") is None and given["JAX_COORDINATOR_ADDRESS"] == "try-workers-0-0.try:1234"
    given["JAX_COORDINATOR_ADDRESS"] = f"localhost:{commands.free_port()}"  # there is no such host here
    pods = [
        subprocess.Popen(
            [sys.executable, *container["command"][1:]],
            cwd=ROOT,
            env=commands.environment(**given, JAX_PROCESS_ID=str(number)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(job["completions"])
    ]
    try:
        for one in pods:
            _, err = one.communicate(timeout=180)
            assert one.returncode == 0, err
    finally:
        for one in pods:
            one.kill()
            one.wait()
    assert trained(tmp_path) == 8
