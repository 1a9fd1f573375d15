"""Torch's weights under our names: the same outputs as in torch, every way in which a file can be wrong named, round trips."""

import json
import pickle
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.core import InputError
from robustjax.models import torch_files, torch_import
from tests.goldens import reference

GOLDEN = reference.load("models/torch_import.json")
CASES = {f"{case['name']}-{case['naming']}": case for case in GOLDEN["cases"]}


def state(case):
    """The state dict that the reference was computed with, float64; the law is in its provenance."""
    rng, drawn = np.random.default_rng(0), {}
    for name, shape in case["state"]:
        if name.endswith("num_batches_tracked"):
            drawn[name] = np.zeros(shape, np.int64)
            continue
        z = rng.standard_normal(shape)
        scale = 1 + 0.3 * np.tanh(z) if name.endswith(("weight", "var")) else 0.3 * z
        drawn[name] = z * (2 / np.prod(shape[1:])) ** 0.5 if z.ndim > 1 else scale
    return drawn


def make(case, **options):
    options = {"num_classes": 5, "image_shape": case["image_shape"], "mean": 0.4, "std": 0.25, **case["options"], **options}
    return models.make(case["name"], **options)


def images(case):
    return np.random.default_rng(1).uniform(size=(3, *case["image_shape"]))


def write_safetensors(path, arrays, **metadata):
    names = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64"}
    header, values = ({"__metadata__": metadata} if metadata else {}), b""
    for name, array in arrays.items():
        data = array.tobytes()
        header[name] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": [len(values), len(values) + len(data)]}
        values += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)


RESNET = CASES["resnet18-CIFAR"]


@pytest.fixture(scope="module")
def resnet():
    return make(RESNET)


@pytest.fixture
def saved(tmp_path):
    """Writes a state dict as .npz and returns the path."""

    def save(arrays, name="weights.npz"):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return save


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_same_outputs_as_torch_with_its_weights(case, saved):
    # Kills: a kernel not transposed, or along other axes; mean and variance swapped; blocks numbered across stages in another order;
    # a shortcut's batch norm taken for its convolution; squeeze's two layers swapped; a default left where a name was missed;
    # transitions swapped; 1x1 convolutions without their padding.
    model = make(case)
    apply, before, _ = models.split(model)
    params, batch_stats = torch_import.load(saved(state(case)), model)
    assert all(value.dtype == jnp.float32 and value.shape == before[name].shape for name, value in params.items())
    logits = jax.jit(lambda x: apply(params, batch_stats, x, False)[0].logits)(jnp.asarray(images(case), jnp.float32))
    np.testing.assert_allclose(logits, case["eval"], rtol=1e-5, atol=1e-5)


def test_the_reference_is_there():
    # Kills: an empty table above, a network of the registry that could be read and is not tried.
    assert {case["name"] for case in CASES.values()} == set(models.TABLE) - {"small_cnn", "mnist_cnn"} and len(CASES) == 13


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_array_is_found_again(case, saved):
    # Kills: an array left out or read twice; values changed on the way; a default kept. All values are random, so that an array of the
    # file is known by them among the network's own, once these are turned back.
    arrays = {name: value.astype(np.float32) for name, value in state(case).items() if not name.endswith("num_batches_tracked")}
    params, batch_stats = torch_import.load(saved(arrays), make(case))
    turned = (np.asarray(value).transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)) for value in (params | batch_stats).values())
    read = sorted((value.shape, value.tobytes()) for value in turned)
    assert read == sorted((value.shape, value.tobytes()) for name, value in arrays.items() if not name.startswith("sub_block1"))


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_round_trip(kind, tmp_path, caplog):
    # Kills: a name that two arrays share; values changed on the way; arrays read at other offsets; the model's own values returned.
    model = models.make("wide_resnet", num_classes=3, image_shape=(8, 8, 3), depth=16, width=1, seed=1)
    _, params, batch_stats = models.split(model)
    batch_stats = {name: value + np.float32(i) for i, (name, value) in enumerate(batch_stats.items())}
    arrays = {"module.num_batches_tracked": np.array(3)}
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for name, value in {**params, **batch_stats}.items():
        layer, _, leaf = name.rpartition(".")
        if layer.startswith("blocks."):
            _, i, layer = layer.split(".")
            layer = f"block{int(i) // 2 + 1}.layer.{int(i) % 2}.{layer.replace('shortcut_conv', 'convShortcut')}"
        value = np.asarray(value)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        arrays[f"module.model.{layer.replace('head', 'fc')}.{leaves[leaf]}"] = np.ascontiguousarray(value)
    arrays["module.sub_block1.layer.0.bn1.weight"] = np.ones(16, np.float32)
    path = tmp_path / f"weights.{kind}"
    np.savez(path, **arrays) if kind == "npz" else write_safetensors(path, arrays, format="pt")
    found = torch_import.load(path, models.make("wide_resnet", num_classes=3, image_shape=(8, 8, 3), depth=16, width=1))
    for kept, read in zip((params, batch_stats), found, strict=True):
        assert list(kept) == list(read)
        jax.tree.map(np.testing.assert_array_equal, kept, read)
    assert "left out 1 arrays that networks of this kind never read: 'sub_block1.layer.0.bn1.weight'" in caplog.text


def test_blocks_beyond_the_ninth_keep_their_order(saved):
    # Kills: numbers sorted as text, '10' before '2'.
    model = models.make("resnet18", num_classes=3, image_shape=(8, 8, 3), width=1, blocks=(12,))
    _, params, batch_stats = models.split(model)
    arrays = {}
    for name, value in {**params, **batch_stats}.items():
        layer, _, leaf = name.replace("blocks", "layer1").replace("head", "fc").rpartition(".")
        leaf = {"mean": "running_mean", "var": "running_var", "bias": "bias"}.get(leaf, "weight")
        value = np.asarray(value)
        arrays[f"{layer}.{leaf}"] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    found, _ = torch_import.load(saved(arrays), model)
    jax.tree.map(np.testing.assert_array_equal, found, params)


class TestClassifier:
    """What `head` does with the layers before the logits."""

    def test_another_number_of_classes_is_refused_with_a_hint(self, saved):
        message = r"weights.npz, whose .* does not fit.*2 of another shape, first 'linear.bias', \(5,\) where \(7,\).*Only the classifier.*head='skip'"
        with pytest.raises(InputError, match=message) as error:
            torch_import.load(saved(state(RESNET)), make(RESNET, num_classes=7))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(("head", "classes", "reads"), [("skip", 5, False), ("skip", 7, False), ("fit", 5, True), ("fit", 7, False)])
    def test_it_is_left_or_read(self, head, classes, reads, saved, caplog):
        # Kills: a head read where 'skip' was said; a head of zeros; an embedding read without its head; the rest left as well.
        model = make(RESNET, num_classes=classes)
        _, params, _ = models.split(model)
        found, batch_stats = torch_import.load(saved(state(RESNET)), model, head=head)
        assert list(found) == list(params)
        for name, value in params.items():
            assert np.array_equal(value, found[name]) != (reads or not name.startswith(("head", "embedding"))), name
        np.testing.assert_array_equal(batch_stats["bn1.mean"], state(RESNET)["bn1.running_mean"].astype(np.float32))
        assert ("classifier was not read" in caplog.text) != reads

    def test_weights_without_embedding_serve_a_network_with_one(self, saved):
        # Kills: ImageNet's ResNet refused for the discriminative loss's network.
        path, model = saved(without(state(RESNET), "embedding")), make(RESNET)
        with pytest.raises(InputError, match=r"2 missing, in the names of this library 'embedding.bias', 'embedding.kernel'.*head='skip'"):
            torch_import.load(path, model)
        assert set(torch_import.load(path, model, head="fit")[0]) == set(models.split(model)[1])

    def test_unknown_way(self, saved, resnet):
        with pytest.raises(InputError, match="unknown head 'skipp'; did you mean 'skip'"):
            torch_import.load(saved(state(RESNET)), resnet, head="skipp")


def without(arrays, part):
    return {name: value for name, value in arrays.items() if part not in name}


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"arrays: 1 missing, in the names of this library 'bn1.var'\. Make", lambda a: {k: v for k, v in a.items() if k != "bn1.running_var"}),
        (r"10 missing.*'blocks.2.bn1.bias', 'blocks.2.bn1.mean', .* and more", lambda a: without(a, "layer2.1.")),
        (r"arrays: 1 not of this model: 'layer1.0.conv3.weight'\.", lambda a: {**a, "layer1.0.conv3.weight": np.zeros((4, 4, 1, 1))}),
        (r"not of this model: 'mu', 'sigma'", lambda a: {**a, "mu": np.zeros(3), "sigma": np.ones(3)}),
        (r"not of this model: 'fc.weight'", lambda a: {**a, "fc.weight": a["linear.weight"]}),
        (r"'conv1.weight', \(4, 3, 7, 7\) where \(4, 3, 3, 3\) is expected", lambda a: {**a, "conv1.weight": np.zeros((4, 3, 7, 7))}),
        (r"1 of another shape, first 'linear.weight', \(6, 5\) where \(5, 6\)", lambda a: {**a, "linear.weight": a["linear.weight"].T}),
        (r"follow no known convention; it has 'a.weight', known are ResNet", lambda a: {"a.weight": np.zeros(2)}),
        (r"several networks whose names differ in 'module.' or 'model.' only", lambda a: {**a, "module.bn1.weight": np.zeros(4)}),
    ],
)  # fmt: skip
def test_files_of_other_networks_get_one_clear_line(message, change, saved, resnet):
    # Kills: a check left out: names matched by their order, arrays dropped in silence, defaults left where a name is missing.
    with pytest.raises(InputError, match=message) as error:
        torch_import.load(saved(change(state(RESNET))), resnet)
    assert "\n" not in str(error.value)


def test_another_architecture_is_named(saved, resnet):
    # Kills: an error that speaks of arrays only where a user has taken the wrong file.
    with pytest.raises(InputError, match=r"whose names are those of torchvision's MobileNetV3, does not fit.*'classifier.0.bias'"):
        torch_import.load(saved(state(CASES["mobilenet_v3_small-torchvision"])), resnet)


def test_safetensors_of_other_dtypes(tmp_path):
    # Kills: bfloat16 read as integers or as float16; offsets of float32 for all.
    arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(7, np.int64), "c": np.zeros((0, 2), np.float32)}
    write_safetensors(tmp_path / "a.safetensors", arrays)
    read = torch_files.read(tmp_path / "a.safetensors")
    assert {name: (value.dtype, value.shape) for name, value in read.items()} == {n: (v.dtype, v.shape) for n, v in arrays.items()}
    jax.tree.map(np.testing.assert_array_equal, read, arrays)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes([0x80, 0x3F, 0x20, 0xC0]))
    np.testing.assert_array_equal(torch_files.read(tmp_path / "b.safetensors")["w"], np.array([1.0, -2.5], np.float32), strict=True)


def test_files_that_cannot_be_read(tmp_path):
    # Kills: tracebacks of other libraries; values of a file that was cut off.
    write_safetensors(tmp_path / "cut.safetensors", {"a": np.zeros(8)})
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-1])
    (tmp_path / "head.safetensors").write_bytes(data[:20])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "list.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    deep = b"[" * 100_000
    (tmp_path / "deep.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    for name in ("cut", "head", "empty", "list", "deep"):
        with pytest.raises(InputError, match=rf"{name}.safetensors is no whole safetensors file \(.*copy or convert it again"):
            torch_files.read(tmp_path / f"{name}.safetensors")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    (tmp_path / "text.npz").write_text("weights")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez_compressed(tmp_path / "damaged.npz", a=np.arange(500.0))
    data = bytearray((tmp_path / "damaged.npz").read_bytes())
    data[len(data) // 3] ^= 255
    (tmp_path / "damaged.npz").write_bytes(data)
    for name in ("objects", "text", "empty", "array", "damaged"):
        with pytest.raises(InputError, match=rf"{name}.npz is no whole .npz file of plain arrays"):
            torch_files.read(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match="there is no file .*nowhere.pth"):
        torch_files.read(tmp_path / "nowhere.pth")
    with pytest.raises(
        InputError, match="weights.bin is no file of weights: its name must end with one of .pt, .pth, .tar, .state, .safetensors"
    ):
        torch_files.read(tmp_path / "weights.bin")


class Tensor:
    """What is asked of a torch tensor."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def detach(self):
        return self

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def numpy(self):
        return self.array


@pytest.fixture
def torch_loads(monkeypatch, tmp_path):
    """Puts in torch's place a module that loads what it is given, or raises it; returns the path of a file."""

    def put(found):
        def load(path, *, map_location, weights_only):
            assert map_location == "cpu" and weights_only  # else reading a file would run code in it
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
        path = tmp_path / "best.pth.tar"
        path.touch()
        return path

    return put


@pytest.mark.parametrize("key", [None, *torch_files.NESTED])
def test_torch_files_with_weights_at_the_top_or_one_level_down(key, torch_loads):
    # Kills: the optimizer's state taken for the weights; float64 or half tensors; counts cast to floats.
    weights = {"a.weight": Tensor(np.ones((2, 3))), "n": Tensor(np.array(4))}
    found = weights if key is None else {"epoch": 3, "optimizer": {"state": {}}, "opt_state": {"x": Tensor(0.0)}, key: weights}
    read = torch_files.read(torch_loads(found))
    np.testing.assert_array_equal(read["a.weight"], np.ones((2, 3), np.float32), strict=True)
    assert read.keys() == weights.keys() and read["n"] == 4 and read["n"].dtype == np.int64


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("neither at its top nor under one of state_dict, .*it has best_acc, ema. Save", {"ema": {}, "best_acc": 0.9}),
        ("holds a list, not names and tensors; save model.state_dict", [1]),
        (r"no whole file of torch's \(RuntimeError: central directory\)", RuntimeError("central\ndirectory")),
        (r"no whole file of torch's \(KeyError: 101\)", KeyError(101)),
        (r"no whole file of torch's \(UnpicklingError: invalid load key", pickle.UnpicklingError("invalid load key")),
        (r"other classes.*export its state dict alone: torch.save\(torch.load\(path, weights_only=False\).state_dict", pickle.UnpicklingError("GLOBAL a.B")),
    ],
)  # fmt: skip
def test_torch_files_without_plain_weights(message, found, torch_loads):
    with pytest.raises(InputError, match=message) as error:
        torch_files.read(torch_loads(found))
    assert "\n" not in str(error.value)


def test_key_of_weights_beside_other_classes(torch_loads):
    # Kills: a hint that leaves the user to guess; a key found inside of another word.
    path = torch_loads(pickle.UnpicklingError("no"))
    for keys, named in ((("args", "state_dict"), "state_dict"), (("args", "net"), "net"), (("networks",), None)):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(dict.fromkeys(keys), protocol=2))
        expected = rf"export its '{named}' alone: .*weights_only=False\)\['{named}'\]" if named else "export its state dict alone"
        with pytest.raises(InputError, match=expected):
            torch_files.read(path)


def test_without_torch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pt").touch()
    with pytest.raises(InputError, match="needs torch: pip install torch, or save its state dict as .safetensors or .npz"):
        torch_files.read(tmp_path / "a.pt")
