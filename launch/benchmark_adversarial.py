"""Measures one step of adversarial training, time and memory, as ratios to TRADES: RAT's Taylor terms, rematerialisation, AWP.

python launch/benchmark_adversarial.py --out=results/benchmark_adversarial_cpu.json

The step is that of configs/rat/cifar10.py, augmentation and optimiser included, on made-up images and one device. Each method takes
turns with TRADES (A B A B ...), TRADES itself too, whose ratio shows how far to trust the others. XLA on CPU merges what
rematerialisation computes again with the first computation, so that a run on CPU saves nothing; there those rows are compiled
without the pass that lets it, to show what an accelerator does. On two CPU cores all of it takes some tens of minutes, most of which
XLA compiles; --methods and --networks choose.
"""

import concurrent.futures
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import timing

import entry  # isort: skip
from absl import flags

SIZE = 32  # pixels
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
# Convolutions for each of the network's, of one view with its gradient, by order (see losses.taylor_derivatives); and for the first of
# the network's, whose input depends on no weight.
PER_VIEW, FIRST_PER_VIEW = (3, 8, 13), (2, 3, 3)
# {name: (model of configs/rat/cifar10.py, images in a batch, the network's options or None for the configuration's)}
NETWORKS = {
    "small": ("small", 128, None),
    "preact_narrow": ("preact", 32, {"width": 8}),
    "preact": ("preact", 128, None),
    "wrn": ("wrn", 128, None),
}
PAPER = {
    "source": '"Randomized Adversarial Training via Taylor Expansion", Table 6: WRN-34-10 on one NVIDIA A100, batch 128',
    "measured": "the heuristic of its released code in place of the Taylor terms",
    "seconds_an_epoch": {"trades": 1666, "rat1": 2161, "rat2": 2362},
    "memory_megabytes": {"trades": 12875, "rat1": 20629, "rat2": 26409},
}


class Method(NamedTuple):
    """What is trained."""

    label: str
    order: int
    awp: bool = False
    fraction: float = 1.0
    remat: bool = False
    released: bool = False


_ORDERS = {"trades": ("TRADES", 0), "rat1": ("RAT, first order", 1), "rat2": ("RAT, first and second order", 2)}
_FORMS = {
    "": ("", {}),
    "_remat": (", blocks rematerialised", {"remat": True}),
    "_half": (", terms on half of the batch", {"fraction": 0.5}),
    "_awp": (", with AWP", {"awp": True}),
}
METHODS = {
    name + form: Method(label + more, order, **changes)
    for form, (more, changes) in _FORMS.items()
    for name, (label, order) in _ORDERS.items()
    if order or form != "_half"
} | {"rat_released": Method("RAT, the released heuristic", 0, released=True)}

_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_PAIRS = flags.DEFINE_integer("pairs", 7, "How often each pair is measured.", lower_bound=3)
_NETWORKS = flags.DEFINE_list(
    "networks", [], f"Which of {', '.join(NETWORKS)}, separated by commas; default: the first two on CPU, the others elsewhere."
)
_METHODS = flags.DEFINE_list("methods", list(METHODS), "Which methods, separated by commas; TRADES is always measured.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps of the inner maximisation; K in the papers.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 0, "Images in a batch; default: the network's own, 128 or 32.", lower_bound=0)
_WORKERS = flags.DEFINE_integer(
    "compile_at_once",
    0,
    "Programs compiled at the same time; default: one where the step runs on the CPU, else one for two cores.",
    lower_bound=0,
)


def configuration(network: str, method: Method) -> dict:
    """Returns the configuration of a run."""
    from configs.rat import cifar10

    model, batch, options = NETWORKS[network]
    text = f"model={model},awp={'on' if method.awp else 'off'},"
    config = cifar10.get_config(text + ("method=released" if method.released else f"order={method.order}")).to_dict()
    batch = _BATCH.value or batch
    if options is not None:
        config["model"]["options"] = options
    if method.order:
        config["objective"]["taylor_fraction"] = method.fraction
    config["objective"]["steps"] = _STEPS.value
    config["data"] |= {"name": "fake", "options": {"size": SIZE, "train": 4 * batch, "test": 8}, "validation": 0.2}
    # AWP computes the same before and after its warm-up.
    return config | {"batch_size": batch, "remat": method.remat, "steps_per_dispatch": 1}


class Step:
    """One compiled training step; called, it takes a step and waits for it. It has a state between `begin` and `end` only."""

    def __init__(self, network: str, method: Method):
        import jax

        from robustjax.core import parallel
        from robustjax.train import build, feed

        self.config = configuration(network, method)
        experiment = build.build(self.config)
        self.layers = sum(weight.ndim == 4 for weight in experiment.params.values())
        self._mesh = parallel.data_mesh(jax.devices()[:1])
        self._fresh = jax.device_get(build.initial_state(experiment))
        steps = feed.Resident(experiment, self._mesh, feed.place(experiment, self._mesh))
        self._rest = (steps.replicated, next(steps.dispatches(0, 1))[1])
        self.begin()
        lowered = jax.jit(steps.function, donate_argnums=0).lower(self._state, *self._rest)
        self.end()
        self.options = KEEP_BARRIERS if method.remat and jax.default_backend() == "cpu" else {}
        began = time.perf_counter()
        self._compiled = lowered.compile(compiler_options=self.options)
        self.compile_seconds = time.perf_counter() - began
        self.temporary_bytes = self._compiled.memory_analysis().temp_size_in_bytes
        self.convolutions = timing.convolutions(self._compiled.as_text())
        self.peak_bytes: int | None = None

    def begin(self) -> None:
        """Puts the initial state on the device."""
        import jax
        import jax.numpy as jnp

        from robustjax.core import parallel

        self._state = parallel.replicate(jax.tree.map(jnp.asarray, self._fresh), self._mesh)

    def end(self) -> None:
        """Lets the state go."""
        self._state = None

    def __call__(self) -> None:
        import jax

        self._state, _marker = self._compiled(self._state, *self._rest)
        jax.block_until_ready(self._state)

    def finite(self) -> bool:
        """Returns whether no loss was NaN or infinite since `begin`."""
        return int(self._state.sums.bad_step) < 0


def floor(method: Method, layers: int) -> float | None:
    """Returns how many convolutions of a whole batch a step of a network with so many needs; None if it computes its blocks again."""
    if method.remat:
        return None

    def views(order: int) -> int:
        return 2 * (PER_VIEW[order] * (layers - 1) + FIRST_PER_VIEW[order])

    attack = (2 * _STEPS.value + 1) * layers
    return attack + method.fraction * views(method.order) + (1 - method.fraction) * views(0) + views(0) * method.awp


def peaks(steps: dict[str, Step]) -> None:
    """Finds the most bytes that the device held in each step, where it tells.

    The device knows the most since the process began. Steps are taken from the smallest up, so that it is each one's own, or else unknown.
    """
    import jax

    def most() -> int | None:
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    if most() is None:
        return
    for step in sorted(steps.values(), key=lambda step: step.temporary_bytes):
        before = most()
        step.begin()
        step()
        step.end()
        step.peak_bytes = most() if most() > before else None


def turns(trades: Step, step: Step) -> dict:
    """Times a step and TRADES in turn."""
    for one in {trades, step}:
        one.begin()
        one()
    found = timing.paired(trades, step, _PAIRS.value)
    finite = trades.finite() and step.finite()
    for one in {trades, step}:
        one.end()
    return {
        "seconds": found["seconds"][1],
        "trades_seconds": found["seconds"][0],
        "times_trades": found["ratio_median"],
        "times_trades_range": found["ratio_range"],
        "finite": finite,
    }


def at_once() -> int:
    """Returns how many programs are compiled at the same time."""
    import jax

    return _WORKERS.value or (1 if jax.default_backend() == "cpu" else max(1, (os.cpu_count() or 1) // 2))


def measure(network: str, names: list[str]) -> Iterator[dict]:
    """Yields what a step of each method takes, beside TRADES: the same dict after each, with one method more."""

    def compiled(name: str) -> Step:
        step = Step(network, METHODS[name])
        print(f"{network}, {name}: compiled in {step.compile_seconds:.0f} s", file=sys.stderr, flush=True)
        return step

    with concurrent.futures.ThreadPoolExecutor(at_once()) as pool:
        steps = dict(zip(names, pool.map(compiled, names), strict=True))
    peaks(steps)
    trades, rows = steps["trades"], []
    found = {
        "network": network,
        "model": trades.config["model"],
        "batch": trades.config["batch_size"],
        "convolutions_of_the_network": trades.layers,
        "methods": rows,
    }
    lowest = floor(METHODS["trades"], trades.layers)
    for name, step in steps.items():
        needed = floor(METHODS[name], step.layers)
        rows.append(
            {
                "name": name,
                "label": METHODS[name].label,
                **turns(trades, step),
                "convolutions": step.convolutions,
                "convolutions_times_trades": _ratio(step.convolutions, trades.convolutions),
                "floor_convolutions": needed,
                "floor_times_trades": _ratio(needed, lowest),
                "temporary_bytes": step.temporary_bytes,
                "temporary_times_trades": _ratio(step.temporary_bytes, trades.temporary_bytes),
                "peak_bytes": step.peak_bytes,
                "peak_times_trades": _ratio(step.peak_bytes, trades.peak_bytes),
                "compile_seconds": step.compile_seconds,
                "compiler_options": step.options,
            }
        )
        print(f"{network}, {name}: {rows[-1]['seconds']:.3f} s, {rows[-1]['times_trades']:.2f} times TRADES", file=sys.stderr, flush=True)
        yield found


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def main() -> None:
    """Measures every network, and prints the numbers; a file has them after each method."""
    import jax

    from robustjax.core import registry
    from robustjax.io import results

    for kind, asked, known in (("network", _NETWORKS.value, NETWORKS), ("method", _METHODS.value, METHODS)):
        for name in asked:
            if name not in known:
                raise registry.unknown(kind, name, known)
    jax.config.update("jax_compilation_cache_dir", None)  # compilation is measured too
    default = ["small", "preact_narrow"] if jax.default_backend() == "cpu" else ["preact", "wrn"]
    report = {
        "command": shlex.join(["python", "launch/benchmark_adversarial.py", *sys.argv[1:]]),
        "environment": results.environment(),
        "pgd_steps": _STEPS.value,
        "pairs": _PAIRS.value,
        "compiled_at_once": at_once(),
        "size": SIZE,
        "paper": PAPER,
        "measured": [],
    }
    for network in _NETWORKS.value or default:
        finished = report["measured"]
        for found in measure(network, [name for name in METHODS if name == "trades" or name in _METHODS.value]):
            report["measured"] = [*finished, found]
            if _OUT.value:
                results.write_json(_OUT.value, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    entry.run(main)
