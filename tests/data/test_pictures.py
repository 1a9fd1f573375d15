"""A user's own mixing pictures, from the folder into the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.augment.pixmix import enlarged, mixing_pictures
from robustjax.core import InputError, example_keys
from robustjax.data.pictures import read_pictures
from robustjax.train import build
from tests import tiny
from tests.data import writing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures of one shade each, of other sizes than asked for, in a folder and one below it."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    for i in range(6):
        path = root / ("more" if i % 2 else "") / f"{i}.png"
        path.write_bytes(writing.encode(np.full((30, 50, 3), 40 * i, np.uint8)))
    return root


def test_pictures_are_read_in_order_and_as_many_as_fit(folder):
    # Kills: folders below left out; an order of the disk; only the first ones taken where not all fit.
    shape = (18, 18, 1)
    assert [int(p[0, 0, 0]) for p in read_pictures(str(folder), shape)] == [0, 80, 160, 40, 120, 200]
    assert [int(p[0, 0, 0]) for p in read_pictures(str(folder), shape, most_bytes=2 * 18 * 18)] == [0, 200]


def test_mixing_pictures_are_cut_from_them(folder):
    # Kills: fractals in their place; one picture for all; pictures scaled to another range.
    shape = (16, 16, 1)
    pictures = read_pictures(str(folder), enlarged(shape))
    made = np.asarray(mixing_pictures(example_keys(jax.random.key(0), jnp.arange(60)), shape, pictures=pictures))
    assert made.shape == (60, *shape) and set(np.unique((made * 255).round())) == {0, 40, 80, 120, 160, 200}


def test_a_run_reads_them(folder):
    # Kills: an option that nothing reads.
    options = {"pixmix": {"folder": str(folder), "k": 1}}
    config = tiny.config(augment=("pixmix",), augment_options=options)
    experiment = build.build(config)
    pipeline, _ = build.augmentations(experiment.config, experiment.dataset, experiment.objective)
    plain, _ = build.augmentations({**experiment.config, "augment_options": {"pixmix": {"k": 1}}}, experiment.dataset, experiment.objective)
    batch = jnp.full((8, *experiment.dataset.image_shape), 0.5), jnp.ones((8, 3)) / 3
    keys = lambda: example_keys(jax.random.key(0), jnp.arange(8))  # noqa: E731
    with pytest.raises(InputError, match="the number of mixing pictures, must be a whole number"):
        pipeline(keys(), *batch)
    first, second = pipeline(keys(), *batch, arrays=experiment.arrays)[0], plain(keys(), *batch)[0]
    assert float(jnp.abs(first - second).max()) > 0.01
    with pytest.raises(InputError, match="no mixing pictures: there is no folder"):
        build.build(tiny.config(augment=("pixmix",), augment_options={"pixmix": {"folder": "nowhere"}}))


def test_what_cannot_be_read_is_named(folder, tmp_path):
    # Kills: a traceback of Pillow's.
    with pytest.raises(InputError, match="holds no images"):
        read_pictures(str(tmp_path), (8, 8, 3))
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"mixing picture .*a.png cannot be decoded"):
        read_pictures(str(tmp_path), (8, 8, 3))
    with pytest.raises(InputError, match=r"pictures must be uint8 \(n, 18, 18, 1\)"):
        mixing_pictures(example_keys(jax.random.key(0), jnp.arange(2)), (16, 16, 1), pictures=np.zeros((2, 8, 8, 1), np.uint8))
