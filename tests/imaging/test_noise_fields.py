"""The plasma fractal, point by point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.imaging.noise_fields import plasma, plasma_draws


def by_points(uniforms, size, decay):
    """Diamond-square, one point at a time; w starts at 100."""
    field, step, w, draws = np.zeros((size, size)), size, 100.0, iter(uniforms)
    while step > 1:
        half = step // 2
        for dy, dx in ((half, half), (0, half), (half, 0)):  # squares, then midpoints of rows' edges, then of columns'
            reach = (
                [(-half, -half), (-half, half), (half, -half), (half, half)]
                if dy and dx
                else [(-half, 0), (half, 0), (0, -half), (0, half)]
            )
            for y in range(dy, size, step):
                for x in range(dx, size, step):
                    field[y, x] = sum(field[(y + i) % size, (x + j) % size] for i, j in reach) / 4 + w * (2 * w * next(draws) - w)
        step, w = half, w / decay
    field -= field.min()
    return field / field.max()


@pytest.mark.parametrize(("size", "decay"), [(2, 3.0), (8, 1.4), (32, 2.0)])
def test_plasma_is_diamond_square_on_a_torus(size, decay):
    # Kills: borders that do not wrap, or wrap along the wrong axis; rows' and columns' edges swapped, or their draws; detail that
    # falls by decay once or three times an octave; min and max over the batch.
    uniforms = np.random.default_rng(size).random((3, plasma_draws(size)))
    got = jax.jit(plasma, static_argnames="size")(jnp.asarray(uniforms, jnp.float32), size=size, decay=jnp.float32(decay))
    np.testing.assert_allclose(got, [by_points(row, size, decay) for row in uniforms], atol=2e-6)


def test_a_flat_plasma_is_zero():
    # Kills: 0 / 0.
    assert not plasma(jnp.full((1, 63), 0.5), size=8, decay=jnp.float32(2)).any()


@pytest.mark.parametrize(("size", "count"), [(12, 143), (1, 0), (8, 64)])
def test_wrong_sizes_are_refused(size, count):
    # Kills: silently a field of another size.
    with pytest.raises(InputError, match="size"):
        plasma(jnp.zeros((1, count)), size=size, decay=jnp.float32(2))
