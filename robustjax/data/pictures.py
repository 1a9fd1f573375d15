"""A user's own pictures, without labels: what PixMix mixes in."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from robustjax.core.check import InputError
from robustjax.data.image_folder import decode, images_below

MOST_BYTES = 256 << 20  # they lie on every device


def read_pictures(folder: str, shape: tuple[int, int, int], *, most_bytes: int = MOST_BYTES) -> UInt8[np.ndarray, "n h w c"]:
    """Reads the pictures of a folder and the folders in it, in the order of their names; the shorter side decides, the middle is kept.

    Args:
        folder: where they lie.
        shape: (h, w, 1 or 3) to bring them to.
        most_bytes: of more pictures than fit, so many are taken as fit, evenly spread over the names.

    Raises:
        InputError: for a folder that is missing or empty, or holds pictures that cannot be decoded.
    """
    root, chosen, _ = _chosen(folder, shape, most_bytes)

    def read(name: str) -> np.ndarray:
        try:
            return decode((root / name).read_bytes(), shape=shape, resize="shorter_crop")
        except (OSError, ValueError) as error:
            raise InputError(f"the mixing picture {root / name} cannot be decoded ({' '.join(str(error).split())}); remove it.") from error

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(read, chosen)))


def describe(folder: str, shape: tuple[int, int, int]) -> str:
    """Returns a note on the pictures that `read_pictures` would read: how many of how many, and a digest of their names and sizes."""
    root, chosen, total = _chosen(folder, shape, MOST_BYTES)
    digest = hashlib.sha256(b"".join(os.fsencode(f"{name} {(root / name).stat().st_size}\n") for name in chosen)).hexdigest()[:8]
    return f"PixMix with {len(chosen):,} of {total:,} pictures in {root.name}, digest {digest}"


def _chosen(folder: str, shape: tuple[int, int, int], most_bytes: int) -> tuple[Path, list[str], int]:
    """Returns the folder, the names of the pictures that are taken, and how many there are."""
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise InputError(f"no mixing pictures: there is no folder {root}.")
    names = images_below(root, root)
    if not names:
        raise InputError(f"no mixing pictures: {root} holds no images.")
    most = min(max(1, most_bytes // int(np.prod(shape))), len(names))
    return root, [names[i] for i in np.unique(np.linspace(0, len(names) - 1, most).round().astype(int))], len(names)
