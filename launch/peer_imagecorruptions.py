"""A worker of benchmark_corruptions.py: runs the package `imagecorruptions` in an environment of its own.

    python -m venv peer && peer/bin/pip install 'numpy<1.25' 'scikit-image==0.20.0' 'scipy<1.11' 'opencv-python-headless<4.9' 'Pillow<10' imagecorruptions

Reads lines 'name severity count' and answers each with the seconds that `count` images took, one after another.
"""

import sys
import time
import warnings

warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
from imagecorruptions import corrupt, corruptions  # noqa: E402

_gaussian = corruptions.gaussian


def _renamed(*args, multichannel=False, **options):
    # scikit-image 0.19 renamed this argument; the wheels of the older ones end at Python 3.10.
    return _gaussian(*args, channel_axis=-1 if multichannel else None, **options)


corruptions.gaussian = _renamed


def main() -> None:
    """Answers until the input ends."""
    images = np.load(sys.argv[1])
    for line in sys.stdin:
        name, severity, count = line.split()
        began = time.perf_counter()
        for i in range(int(count)):
            corrupt(images[i % len(images)], corruption_name=name, severity=int(severity))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
