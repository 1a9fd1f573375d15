"""Writes the distorted copies of DeepAugment that data.copies reads. Killed and run again, it goes on where it was.

Beside the copies lie the trained networks, `<network>.npz`. Networks are trained and copies written one after the other; of the network
that is being trained the state is kept in a hidden file, of copies that are being written all but those of the last ten seconds.
"""

import contextlib
import math
import os
import time
import types
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import robustjax
from robustjax import augment, data
from robustjax.augment.deepaugment import ALL
from robustjax.core import example_keys, registry
from robustjax.core.check import InputError
from robustjax.data import batches
from robustjax.data.copies import LABELS, MANIFEST, array, fingerprint
from robustjax.io import log, results
from robustjax.models import image_to_image, published
from robustjax.train import build, reconstruct, settings
from robustjax.train.networks import digest, restore, save
from robustjax.train.networks import distortions as usual_distortions

_PIXELS = 256 * 32 * 32  # of a batch of copies, unless its size is asked for
_LARGER = 8  # times fewer of them with the published networks, whose hidden maps are larger
_FORCED = 10.0  # seconds between two times that copies are forced to the disk; after each image it can take longer than to make one


class Written(NamedTuple):
    """Copies of how many images, of which data; how well each network reconstructs validation images, in dB; and what was there already."""

    images: int
    provenance: str
    psnr: dict[str, float]
    kept: tuple[str, ...]


def write_copies(
    config: dict,
    out: str | Path,
    *,
    networks: Sequence[str] = image_to_image.NAMES,
    weights: Mapping[str, str | Path] = types.MappingProxyType({}),
    width: int = 32,
    steps: int = 2000,
    lr: float = 2e-3,
    train_batch_size: int = 32,
    crop: int = 64,
    seed: int = 0,
    distortions: Sequence[str] = (),
    min_psnr: float = 25.0,
    batch_size: int = 0,
    quiet: bool = False,
) -> Written:
    """Trains each network on the training images of a configuration, and writes a distorted copy of the whole split with each.

    Each example has its own randomness, its distortion too. Networks see no validation image in training, but copies are made of those,
    too, so that they serve other splits.

    Args:
        config: whose data are meant, with the keys of configs/common.py; only config['data'] is read, and whether it is quick.
        out: folder of the copies; new, empty, or begun with the same settings.
        networks: names of image_to_image.
        weights: files of the published weights of some of them, {name: path}; these are the published networks then, and are not trained.
        width: of the networks.
        steps: of their training, each on `train_batch_size` random crops of side `crop`, with learning rates from `lr` down to 0.
        lr, train_batch_size, crop: see there.
        seed: of networks, their training and the distortions.
        distortions: which may be drawn, see augment.deepaugment; none for all, of digits without 'flip_signal', see networks.distortions.
        min_psnr: in dB, on the first 1000 validation images; a network that reconstructs worse is neither kept nor used. Asked for less
            in the same folder, it need not be trained again.
        batch_size: images distorted at once; 0: by their size. It changes nothing but rounding.
        quiet: no progress line.

    Raises:
        InputError: for settings that cannot be used, a folder that holds something else, or a network that reconstructs too badly.
    """
    _check(networks, distortions, steps=steps, lr=lr, batch_size=train_batch_size, crop=crop, seed=seed)
    config, dataset, notes = build.open_dataset(settings.check(config))
    for note in notes:
        log.say(f"note: {note}")
    distortions = distortions or usual_distortions(dataset.name)
    train_ids, held_out = build.train_validation(dataset, config)
    given = _published(weights, networks, channels=dataset.image_shape[2])
    about = {
        "robustjax": robustjax.__version__,
        "networks": list(networks),
        "seed": seed,
        "data": dataset.name,
        "provenance": dataset.provenance,
        "n": len(dataset.train),
        "digest": fingerprint(dataset.train),
        "width": width,
        "training": {"steps": steps, "lr": lr, "batch_size": train_batch_size, "crop": crop},
        "split": {key: config["data"][key] for key in ("validation", "split_seed", "limit_train")},
        "distortions": list(distortions),
    }
    if given:
        about["weights"] = {name: digest(network.params) for name, network in given.items()}
    # Made once before anything is written, so that a width that cannot be is refused.
    channels, missing = dataset.image_shape[2], [name for name in networks if name not in given]
    fresh = given | {name: image_to_image.make(name, _key(seed, f"network {name}"), channels=channels, width=width) for name in missing}
    out = Path(out).expanduser()
    results.check_folder(out, MANIFEST, about)  # before the lock leaves a file in a folder that is refused
    with log.lock(out, flag="--out"), results.writing(out):
        results.check_folder(out, MANIFEST, about)
        if not (out / MANIFEST).exists():
            results.write_json(out / MANIFEST, about)
        _save_labels(out / LABELS, dataset.train)
        measured, kept = {}, []
        for name in networks:
            pixels = _PIXELS // (_LARGER if name in given else 1)
            size = min(len(dataset.train), batch_size or max(1, pixels // math.prod(dataset.image_shape[:2])))
            trained, measured[name] = _trained(
                fresh[name], name, dataset.train, (train_ids, held_out), out, about, at_once=size, min_psnr=min_psnr, quiet=quiet
            )
            if not _write(out / f"{name}.npy", name, trained, dataset, about, size, quiet=quiet):
                kept.append(name)
    return Written(len(dataset.train), dataset.provenance, measured, tuple(kept))


def _published(weights: Mapping[str, str | Path], networks: Sequence[str], *, channels: int) -> dict[str, image_to_image.ImageToImage]:
    """Returns the networks whose published weights are given."""
    for name in weights:
        if name not in networks:
            raise InputError(f"there are weights for {name!r}, which is not among the networks {', '.join(networks)}.")
    if weights and channels != 3:
        raise InputError(f"the published networks are for images of three channels, these have {channels}; train networks instead.")
    return {name: published.load(name, path) for name, path in weights.items()}


def _check(networks: Sequence[str], distortions: Sequence[str], *, steps: Any, lr: float, batch_size: Any, crop: Any, seed: Any) -> None:
    for name in networks:
        if name not in image_to_image.NAMES:
            raise registry.unknown("image-to-image network", name, image_to_image.NAMES)
    if not networks or len(set(networks)) != len(networks):
        raise InputError(
            f"networks must be one or more of {', '.join(image_to_image.NAMES)}, each once, got {', '.join(networks) or 'none'}."
        )
    for name in distortions:
        if name not in ALL:
            raise registry.unknown("distortion", name, ALL)
    wholes = (steps, batch_size, crop)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in wholes) or not 0 < lr < math.inf:
        raise InputError("steps, train_batch_size and crop must be whole numbers of at least 1, and lr finite and above 0.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 32:
        raise InputError(f"seed must be a whole number in [0, 2^32), got {seed!r}.")


def _key(seed: int, purpose: str) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


def _save_labels(path: Path, source: data.Source) -> None:
    """Writes all labels, unless they are there: to list them may take reading all data."""
    with contextlib.suppress(InputError):
        array(path, (len(source),), np.int32)
        return
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        np.save(file, source.labels.astype(np.int32))
        _force(file)
    os.replace(temporary, path)


def _force(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _trained(
    network: image_to_image.ImageToImage,
    name: str,
    source: data.Source,
    split: tuple[np.ndarray, np.ndarray],
    out: Path,
    about: dict,
    *,
    at_once: int,
    min_psnr: float,
    quiet: bool,
) -> tuple[image_to_image.ImageToImage, float]:
    """Returns the trained network and its PSNR; both from `<name>.npz`, where that is there. One below `min_psnr` is refused, unsaved."""
    path, state = out / f"{name}.npz", out / f".{name}.state.npz"
    given = name in about.get("weights", {})
    trained, psnr = restore(path, network) if path.exists() else (network, None)
    if psnr is None:
        train_ids, held_out = split
        options = {**about["training"], "seed": about["seed"], "title": f"training {name}", "quiet": quiet}
        if not given:
            trained = network._replace(params=reconstruct.fit(network, source, train_ids, state=state, **options))
        psnr = reconstruct.psnr(trained, source, held_out[:1000], batch_size=min(len(held_out), options["batch_size"], at_once))
    if not psnr >= min_psnr:
        mend = "lower --min_psnr, or leave it out, in a new folder" if given else "train it longer or wider, in a new folder"
        raise InputError(f"the network {name} reconstructs validation images at {psnr:.1f} dB only, below {min_psnr:g}; {mend}.")
    if not path.exists():
        save(path, trained, psnr)
    state.unlink(missing_ok=True)
    return trained, psnr


def _write(
    path: Path, name: str, network: image_to_image.ImageToImage, dataset: data.Dataset, about: dict, batch_size: int, *, quiet: bool
) -> bool:
    """Writes the copies by one network, batch by batch; returns False where they were there."""
    partial, reached = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.reached.npz")
    if path.exists():
        reached.unlink(missing_ok=True)
        return False
    count = len(dataset.train)
    with open(partial, "r+b" if partial.exists() else "w+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, *dataset.image_shape)})
        begin, row = file.tell(), int(np.prod(dataset.image_shape))
        # What lies behind the copies that were forced to the disk may be anything, if the power went.
        start = int(reconstruct.restore(reached, np.int32(0))) if reached.exists() else 0
        if file.seek(0, os.SEEK_END) < begin + start * row:  # another file than `reached` was written for
            start = 0
        file.seek(begin + start * row)
        forced = time.monotonic()
        with log.progress(f"distorting with {name}", count, start=start, quiet=quiet) as show:
            for ids, mask in batches.padded(np.arange(start, count), batch_size):
                copies = _distorted(network, _key(about["seed"], f"copies {name}"), dataset.train, ids, tuple(about["distortions"]))
                file.write(copies[mask].tobytes())
                done = int(ids[mask][-1]) + 1
                if time.monotonic() - forced >= _FORCED:
                    _force(file)
                    reconstruct.save(reached, np.int32(done))
                    forced = time.monotonic()
                show(done)
        _force(file)
    os.replace(partial, path)
    reached.unlink(missing_ok=True)
    return True


def _distorted(
    network: image_to_image.ImageToImage, key: jax.Array, source: data.Source, ids: np.ndarray, distortions: tuple[str, ...]
) -> Any:
    images = jnp.asarray(source.fetch(ids)[0], jnp.float32) / 255
    keys = example_keys(key, jnp.asarray(ids))
    copies = augment.deepaugment(keys, images, network.layers, network.params, distortions=distortions)
    return np.rint(np.asarray(copies) * 255).astype(np.uint8)
