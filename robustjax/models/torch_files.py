"""Files of named weights, read into NumPy arrays: '.pt', '.pth', '.tar' and '.state' as torch saves them, '.safetensors', '.npz'.

torch is imported for its own files only. A safetensors file is the length of its header (8 bytes, little endian), the header (JSON:
name to dtype, shape and place) and the values; its authors describe it at https://huggingface.co/docs/safetensors.
"""

import json
import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from robustjax.core.check import InputError

SUFFIXES = (".pt", ".pth", ".tar", ".state", ".safetensors", ".npz")
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "params", "weights")
"""Keys under which training scripts save the weights, beside an optimizer's state and the epoch."""

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the named arrays of a file of weights; bfloat16 comes as float32.

    Args:
        path: of a file that ends with one of SUFFIXES. In torch's files the names may lie one level down, see NESTED.

    Raises:
        InputError: if there is no such file, torch is needed and absent, or the file holds something else, or only a part.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} is no file of weights: its name must end with one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of torch's weights.")
    if path.suffix == ".npz":
        return _read_npz(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, TypeError, EOFError, OSError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is no whole .npz file of plain arrays ({_line(error)}); write it again with numpy.savez.") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header, values = json.loads(data[8 : 8 + size]), memoryview(data)[8 + size :]
        arrays = {name: _tensor(values, **entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"{path} is no whole safetensors file ({_line(error)}); copy or convert it again.") from error
    return arrays


def _tensor(values: memoryview, *, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    start, end = data_offsets
    kind = np.dtype(_DTYPES[dtype]).newbyteorder("<")
    if not 0 <= start <= end <= len(values) or end - start != math.prod(shape) * kind.itemsize:
        raise ValueError(f"values {start} to {end} of {len(values)} bytes for {dtype} {shape}")
    array = np.frombuffer(values[start:end], kind).reshape(shape)
    return array.astype(np.float32) if dtype == "BF16" else array


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"reading {path} needs torch: pip install torch, or save its state dict as .safetensors or .npz where torch is installed."
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: torch's own reader trips over what is not its file
        if isinstance(error, pickle.UnpicklingError) and (zipfile.is_zipfile(path) or "GLOBAL" in str(error)):
            raise InputError(_other_classes(path)) from error
        raise InputError(f"{path} is no whole file of torch's ({_line(error)}); download or save it again.") from error
    weights = _weights(found, path)
    return {name: _array(tensor) for name, tensor in weights.items()}


def _weights(found: Any, path: Path) -> Mapping[str, Any]:
    """Returns the names to tensors in what torch loaded."""

    def named_tensors(value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(hasattr(leaf, "detach") for leaf in value.values())

    if named_tensors(found):
        return found
    if not isinstance(found, Mapping):
        raise InputError(f"{path} holds a {type(found).__name__}, not names and tensors; save model.state_dict().")
    for key in NESTED:
        if named_tensors(found.get(key)):
            return found[key]
    held = ", ".join(sorted(map(str, found))[:8])
    raise InputError(
        f"{path} holds weights neither at its top nor under one of {', '.join(NESTED)}; it has {held}. Save model.state_dict()."
    )


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _other_classes(path: Path) -> str:
    """The message for a file that torch reads only by running code in it; names the key of the weights where it can be seen."""
    key = None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickled = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        # Text of up to 255 bytes is pickled as its kind, its length and itself.
        key = next((key for key in NESTED if len(key).to_bytes(4, "little") + key.encode() in pickled), None)
    part = f"its {key!r}" if key else "its state dict"
    loaded = "torch.load(path, weights_only=False)" + (f"[{key!r}]" if key else ".state_dict()")
    return (
        f"{path} holds other classes than tensors, which reading would have to run; if you trust it, export {part} alone: "
        f"torch.save({loaded}, 'weights.pt')."
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
