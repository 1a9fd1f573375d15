"""Figures of noisy images: the numbers are those of the kernels called by hand, every example counts as often as it should."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses
from robustjax.augment.noise import gaussian_noise, uniform_noise
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.data import splits
from robustjax.evaluate import embedding, figures, noisy
from robustjax.evaluate.attacked import Subject
from robustjax.evaluate.load import apply_of, evaluation_data, load
from robustjax.evaluate.states import write_npz
from robustjax.io import results

STD, REPEATS = 0.4, 5


@pytest.fixture(scope="module")
def measured(workdir):
    """The run with curvature of all its test images but two, made up in the form of real results."""
    loaded = load(workdir)
    dataset = evaluation_data(loaded.meta)
    ids = np.setdiff1d(np.arange(24), [3, 11])
    identity = {"config_hash": results.config_hash(results.comparable(loaded.meta["config"])), "data": dataset.provenance}
    identity["weights"] = loaded.weights
    identity |= {"item": {"name": "curvature/finite", "options": {"draws": 1, "std": 1.0}}}
    path = workdir / "evaluation" / f"step{loaded.step}_n22" / "curvature" / "finite.json"
    results.write_json(path, {"name": "curvature/finite", "metrics": {}, "n": 22, "seconds": 1.0, "run": identity, "environment": {}})
    curvature = np.random.default_rng(0).uniform(0, 2, 22).astype(np.float32)
    write_npz(path.with_suffix(".npz"), {"ids": ids, "labels": dataset.test.labels[ids], "curvature": curvature})
    return ids, curvature


@functools.cache
def outputs(workdir, repeat, seed, std=STD, kind="gaussian"):
    """Returns features, logits and labels of all test images under noise, without the code that is tested."""
    loaded = load(workdir)
    pixels, labels = evaluation_data(loaded.meta).test.fetch(np.arange(24))
    images = jnp.asarray(pixels, jnp.float32) / 255
    if std:
        keys = example_keys(jax.random.fold_in(jax.random.key(seed), repeat), np.arange(24))
        images = gaussian_noise(keys, images, std=std) if kind == "gaussian" else uniform_noise(keys, images, amplitude=std)
    # Evaluated in the same batches of 16 as the run asks for, with the same program for both.
    parts = [program()(apply_of(loaded), loaded.logits_fn.args, images[ids]) for ids in (jnp.arange(16), jnp.arange(8, 24))]
    first, last = (jax.tree.map(np.asarray, part) for part in parts)
    return *(np.concatenate([a, b[8:]]) for a, b in zip(first, last, strict=True)), labels


@functools.cache
def program():
    @functools.partial(jax.jit, static_argnums=0)
    def run(apply, arrays, images):
        output, _ = apply(*arrays, images, False, blocks=True)
        return output.blocks[0], output.features, output.logits

    return run


def balanced(loaded):
    """Returns the network with logits whose mean over the test images is 0: trained for seconds, it has one answer for all of them."""
    pixels, _ = evaluation_data(loaded.meta).test.fetch(np.arange(24))
    logits = jax.jit(lambda images: loaded.logits_fn(images))(jnp.asarray(pixels, jnp.float32) / 255)
    return loaded._replace(logits_fn=jax.tree_util.Partial(_moved, loaded.logits_fn, logits.mean(axis=0, keepdims=True)))


def _moved(logits_fn, mean, images):
    return logits_fn(images) - mean


def counts_by_hand(workdir, ids, seed=1):
    right = [np.argmax(logits, axis=1) == labels for _, _, logits, labels in (outputs(workdir, r, seed) for r in range(REPEATS))]
    return np.sum(right, axis=0)[ids]


def test_accuracy_of_the_lowest_curvature(workdir, measured, tmp_path):
    # Kills: draws by place and not by id, one draw for all repeats, the highest curvature, ids of all for those of the result.
    ids, curvature = measured
    made = figures.numbers("retained", [workdir], noise=STD, repeats=REPEATS, points=4, seed=1)
    counts = counts_by_hand(workdir, ids)
    assert made["kept"] == [6, 11, 16, 22] and made["n"] == 22
    expected = [100 * np.mean(counts[np.argsort(curvature)[:kept]]) / REPEATS for kept in made["kept"]]
    (row,) = made["rows"]
    np.testing.assert_allclose(row["accuracy_percent"], expected, rtol=1e-4)
    assert row["of_runs_percent"] == [row["accuracy_percent"]] and 0 < expected[-1] < 100
    again = figures.numbers("retained", [workdir], noise=STD, repeats=REPEATS, points=4, seed=1)
    assert again["rows"] == made["rows"]
    picture, numbers = figures.write(made, tmp_path / "retained.png")
    assert picture.stat().st_size > 5_000 and json.loads(numbers.read_text())["rows"] == made["rows"]


def test_groups_hold_every_image_once(workdir, measured, tmp_path):
    # Kills: groups by errors, sums for means, groups of no images in the correlation, r over images for r over groups.
    ids, curvature = measured
    made = figures.numbers("groups", [workdir], noise=STD, repeats=REPEATS, seed=1)
    (row,) = made["rows"]
    counts, curvature = counts_by_hand(workdir, ids), curvature.astype(np.float64)
    assert row["images"] == [int((counts == k).sum()) for k in range(REPEATS + 1)] and sum(row["images"]) == 22
    mean = [curvature[counts == k].mean() if (counts == k).any() else None for k in range(REPEATS + 1)]
    assert [m is None for m in row["mean"]] == [m is None for m in mean]
    some = [k for k in range(REPEATS + 1) if mean[k] is not None]
    np.testing.assert_allclose([row["mean"][k] for k in some], [mean[k] for k in some], rtol=1e-4)
    r = np.corrcoef(some, [mean[k] for k in some])[0, 1]
    np.testing.assert_allclose([row["pearson_r"], row["pearson_r_images"]], [r, np.corrcoef(counts, curvature)[0, 1]], rtol=1e-3)
    assert figures.write(made, tmp_path / "groups.png")[0].stat().st_size > 5_000


def test_what_does_not_vary_has_no_correlation():
    # Kills: NaN in the file of numbers, a correlation of one group.
    assert noisy._pearson(np.array([10]), np.array([0.3])) is None
    assert noisy._pearson(np.array([1, 2]), np.array([0.3, 0.3])) is None
    assert noisy._pearson(np.array([1, 2]), np.array([0.3, 0.1])) == -1


def test_surface_is_the_loss_on_the_plane(workdir, tmp_path):
    # Kills: the sign of the loss or of the gradient, axes swapped, signs for the gradient, directions not of length 1 or not orthogonal.
    made = figures.numbers("surface", [workdir], ids=[7], size=0.5, points=3, seed=2)
    loaded = load(workdir)
    pixels, labels = evaluation_data(loaded.meta).test.fetch(np.array([7]))
    image = pixels.astype(np.float32) / 255

    @jax.jit
    def loss(images):
        return losses.cross_entropy(loaded.logits_fn(images), jnp.repeat(jnp.asarray(labels), len(images)))

    gradient = np.asarray(jax.grad(lambda x: loss(x)[0])(jnp.asarray(image)), np.float64)
    first = gradient / np.linalg.norm(gradient)
    random = np.asarray(jax.random.normal(example_keys(jax.random.key(2), jnp.array([7]))[0], image.shape[1:]), np.float64)[None]
    second = random - np.sum(random * first) * first
    second /= np.linalg.norm(second)
    moved = np.concatenate([image + p * first + q * second for p in (-0.5, 0, 0.5) for q in (-0.5, 0, 0.5)]).astype(np.float32)
    (row,) = made["rows"]
    np.testing.assert_allclose(np.ravel(row["negative_loss_nats"]), -loss(jnp.asarray(moved)), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(row["gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
    assert row["negative_loss_nats"][2][1] < row["negative_loss_nats"][0][1]
    np.testing.assert_array_equal(made["image"]["pixels"], pixels[0])
    assert figures.write(made, tmp_path / "surface.png")[0].stat().st_size > 10_000


def test_features_are_laid_out_by_layer(workdir, tmp_path, monkeypatch):
    # Kills: clean features twice, logits or another block for features, a layer twice, places of other images, another seed's places.
    seen = []
    lay_out = embedding.embedded
    monkeypatch.setattr(embedding, "embedded", lambda values, *, seed: seen.append(values) or lay_out(values, seed=seed))
    made = figures.numbers("tsne", [workdir], examples=12, noise=STD, blocks=True, seed=1)
    ids = splits.subset(24, 12)
    (row,) = made["rows"]
    assert [layer["name"] for layer in row["layers"]] == ["block 1", "block 2", "block 3 (penultimate features)"]
    for values, (std, layer) in zip(seen[:2] + seen[4:], ((0, 0), (STD, 0), (0, 1), (STD, 1)), strict=True):
        np.testing.assert_allclose(values, outputs(workdir, 0, 1, std)[layer][ids], rtol=1e-4, atol=1e-5)
    for kind, std in (("clean", 0), ("noisy", STD)):
        _, _, logits, labels = outputs(workdir, 0, 1, std)
        np.testing.assert_allclose(
            row["right_percent"][kind], 100 * np.mean(np.argmax(logits, axis=1) == labels, where=among(ids)), rtol=1e-4
        )
    assert made["classes"] == labels[ids].tolist() and made["perplexity"] == 11 / 3
    x, y = lay_out(seen[4], seed=1).T
    assert (np.ptp(x), np.ptp(y)) > (0, 0)
    np.testing.assert_allclose([row["layers"][2]["clean"][axis] for axis in "xy"], [x, y], rtol=1e-3)
    assert figures.write(made, tmp_path / "blocks.png")[0].stat().st_size > 5_000
    made["rows"][0]["layers"] = row["layers"][2:]
    assert figures.write(made, tmp_path / "tsne.png")[0].stat().st_size > 5_000


def among(ids):
    return np.isin(np.arange(24), ids)


def test_what_cannot_be_drawn_is_refused(workdir, measured):
    # Kills: curvature of one checkpoint with noise on another, labels that are those of other images, unreadable tracebacks.
    loaded = load(workdir)
    with pytest.raises(InputError, match="has no result of the suite curvature of checkpoint .* --suite=curvature"):
        figures.numbers("retained", [workdir], checkpoint=12 - loaded.step)  # of 4 and 8 the one that is not the best
    with pytest.raises(InputError, match="the same features .* nothing to lay out"):
        embedding._layers({"clean": {"block 1": np.ones((5, 3), np.float32)}}, 0)
    path = workdir / "evaluation" / f"step{loaded.step}_n22" / "curvature" / "finite.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    try:
        write_npz(path, arrays | {"labels": arrays["labels"][::-1] + 1})
        with pytest.raises(InputError, match="images with other labels; evaluate it again"):
            figures.numbers("groups", [workdir], noise=STD, repeats=1)
    finally:
        write_npz(path, arrays)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retained", {"points": 0}, "--points must be at least 1, got 0"),
        ("retained", {}, "name the folder of at least one"),
        ("groups", {"repeats": 0}, "--repeats must be at least 1, got 0"),
        ("groups", {"blocks": True}, "--blocks is read by the figure tsne, got --figure=groups"),
        ("surface", {"ids": [1, 2]}, "of one test image: give --ids once, got 1, 2"),
        ("surface", {"size": -1.0}, "must be above 0, got -1"),
        ("tsne", {"examples": 3}, "must be at least 4, got 3"),
    ],
)
def test_what_is_wrong_is_one_clear_line(name, options, message):
    with pytest.raises(InputError, match=message):
        figures.numbers(name, **options)


def test_noise_is_the_papers(workdir):
    # Kills: the noise of CIFAR-10 on SVHN, a negative one that is only refused deep inside.
    meta = {"config": {"data": {"name": "svhn_cropped"}}}
    levels = [
        noisy.noise_of(*asked).level for asked in ((None, "uniform", meta), (0.0, "gaussian", meta), (None, "gaussian", load(workdir).meta))
    ]
    assert levels == [0.15, 0.0, 0.06]
    with pytest.raises(InputError, match="--noise is the standard deviation .* at least 0, got -0.1"):
        noisy.noise_of(-0.1, "gaussian", meta)
    with pytest.raises(InputError, match="unknown --noise_kind 'unifrom'; did you mean 'uniform'"):
        noisy.noise_of(None, "unifrom", meta)


def test_noise_may_be_uniform(workdir, measured, monkeypatch):
    # Kills: the kind not passed on, or not said in the picture and its numbers.
    ids, _ = measured
    loaded = balanced(load(workdir))
    test = evaluation_data(loaded.meta).test
    monkeypatch.setattr(noisy, "subject_of", lambda _, source, chosen: Subject(loaded.logits_fn, source, chosen, 16, surrogates={}))
    options = {"noise": 0.3, "noise_kind": "uniform", "seed": 1}
    made = figures.numbers("groups", [workdir], repeats=3, **options)
    counts = {
        kind: noisy.count_right(noisy.subject_of(loaded, test, ids), noisy.Noise(kind, 0.3), repeats=3, seed=1)[0] for kind in noisy.LEVELS
    }
    assert (
        made["rows"][0]["images"]
        == np.bincount(counts["uniform"], minlength=4).tolist()
        != np.bincount(counts["gaussian"], minlength=4).tolist()
    )
    seen = []
    lay_out = embedding.embedded
    monkeypatch.setattr(embedding, "embedded", lambda values, *, seed: seen.append(values) or lay_out(values, seed=seed))
    laid_out = figures.numbers("tsne", [workdir], examples=12, **options)
    features = outputs(workdir, 0, 1, 0.3, "uniform")[1][splits.subset(24, 12)]
    np.testing.assert_allclose(seen[1], features, rtol=1e-4, atol=1e-5)
    for drawn in (made, laid_out):
        assert (drawn["noise"], drawn["noise_kind"]) == (0.3, "uniform")
        figure = figures.figure(drawn)
        said = [axis.get_title() for axis in figure.axes] + [figure.get_suptitle()]
        assert "uniform noise of amplitude 0.3" in " ".join(said).replace("\n", " ")
