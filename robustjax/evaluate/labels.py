"""How a run was trained, in the words of tables and by the names of reference tables."""

import inspect
from collections.abc import Mapping

from robustjax import augment
from robustjax.io import results

# Options of adversarial objectives as the papers have them, and pairs of radius and step; others are named in a row's label.
THREATS = {"linf:8/255": 2 / 255, "l2:128/255": 15 / 255}
RELEASED = {"alpha": 0.2, "confusion": 0.8, "sigma": 1e-4}
ADVERSARIAL = {"beta": 6.0, "steps": 10, "sigma": 0.01, "groups": [], "draws": 1, "reading": "kl_logits", "taylor_fraction": 1.0}
NOISE: dict[str, dict] = {
    "clean_and_noisy": {"shared_crop": False},
    "stability": {"weight": 1.0, "shared_crop": True},
    "discriminative": {
        "delta_v": 0.5,
        "momentum": 0.99,
        "alpha": 0.5,
        "noisy": 0.5,
        "beta": 1.0,
        "gamma_reg": 1e-3,
        "shared_crop": False,
    },
}
# What goes with the data in the discriminative-loss paper: standard deviation of the noise in training, and the margin.
STDDEV = {"cifar10": 0.06, "svhn_cropped": 0.15, "image_folder": 40 / 255}
DELTA_D = {"cifar10": 5.0, "svhn_cropped": 5.0, "image_folder": 3.0}
# Strengths that the released code of AugMix and PixMix has for ImageNet.
IMAGENET: dict[str, dict] = {"augmix": {"severity": 1.0}, "pixmix": {"beta": 4.0, "severity": 1.0}}
MIXTURES = {"augmix": "AugMix", "pixmix": "PixMix", "cutout": "cutout", "deepaugment": "DeepAugment in the step"}
METHODS = {
    "spider": "SPIDER",
    "esp": "ESP",
    "no_ls": "SPIDER without smoothing",
    "std_ls": "label smoothing",
    "mixup": "Mixup",
    "cutmix": "CutMix",
}
PERTURBATIONS = ("spider", "esp", "no_ls", "std_ls", "mixup", "cutmix", "l2_sphere", "l2_ball", "gaussian_noise", "uniform_noise")


def trained_by(config: dict) -> tuple[str, str]:
    """Returns (what reference tables call it, its label in tables) of how a run was trained.

    What differs from the papers' settings is in the label, and has another name than those of the papers' tables.
    """
    method = {name: value for name, value in config["method"].items() if name != "name"}
    parts = [_mixture(stage, config) for stage in config["augment"] if stage in MIXTURES]
    parts += [_method(stage, config["augment_options"].get(stage, {}), config) for stage in config["augment"] if stage in PERTURBATIONS]
    if config["method"]["name"] != "none":
        parts.append(_method(config["method"]["name"], method, config))
    if config["data"].get("copies"):
        parts.insert(1 if parts and parts[0][0].startswith("augmix") else 0, ("deepaugment", "DeepAugment"))
    name, label = "+".join(name for name, _ in parts) or "none", " + ".join(label for _, label in parts) or "baseline"
    objective = config["objective"]
    if objective["name"] not in ("classification", "augmix_jsd"):
        trained, as_printed = _objective(objective, config["data"]["name"])
        label = f"{trained} with {label}" if parts else trained
        order = objective.get("order", 2)
        name = f"rat_{order}" if objective["name"] == "rat" else objective["name"]
        if objective["name"] == "discriminative" and not objective["noisy"]:
            name, as_printed = _ablation(objective, config["data"]["name"])
        name += "" if as_printed and not parts else "_otherwise"
    if config["awp"]["gamma"]:
        others = _awp(config["awp"], objective["name"])
        label, name = f"{label} + AWP{others}", f"{name}_awp{'_otherwise' if others else ''}"
    if config["optimizer"]["swa_epoch"] or config["optimizer"]["ema"]:
        average = "swa" if config["optimizer"]["swa_epoch"] else "ema"
        label, name = f"{label} + {average.upper()}", f"{name}_{average}"
    for penalty, weight in config["penalty"].items():
        if weight:
            label, name = f"{label}, {penalty} {weight:g}", f"{name}, {penalty} {weight:g}"
    if config.get("compute_dtype", "float32") != "float32":
        label += f", {config['compute_dtype']}"
    return name, label


def network_key(model: Mapping) -> str:
    """Returns what reference tables call a network.

    >>> network_key({"name": "wide_resnet", "options": {"width": 1}}), network_key({"name": "allconv", "options": {}})
    ('wide_resnet_40_1', 'allconv')
    """
    name, options = model["name"], model["options"]
    return f"{name}_{options.get('depth', 40)}_{options.get('width', 2)}" if name == "wide_resnet" else name


def _method(name: str, options: dict, config: dict) -> tuple[str, str]:
    written = ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in sorted(options.items()))
    label = METHODS.get(name, name) + (f" ({written})" if written else "")
    usual = STDDEV.get(config["data"]["name"])
    otherwise = name == "gaussian_noise" and usual is not None and options.get("std") != usual
    return name + ("_otherwise" if otherwise else ""), label


def _mixture(stage: str, config: dict) -> tuple[str, str]:
    """Returns the name and label of a stage that the papers add SPIDER and ESP to; options that are not its defaults are in both."""
    options = config["augment_options"].get(stage, {})
    defaults = ((p.name, p.default) for p in inspect.signature(augment.TABLE[stage]).parameters.values())
    usual = {name: default for name, default in defaults if default is not inspect.Parameter.empty} | {"folder": ""}
    if stage == "deepaugment":  # whose networks have no usual place
        usual |= {"folder": options.get("folder")}
    if config["evaluation"]["benchmark"] == "imagenet_c":
        usual |= IMAGENET.get(stage, {})
    usual = results.canonical(usual)  # as stored configurations are
    others = [f"{key} {value}" for key, value in sorted(options.items()) if results.canonical(value) != usual.get(key)]
    label, name, objective = MIXTURES[stage], stage, config["objective"]
    if stage == "augmix" and objective["name"] == "augmix_jsd":
        of_loss = {"weight": 12.0, "perturbed": "all"}
        others += [f"JSD {key} {objective[key]}" for key, value in of_loss.items() if objective.get(key, value) != value]
    elif stage == "augmix":
        label, name = "AugMix without JSD", "augmix_nojsd"
    elif stage == "deepaugment":
        name = "deepaugment_in_step"
    return name + ("_otherwise" if others else ""), ", ".join([label, *others])


def _ablation(objective: dict, data: str) -> tuple[str, bool]:
    """Returns (what Table 5 of the discriminative-loss paper calls weights without a noisy view; whether all else is as printed)."""
    weights = ", ".join(f"{name} {objective[name]:g}" for name in ("alpha", "beta", "gamma_reg"))
    others = {
        name: value for name, value in objective.items() if name not in ("alpha", "noisy", "beta", "gamma_reg", "stddev", "shared_crop")
    }
    return f"discriminative, {weights}, noisy 0", _objective(others, data)[1]


def _awp(awp: dict, objective: str) -> str:
    """Returns what of adversarial weight perturbation is not as in Wu et al. 2020, in brackets."""
    usual = {"gamma": 1e-2 if objective == "madry" else 5e-3, "warmup_epochs": 10.0, "loss": "base"}
    others = [f"{key.replace('_', ' ')} {awp[key]}" for key, value in usual.items() if awp.get(key, value) != value]
    return f" ({', '.join(others)})" if others else ""


def _objective(objective: dict, data: str) -> tuple[str, bool]:
    """Returns (the label of an objective, which names what is not as printed; whether all of it is)."""
    kind, order, eta = objective["name"], objective.get("order", 2), objective.get("eta", 0.2)
    known = {
        "madry": "adversarial training",
        "trades": "TRADES",
        "rat": f"RAT {'1st' if order == 1 else '1st + 2nd'} (eta {eta:g})",
        "rat_released": "RAT's released heuristic",
        "clean_and_noisy": "clean and noisy images",
        "stability": "stability training",
        "discriminative": "discriminative loss",
    }
    usual = ADVERSARIAL
    if kind in NOISE:
        with_data = {"stddev": STDDEV.get(data), "delta_d": DELTA_D.get(data)}
        usual = NOISE[kind] | {key: value for key, value in with_data.items() if value is not None}
    elif kind == "rat_released":
        usual = usual | RELEASED | ({"confusion": 0.98} if data == "cifar100" else {})
    others = {key: objective[key] for key, value in usual.items() if key in objective and results.canonical(objective[key]) != value}
    if THREATS.get(objective.get("threat", "linf:8/255")) != objective.get("step_size", 2 / 255):
        others |= {"threat": objective["threat"], "step size": f"{objective['step_size']:.4g}"}
    label = known[kind] + "".join(f", {key.replace('_', ' ')} {value}" for key, value in others.items())
    return label, not others and (kind != "rat" or eta == (0.3 if order == 1 else 0.2))
