"""Image-to-image networks: their shapes, and that they learn to reconstruct images they have not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import InputError
from robustjax.models import image_to_image
from robustjax.train import reconstruct
from tests.augment.reconstruction import digits, trained


@pytest.mark.parametrize("name", image_to_image.NAMES)
def test_reconstructs_unseen_images_at_25_db(name, tmp_path):
    # Kills: windows put back in another order, a bottleneck that loses the image, a wrong PSNR.
    source, _, validation_ids = digits()
    network = trained(name, tmp_path)
    images = source.fetch(validation_ids)[0].astype(np.float32) / 255
    made = np.asarray(jax.jit(image_to_image.apply, static_argnums=0)(network.layers, network.params, images))
    assert made.shape == images.shape and made.min() >= 0 and made.max() <= 1
    psnr = (-10 * np.log10(((made - images) ** 2).mean((1, 2, 3)))).mean()
    assert psnr >= 25 and reconstruct.psnr(network, source, validation_ids, batch_size=160) == pytest.approx(psnr, abs=1e-3)


@pytest.mark.parametrize(("name", "channels", "size"), [("cae", 3, (5, 7)), ("edsr", 1, (9, 4)), ("cae", 1, (1, 2))])
def test_images_of_any_size_keep_it(name, channels, size):
    # Kills: odd sides cut off or refused; channels of another number.
    network = image_to_image.make(name, jax.random.key(0), channels=channels, width=4)
    images = jnp.full((2, *size, channels), 0.25)
    shape = jax.eval_shape(lambda params: image_to_image.apply(network.layers, params, images), network.params).shape
    assert shape == images.shape


def test_doubling_undoes_halving():
    # Kills: rows and columns of a window exchanged in one of the two; a convolution that looks beside its pixel; padding at the wrong end.
    maps = jax.random.uniform(jax.random.key(0), (2, 3, 5, 2))
    identity = {"kernel": jnp.zeros((3, 3, 8, 8)).at[1, 1].set(jnp.eye(8)), "bias": jnp.zeros(8)}
    back = image_to_image.double(identity, image_to_image.halve(identity, maps))
    assert back.shape == (2, 4, 6, 2)
    np.testing.assert_allclose(back[:, :3, :5], maps, atol=1e-6)
    np.testing.assert_allclose(back[:, 3, :5], maps[:, 2], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cea", {}, "unknown image-to-image network 'cea'; did you mean 'cae'"),
        ("cae", {"width": 2}, "width of an image-to-image network must be a whole number and at least 4, got 2"),
        ("cae", {"channels": 1.0}, "channels of an image-to-image network must be a whole number and at least 1, got 1.0"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    # Kills: each check left out.
    with pytest.raises(InputError, match=message):
        image_to_image.make(name, jax.random.key(0), **options)
