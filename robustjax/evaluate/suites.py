"""Which measurements make up a suite. An item is one number (or a few) on the whole test set, stored in one file."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from robustjax import corruptions, metrics
from robustjax.attacks.presets import PRESETS
from robustjax.core import ThreatModel, registry, threats
from robustjax.core.check import InputError
from robustjax.corruptions import check_options

SENSOR = "sensor"
ONE_STRENGTH = ("mnist_c", SENSOR)  # benchmarks whose corruptions have no severities

# The settings of thickness, flatness and curvature, changed by config.evaluation.geometry or asked for. `images`: so many of the test
# images, always the same ones; 0: all. `radii`: of flatness, absolute; `relative_radii`: multiples of the norm of the weights;
# `filter_radii`: of filter-normalised directions; where all are empty see `_radii`.
GEOMETRY: dict[str, dict] = {
    "thickness": {"images": 1600, "preset": "thickness", "points": 128, "class_i": "predicted", "std": 0.2},
    "flatness": {"images": 1000, "draws": 50, "radii": (), "relative_radii": (), "filter_radii": ()},
    "hessian": {"images": 256, "steps": 30, "draws": 50},
    "curvature": {"images": 0, "t": 1e-2, "draws": 20, "std": 1.0},
}
# Levels of noise, in 255ths: of the discriminative-loss paper's Tables 1 and 2; elsewhere those of its Table 3.
NOISE_LEVELS = {"cifar10": (2, 4, 8, 16, 20), "cifar100": (2, 4, 8, 16, 20), "svhn_cropped": (5, 10, 20, 36, 42)}
OTHER_LEVELS = (10, 30, 40, 60)
INTERVALS = ((0.0, 0.75), (0.0, 1.0))  # (alpha, beta) of SPIDER's Tables 1 and 2


class Item(NamedTuple):
    """One measurement: its name (that of its file), its kind and the kernel's options.

    Kinds: 'clean'; 'corruption', made here; 'files', corrupted images that were read (see evaluate.sources); 'attack', PGD; 'curve',
    PGD at one of several radii; 'transfer', PGD on another network; 'autoattack'; 'thickness'; 'flatness', the loss some way off in
    the space of weights, and 'hessian' there; 'curvature', over the image; 'noise', added at one level and drawn several times.
    """

    name: str
    kind: str
    options: dict


class Asked(NamedTuple):
    """What a user asks for beyond the names of suites; what is empty is as the run's configuration says."""

    threats: tuple[str, ...] = ()  # 'linf:8/255', of autoattack and transfer
    version: str = ""  # of autoattack
    curves: tuple[str, ...] = ()  # 'linf:0,2/255,4/255'
    surrogates: tuple[dict, ...] = ()  # of transfer: {surrogate (a name), config_hash, checkpoint_step, weights}
    geometry: tuple[str, ...] = ()  # 'flatness.radii=30,32.5', see GEOMETRY
    noise: tuple[str, ...] = ()  # 'gaussian=2/255,4/255', see `noise_settings`


NOTHING = Asked()
Shape = tuple[int, int, int]
Part = Callable[[dict, Shape, Asked], list[Item]]


def _clean(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    return [Item("clean", "clean", {})]


def _of(benchmark: str, shape: Shape) -> list[Item]:
    corruptions.check_benchmark(benchmark, shape)
    names = corruptions.NAMES[benchmark]
    if benchmark in ONE_STRENGTH:
        return [Item(f"{benchmark}/{name}", "corruption", {"benchmark": benchmark, "name": name}) for name in names]
    return [
        Item(f"{benchmark}/{name}_{severity}", "corruption", {"benchmark": benchmark, "name": name, "severity": severity})
        for name in names
        for severity in range(1, 6)
    ]


def _corruptions(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    return _of(config["evaluation"]["benchmark"], shape)


def _cbar(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    return _of(corruptions.nearest("cbar", *shape[:2]), shape)


def _mnist_c(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    return _of("mnist_c", shape)


def sensor_defaults(shape: Shape) -> dict[str, dict]:
    """Returns what the suite 'sensor' measures where config.evaluation.sensor is empty: the settings of the discriminative-loss paper.

    Noise of 40/255 (Table 4) is in units of [0, 1] pixels and serves any size. Patches of 70x70 and stripes of 6 pixels are meant for
    images of 400x500 and are brought to images of `shape` in proportion, to whole pixels and at least one.
    """
    down, across = shape[0] / 400, shape[1] / 500
    noise = {"std": 40 / 255}
    occlusion = {"patches": 20, "size": [max(1, round(70 * down)), max(1, round(70 * across))]}
    down_up = {"scale": 1 / 3}
    stripes = {"stripes": 10, "width": max(1, round(6 * across))}
    return {
        "gaussian_noise": {"name": "noise", **noise},
        "uniform_noise": {"name": "noise", "amplitude": 40 / 255},
        "occlusion": {"name": "occlusion", **occlusion},
        "noise+occlusion": {"name": "noise+occlusion", **noise, **occlusion},
        "down_up": {"name": "down_up", **down_up},
        "down_up+occlusion": {"name": "down_up+occlusion", **down_up, **occlusion},
        "stripes": {"name": "stripes", **stripes},
        "down_up+stripes": {"name": "down_up+stripes", **down_up, **stripes},
    }


def _sensor(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    chosen = config["evaluation"]["sensor"] or sensor_defaults(shape)
    found = [Item(f"{SENSOR}/{name}", "corruption", {"benchmark": SENSOR, **options}) for name, options in chosen.items()]
    for item in found:
        check_options(item.options, shape)
    return found


def _pgd(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    return [Item(f"attack/{name}", "attack", dict(options)) for name, options in sorted(config["evaluation"]["attacks"].items())]


def _cw(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    """The same threats and steps with the margin of Carlini and Wagner in place of cross-entropy."""
    return [
        Item(f"attack/{name.replace('pgd', 'cw', 1) if name.startswith('pgd') else f'cw_{name}'}", "attack", {**options, "objective": "cw"})
        for name, options in sorted(config["evaluation"]["attacks"].items())
    ]


# Versions of AutoAttack and the folders of their results. 'fast' is two of its attacks and never called AutoAttack.
VERSIONS = {"standard": "autoattack", "plus": "autoattack_plus", "rand": "autoattack_rand", "fast": "apgd_fast"}


def _autoattack(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    version = asked.version or config["evaluation"]["autoattack"]["version"]
    if version not in VERSIONS:
        raise registry.unknown("version of AutoAttack", version, VERSIONS)
    return [
        Item(f"{VERSIONS[version]}/{threats.name_of(threat)}", "autoattack", {**_ball(threat), "version": version})
        for threat in _threats(config, asked)
    ]


def _threats(config: dict, asked: Asked) -> list[ThreatModel]:
    """Returns the threats asked for, else those of the configuration's AutoAttack, else those of its PGD attacks."""
    evaluation = config["evaluation"]
    written = asked.threats or evaluation["autoattack"]["threats"]
    found = map(threats.parse, written) if written else (ThreatModel(a["norm"], a["eps"]) for a in evaluation["attacks"].values())
    found = sorted({threat for threat in found if threat.eps}, key=lambda threat: (threat.norm != "linf", threat.norm, threat.eps))
    if not found:
        raise InputError("the run's configuration lists no attacks; say how far one may go, e.g. --threat=linf:8/255.")
    return found


def _ball(threat: ThreatModel) -> dict:
    return {"norm": threat.norm, "eps": threat.eps}


def _twenty_steps(threat: ThreatModel) -> dict:
    """Returns 20 steps of a quarter of the radius: of 2/255 at 8/255, as is usual."""
    return {**_ball(threat), "steps": 20, "step_size": threat.eps / 4}


def _as_in_rat(threat: ThreatModel) -> dict:
    """Returns the 20 steps of the RAT paper at its radii, and those of `_twenty_steps` at others."""
    same = [preset for name, preset in PRESETS.items() if name.startswith("rat_") and {**preset, **_ball(threat)} == preset]
    return _twenty_steps(threat) | ({"step_size": same[0]["step_size"]} if same else {})


def _transfer(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    """PGD-20 and CW-20 on each surrogate, as in Table 4 of the RAT paper."""
    if not asked.surrogates:
        raise InputError(
            "the suite transfer needs the folder of another trained run, --surrogate=RUN: attacks on it are tried on this one."
        )
    names = [surrogate["surrogate"] for surrogate in asked.surrogates]
    if len(set(names)) < len(names):
        raise InputError(
            f"two surrogates have a folder of the same name ({', '.join(sorted(names))}); results would have one name: rename one."
        )
    return [
        Item(
            f"transfer/{surrogate['surrogate']}/{name}20_{threats.name_of(threat)}",
            "transfer",
            {**_as_in_rat(threat), **objective, **surrogate},
        )
        for surrogate in asked.surrogates
        for threat in _threats(config, asked)
        for name, objective in (("pgd", {"objective": "ce"}), ("cw", {"objective": "cw"}))
    ]


def _curves(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    """PGD-20 at each radius, the point of largest loss; at radius 0 that is 'clean'."""
    return [
        Item(f"curve/{threats.name_of(threat)}", "curve", {**_twenty_steps(threat), "best": True})
        for text in asked.curves
        for threat in threats.parse_curve(text)
        if threat.eps
    ]


def _thickness(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    options = _geometry(config, asked)["thickness"] | {"intervals": [list(interval) for interval in INTERVALS]}
    return [Item(f"thickness/{options['class_i']}", "thickness", options)]


def _flatness(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    settings = _geometry(config, asked)
    options = {name: settings["flatness"][name] for name in ("images", "draws")}
    found = [
        Item(f"flatness/{of}", "flatness", options | {"of": of, "radii": [float(radius) for radius in radii]})
        for of, radii in _radii(config, settings["flatness"]).items()
        if radii
    ]
    return [*found, Item("flatness/hessian", "hessian", settings["hessian"])]


def _radii(config: dict, settings: dict) -> dict[str, Sequence[float]]:
    """Returns the radii by what they are of.

    Where none are given: 30, 32.5, ..., 50 for WRN-40-2, as in SPIDER's Figure 2, which begins there for all but PixMix and does not
    say where it ends; 0.1 to 0.5 times the norm of its weights for every other network, which 30 might throw far out or hardly move.
    """
    found = {"absolute": settings["radii"], "norm": settings["relative_radii"], "filters": settings["filter_radii"]}
    if any(found.values()):
        return found
    model = config["model"]
    large = model["name"] == "wide_resnet" and (model["options"].get("depth", 40), model["options"].get("width", 2)) == (40, 2)
    return {"absolute": [30 + 2.5 * k for k in range(9)]} if large else {"norm": [0.1, 0.2, 0.3, 0.4, 0.5]}


def _curvature(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    """The difference of gradients of Eq. 21, and what it approximates, along the same directions."""
    options = _geometry(config, asked)["curvature"]
    return [Item("curvature/finite", "curvature", options), Item("curvature/exact", "curvature", {**options, "t": None})]


def _noise(config: dict, shape: Shape, asked: Asked) -> list[Item]:
    settings = noise_settings(config, asked)
    drawn = {name: settings[name] for name in ("repeats", "seed")}
    found = [
        Item(f"noise/{kind}_{threats.fraction(level).replace('/', '_')}", "noise", {"noise": kind, "level": level, **drawn})
        for kind in ("gaussian", "uniform")
        for level in settings[kind]
    ]
    if not found:
        raise InputError("the suite noise has no level left to measure; name some, e.g. --noise=gaussian=2/255,4/255.")
    return found


def noise_settings(config: dict, asked: Asked) -> dict:
    """Returns what the suite 'noise' measures: the paper's levels for the data, with what the configuration and the user change.

    Returns:
        gaussian: standard deviations, uniform: amplitudes, both in units of [0, 1] pixels; repeats: draws for each image; seed: of them.

    Raises:
        InputError: for an unknown setting or a value out of range.
    """
    levels = tuple(level / 255 for level in NOISE_LEVELS.get(config["data"]["name"], OTHER_LEVELS))
    settings: dict = {"gaussian": levels, "uniform": levels, "repeats": 10, "seed": 0}
    for text in asked.noise:
        if "=" not in text:
            raise InputError(f"--noise is written setting=value, e.g. --noise=gaussian=2/255,4/255, got {text!r}.")
    for name, value in [*config["evaluation"]["noise"].items(), *(text.partition("=")[::2] for text in asked.noise)]:
        if name not in settings:
            raise registry.unknown("setting of noise", name, settings)
        settings[name] = _levels(name, value) if name in ("gaussian", "uniform") else _read(name, value, settings[name], of="noise")
    return settings


def _levels(name: str, value) -> tuple[float, ...]:
    """Returns levels of noise from numbers or text; none of an empty one."""
    parts = value.split(",") if isinstance(value, str) and value else value
    try:
        levels = [threats.parse(f"linf:{part}").eps for part in parts]
    except InputError:
        levels = [math.inf]
    if sorted(set(levels)) != levels or math.inf in levels:
        raise InputError(
            f"the setting {name} of noise must be levels above 0 and at most 1, in rising order, e.g. 2/255,4/255, got {value!r}."
        )
    return tuple(levels)


def _geometry(config: dict, asked: Asked) -> dict[str, dict]:
    """Returns GEOMETRY with what the configuration and the user change."""
    settings = {section: dict(options) for section, options in GEOMETRY.items()}
    changes = [(f"{s}.{key}", value) for s, options in config["evaluation"]["geometry"].items() for key, value in options.items()]
    for name, value in [*changes, *(text.partition("=")[::2] for text in asked.geometry)]:
        section, _, key = name.partition(".")
        if key not in settings.get(section, ()):
            raise registry.unknown("setting of geometry", name, [f"{s}.{k}" for s in settings for k in settings[s]])
        settings[section][key] = _read(name, value, GEOMETRY[section][key])
    return settings


def _read(name: str, value, default, *, of: str = "geometry"):
    """Returns a setting in the kind of its default; from text if it is that."""
    choices = {"class_i": ("predicted", "label"), "preset": tuple(p for p, options in PRESETS.items() if options.get("targeted"))}
    key = name.rpartition(".")[2]
    if isinstance(default, str):
        if value not in choices[key]:
            raise registry.unknown(name, value, choices[key])
        return value
    try:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(default, tuple) else [value]
        kind = int if isinstance(default, int) else float
        numbers = [kind(part) for part in parts]
        right = all(number == float(part) and math.isfinite(number) for number, part in zip(numbers, parts, strict=True))
    except (TypeError, ValueError):
        numbers, right = [], False
    lowest = {"images": 0, "seed": 0, "points": 2}.get(key, 1) if isinstance(default, int) else 0
    above = all(number >= lowest if isinstance(default, int) else number > lowest for number in numbers)
    if not right or not above or (isinstance(default, tuple) and sorted(set(numbers)) != numbers):
        kind = "whole number" if isinstance(default, int) else "number"
        bound = f"of at least {lowest}" if isinstance(default, int) else "above 0"
        wanted = f"{kind}s {bound}, in rising order" if isinstance(default, tuple) else f"a {kind} {bound}"
        raise InputError(f"the setting {name} of {of} must be {wanted}, got {value!r}.")
    return tuple(numbers) if isinstance(default, tuple) else numbers[0]


SUITES: dict[str, tuple[Part, ...]] = {
    "clean": (_clean,),
    "corruptions": (_clean, _corruptions),
    "cbar": (_clean, _cbar),
    "mnist_c": (_clean, _mnist_c),
    "sensor": (_clean, _sensor),
    "pgd": (_clean, _pgd),
    "cw": (_clean, _cw),
    "attacks": (_clean, _pgd, _cw),
    "autoattack": (_clean, _autoattack),
    "transfer": (_clean, _transfer),
    "thickness": (_clean, _thickness),
    "flatness": (_clean, _flatness),
    "curvature": (_clean, _curvature),
    "noise": (_clean, _noise),
    "full": (_clean, _corruptions, _pgd),
}


def items(suite: str, config: dict, shape: Shape, asked: Asked = NOTHING) -> list[Item]:
    """Returns the items of a suite, or of several ('full,cbar'), for a run's configuration; each once.

    Args:
        suite: clean, corruptions (the benchmark that the configuration names), cbar (its set for images of this size), mnist_c,
            sensor; noise; pgd (the attacks that the configuration lists), cw (the same with the margin), attacks (both), autoattack,
            transfer; thickness, flatness, curvature; full: corruptions and pgd. Every suite has 'clean' in it.
        config: of the run.
        shape: (h, w, c) of the images that its network takes.
        asked: what the user asks for beyond it.

    Raises:
        InputError: for an unknown suite or benchmark, corruptions or options that images of this shape cannot have, a threat or
            version that there is not, or a reference of the mean corruption error that there is not: whatever would else stop the
            evaluation halfway.
    """
    chosen = suite.split(",")
    for one in chosen:
        if one not in SUITES:
            raise registry.unknown("suite", one, SUITES)
    _check_use(asked, chosen)
    found: dict[str, Item] = {}
    for part in (*(part for one in chosen for part in SUITES[one]), _curves):
        for item in part(config, shape, asked):
            if found.setdefault(item.name, item) != item:
                raise InputError(
                    f"two attacks of the configuration would have the result {item.name}; rename one in config.evaluation.attacks."
                )
    if any(item.options.get("benchmark") == config["evaluation"]["benchmark"] for item in found.values()):
        reference_of(config)
    return list(found.values())


def _check_use(asked: Asked, chosen: Sequence[str]) -> None:
    """Refuses what none of the suites would look at."""
    geometry = ("thickness", "flatness", "curvature")
    uses = {"threats": ("autoattack", "transfer"), "version": ("autoattack",), "surrogates": ("transfer",), "geometry": geometry}
    uses |= {"noise": ("noise",)}
    flags = {"threats": "threat", "version": "attack_version", "surrogates": "surrogate", "geometry": "geometry", "noise": "noise"}
    for field, readers in uses.items():
        if getattr(asked, field) and not set(readers) & set(chosen):
            raise InputError(f"--{flags[field]} is read by the suite {' or '.join(readers)}, got --suite={','.join(chosen)}.")


def reference_of(config: dict) -> metrics.Reference | None:
    """Returns the reference network by whose errors the run's mean corruption error is divided; None for the plain mean."""
    evaluation = config["evaluation"]
    benchmark = evaluation["benchmark"]
    return metrics.corruption_reference(evaluation["reference"], benchmark=benchmark, names=corruptions.NAMES[benchmark])
