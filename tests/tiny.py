"""A configuration of the smallest run that trains, validates and saves: seconds, and few programs to compile."""

import copy

from configs import common


def config(**changes) -> dict:
    """Returns a configuration as a dict; changes are `section__key=value`, or `key=value` at the top."""
    base = common.base()
    base.epochs = 2
    base.batch_size = 16
    base.data.name = "fake"
    base.data.options = {"num_classes": 3, "size": 16, "channels": 1, "train": 80, "test": 24}
    base.model.options = {"width": 4}
    base.augment_options = {"crop": {"pad": 1}}
    base.evaluation.batch_size = 16
    base.evaluation.attacks = {"pgd_l2": common.attack("l2", 0.5, 0.2, 2)}
    made = copy.deepcopy(base.to_dict())
    for path, value in changes.items():
        section, _, key = path.rpartition("__")
        (made[section] if section else made)[key] = value
    return made
