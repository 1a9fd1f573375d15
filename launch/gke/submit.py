"""Submits a training run to a GKE cluster as a JobSet, or prints it.

python launch/gke/submit.py --kind=gpu --name=spider --image=IMAGE --hosts=2 --train='--config=configs/spider/cifar10.py --workdir=/runs/spider'
python launch/gke/submit.py --kind=tpu --name=spider --image=IMAGE --hosts=4 --topology=4x4 --train='...' --dry_run | kubectl diff -f -

The image holds this checkout in /robustjax and Python with robustjax[cuda] or [tpu]; a volume claim that all pods can write to
(ReadWriteMany, e.g. of Filestore) is mounted at /runs. Follow a run with `kubectl logs --follow job/NAME-workers-0`, end it with
`kubectl delete jobset NAME`.
"""

import json
import math
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import entry  # isort: skip
from absl import flags

_KIND = flags.DEFINE_enum("kind", None, ["gpu", "tpu"], "Which of gpu.yaml and tpu.yaml.")
_NAME = flags.DEFINE_string("name", None, "Of the JobSet: lower case letters, digits and '-'.")
_IMAGE = flags.DEFINE_string("image", None, "Container image.")
_TRAIN = flags.DEFINE_string("train", None, "Options of launch/train.py, as one text.")
_HOSTS = flags.DEFINE_integer("hosts", 1, "Machines.", lower_bound=1)
_CHIPS = flags.DEFINE_integer("chips", 0, "GPUs or TPU chips of a machine; default: 8 or 4.", lower_bound=0)
_ACCELERATOR = flags.DEFINE_string("accelerator", "", "Node label of the accelerator; default: nvidia-h100-80gb or tpu-v6e-slice.")
_TOPOLOGY = flags.DEFINE_string("topology", "2x2", "Of a TPU slice: hosts times chips is their number.")
_CLAIM = flags.DEFINE_string("claim", "robustjax-runs", "PersistentVolumeClaim that is mounted at /runs.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be submitted.")
flags.mark_flags_as_required(["kind", "name", "image", "train"])

_USUAL = {"gpu": ("nvidia-h100-80gb", 8), "tpu": ("tpu-v6e-slice", 4)}


def rendered() -> str:
    """Returns the JobSet as YAML."""
    from robustjax.core.check import InputError

    # Hosts are named NAME-workers-0-0-..., of at most 63 characters.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", _NAME.value):
        raise InputError(f"--name is at most 40 lower case letters, digits and '-', begins with a letter, got {_NAME.value!r}.")
    accelerator, chips = _USUAL[_KIND.value]
    chips = _CHIPS.value or chips
    if _KIND.value == "tpu":
        _check_topology(chips)
    template = string.Template((Path(__file__).parent / f"{_KIND.value}.yaml").read_text())
    return template.substitute(
        name=_NAME.value,
        image=json.dumps(_IMAGE.value),
        hosts=_HOSTS.value,
        chips=chips,
        accelerator=_ACCELERATOR.value or accelerator,
        topology=_TOPOLOGY.value,
        claim=_CLAIM.value,
        command=json.dumps(["python", "launch/train.py", *shlex.split(_TRAIN.value)]),
    )


def _check_topology(chips: int) -> None:
    """Refuses a slice of another size than its machines: its pods would wait for ever."""
    from robustjax.core.check import InputError

    if not re.fullmatch(r"\d+(x\d+){1,2}", _TOPOLOGY.value):
        raise InputError(f"--topology is two or three numbers with x between them, such as 4x4, got {_TOPOLOGY.value!r}.")
    of_slice = math.prod(map(int, _TOPOLOGY.value.split("x")))
    if of_slice != _HOSTS.value * chips:
        raise InputError(
            f"a slice of topology {_TOPOLOGY.value} has {of_slice} chips, --hosts={_HOSTS.value} machines of {chips} have "
            f"{_HOSTS.value * chips}; make them agree with --topology, --hosts or --chips."
        )


def main() -> None:
    """Prints the JobSet, or hands it to kubectl."""
    text = rendered()
    if _DRY_RUN.value:
        print(text, end="")
        return
    sys.exit(subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True).returncode)


if __name__ == "__main__":
    entry.run(main)
