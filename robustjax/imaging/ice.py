"""Pictures of frost on a window, grown from a fixed seed: crystals like ferns, needles and specks on uneven ice.

Made by NumPy, once a process, in about a second; nothing here runs on the device.
"""

import functools
from typing import NamedTuple

import numpy as np


class Ice(NamedTuple):
    """What one picture looks like.

    Attributes:
        size: (h, w) in pixels.
        mean, std: of red, green and blue, in levels of 255.
        warmth: share of red that goes its own way, correlation with a second cloud.
        clouds, ferns, ridges, needles, specks: weights in the brightness: uneven ice, where ferns stand, the lines they are made of,
            needles, dots.
        cover: how densely ferns stand.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    warmth: float
    clouds: float
    ferns: float
    ridges: float
    needles: float
    specks: float
    cover: float


# Sizes are those of the published benchmark's five photographs; means and deviations were measured from what the published code made
# of them at 32x32, (output - weight x image) / weight of the ice, places weighted as they are chosen. The other numbers were chosen so
# that the spectra agree as well.
KINDS = (
    Ice((600, 900), (76.7, 148.1, 164.8), (27.8, 16.3, 14.8), 0.57, 0.85, 0.15, 0.35, 0.15, 0.4, 1.0),
    Ice((315, 560), (198.7, 203.2, 212.5), (19.6, 20.3, 21.1), 0, 0.75, 0.3, 0.5, 0.1, 0.3, 1.0),
    Ice((315, 560), (198.4, 202.9, 212.2), (19.6, 20.3, 21.1), 0, 0.75, 0.3, 0.5, 0.1, 0.35, 1.0),
    Ice((350, 527), (143.8, 158.6, 171.4), (27.7, 27.7, 28.9), 0, 0.5, 0.2, 0.55, 0.3, 0.6, 0.8),
    Ice((495, 660), (101.9, 113.2, 125.1), (38.1, 37.5, 36.6), 0, 0.4, 0.55, 0.7, 0.25, 0.1, 0.8),
)


@functools.lru_cache(maxsize=1)
def ice_pictures() -> tuple[np.ndarray, ...]:
    """Returns five pictures of frost, uint8 (h, w, 3), read-only. Opposite edges fit together, so they may be tiled.

    The same on every machine, up to single pixels where its cosines round differently.
    """
    pictures = tuple(_picture(kind, np.random.RandomState(i + 10)) for i, kind in enumerate(KINDS))
    for picture in pictures:
        picture.flags.writeable = False
    return pictures


def _picture(kind: Ice, random: np.random.RandomState) -> np.ndarray:
    megapixels = kind.size[0] * kind.size[1] / 1e6
    flow = 2.2 * _clouds(random, kind.size, 4.5)  # directions into which neighbouring ferns grow, in radians
    ferns, needles, specks = np.zeros((3, *kind.size), np.float32)
    for number, length, spacing, loose in ((90, 150, 6, 0.5), (350, 80, 5, 0.5), (1500, 34, 4, 1.0)):
        _grow_ferns(ferns, random, round(number * kind.cover * megapixels), length, spacing, flow, loose=loose)
    _strew_needles(needles, random, round(20_000 * megapixels), 5)
    _strew_needles(specks, random, round(50_000 * megapixels), 2)
    ferns = _softened(ferns)
    around = _softened(ferns, 4)
    # Ice over ice gets no whiter than white, so what lies on top of each other saturates.
    brightness = _unit(
        kind.clouds * _clouds(random, kind.size, 3.0)
        + kind.ferns * _unit(1 - np.exp(-around))
        + kind.ridges * _unit(np.minimum((ferns - around) / (0.3 + around), 1.5))
        + kind.needles * _unit(1 - np.exp(-2 * _softened(needles)))
        + kind.specks * _unit(np.minimum(_softened(specks), 1))
    )
    red = _unit((1 - kind.warmth**2) ** 0.5 * brightness + kind.warmth * _clouds(random, kind.size, 3.0))
    channels = zip((red, brightness, brightness), kind.mean, kind.std, strict=True)
    return np.clip(np.rint(np.stack([mean + std * x for x, mean, std in channels], axis=-1)), 0, 255).astype(np.uint8)


def _unit(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std()


def _clouds(random: np.random.RandomState, size: tuple[int, int], slope: float) -> np.ndarray:
    """Returns a periodic Gaussian field of mean 0 and deviation 1 whose power falls with frequency as f^-slope."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1]))
    frequency[0, 0] = np.inf
    return _unit(np.fft.irfft2(np.fft.rfft2(random.standard_normal(size)) * frequency ** (-slope / 2), size))


def _softened(field: np.ndarray, reach: int = 1) -> np.ndarray:
    """Returns `field` weighted by 1/4, 1/2, 1/4 along each axis, and once more at twice the distance until `reach`."""
    distance = 1
    while distance <= reach:
        for axis in (0, 1):
            field = 0.5 * field + 0.25 * (np.roll(field, distance, axis) + np.roll(field, -distance, axis))
        distance *= 2
    return field


def _uniform(random: np.random.RandomState, low: float | int, high: float | int, shape: tuple[int, ...]) -> np.ndarray:
    return random.uniform(low, high, shape).astype(np.float32)


def _ink(field: np.ndarray, x: np.ndarray, y: np.ndarray, amount: np.ndarray) -> None:
    """Adds `amount` at points (x, y), which leave at one edge and come back at the other."""
    h, w = field.shape
    cells = np.rint(y).astype(np.int32) % h * w + np.rint(x).astype(np.int32) % w
    field += np.bincount(cells.ravel(), np.broadcast_to(amount, x.shape).ravel(), h * w).reshape(h, w)


def _arcs(x, y, angle, bend, length, step=0.8):
    """Returns points along circular arcs: x, y and angle (..., n), how far along they lie (n,) in (0, 1), and their distance."""
    n = max(4, int(length.max() / step))
    along = ((np.arange(n) + 0.5) / n).astype(np.float32)
    angle = angle[..., None] + bend[..., None] * along
    gap = (length / n)[..., None]
    return x[..., None] + np.cumsum(gap * np.cos(angle), -1), y[..., None] + np.cumsum(gap * np.sin(angle), -1), angle, along, gap


def _grow_ferns(field, random, number, length, spacing, flow, *, loose) -> None:
    """Draws ferns: a bent stem, branches to both sides that bend back to its tip, twigs on those.

    Args:
        field: drawn upon.
        random: generator.
        number: of ferns, about; they stand on a jittered lattice.
        length: of a stem, in pixels.
        spacing: between branches, in pixels.
        flow: direction of stems at each pixel, in radians.
        loose: standard deviation of the stems' directions around the flow.
    """
    h, w = field.shape
    columns = max(1, round((number * w / h) ** 0.5))
    rows = max(1, round(number / columns))
    row, column = np.divmod(np.arange(rows * columns), columns)
    x = (column + _uniform(random, -0.2, 1.2, row.shape)) * w / columns
    y = (row + _uniform(random, -0.2, 1.2, row.shape)) * h / rows
    angle = (flow[y.astype(int) % h, x.astype(int) % w] + random.normal(0, loose, row.shape)).astype(np.float32)
    stem = length * _uniform(random, 0.55, 1.3, row.shape)
    x, y = (x - stem / 2 * np.cos(angle)).astype(np.float32), (y - stem / 2 * np.sin(angle)).astype(np.float32)
    stem_x, stem_y, stem_angle, along, gap = _arcs(x, y, angle, _uniform(random, -0.9, 0.9, row.shape), stem)
    _ink(field, stem_x, stem_y, (1.6 - along) * gap)
    nodes = np.linspace(1, len(along) - 2, int(length / spacing)).astype(int)
    nodes = np.clip(nodes + random.randint(-2, 3, (len(row), len(nodes))), 0, len(along) - 1)
    x, y, angle = (np.take_along_axis(values, nodes, 1) for values in (stem_x, stem_y, stem_angle))
    along = along[nodes]
    for side in (-1, 1):
        branch = stem[:, None] * 0.38 * np.minimum(1, 4 * along + 0.1) * (1 - along) ** 0.7 * _uniform(random, 0.35, 1.1, along.shape) + 1
        lean, bend = _uniform(random, 0.9, 1.15, along.shape), _uniform(random, 0.1, 0.6, along.shape)
        branch_x, branch_y, branch_angle, out, gap = _arcs(x, y, angle + side * lean, -side * bend, branch)
        _ink(field, branch_x, branch_y, (1 - 0.8 * out) * gap)
        nodes = np.linspace(1, len(out) - 3, max(2, int(length * 0.38 / 4))).astype(int)
        for twig_side in (-1, 1):
            twig = 0.4 * branch[..., None] * (1 - out[nodes]) * _uniform(random, 0.2, 1.2, (*along.shape, len(nodes))) + 0.5
            start = branch_x[..., nodes], branch_y[..., nodes], branch_angle[..., nodes] + twig_side
            twig_x, twig_y, _, tip, gap = _arcs(*start, np.zeros_like(twig), twig, step=1.0)
            _ink(field, twig_x, twig_y, 0.7 * (1 - 0.7 * tip) * gap)


def _strew_needles(field, random, number, length) -> None:
    """Draws needles of random place, direction and brightness, their lengths exponential of mean `length` and cut at four of it."""
    h, w = field.shape
    lengths = length * np.minimum(random.exponential(1, number), 4).astype(np.float32) + 1
    x, y, angle, bend, weight = (_uniform(random, *limits, (number,)) for limits in ((0, w), (0, h), (0, 2 * np.pi), (-0.3, 0.3), (0.2, 1)))
    x, y, _, along, gap = _arcs(x, y, angle, bend, lengths)
    _ink(field, x, y, weight[:, None] * (1 - 0.6 * along) * gap)
