"""Digests by which the files of one split are told apart from others, and from themselves after a change."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from robustjax.data.source import Source


def contents(source: Source) -> str:
    """Returns a digest of all labels and images of a resident source; about 1 GB/s."""
    digest = hashlib.sha256(f"{source.images.shape}".encode() + source.labels.tobytes())
    digest.update(np.ascontiguousarray(source.images))
    return digest.hexdigest()[:16]


def arrays(found: Iterable[np.ndarray]) -> str:
    """Returns a digest of the values of arrays in their order."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in found)).hexdigest()[:16]


def stamps(folder: Path) -> str:
    """Returns a digest of the names, sizes and times of change of all files below a folder, none of which is read."""
    digest = hashlib.sha256()
    for parent, _, names in sorted(os.walk(folder, followlinks=True)):
        for path in (os.path.join(parent, name) for name in sorted(names)):
            about = os.stat(path)
            digest.update(f"{os.path.relpath(path, folder)} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def named(provenance: str) -> str:
    """Returns the digests that a provenance or note names, as that of a folder of images does, or nothing.

    >>> named("images in roads, 400x500 rgb, stretched, digest 7a551937, 1 broken left out")
    '7a551937'
    """
    return " ".join(re.findall(r"\bdigest ([0-9a-f]+)\b", provenance))
