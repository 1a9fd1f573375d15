"""Thickness, flatness and curvature of a trained network: the kernels' numbers, each example once, taken up, reported."""

import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import metrics
from robustjax.attacks import presets
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.data import splits
from robustjax.evaluate import geometry, plots, report, run, states, suites
from robustjax.evaluate.load import evaluation_data, load
from robustjax.io import results
from robustjax.train import settings
from tests import tiny

N = 24
FEW = (
    *("thickness.points=8", "hessian.draws=2", "hessian.steps=3", "curvature.draws=2"),
    *("flatness.draws=2", "flatness.relative_radii=0.2,0.4", "flatness.radii=1.5", "flatness.filter_radii=0.3"),
)


@pytest.fixture(scope="module", autouse=True)
def one_draw_at_a_time():
    """One draw, one example of it and one state after each, so that few programs are compiled and a kill may come after any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "DRAWS", 1)
        patch.setattr(states, "EVERY", 0.0)
        patch.setattr(states, "SHARE", 0)
        yield


def evaluate(workdir, suite, *more, **options):
    """Returns {name: result} without 'clean'."""
    found = run.evaluate(workdir, suite=suite, geometry_settings=(*FEW, *more), quiet=True, **options)
    return {result["name"]: result for result in found[1:]}


def arrays(workdir, name, n=N):
    (path,) = (workdir / "evaluation").glob(f"step*_n{n}/{name}.npz")
    return states.read_npz(path)


def key_of(name):
    return jax.random.fold_in(jax.random.key(0), zlib.crc32(name.encode()))


@pytest.fixture(scope="module")
def network(workdir):
    """Returns (logits_fn, all images, labels), for numbers by hand."""
    loaded = load(workdir)
    images, labels = evaluation_data(loaded.meta).test.fetch(np.arange(N))
    return loaded.logits_fn, jnp.asarray(images, jnp.float32) / 255, jnp.asarray(labels)


@pytest.fixture(scope="module")
def measured(workdir):
    return evaluate(workdir, "thickness,flatness,curvature")


def by_sixteen(function, *rows):
    """Returns function(*rows) of the first 16 rows, then of the last 16 without those that were there: no padding, no new program."""
    return [np.concatenate([first, last[8:]]) for first, last in zip(*(function(*(r[at] for r in rows)) for at in HALVES), strict=True)]


HALVES = (slice(0, 16), slice(8, 24))


@pytest.fixture(scope="module")
def loss(network):
    """Returns the mean loss of all images at once, the evaluation takes 16 and 8; and the parameters."""
    logits_fn, images, labels = network
    params, batch_stats = logits_fn.args
    weights = jnp.full(N, 1 / N, jnp.float32)
    mean = jax.tree_util.Partial(geometry._weighted_loss, jax.tree_util.Partial(logits_fn.func), batch_stats, images, labels, weights)
    np.testing.assert_allclose(mean(params), metrics.nll(logits_fn(images), labels).mean(), rtol=1e-5)
    return mean, params


def test_thickness_is_the_kernels(workdir, network, measured):
    # Kills: another attack, an untargeted one; the label for the predicted class; padded rows; units exchanged; deviation over batches.
    logits_fn, images, labels = network
    drawn, attacked = jax.random.split(key_of("thickness"))
    threat, attack = presets.preset("thickness")

    def by_hand(ids, images, labels):
        predicted = jnp.argmax(logits_fn(images), axis=1).astype(jnp.int32)
        targets = metrics.other_classes(example_keys(drawn, ids), predicted, num_classes=3)
        ends = attack(example_keys(attacked, ids), logits_fn, images, None, threat, targets=targets)
        classes = (predicted, targets)
        settings = {"alpha": 0, "points": 8}
        thickness = [metrics.boundary_thickness(logits_fn, images, ends, *classes, beta=beta, **settings) for beta in (0.75, 1.0)]
        return predicted, targets, ends, *thickness

    ids = jnp.arange(N)
    predicted, targets, ends, *thickness = by_sixteen(by_hand, ids, images, labels)
    found, result = arrays(workdir, "thickness/predicted"), measured["thickness/predicted"]
    np.testing.assert_array_equal(found["ids"], ids)
    for name, values in (("labels", labels), ("class_i", predicted), ("class_j", targets)):
        np.testing.assert_array_equal(found[name], values)
    assert result["n"] == N and (predicted != labels).any()
    for beta, values in zip((0.75, 1.0), thickness, strict=True):
        name = f"thickness_0_{beta:g}"
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(result["metrics"][f"{name}_pixels_mean"], values.mean(), rtol=1e-4)
        np.testing.assert_allclose(result["metrics"][f"{name}_pixels_std"], values.std(), rtol=1e-4)
        for spread in ("mean", "std"):
            per_std, pixels = (result["metrics"][f"{name}_{unit}_{spread}"] for unit in ("per_std_0.2", "pixels"))
            np.testing.assert_allclose(per_std, 5 * pixels)
    np.testing.assert_allclose(found["distance"], np.linalg.norm((ends - images).reshape(N, -1), axis=1), rtol=1e-4)


def test_thickness_from_the_label_on_some_images(workdir, measured):
    # Kills: the option read and not used; images that are not always the same, or lie outside of --limit; the other variant overwritten.
    found = evaluate(workdir, "thickness", "thickness.class_i=label", "thickness.images=18")
    assert found["thickness/label"]["n"] == found["thickness/label"]["run"]["n"] == 18
    rows = arrays(workdir, "thickness/label")
    np.testing.assert_array_equal(rows["class_i"], rows["labels"])
    assert rows["ids"].tolist() == splits.subset(N, 18).tolist() and (rows["class_j"] != rows["class_i"]).all()
    assert set(splits.subset(N, 5)) <= set(splits.subset(N, 12)) and len(arrays(workdir, "thickness/predicted")["ids"]) == N
    (one,) = item("thickness", geometry=("thickness.images=18",))
    assert [geometry.images(one, available) for available in (12, 24)] == [12, 18]


def test_flatness_is_the_kernels(workdir, loss, measured):
    # Kills: a mean of batch means (16 and 8 images); relative radii of another norm; directions that change with the radius; draws of
    # another seed's run, so that seeds would share them.
    mean_loss, params = loss
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in params.values()))
    keys = [example_keys(jax.random.fold_in(key_of("flatness"), 0), jnp.array([i])) for i in (0, 1)]
    wanted = {"norm": {0.2: 0.2 * norm, 0.4: 0.4 * norm}, "absolute": {1.5: 1.5}, "filters": {0.3: 0.3}}
    assert [name for name in measured if name.startswith("flatness")] == [
        f"flatness/{of}" for of in ("absolute", "norm", "filters", "hessian")
    ]
    for of, radii in wanted.items():
        numbers, rows = measured[f"flatness/{of}"]["metrics"], arrays(workdir, f"flatness/{of}")["loss"]
        np.testing.assert_allclose([numbers["loss_at_0"], *rows[0]], [mean_loss(params)] * 3, rtol=1e-5)
        np.testing.assert_allclose(numbers["parameter_norm"], norm, rtol=1e-6)
        for row, (radius, distance) in zip(rows[1:], radii.items(), strict=True):
            scaling = "filter" if of == "filters" else "tree"
            draws = [metrics.weight_space_loss(key, mean_loss, params, radius=float(distance), scaling=scaling) for key in keys]
            values = np.concatenate(draws)
            np.testing.assert_allclose(row, values, rtol=1e-4)
            found = [numbers[f"{geometry.at_radius(radius, of)}_{spread}"] for spread in ("mean", "std")]
            np.testing.assert_allclose(found, [values.mean(), values.std()], rtol=1e-3)


def test_the_hessian_is_the_kernels(workdir, loss, measured):
    # Kills: eigenvalues of a sum over images, of one batch of them, or of draws shared with another seed.
    key = jax.random.fold_in(key_of("hessian"), 0)
    top = metrics.hessian_top_eigenvalue(key, *loss, steps=3)
    trace = np.concatenate([metrics.hessian_trace(example_keys(key, jnp.array([i])), *loss) for i in (0, 1)])
    numbers = measured["flatness/hessian"]["metrics"]
    np.testing.assert_allclose(numbers["top_eigenvalue"], top, rtol=1e-3)
    np.testing.assert_allclose([numbers["trace_mean"], numbers["trace_std"]], [trace.mean(), trace.std()], rtol=1e-3)


def test_curvature_is_the_kernels(workdir, network, measured):
    # Kills: other directions for the exact form; t or the number of draws not passed on; quartiles in another order.
    logits_fn, images, labels = network
    loss = jax.tree_util.Partial(geometry._example_loss, logits_fn)
    for form, t in (("finite", 1e-2), ("exact", None)):

        def by_hand(ids, images, labels, t=t):
            return (metrics.input_curvature(example_keys(key_of("curvature"), ids), loss, images, labels, t=t, draws=2),)

        (expected,) = by_sixteen(by_hand, jnp.arange(N), images, labels)
        found = arrays(workdir, f"curvature/{form}")
        np.testing.assert_allclose(found["curvature"], expected, rtol=1e-3, atol=1e-5)
        values = np.asarray(found["curvature"], np.float64)
        expected = [values.mean(), values.std(), *np.quantile(values, (0.25, 0.5, 0.75))]
        names = [f"curvature_pixels_{name}" for name in ("mean", "std", "lower_quartile", "median", "upper_quartile")]
        np.testing.assert_allclose([measured[f"curvature/{form}"]["metrics"][name] for name in names], expected, rtol=1e-5)


class Killed(Exception):
    """Stands for a kill."""


def killed_after(monkeypatch, name, calls):
    """Makes a kernel raise when it was called that often; returns the list of calls."""
    real, made = getattr(metrics, name), []

    def counted(*arguments, **options):
        if len(made) == calls:
            raise Killed
        made.append(options)
        return real(*arguments, **options)

    monkeypatch.setattr(metrics, name, counted)
    return made


@pytest.mark.parametrize(
    ("suite", "kernel", "before", "left"),
    [
        ("thickness", "segment_gaps", 1, 1),  # of two batches
        ("curvature", "input_curvature", 3, 1),  # of two batches of either form
        ("flatness", "hessian_trace", 1, 1),  # of two draws, when all radii are measured
    ],
)
def test_a_killed_evaluation_goes_on_where_it_was(workdir, measured, tmp_path, monkeypatch, suite, kernel, before, left):
    # Kills: a state that is not saved, not read, or of which a part is measured again or counted twice.
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("evaluation"))
    with monkeypatch.context() as patch:
        killed_after(patch, kernel, before)
        with pytest.raises(Killed):
            evaluate(copy, suite)
    with monkeypatch.context() as patch:
        made, eigenvalues = killed_after(patch, kernel, 99), killed_after(patch, "hessian_top_eigenvalue", 0)
        again = evaluate(copy, suite)
        assert len(made) == left
        assert not eigenvalues and not list(copy.glob("evaluation/*/*/*.state.npz"))
        evaluate(copy, suite)
        assert len(made) == left
    for name, result in again.items():
        for key, value in result["metrics"].items():
            np.testing.assert_allclose(value, measured[name]["metrics"][key], rtol=1e-4, atol=1e-6)


def test_changed_settings_are_measured_again_and_others_are_not(workdir, measured, monkeypatch):
    # Kills: a number under settings that it was not measured with; all of them measured again for one.
    again, real = [], run._attack
    monkeypatch.setattr(run, "_attack", lambda subject, item, *rest, **more: again.append(item.name) or real(subject, item, *rest, **more))
    changed = evaluate(workdir, "thickness,flatness,curvature", "flatness.radii=1.25")
    assert again == ["flatness/absolute"] and "loss_at_1.25_mean" in changed["flatness/absolute"]["metrics"]
    evaluate(workdir, "flatness")
    assert again == ["flatness/absolute"] * 2
    with pytest.raises(InputError, match=r"absolute: the loss is not finite some way off; choose smaller radii"):
        evaluate(workdir, "flatness", "flatness.radii=1,1e10")
    evaluate(workdir, "flatness")


def test_every_result_says_what_it_was_and_what_it_took(workdir, measured):
    for name, result in measured.items():
        (path,) = (workdir / "evaluation").glob(f"step*_n{N}/{name}.json")
        assert results.read(path)["run"]["item"]["kind"] in geometry.KINDS and result["seconds"] > 0
        assert result["peak_memory_bytes"] > 1e7 and result["peak_memory_of"] in ("device", "process")


def item(suite, change=None, geometry=(), **more):
    config = tiny.config(evaluation__geometry=change or {}, **more)
    settings.check(config)
    return suites.items(suite, config, (16, 16, 1), suites.Asked(geometry=geometry))[1:]


def test_settings_come_from_the_defaults_the_configuration_and_the_user_in_this_order():
    # Kills: a default that the configuration refuses; numbers left as text; radii of a small network 30 away; a run's hash, which all
    # of its other results carry, changed by settings of geometry.
    assert {section: set(rules) for section, rules in settings.GEOMETRY.items()} == {s: set(o) for s, o in suites.GEOMETRY.items()}
    item("thickness", suites.GEOMETRY)
    (own,) = item("thickness", {"thickness": {"points": 64, "images": 0}}, ("thickness.points=32", "thickness.std=0.25"))
    assert (own.options["points"], own.options["images"], own.options["std"], own.options["preset"]) == (32, 0, 0.25, "thickness")
    assert [tuple(interval) for interval in own.options["intervals"]] == [(0, 0.75), (0, 1)]
    large = {"name": "wide_resnet", "options": {}}
    assert [(one.name, one.options.get("radii")) for one in item("flatness", model=large)] == [
        ("flatness/absolute", [30, 32.5, 35, 37.5, 40, 42.5, 45, 47.5, 50]),
        ("flatness/hessian", None),
    ]
    small = {"name": "wide_resnet", "options": {"depth": 16}}
    assert item("flatness", model=small)[0].options["radii"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [one.options["t"] for one in item("curvature", {"curvature": {"t": 0.02}})] == [0.02, None]
    plain, changed = tiny.config(), tiny.config(evaluation__geometry={"curvature": {"t": 0.02}})
    del plain["evaluation"]["geometry"]
    assert results.comparable(plain) == results.comparable(changed)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("thicknes.points=3", "unknown setting of geometry 'thicknes.points'; did you mean 'thickness.points'"),
        ("flatness", "unknown setting of geometry 'flatness'"),
        ("flatness.radii=2,1", r"flatness\.radii of geometry must be numbers above 0, in rising order, got '2,1'"),
        ("flatness.radii=0,1", "numbers above 0"),
        ("flatness.draws=2.5", "a whole number of at least 1, got '2.5'"),
        ("hessian.steps=0", "a whole number of at least 1, got '0'"),
        ("thickness.points=1", "a whole number of at least 2"),
        ("thickness.images=-1", "a whole number of at least 0"),
        ("thickness.std=nan", "a number above 0, got 'nan'"),
        ("curvature.t=", "a number above 0, got ''"),
        ("thickness.class_i=true", "unknown thickness.class_i 'true'"),
        ("thickness.preset=fgsm", "unknown thickness.preset 'fgsm'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_measured(asked, message):
    with pytest.raises(InputError, match=message) as caught:
        item("thickness,flatness,curvature", geometry=(asked,))
    assert "\n" not in str(caught.value)


def test_settings_that_no_suite_reads_are_refused():
    with pytest.raises(InputError, match="--geometry is read by the suite thickness or flatness or curvature, got --suite=pgd"):
        item("pgd", geometry=("thickness.points=3",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thick": {}}, r"geometry holds settings of thickness, flatness, hessian, curvature, got 'thick'"),
        ({"thickness": {"point": 3}}, r"did you mean 'evaluation\.geometry\.thickness\.points'"),
        ({"flatness": {"radii": (2, 1)}}, r"config\.evaluation\.geometry\.flatness\.radii must be radii in rising order"),
        ({"thickness": {"points": 1}}, r"geometry\.thickness\.points must be a whole number of at least 2"),
    ],
)
def test_configurations_are_checked_before_training(change, message):
    with pytest.raises(InputError, match=message):
        settings.check(tiny.config(evaluation__geometry=change))


def test_the_report_says_what_was_measured(workdir, measured, tmp_path):
    # Kills: fractions' percent signs; one radius under another; columns without a word on what they are; rows of other settings.
    found = run.evaluate(workdir, suite="thickness,flatness,curvature", geometry_settings=FEW, quiet=True)
    made = report.collect([(workdir, found)])
    paths = report.write(made, tmp_path)
    text = paths[1].read_text()
    assert report.markdown(results.read_json(paths[0]), details=True) == text
    heads = ["thickness (0, 0.75)", "thickness (0, 1)", "Hessian in weights: largest eigenvalue", "Hessian in weights: trace"]
    heads += [f"curvature{form}: {name}" for form in ("", ", exact") for name in ("mean", "median")]
    assert f"| {' | '.join(heads)} |" in text
    values = [measured["thickness/predicted"]["metrics"][f"thickness_0_{beta}_per_std_0.2_mean"] for beta in ("0.75", "1")]
    values += [measured["flatness/hessian"]["metrics"][name] for name in ("top_eigenvalue", "trace_mean")]
    assert f"| {' | '.join(f'{value:.4g}' for value in values)} |" in text
    numbers = measured["flatness/norm"]["metrics"]
    row = " | ".join(f"{numbers[name]:.4g}" for name in ("loss_at_0", "loss_at_0.2_of_norm_mean", "loss_at_0.4_of_norm_mean"))
    title = "#### Loss (nats) by distance from the weights: radius, relative to the norm of the weights"
    assert f"{title}\n\n| method | 0 | 0.2 | 0.4 |\n|---|---|---|---|\n| baseline | {row} |" in text
    for words in ("times the share of 8 points", "predicted class", "in units of 0.2 pixels", "2 random directions", "24 test images"):
        assert words in text
    assert "2 draws of Hutchinson" in text and "t = 0.01, 2 directions" in text and "#### Cost of measurements" in text
    drawn = plots.figure(made)
    assert [axis.get_yscale() for axis in drawn.axes if axis.get_title() == "flatness"] == ["log"] * 3
    other = [result | {"n": 12} if result["name"] == "curvature/exact" else result for result in found]
    other = [(workdir, found), (workdir, other)]
    with pytest.raises(InputError, match="one table needs the same --suite, --limit, attacks, --geometry and --noise"):
        report.collect(other)
