"""Which configuration trains each row of the papers' tables and each point of their figures: for launch/reproduce.py and launch/sweep.py.

Names of tables, data sets and rows are those of robustjax/reference/tables.json; a test finds rows that are missing here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from robustjax.augment import xi_from_ratio

_NONE: Mapping = MappingProxyType({})


class Row(NamedTuple):
    """How the networks of a row are trained."""

    options: str = ""  # behind ':' of the configuration
    overrides: Mapping = _NONE  # {"optimizer.lr": 0.03}

    def also(self, options: str = "", **overrides) -> "Row":
        """Returns the row with further options, and overrides whose dots are written '__'."""
        changed = {key.replace("__", "."): value for key, value in overrides.items()}
        return Row(",".join(filter(None, (self.options, options))), {**self.overrides, **changed})


class Table(NamedTuple):
    """A table: its rows, the configuration of each data set, and what is measured."""

    rows: Mapping[str, Row]
    files: Mapping[str, str]  # data set -> file in configs/; 'digits' is in no paper
    suite: str  # of launch/evaluate.py; 'search': what launch/tune.py takes
    arguments: tuple[str, ...] = ()  # of launch/evaluate.py
    surrogate: Row | None = None  # of the suite 'transfer'


class Sweep(NamedTuple):
    """A figure, or a table that is one: points of each line, by data set. Points are numbers, or names that stand side by side."""

    title: str
    lines: Mapping[str, Mapping[str, Mapping[float | str, Row]]]  # data set -> label -> point -> row
    files: Mapping[str, str]
    suite: str
    metrics: tuple[str, ...]
    axis: str  # what points are of
    baseline: Row | None = None  # a level line beside the others
    radii: Mapping[str, Mapping[str, Row]] = _NONE  # data set -> label -> row: the loss by distance from the weights, beside the lines
    paper: str = ""  # key in tables.json of the rows that `printed` names
    printed: Mapping[str, Mapping[float | str, str]] = _NONE  # label -> point -> row


def _added_to(augmentations: tuple[str, ...], methods: tuple[str, ...]) -> dict[str, Row]:
    """Returns a row for each method alone and with each augmentation."""
    rows = {}
    for augmentation in ("", *augmentations):
        for method in methods:
            name = "+".join(part for part in (augmentation, method) if part and (part != "none" or not augmentation))
            rows[name] = Row(f"method={method}").also(f"augment={augmentation}" if augmentation else "")
    return rows


def _spider(*methods: str) -> dict[str, Row]:
    return _added_to(("augmix", "deepaugment", "pixmix"), methods)


_SPIDER = {
    "cifar10": "spider/cifar10",
    "cifar100": "spider/cifar100",
    "tiny_imagenet": "spider/tiny_imagenet",
    "digits": "spider/digits",
}
_ESP = {
    "mnist": "esp/mnist",
    "cifar10": "esp/cifar10",
    "cifar100": "esp/cifar100",
    "tiny_imagenet": "esp/tiny_imagenet",
    "digits": "esp/digits",
}
_RAT = {"cifar10": "rat/cifar10", "cifar100": "rat/cifar100", "svhn_cropped": "rat/svhn"}
_NOISE = {"cifar10": "discriminative/cifar10", "svhn_cropped": "discriminative/svhn", "digits": "discriminative/digits"}


def _only(files: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: files[name] for name in names}


_BOTH = _spider("none", "spider")
_DENSENET = Row("method=none,model=densenet")
_TAYLOR = {"trades": "order=0", "rat_1": "order=1", "rat_2": "order=2"}
_TAYLOR_AWP = {f"{name}_awp": f"{options},awp=on" for name, options in _TAYLOR.items()}
_NETWORKS = {"densenet_40_12": "densenet", "wide_resnet_40_1": "wrn_40_1", "allconv": "allconv"}
_PERTURBED = {
    "none": "normal",
    "gaussian_noise": "noisy",
    "clean_and_noisy": "clean_noisy",
    "stability": "stability",
    "discriminative": "full",
}
_LABELS = ("--geometry=thickness.class_i=label",)
_ETAS = (0.05, 0.1, 0.2, 0.3, 0.4)
_ABLATION = {
    "discriminative, alpha 1, beta 0, gamma_reg 0.001, noisy 0": "center",
    "discriminative, alpha 0, beta 1, gamma_reg 0.001, noisy 0": "margin",
    "discriminative, alpha 1, beta 1, gamma_reg 0.001, noisy 0": "clean",
    "discriminative, alpha 1, beta 1, gamma_reg 0, noisy 0": "reg0",
    "discriminative, alpha 1, beta 1, gamma_reg 1, noisy 0": "reg1",
}


def _esp_of(size: float, gamma: int, classes: int) -> Row:
    """Returns ESP with tau = epsilon, and the xi that the paper has for gamma, which it prints with three digits."""
    xi = round(xi_from_ratio(gamma, num_classes=classes), 3)
    return Row("method=esp", {"method.epsilon": size, "method.tau": size, "method.xi": xi})


def _eta_row(order: int, eta: float) -> str:
    """Returns what tables.json calls a row of RAT's Table 1."""
    return f"rat_{order}" + ("" if eta == {1: 0.3, 2: 0.2}[order] else f", eta {eta:g}")


TABLES: dict[str, Table] = {
    "spider/1": Table(_BOTH, _only(_SPIDER, "cifar10", "cifar100", "digits"), "thickness", _LABELS),
    "spider/2": Table(_spider("spider", "no_ls"), _only(_SPIDER, "cifar10", "digits"), "thickness", _LABELS),
    "spider/3": Table(_BOTH, _SPIDER, "corruptions,pgd"),
    "spider/4": Table(_BOTH, _SPIDER, "clean"),
    "spider/5": Table(_BOTH, {"imagenet2012": "spider/imagenet"}, "corruptions,pgd"),
    "spider/6": Table(
        _spider("none", "spider", "no_ls", "std_ls", "mixup"), _only(_SPIDER, "cifar100", "cifar10", "digits"), "corruptions,pgd"
    ),
    "spider/7": Table(_spider("spider"), _only(_SPIDER, "cifar10", "cifar100", "digits"), "search"),
    "spider/8": Table(
        {f"{name}: {method}": row.also(f"model={model}") for name, model in _NETWORKS.items() for method, row in _BOTH.items()},
        _only(_SPIDER, "cifar100", "cifar10"),
        "corruptions,pgd",
    ),
    "spider/9": Table(
        {f"densenet_40_12: none, lr {rate:g}": _DENSENET.also(optimizer__lr=rate) for rate in (3e-3, 1e-2, 3e-2)}
        | {f"densenet_40_12: none, weight_decay {decay:g}": _DENSENET.also(optimizer__weight_decay=decay) for decay in (0.0, 1e-4)}
        | {f"densenet_40_12: none, l1 {weight:g}": _DENSENET.also(penalty__l1=weight) for weight in (5e-7, 2e-6, 5e-6)}
        | {"densenet_40_12: spider": Row("method=spider,model=densenet")},
        _only(_SPIDER, "cifar100", "cifar10"),
        "corruptions,pgd",
    ),
    "esp/1": Table(_added_to(("augmix", "deepaugment", "augmix+deepaugment"), ("none", "l2_sphere", "esp")), _ESP, "corruptions"),
    "rat/1": Table(
        {_eta_row(order, eta): Row(f"order={order}", {"objective.eta": eta}) for order in (1, 2) for eta in _ETAS},
        _only(_RAT, "cifar10"),
        "attacks,autoattack",
    ),
    "rat/2": Table(
        {name: Row(f"{options},model=wrn") for name, options in (_TAYLOR | _TAYLOR_AWP).items()},
        _only(_RAT, "cifar10", "cifar100"),
        "attacks,autoattack",
    ),
    "rat/3": Table({name: Row(f"{_TAYLOR_AWP[name]},threat=l2") for name in ("trades_awp", "rat_2_awp")}, _RAT, "attacks,autoattack"),
    "rat/4": Table(
        {name: Row(_TAYLOR_AWP[name]) for name in ("trades_awp", "rat_2_awp")},
        _RAT,
        "transfer",
        ("--threat=linf:8/255",),
        surrogate=Row("method=madry"),
    ),
    "rat/5": Table(
        {
            f"{network}: {name}": Row(f"{options},model={model}")
            for network, model in (("vgg16_bn", "vgg16"), ("mobilenet_v2", "mobilenet"))
            for name, options in (_TAYLOR | _TAYLOR_AWP).items()
            if "rat_1" not in name
        },
        _only(_RAT, "cifar10"),
        "attacks,autoattack",
    ),
    "discriminative/1": Table(
        {name: Row(f"method={method}") for name, method in _PERTURBED.items()}, _only(_NOISE, "cifar10", "digits"), "noise"
    ),
    "discriminative/2": Table(
        {name: Row(f"method={method}") for name, method in _PERTURBED.items()}, _only(_NOISE, "svhn_cropped"), "noise"
    ),
    "discriminative/5": Table({name: Row(f"method={method}") for name, method in _ABLATION.items()}, _NOISE, "clean"),
}

NOT_RUNNABLE = {
    "rat/6": "time and memory of a step are measured by python launch/benchmark_adversarial.py --networks=wrn",
    "discriminative/3": "the paper's road images are private; configs/discriminative/image_folder.py trains on your own",
    "discriminative/4": "the paper's road images are private; configs/discriminative/image_folder.py trains on your own",
}

_SIZES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)  # [ours]: neither paper prints where its points are
_GAMMAS = {10: (10, 20), 100: (20, 50, 100)}  # ESP, section 4.2: how many times likelier than another class the true one stays
_CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100, "digits": 10}
_ORDERS = {"1st": 1, "1st + 2nd": 2}
_PARTS = {"compactness": "center", "margin": "margin", "both": "clean", "both, gamma_reg 0": "reg0", "both, gamma_reg 1": "reg1"}
_MIXED = {
    "none": Row("method=esp"),
    "AugMix": Row("method=esp,augment=augmix"),
    "DeepAugment": Row("method=esp,augment=deepaugment"),
    "AugMix + DeepAugment": Row("method=esp,augment=augmix+deepaugment"),
}
_FLAT = {
    "naive": Row("method=none"),
    "ESP": Row("method=esp"),
    "AugMix": Row("method=none,augment=augmix"),
    "DeepAugment": Row("method=none,augment=deepaugment"),
}

SWEEPS: dict[str, Sweep] = {
    "spider/fig5": Sweep(
        "SPIDER, Figure 5: the radius tau where s(tau) = 0.5",
        {
            data: {
                "SPIDER": {tau: Row("method=spider", {"method.tau": tau, "method.xi": 0.5 - 1 / classes}) for tau in (*_SIZES, 16.0, 20.0)}
            }
            for data, classes in _CLASSES.items()
            if data != "mnist"
        },
        _only(_SPIDER, "cifar10", "cifar100", "digits"),
        "corruptions,cbar",
        ("mce", "mce_cifar_cbar", "clean_error"),
        "tau",
        baseline=Row("method=none"),
    ),
    "esp/fig3": Sweep(
        "ESP, Figure 3: epsilon, with tau = epsilon and sigma = tau / 2",
        {
            data: {f"gamma = {gamma}": {size: _esp_of(size, gamma, classes) for size in _SIZES} for gamma in _GAMMAS[classes]}
            for data, classes in _CLASSES.items()
        },
        _only(_ESP, "mnist", "cifar10", "cifar100", "digits"),
        "corruptions",
        ("mce",),
        "epsilon",
        baseline=Row("method=none"),
    ),
    "esp/fig4": Sweep(
        "ESP, Figure 4: without the smoothing function, and the flatness of minima",
        {
            data: {"ESP": _MIXED, "without smoothing": {name: row.also(method__xi=1 - 1 / classes) for name, row in _MIXED.items()}}
            for data, classes in _CLASSES.items()
        },
        _only(_ESP, "cifar10", "cifar100", "mnist", "digits"),
        "corruptions",
        ("mce",),
        "added to",
        radii={"cifar10": _FLAT, "digits": _FLAT},
    ),
    "rat/1": Sweep(
        "RAT, Table 1: the weight eta of the Taylor terms",
        {"cifar10": {label: {eta: TABLES["rat/1"].rows[_eta_row(order, eta)] for eta in _ETAS} for label, order in _ORDERS.items()}},
        _only(_RAT, "cifar10"),
        "attacks,autoattack",
        ("clean_accuracy", "pgd20_linf", "cw20_linf", "autoattack/linf_8_255_robust"),
        "eta",
        paper="rat/1",
        printed={label: {eta: _eta_row(order, eta) for eta in _ETAS} for label, order in _ORDERS.items()},
    ),
    "discriminative/5": Sweep(
        "Discriminative loss, Table 5: its parts, on clean images alone",
        {data: {"accuracy": {part: Row(f"method={method}") for part, method in _PARTS.items()}} for data in _NOISE},
        _NOISE,
        "clean",
        ("clean_accuracy",),
        "part",
        paper="discriminative/5",
        printed={"accuracy": dict(zip(_PARTS, _ABLATION, strict=True))},
    ),
}
