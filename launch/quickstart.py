"""Trains a plain baseline and SPIDER on scikit-learn's digits, three seeds each, and measures both. See launch/quickstart.sh.

--search chooses SPIDER's (tau, xi) on the validation split instead: the grid of results/quickstart_search.json.
"""

import json
import math

import entry  # isort: skip
from absl import flags

_OUT = flags.DEFINE_string("out", "runs/quickstart", "Folder of the runs and of the report.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each method.", lower_bound=1)
_SEARCH = flags.DEFINE_bool("search", False, "Choose (tau, xi) on the validation split; takes some minutes.")

# Seeds of the search are not those of the reported runs.
SEARCH_SEEDS = (100, 101)
GRID = [(tau, xi) for tau in (4.0, 8.0, 12.0) for xi in (0.1, 0.3, 0.5)]
UNIFORM_AMPLITUDE = 0.4


def _config(method: str, seed: int, **options) -> dict:
    from configs.spider import digits

    config = digits.get_config(f"method={method}").to_dict()
    config["seed"] = seed
    config["method"].update(options)
    return config


def search(out: str) -> None:
    """Scores the grid on validation images: clean, and under uniform noise, which is not among the tested corruptions."""
    import numpy as np

    from robustjax import augment
    from robustjax.core import example_keys
    from robustjax.evaluate.load import load
    from robustjax.io import results
    from robustjax.train import build, loop

    rows = []
    for tau, xi in GRID:
        scores = []
        for seed in SEARCH_SEEDS:
            import jax
            import jax.numpy as jnp

            config = _config("spider", seed, tau=tau, xi=xi)
            workdir = f"{out}/search/tau{tau:g}_xi{xi:g}_seed{seed}"
            loop.train(config, workdir, quiet=True)
            experiment = build.build(config)
            images, labels = experiment.dataset.train.fetch(experiment.validation_ids)
            images = jnp.asarray(images, jnp.float32) / 255
            logits_fn = load(workdir).logits_fn
            noisy = augment.uniform_noise(example_keys(jax.random.key(0), experiment.validation_ids), images, amplitude=UNIFORM_AMPLITUDE)
            scores.append([float(np.mean(np.argmax(logits_fn(x), -1) == labels)) for x in (images, noisy)])
        clean, noise = np.mean(scores, axis=0)
        rows.append({"tau": tau, "xi": xi, "clean_accuracy": float(clean), "uniform_noise_accuracy": float(noise)})
        print(json.dumps(rows[-1]), flush=True)
    best = max(rows, key=lambda row: row["clean_accuracy"] + row["uniform_noise_accuracy"])
    results.write_json(
        f"{out}/quickstart_search.json",
        {
            "command": "python launch/quickstart.py --search",
            "split": "validation (20 % of the training digits)",
            "score": f"clean accuracy + accuracy under uniform noise of amplitude {UNIFORM_AMPLITUDE}, mean over seeds {list(SEARCH_SEEDS)}",
            "rows": rows,
            "best": best,
            "environment": results.environment(),
        },
    )
    print(f"best: {best}")


def compare(report: dict) -> list[str]:
    """Returns a line for each measure: the difference of the two rows and its standard error over the seeds."""
    rows = {row["method"]: row["metrics"] for row in report["rows"]}
    lines = []
    for name in (name for name in rows["spider"] if name == "mce" or name.endswith("_error")):
        base, ours = rows["none"][name], rows["spider"][name]
        if base["std"] is None:
            continue
        n = len(base["values"])
        error = math.sqrt((base["std"] ** 2 + ours["std"] ** 2) / n)
        lines.append(f"{name}: baseline minus SPIDER {100 * (base['mean'] - ours['mean']):+.2f} points, standard error {100 * error:.2f}")
    return lines


def main() -> None:
    """Trains, evaluates, prints one table."""
    from robustjax.evaluate import report, run
    from robustjax.io import log
    from robustjax.train import loop

    if _SEARCH.value:
        search(_OUT.value)
        return
    runs = []
    for method, name in (("none", "baseline"), ("spider", "spider")):
        for seed in range(_SEEDS.value):
            workdir = f"{_OUT.value}/{name}_{seed}"
            log.say(f"{name}, seed {seed}: training and evaluating")
            loop.train(_config(method, seed), workdir)
            runs.append((workdir, run.evaluate(workdir)))
    made = report.collect(runs, command="launch/quickstart.sh", title="Quickstart: scikit-learn's digits at 16x16 pixels")
    print(report.markdown(made))
    print("\n".join(compare(made)))
    for path in report.write(made, _OUT.value):
        print(path)


if __name__ == "__main__":
    entry.run(main)
