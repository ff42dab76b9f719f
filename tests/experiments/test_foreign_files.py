"""Files of PyTorch and Keras are data: read without them, exactly; what is no plain tensor is refused, and nothing runs."""

import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from experiments import keras_file
from experiments.torch_file import MAGIC, PROTOCOL, read_torch
from experiments.weights import imagenet, load_weights

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv.steps": np.array(7, np.int64),
    "half": np.array([0.5, -2], np.float16),
}


class Kept:
    """What stands for a tensor until it is pickled as PyTorch pickles one."""

    def __init__(self, key, array, stride=None, offset=0, count=None, shape=None):
        self.key, self.array = key, np.ascontiguousarray(array)
        self.shape = array.shape if shape is None else shape
        self.stride = tuple(s // array.itemsize for s in array.strides) if stride is None else stride
        self.offset, self.count = offset, array.size if count is None else count

    def __reduce__(self):
        kind = {"f4": "FloatStorage", "i8": "LongStorage", "f2": "HalfStorage"}[self.array.dtype.str[1:]]
        storage = ("storage", getattr(sys.modules["torch"], kind), self.key, "cpu", self.count, None)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Reference(storage[:5]), self.offset, self.shape, self.stride, False, {})


class Reference(tuple):
    """A storage, which a pickle names and does not hold."""


class Pickler(pickle.Pickler):
    def persistent_id(self, item):
        return tuple(item) if isinstance(item, Reference) else None


@pytest.fixture
def torch_names(monkeypatch):
    """Modules with the names that a pickle of PyTorch's asks for; there is nothing behind them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError("never called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write_torch(path, tree, kept, *, zipped):
    """As torch.save writes it: `tree` holds the tensors `kept`."""

    def pickled(item):
        stream = io.BytesIO()
        Pickler(stream, protocol=2).dump(item)
        return stream.getvalue()

    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", pickled(tree))
            archive.writestr("weights/byteorder", "little")
            for tensor in kept:
                archive.writestr(f"weights/data/{tensor.key}", tensor.array.tobytes())
        return
    parts = [pickled(item) for item in (MAGIC, PROTOCOL, {"little_endian": True}, tree, [t.key for t in kept])]
    parts += [t.array.size.to_bytes(8, "little") + t.array.tobytes() for t in kept]
    path.write_bytes(b"".join(parts))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_back_exactly(tmp_path, torch_names, zipped):
    kept = {name: Kept(str(i), array) for i, (name, array) in enumerate(ARRAYS.items())}
    # A transposed view of part of a storage, in a nested dictionary, beside what is no tensor.
    view = Kept("v", np.arange(10, dtype=np.float32), stride=(1, 2), offset=3, shape=(2, 3))
    tree = {**kept, "optimizer": {"view": view}, "epoch": 3, "note": "mine"}
    write_torch(tmp_path / "w.pth", tree, [*kept.values(), view], zipped=zipped)
    found = load_weights(tmp_path / "w.pth")
    assert found.keys() == {*ARRAYS, "optimizer.view"}
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(found["optimizer.view"], [[3, 5, 7], [4, 6, 8]])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_a_file_that_is_cut_off(tmp_path, torch_names, zipped, share):
    path, kept = tmp_path / "w.pth", [Kept("0", np.ones(500, np.float32))]
    write_torch(path, {"a": kept[0]}, kept, zipped=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"weights at .*w\.pth: not readable as a PyTorch file, or cut off"):
        load_weights(path)


class Bomb:
    """What a pickle with code in it does when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, torch_names, zipped):
    kept = [Kept("0", np.ones(3, np.float32))]
    write_torch(tmp_path / "w.pth", {"a": kept[0], "b": Bomb(tmp_path / "ran")}, kept, zipped=zipped)
    with pytest.raises(ValueError, match=r"there is code in it: it asks for .*mkdir; only plain tensors are read"):
        load_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ValueError, match="there is code in it"):
        load_weights(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changes", [{"offset": 2}, {"shape": (4,)}, {"stride": (2,)}, {"stride": (-1,), "offset": 2}, {"count": 30}]
)
def test_a_view_out_of_its_storage_is_refused(tmp_path, torch_names, changes):
    kept = Kept("0", np.ones(3, np.float32), **changes)
    write_torch(tmp_path / "w.pth", {"a": kept}, [kept], zipped=True)
    with pytest.raises(ValueError, match="not readable as a PyTorch file"):
        read_torch(tmp_path / "w.pth")


@pytest.fixture(scope="module")
def keras_model():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    pytest.importorskip("h5py")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((6, 6, 3)),
            layers.Conv2D(4, 3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.BatchNormalization(scale=False, name="unscaled"),
            layers.DepthwiseConv2D(3, use_bias=False, name="each"),
            layers.Flatten(),
            layers.Dense(2, name="last"),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, v.shape).astype(np.float32) for v in model.weights])
    return model


@pytest.mark.filterwarnings("ignore")  # Keras calls its own .h5 files old
@pytest.mark.parametrize("name", ["w.keras", "w.weights.h5", "w.h5"])
def test_files_of_keras(keras_model, tmp_path, name):
    path = tmp_path / name
    if name == "w.weights.h5":
        keras_model.save_weights(path)
    else:
        keras_model.save(path)
    expected = {"/".join(v.path.split("/")[-2:]): np.asarray(v) for v in keras_model.weights}
    found = load_weights(path)
    assert found.keys() == expected.keys()
    for leaf, array in expected.items():
        np.testing.assert_array_equal(found[leaf], array)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"weights at .*: not readable as a Keras file, or cut off"):
        load_weights(path)


def test_code_in_a_keras_file_is_never_opened(keras_model, tmp_path):
    keras_model.save(tmp_path / "w.keras")
    with zipfile.ZipFile(tmp_path / "w.keras") as whole, zipfile.ZipFile(tmp_path / "code.keras", "w") as changed:
        changed.writestr("config.json", '{"class_name": "Lambda", "config": {"function": "boom"')
        changed.writestr("model.weights.h5", whole.read("model.weights.h5"))
    assert "first/kernel" in load_weights(tmp_path / "code.keras")


def test_an_hdf5_file_that_reads_another_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", shape=(1, 1), dtype="f8", external=[(str(tmp_path / "secret"), 0, 8)])
    with pytest.raises(ValueError, match="is not an array in this file"):
        load_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.ones(3)
    with pytest.raises(ValueError, match="no layers as Keras writes them"):
        load_weights(tmp_path / "other.h5")


def test_imagenet_weights_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"python -m experiments.download --data-dir .* efficientnet_lite0"):
        imagenet("efficientnet_lite0", tmp_path)
    with pytest.raises(ValueError, match="none are known for 'cnn8'; there are efficientnet_lite0, vgg16"):
        imagenet("cnn8", tmp_path)
    keras = pytest.importorskip("keras")

    def no_network(weights):
        raise Exception(f"URL fetch failure on {weights}")

    monkeypatch.setattr(keras.applications, "ResNet50", no_network)
    with pytest.raises(ValueError, match=r"could not fetch the ImageNet weights of ResNet50 \(URL fetch failure"):
        imagenet("resnet50", tmp_path)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ValueError, match="come through Keras, which can't be imported"):
        keras_file.applications("ResNet50")
