"""Figures: the numbers are those of the kernels, the files hold them, and what cannot be drawn is refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from robustjax import augment, losses, metrics
from robustjax.augment import noise
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.data import splits, toy
from robustjax.evaluate import boundary, distributions, figures, run, surfaces
from robustjax.evaluate.load import evaluation_data, load
from robustjax.evaluate.states import write_npz
from robustjax.io import results
from robustjax.train import loop
from tests import tiny

SMALL = boundary.Settings(width=32, hidden=2, steps=1500, copies=2, rate=1e-2)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Another seed."""
    folder = tmp_path_factory.mktemp("second")
    loop.train(tiny.config(seed=1), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def measured(workdir, second):
    """The two runs with results, made up in the form of real ones: see the slow test for these."""
    rng = np.random.default_rng(0)
    thickness = {"std": 0.2, "intervals": [[0.0, 0.75], [0.0, 1.0]]}
    for folder in (workdir, second):
        store(folder, "thickness/predicted", thickness, {f"thickness_0_{beta}": rng.uniform(0, 1, 24) for beta in (0.75, 1)})
        store(folder, "flatness/norm", {"of": "norm", "radii": [0.1, 0.2]}, {"loss": rng.uniform(1, 2, (3, 5))})
        store(folder, "curvature/finite", {"draws": 1, "std": 1.0}, {"curvature": rng.uniform(0, 2, 24)})
    store(second, "flatness/filters", {"of": "filters", "radii": [0.1]}, {"loss": rng.uniform(1, 2, (2, 5))})
    return [workdir, second]


def store(folder, name, options, arrays):
    """Writes a result as `evaluate` does."""
    loaded = load(folder)
    identity = {"config_hash": results.config_hash(results.comparable(loaded.meta["config"])), "data": "made-up patterns"}
    identity["weights"] = loaded.weights
    identity |= {"item": {"name": name, "options": options}}
    path = folder / "evaluation" / f"step{loaded.step}_n24" / f"{name}.json"
    results.write_json(path, {"name": name, "metrics": {}, "n": 24, "seconds": 1.0, "run": identity, "environment": {}})
    write_npz(path.with_suffix(".npz"), {"ids": np.arange(24), **arrays})


def arrays_of(folder, name):
    (path,) = folder.glob(f"evaluation/step{load(folder).step}_n*/{name}.npz")
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


@jax.jit
def loss_of(logits_fn, images, labels):
    return losses.cross_entropy(logits_fn(images), labels)


@jax.jit
def gradient_of(logits_fn, images, labels):
    return jax.grad(lambda x: loss_of(logits_fn, x, labels).sum())(images)


def test_landscape_is_the_kernels(workdir, second, tmp_path):
    # Kills: rows swapped, other images or draws for the second network, sizes in 8-bit levels, axes transposed, labels mixed up.
    made = figures.numbers("landscape", [workdir, second], ids=[7, 3], size=0.1, points=3, seed=2)
    images, labels = evaluation_data(load(workdir).meta).test.fetch(np.array([7, 3]))
    assert [row["label"] for row in made["rows"]] == [f"baseline [{folder.name}]" for folder in (workdir, second)]
    sizes = np.array([-0.1, 0, 0.1], np.float32)
    for folder, row in zip((workdir, second), made["rows"], strict=True):
        network = load(folder).logits_fn
        keys = example_keys(jax.random.key(2), jnp.array([7, 3]))
        for i in range(2):
            image, nine = images[i : i + 1].astype(np.float32) / 255, np.full(9, labels[i])
            sign = np.sign(np.asarray(gradient_of(network, image, nine[:1])))
            random = np.asarray(jax.random.rademacher(keys[i], image.shape[1:], jnp.float32))[None]
            moved = np.concatenate([image + p * sign + q * random for p in sizes for q in sizes])
            np.testing.assert_allclose(np.ravel(row["loss_nats"][i]), loss_of(network, moved, nine), rtol=2e-4, atol=1e-6)
    assert [column["label"] for column in made["columns"]] == [f"pattern {label}" for label in labels]
    np.testing.assert_array_equal(made["columns"][0]["pixels"], images[0])
    picture, numbers = figures.write(made, tmp_path / "new" / "landscape.png")
    assert json.loads(numbers.read_text()) == json.loads(json.dumps(made))
    with Image.open(picture) as drawn:
        assert drawn.width > 500


def test_weights_are_the_kernel(workdir, tmp_path):
    # Kills: one direction twice, the statistics moved, a sum in place of the mean, another scaling.
    made = figures.numbers("weights", [workdir], examples=5, size=0.5, points=3, seed=1)
    loaded = load(workdir)
    params, stats = loaded.logits_fn.args
    images, labels = evaluation_data(loaded.meta).test.fetch(splits.subset(24, 5))
    directions = [metrics.gaussian_direction(key, params) for key in jax.random.split(jax.random.key(1), 2)]
    directions = [metrics.filter_normalize(direction, params) for direction in directions]
    for p, q in ((0, 2), (1, 1), (2, 1)):
        moved = jax.tree.map(lambda w, a, b, p=p, q=q: w + (p - 1) * 0.5 * a + (q - 1) * 0.5 * b, params, *directions)
        loss = loss_of(jax.tree_util.Partial(loaded.logits_fn.func, moved, stats), images.astype(np.float32) / 255, labels).mean()
        np.testing.assert_allclose(made["rows"][0]["loss_nats"][p][q], loss, rtol=2e-4)
    assert figures.write(made, tmp_path / "weights.png")[0].stat().st_size > 10_000


def test_points_are_perturbed_by_the_librarys_kernels():
    # Kills: channels and pixels mixed up, epsilon at the whole size, soft labels where they should be hard, hard ones where soft.
    data, key = toy.spirals(points=20), jax.random.key(5)
    points, labels, keys = jnp.asarray(data.points), jnp.asarray(data.labels), example_keys(key, jnp.arange(40))
    images, xi = points.reshape(40, 1, 1, 2), augment.xi_from_ratio(1.5, num_classes=2)
    hard = jax.nn.one_hot(labels, 2)
    made = {name: boundary.perturbed(key, points, labels, jnp.float32(0.1), name, 1.5) for name in boundary.METHODS}
    expected = {
        "naive": (images, hard),
        "l2": (noise.l2_sphere(keys, images, radius=0.1), hard),
        "spider": augment.spider(keys, images, labels, tau=0.1, xi=xi, num_classes=2)[:2],
        "esp": augment.esp(keys, images, labels, epsilon=0.05, tau=0.05, xi=xi, num_classes=2)[:2],
    }
    for name, (moved, targets) in expected.items():
        np.testing.assert_allclose(made[name][0], moved.reshape(40, 2), rtol=1e-6)
        np.testing.assert_allclose(made[name][1], targets, rtol=1e-6)
    distance = jnp.linalg.norm(made["l2"][0] - points, axis=1)
    np.testing.assert_allclose(distance, 0.1, rtol=1e-5)


def test_boundary_has_its_panels_and_separates_the_points(tmp_path, monkeypatch):
    # Kills: axes swapped, a training that does nothing, 'naive' twice, the sign of the class, a picture over its size.
    with monkeypatch.context() as patch:
        patch.setattr(boundary, "METHODS", {name: boundary.METHODS[name] for name in ("naive", "spider")})  # two programs of four
        made = boundary.boundaries(sizes=(0.1, 0.07), points=11, seed=0, settings=SMALL)
    assert [(panel["method"], panel["largest"]) for panel in made["panels"]] == [("naive", None), ("spider", 0.1), ("spider", 0.07)]
    data = toy.spirals(points=boundary.ARM)
    points, labels = jnp.asarray(data.points), jnp.asarray(data.labels)
    weights = boundary.train(jax.random.key(0), points, labels, jnp.float32(0.07), "spider", SMALL)
    assert (jnp.argmax(boundary.network(weights, points), axis=1) == labels).mean() > 0.97
    logits = boundary.network(weights, jnp.array([[0.7, 0.2]]))[0]
    np.testing.assert_allclose(made["panels"][2]["log_odds"][2][7], logits[1] - logits[0], rtol=1e-3, atol=1e-4)
    picture, _ = figures.write(made, tmp_path / "boundary.png")
    assert 10_000 < picture.stat().st_size < 200_000


def test_seeds_share_a_row_and_numbers_are_those_of_the_draws(measured, tmp_path):
    # Kills: seeds as rows of their own, the mean of another axis, radii without 0, thickness in pixels, all images in the boxes.
    flat = figures.numbers("flatness", measured)
    assert flat["variant"] == "norm" and flat["radii"] == [0.0, 0.1, 0.2]
    (row,) = flat["rows"]
    assert (row["label"], row["draws"], [about["seed"] for about in row["runs"]]) == ("baseline", 10, [0, 1])
    draws = np.concatenate([arrays_of(folder, "flatness/norm")["loss"] for folder in measured], axis=1)
    np.testing.assert_allclose(row["mean_nats"], draws.mean(1), rtol=1e-4)
    np.testing.assert_allclose(row["high_nats"], np.quantile(draws, 0.95, axis=1), rtol=1e-4)

    thick = figures.numbers("thickness", measured, label=["a", "b"])
    assert [row["label"] for row in thick["rows"]] == ["a", "b"]
    values = arrays_of(measured[1], "thickness/predicted")["thickness_0_0.75"] / 0.2
    second = thick["rows"][1]["intervals"][0]
    np.testing.assert_allclose([second["mean"], sum(second["share"])], [values.mean(), 1], rtol=1e-4)

    curved = figures.numbers("curvature", measured[:1], portion=0.5)
    lowest = np.sort(arrays_of(measured[0], "curvature/finite")["curvature"])[:12]
    row = curved["rows"][0]
    np.testing.assert_allclose([row["mean"], row["median"]], [lowest.mean(), np.median(lowest)], rtol=1e-4)
    assert curved["variant"] == "finite" and row["images"] == 12
    for made in (flat, thick, curved):
        picture, numbers = figures.write(made, tmp_path / f"{made['figure']}.png")
        assert picture.stat().st_size > 5_000 and json.loads(numbers.read_text())["rows"] == made["rows"]


def test_labels_tell_runs_apart():
    # Kills: two methods under one name, seeds with the names of folders where they are one row.
    spider = {"name": "spider", "tau": 1.0, "xi": 0.3}
    configs = [
        results.completed(tiny.config(**change)) for change in ({}, {"seed": 1}, {"method": spider}, {"method": spider, "epochs": 3})
    ]
    spiders = ["SPIDER (tau 1, xi 0.3) [c]", "SPIDER (tau 1, xi 0.3) [d]"]
    assert surfaces._labels(list("abcd"), configs, True) == ["baseline", "baseline", *spiders]
    assert surfaces._labels(list("abcd"), configs, False) == ["baseline [a]", "baseline [b]", *spiders]


@pytest.mark.slow
def test_real_results_can_be_drawn(workdir, tmp_path):
    # Kills: names of arrays and folders that `evaluate` does not write.
    folder = tmp_path / "copy"
    shutil.copytree(workdir, folder, ignore=shutil.ignore_patterns("evaluation"))
    settings = ("thickness.points=8", "flatness.draws=2", "hessian.draws=1", "hessian.steps=2", "curvature.draws=1")
    found = run.evaluate(folder, suite="thickness,flatness,curvature", geometry_settings=settings, quiet=True)
    metrics_of = {result["name"]: result["metrics"] for result in found}
    made = {name: figures.numbers(name, [folder]) for name in distributions.VARIANTS}
    flat = made["flatness"]["rows"][0]["mean_nats"]
    np.testing.assert_allclose(
        [flat[0], flat[1]], [metrics_of["flatness/norm"][f"loss_at_{at}"] for at in ("0", "0.1_of_norm_mean")], rtol=1e-4
    )
    thick = made["thickness"]["rows"][0]["intervals"][0]["mean"]
    np.testing.assert_allclose(thick, metrics_of["thickness/predicted"]["thickness_0_0.75_per_std_0.2_mean"], rtol=1e-4)
    whole = figures.numbers("curvature", [folder], portion=1.0)["rows"][0]["mean"]
    np.testing.assert_allclose(whole, metrics_of["curvature/finite"]["curvature_pixels_mean"], rtol=1e-4)
    for name, numbers in made.items():
        assert figures.write(numbers, tmp_path / f"{name}.png")[0].stat().st_size > 5_000


def test_what_cannot_be_drawn_from_results_is_refused(measured, tmp_path):
    # Kills: results of other settings side by side, a run counted twice, a damaged npz as a traceback, a stale checkpoint's numbers.
    one, other = measured
    with pytest.raises(InputError, match="is there twice"):
        figures.numbers("flatness", [one, one])
    with pytest.raises(InputError, match="has no result flatness/absolute of checkpoint .* --suite=flatness"):
        figures.numbers("flatness", [one], variant="absolute")
    with pytest.raises(InputError, match="has no result of the suite flatness of checkpoint"):
        figures.numbers("flatness", [one], checkpoint=12 - load(one).step)  # of 4 and 8 the one that is not the best
    copy = tmp_path / "copy"
    shutil.copytree(other, copy)
    (path,) = copy.glob("evaluation/*/flatness/norm.json")
    path.unlink()
    with pytest.raises(InputError, match="have no kind of flatness in common .*: norm; .*: filters"):
        figures.numbers("flatness", [one, copy])
    store(copy, "curvature/finite", {"draws": 20, "std": 1.0}, {"curvature": np.ones(24)})
    with pytest.raises(InputError, match="was measured with 24 images .*draws 20.* with 24 images .*draws 1,.*same --limit"):
        figures.numbers("curvature", [one, copy])
    (path,) = copy.glob("evaluation/*/curvature/finite.npz")
    path.write_bytes(b"half")
    with pytest.raises(InputError, match="finite.npz is missing or damaged; delete finite.json"):
        figures.numbers("curvature", [copy])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("landscap", {}, "unknown figure 'landscap'; did you mean 'landscape'"),
        ("boundary", {"images": 3}, "--images is read by the figure landscape, got --figure=boundary"),
        ("boundary", {"points": 1}, "--points .* at least 2, got 1"),
        ("boundary", {"sizes": [0.1, -1.0]}, "must be above 0, got -1.$"),
        ("landscape", {}, "name the folder of at least one"),
        ("thickness", {"variant": "labels"}, "unknown variant of thickness 'labels'; did you mean 'label'"),
        ("curvature", {"portion": 0.0}, "--portion .* above 0 and at most 1, got 0"),
        ("weights", {"scaling": "tree"}, "give --size"),
    ],
)
def test_what_is_wrong_is_one_clear_line(name, options, message):
    with pytest.raises(InputError, match=message):
        figures.numbers(name, **options)


def test_images_that_networks_cannot_share_are_refused(workdir, tmp_path, monkeypatch):
    # Kills: a landscape of one network on the images of another; ids that wrap round; labels in another order than runs.
    with pytest.raises(InputError, match="examples 0 to 23, but id 24"):
        figures.numbers("landscape", [workdir], ids=[24])
    with pytest.raises(InputError, match="once for each --workdir, in their order: got 1 for 2"):
        figures.numbers("landscape", [workdir, workdir], label=["one"])
    with pytest.raises(InputError, match="no checkpoints in"):
        figures.numbers("weights", [tmp_path / "none"])
    with pytest.raises(InputError, match="must end in one of .png"):
        figures.check_out(tmp_path / "figure.gif")

    def larger(folder, **options):
        loaded = load(folder, **options)
        size = 20 if folder.name == "other" else 16
        return loaded._replace(meta={**loaded.meta, "model": {**loaded.meta["model"], "image_shape": (size, size, 1)}})

    (tmp_path / "other").symlink_to(workdir)
    monkeypatch.setattr(surfaces, "load", larger)
    with pytest.raises(InputError, match=r"images 16x16x1\), .*images 20x20x1\); draw one figure for each"):
        figures.numbers("landscape", [workdir, tmp_path / "other"])
