"""Filters against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from robustjax.core import InputError
from robustjax.imaging import correlate, gaussian_matrix, gaussian_taps, smooth


@pytest.mark.parametrize("size", [1, 3, 7])
def test_correlate_is_scipys_with_mirrored_borders(size):
    # Kills: a flipped or transposed kernel; an edge that is repeated; taps lost where they do not fill the last pass; channels or
    # images that mix; height taken for width.
    rng = np.random.default_rng(0)
    images, kernel = rng.random((2, 9, 12, 3)), rng.random((size, size))
    kernel[kernel < 0.2] = 0
    with jax.enable_x64(True):
        got = jax.jit(lambda images: correlate(images, kernel))(jnp.asarray(images))
    expected = scipy.ndimage.correlate(images, kernel[None, :, :, None], mode="mirror")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_correlate_refuses_what_it_cannot_mirror():
    # Kills: a silent shift by half a pixel; a border that reads beyond the mirror image.
    for size in (2, 9):
        with pytest.raises(InputError, match="odd size with size // 2 below 4"):
            correlate(jnp.zeros((1, 4, 8, 1)), np.ones((size, size)))


@pytest.mark.parametrize("mode", ["nearest", "mirror"])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.3, 6.0])
def test_smooth_is_scipys_gaussian_filter(sigma, mode):
    # Kills: one axis only, or axes with different kernels; another border; taps lost or read beyond the padding when they do not fill
    # the last pass; the wrong half of padded taps; float32 on the way; no derivative.
    images = np.random.default_rng(0).random((2, 17, 26, 3))
    reach = int(4 * sigma + 0.5)
    taps = np.pad(gaussian_taps(2 * reach + 1, sigma), 2)
    expected = scipy.ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode=mode)
    with jax.enable_x64(True):
        got, pull = jax.vjp(jax.jit(lambda images: smooth(images, taps, mode=mode)), jnp.asarray(images))
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        # A linear map: <A x, A x> = <x, A^T A x>.
        np.testing.assert_allclose(jnp.sum(got * got), jnp.sum(jnp.asarray(images) * pull(got)[0]), rtol=1e-12)


def test_gaussian_taps():
    # Kills: variance for standard deviation; taps that do not sum to 1.
    taps = gaussian_taps(9, 1.0)
    np.testing.assert_allclose(taps, scipy.ndimage.gaussian_filter1d(np.eye(9)[4], 1.0, radius=4), rtol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize(("size", "sigma", "truncate"), [(16, 0.4, 4.0), (16, 1.0, 4.0), (20, 9.0, 3.0)])
def test_gaussian_matrix_is_scipys_filter(mode, size, sigma, truncate):
    # Kills: another border; a reach that is rounded down; taps beyond the border dropped, or, where the kernel is longer than the
    # axis, taken from the first mirror image only; the transposed matrix.
    lines = np.random.default_rng(0).random((size, 3))
    expected = scipy.ndimage.gaussian_filter1d(lines, sigma, axis=0, mode=mode, truncate=truncate)
    np.testing.assert_allclose(gaussian_matrix(size, sigma, mode=mode, truncate=truncate) @ lines, expected, rtol=1e-12)
