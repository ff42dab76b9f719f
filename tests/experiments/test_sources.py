"""Data as users bring them, well-formed and not; no network, and nothing of `make data` is needed."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import phases
from experiments.config import Data
from experiments.datasets import images, prepared, stock
from experiments.datasets.images import to_format
from experiments.datasets.select import split_rows, stratified
from experiments.sources import common_format, load


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty data directory; the user's own TFDS directory is out of sight."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "data"


def read(name, data_dir, *, seed=0, **settings):
    return load(Data(name, **settings), seed=seed, data_dir=str(data_dir))


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- digits, and what is selected


def test_digits_are_split_once_stratified(data_dir):
    d = read("digits", data_dir)
    assert d.image and d.train_x.shape[1:] == (8, 8, 1) and d.train_x.dtype == np.uint8 and d.train_y.dtype == np.int32
    assert d.train_x.max() == 255 and d.train_x.min() == 0
    rows = np.concatenate([d.train_rows, d.test_rows])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))  # disjoint, and nothing lost
    share = np.bincount(d.test_y) / np.bincount(np.concatenate([d.train_y, d.test_y]))
    assert np.abs(share - 0.25).max() < 0.01  # one row of the smallest class (174)
    assert "split off" in d.note


def test_rows_are_the_rows_of_the_original(data_dir):
    from sklearn.datasets import load_digits

    d, original = read("digits", data_dir, classes=("7", "2"), limit=30), load_digits()
    np.testing.assert_array_equal(d.train_x[..., 0], np.round(original.images[d.train_rows] * 255 / 16))
    np.testing.assert_array_equal(np.array([7, 2])[d.test_y], original.target[d.test_rows])
    assert d.class_names == ("7", "2")


def test_deterministic_in_the_seed(data_dir):
    a, b, c = (read("digits", data_dir, seed=s, limit=100, part=(0, 2)) for s in (3, 3, 4))
    np.testing.assert_array_equal(a.train_rows, b.train_rows)
    np.testing.assert_array_equal(a.test_x, b.test_x)
    assert not np.array_equal(a.train_rows, c.train_rows)


def test_selections_from_the_same_data_never_mix_training_and_test_rows(data_dir):
    test = set(read("digits", data_dir).test_rows)
    for settings in ({"classes": ("1", "5")}, {"limit": 50}, {"classes": ("5",) * 1 + ("6",)}):
        d = read("digits", data_dir, **settings)
        assert set(d.test_rows) <= test and not set(d.train_rows) & test


@pytest.mark.parametrize("fractions", [(0.25, 0.25, 0.25), (0.1, 0.25, 0.6)])
def test_parts_are_disjoint_and_cover_the_data_however_they_are_split(data_dir, fractions):
    parts = [read("digits", data_dir, part=(i, 3), test_fraction=f) for i, f in enumerate(fractions)]
    rows = np.concatenate([rows for p in parts for rows in (p.train_rows, p.test_rows)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
    for part, fraction in zip(parts, fractions):
        assert len(part.train_y) + len(part.test_y) == 599 and len(part.test_y) == round(599 * fraction)


def test_parts_of_a_test_split_of_its_own(tmp_path, data_dir):
    name = save(
        tmp_path / "a.npz", x=np.ones((40, 3)), y=np.arange(40) % 2, x_test=np.ones((20, 3)), y_test=np.arange(20) % 2
    )
    parts = [read(name, data_dir, part=(i, 2)) for i in range(2)]
    for split, size in (("train_rows", 40), ("test_rows", 20)):
        np.testing.assert_array_equal(np.sort(np.concatenate([getattr(p, split) for p in parts])), np.arange(size))


def shared(data_dir, source, target):
    (a, of_a), (b, of_b) = source, target
    return phases.shared_rows(read(a, data_dir, **of_a), read(b, data_dir, **of_b))


def test_shared_rows_of_one_split(data_dir):
    digits = ("digits", {})
    assert shared(data_dir, digits, digits) == 1797
    # The source's training rows leak into the target's test rows, for each draws its own test split.
    leak = ("digits", {"test_fraction": 0.7})
    a, b = (read(*d[:1], data_dir, **d[1]) for d in (digits, leak))
    assert len(np.intersect1d(a.train_rows, b.test_rows)) > 0 and shared(data_dir, digits, leak) == 1797
    assert shared(data_dir, ("digits", {"classes": ("1", "2")}), ("digits", {"classes": ("3", "4")})) == 0
    part = ("digits", {"part": (0, 2), "test_fraction": 0.4})
    assert shared(data_dir, part, ("digits", {"part": (1, 2)})) == 0
    assert shared(data_dir, part, digits) == 899


def test_shared_rows_of_two_splits(tmp_path, data_dir, monkeypatch):
    x, y = np.ones((30, 3)), np.arange(30) % 2
    a = save(tmp_path / "a.npz", x=x, y=y, x_test=x[:10], y_test=y[:10])
    b = save(tmp_path / "b.npz", x=x, y=y, x_test=x[:10], y_test=y[:10])
    assert shared(data_dir, (a, {}), (b, {})) == 0  # other files: nothing is known
    monkeypatch.chdir(tmp_path)
    assert shared(data_dir, (a, {}), ("npz:a.npz", {})) == 40  # one file under two names
    make_folder(tmp_path / "train", {"a": 4, "b": 4})
    make_folder(tmp_path / "test", {"a": 3, "b": 3})
    swapped = {"train_split": "test", "test_split": "train"}
    assert shared(data_dir, (f"folder:{tmp_path}", {}), ("folder:.", swapped)) == 14
    assert shared(data_dir, (f"folder:{tmp_path}", {}), ("folder:test", {})) == 6


def test_a_limit_is_stratified_and_exact(data_dir):
    d = read("digits", data_dir, limit=57, test_limit=20)
    assert len(d.train_y) == 57 and len(d.test_y) == 20
    assert set(np.bincount(d.train_y)) <= {5, 6} and set(np.bincount(d.test_y)) == {2}
    assert len(read("digits", data_dir, limit=10**6).train_y) == len(read("digits", data_dir).train_y)


@pytest.mark.parametrize("count", [3, 4, 17, 150, 1106])
def test_stratified_keeps_every_class_and_proportions(count):
    sizes = np.array([1, 6, 1100])
    labels = rng().permutation(np.repeat([4, 7, 9], sizes))
    chosen = stratified(labels, count, rng(1), "limit")
    got = np.array([np.sum(labels[chosen] == c) for c in (4, 7, 9)])
    assert len(chosen) == count == len(set(chosen)) and (got >= 1).all() and (got <= sizes).all()
    # One row of each class, the rest in proportion to the rest, rounded.
    assert (np.abs(got - 1 - (count - 3) * (sizes - 1) / (sizes - 1).sum()) < 1).all()


def test_split_rows_by_group_never_splits_a_group_and_keeps_every_class():
    groups = np.repeat(np.arange(12), 5)
    labels = groups % 3  # a group has one class: a careless split loses one
    for seed in range(20):
        kept, held = split_rows(labels, groups, fraction=0.25, seed=seed)
        assert not set(groups[kept]) & set(groups[held])
        assert len(set(groups[held])) == 3 and set(labels[kept]) == set(labels[held]) == {0, 1, 2}
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(60))


def test_split_rows_keeps_the_only_row_of_a_class():
    labels = np.array([0] * 10 + [1] * 10 + [2])
    for seed in range(10):
        kept, held = split_rows(labels, None, fraction=0.3, seed=seed)
        assert 20 in kept and set(labels[held]) == {0, 1} and len(held) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "didgits"}, "no data set 'didgits'; there are digits, mnist, fashion_mnist, cifar10"),
        ({"name": "tfds:"}, "no data set 'tfds:'"),
        ({"name": "tfds:a b"}, "should read tfds:NAME"),
        ({"part": (3, 3)}, r"part = \(3, 3\)"),
        ({"part": (-1, 3)}, r"part = \(-1, 3\)"),
        ({"part": (0, 0)}, r"part = \(0, 0\)"),
        ({"limit": 0}, "limit = 0"),
        ({"test_limit": -1}, "test_limit = -1"),
        ({"limit": 9}, "9 rows can't hold the 10 classes"),
        ({"test_limit": 9}, "9 rows can't hold the 10 classes"),
        ({"test_fraction": 1.0}, "test_fraction = 1.0"),
        ({"size": (0, 8)}, "height and width"),
        ({"classes": ("1", "10")}, "no class '10'; there are 0, 1, 2"),
        ({"classes": ("1", "1")}, "names a class twice"),
        ({"classes": ("4",)}, "a single class, '4'"),
        ({"part": (4999, 5000)}, r"part \(4999, 5000\) of digits has no rows"),
    ],
)
def test_bad_settings(data_dir, settings, message):
    with pytest.raises(ValueError, match=message):
        read(**{"name": "digits", "data_dir": data_dir, **settings})
    assert not data_dir.exists()


# ---- npz


def save(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_npz_rows_labels_and_groups(tmp_path, data_dir):
    x, y = rng().normal(size=(60, 5)), np.repeat([-3, 7, 9], 20)
    writers = np.repeat([f"w{i}" for i in range(15)], 4)
    d = read(save(tmp_path / "a.npz", x=x, y=y, writer=writers), data_dir, group_key="writer", test_fraction=0.2)
    assert not d.image and d.train_x.dtype == np.float32 and d.class_names == ("-3", "7", "9")
    np.testing.assert_array_equal(np.array([-3, 7, 9])[d.train_y], y[d.train_rows])
    assert d.train_groups is not None and d.test_groups is not None
    assert not set(d.train_groups) & set(d.test_groups) and len(set(d.test_groups)) == 3
    np.testing.assert_array_equal(np.unique(writers)[d.test_groups], writers[d.test_rows])
    part = read(save(tmp_path / "a.npz", x=x, y=y, groups=writers), data_dir, part=(0, 2))  # found by their usual name
    other = read(save(tmp_path / "a.npz", x=x, y=y, groups=writers), data_dir, part=(1, 2))
    assert not set(part.train_groups) & set(other.train_groups)


def test_npz_with_a_test_split_and_names(tmp_path, data_dir):
    x = rng().integers(0, 256, (20, 6, 7, 3), np.uint8)
    y = np.arange(20) % 4
    names = np.array(["ant", "bee", "cat", "dog"])
    name = save(tmp_path / "a.npz", x=x, y=y, x_test=x[:8].astype(np.int64), y_test=y[:8], class_names=names)
    d = read(name, data_dir, classes=("dog", "1"))
    assert d.class_names == ("dog", "bee") and d.note == ""
    np.testing.assert_array_equal(d.train_x, x[d.train_rows])
    np.testing.assert_array_equal(d.test_rows, [1, 3, 5, 7])
    np.testing.assert_array_equal(d.test_y, [1, 0, 1, 0])
    small = read(name, data_dir, size=(3, 4))
    assert small.train_x.shape == (20, 3, 4, 3) and "3x4" in small.note


def test_npz_grey_images_get_a_channel(tmp_path, data_dir):
    x = np.zeros((8, 5, 5), np.uint8)
    assert read(save(tmp_path / "a.npz", x=x, y=np.arange(8) % 2), data_dir).train_x.shape[1:] == (5, 5, 1)


X, Y = np.ones((8, 3), np.float32), np.arange(8) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "no array 'y'; it has .'x'"),
        ({"x": X, "y": Y[:7]}, "differ in length: 8 inputs, 7 labels"),
        ({"x": X, "y": Y.astype(float)}, "must be integers of shape .N., not float64"),
        ({"x": X, "y": Y[:, None]}, "must be integers of shape"),
        ({"x": X, "y": Y.astype(str)}, "must be integers"),
        ({"x": X.astype(str), "y": Y}, "not numbers"),
        ({"x": X[:, 0], "y": Y}, "has shape .8."),
        ({"x": np.where(np.arange(24).reshape(8, 3) == 13, np.nan, X), "y": Y}, r"NaN or infinite.*column 1 of row 4"),
        ({"x": np.where(np.arange(24).reshape(8, 3) == 13, 1e300, X.astype(float)), "y": Y}, "NaN or infinite"),
        ({"x": X, "y": Y, "x_test": X * -np.inf, "y_test": Y}, "8 of 8 test rows .* NaN or infinite"),
        ({"x": np.ones((8, 4, 4, 3), np.float32), "y": Y}, "images are uint8"),
        ({"x": np.full((8, 4, 4), 256), "y": Y}, "images are uint8"),
        ({"x": np.ones((8, 3, 9, 9), np.uint8), "y": Y}, "channels come last"),
        ({"x": X, "y": Y, "x_test": X}, "one of x_test and y_test"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, "differ in shape: .3. and .2."),
        ({"x": X, "y": Y, "class_names": np.array(["a"])}, "has the label 1, but 1 class names"),
        ({"x": X, "y": -Y, "class_names": np.array(["a", "b"])}, "has the label -1"),
        ({"x": X, "y": Y, "groups": Y[:3]}, "groups in .* have shape"),
        ({"x": X, "y": Y, "groups": np.zeros(8)}, "1 group"),
        ({"x": X[:0], "y": Y[:0]}, "no rows"),
        ({"x": X[:1], "y": Y[:1]}, "a single row"),
        ({"x": X[:1], "y": Y[:1], "x_test": X, "y_test": Y * 0}, "a single training row"),
        ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "no test rows"),
        ({"x": X, "y": Y * 0}, "a single class, '0'"),
        ({"x": X, "y": np.arange(8)}, "one row of each class"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "test rows of classes that have no training rows: 2"),
        ({"x": X, "y": np.array([object()] * 8, object)}, "not a readable .npz file of plain arrays"),
    ],
)
def test_bad_npz(tmp_path, data_dir, arrays, message):
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "bad.npz", **arrays), data_dir)
    assert not data_dir.exists()


def test_files_that_are_no_npz(tmp_path, data_dir):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.npz"):
        read(f"npz:{tmp_path}/none.npz", data_dir)
    (tmp_path / "text.npz").write_text("x, y")
    np.save(tmp_path / "single.npy", X)
    whole = Path(save(tmp_path / "cut.npz", x=X, y=Y)[4:])
    whole.write_bytes(whole.read_bytes()[:200])
    for name in ("text.npz", "single.npy", "cut.npz"):
        with pytest.raises(ValueError, match=f"{name} is not a readable .npz file"):
            read(f"npz:{tmp_path}/{name}", data_dir)
    with pytest.raises(ValueError, match=r"no array 'writer' \(group_key\); it has \['x', 'y'\]"):
        read(save(tmp_path / "a.npz", x=X, y=Y), data_dir, group_key="writer")
    with pytest.raises(ValueError, match="not images"):
        read(save(tmp_path / "a.npz", x=X, y=Y), data_dir, size=(4, 4))


# ---- folders of images


def make_folder(path, counts, shape=(6, 5, 3), seed=0):
    """PATH/CLASS/i.png of noise."""
    random = rng(seed)
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(path / name / f"{i:02d}.png")
    return path


def test_folder(tmp_path, data_dir, monkeypatch):
    path = make_folder(tmp_path / "pets", {"dog": 8, "cat": 12})
    (path / ".hidden").write_text("")
    (path / "dog" / ".DS_Store").write_text("")
    d = read(f"folder:{path}", data_dir)
    assert d.class_names == ("cat", "dog") and d.train_x.shape == (15, 6, 5, 3) and len(d.test_y) == 5
    files = sorted(path.glob("*/[0-9]*.png"))
    np.testing.assert_array_equal(d.test_x, [np.asarray(Image.open(files[r])) for r in d.test_rows])
    # A second time from the cache; when a file changes, from the file.
    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", None)
        np.testing.assert_array_equal(read(f"folder:{path}", data_dir).test_x, d.test_x)
    changed = files[d.test_rows[0]]
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(changed)
    assert not read(f"folder:{path}", data_dir).test_x[0].any()


def test_folder_with_splits_and_sizes(tmp_path, data_dir):
    make_folder(tmp_path / "train", {"a": 4, "b": 4})
    make_folder(tmp_path / "test", {"b": 2, "a": 2}, shape=(9, 9, 1))
    with pytest.raises(ValueError, match=r"differ in shape: \[6, 5, 3\] and \[9, 9, 1\]; give `size`"):
        read(f"folder:{tmp_path}", data_dir)
    d = read(f"folder:{tmp_path}", data_dir, size=(4, 4))
    assert d.train_x.shape == (8, 4, 4, 3) and d.test_x.shape == (4, 4, 4, 3)
    np.testing.assert_array_equal(d.test_y, [0, 0, 1, 1])
    assert (d.test_x[..., 0] == d.test_x[..., 2]).all()


def test_folder_errors(tmp_path, data_dir):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read(f"folder:{tmp_path}/none", data_dir)
    with pytest.raises(ValueError, match="no class folders"):
        read(f"folder:{tmp_path}", data_dir)
    path = make_folder(tmp_path / "pets", {"cat": 5, "dog": 5})
    with pytest.raises(ValueError, match="has no fields"):
        read(f"folder:{path}", data_dir, group_key="owner")
    (path / "dog" / "notes.txt").write_text("a good dog")
    with pytest.raises(ValueError, match=r"dog/notes\.txt is not an image"):
        read(f"folder:{path}", data_dir)
    (path / "dog" / "notes.txt").unlink()
    whole = (path / "cat" / "00.png").read_bytes()
    (path / "cat" / "00.png").write_bytes(whole[:70])
    with pytest.raises(ValueError, match=r"cat/00\.png is not an image that can be read"):
        read(f"folder:{path}", data_dir)
    Image.fromarray(np.zeros((7, 5), np.uint8)).save(path / "cat" / "00.png")
    with pytest.raises(ValueError, match=r"differ in size: .*7x5 \(.*cat/00\.png\).* --target\.size 32 32|6x5"):
        read(f"folder:{path}", data_dir)
    (path / "dog" / "puppies").mkdir()
    with pytest.raises(ValueError, match="a folder inside the class folder"):
        read(f"folder:{path}", data_dir)
    (path / "dog" / "puppies").rmdir()
    (path / "readme.txt").write_text("")
    with pytest.raises(ValueError, match="beside the class folders"):
        read(f"folder:{path}", data_dir)


def test_an_empty_class_folder(tmp_path, data_dir):
    path = make_folder(tmp_path / "pets", {"cat": 6, "dog": 6, "emu": 0})
    assert "no rows of the classes emu" in read(f"folder:{path}", data_dir).note
    with pytest.raises(ValueError, match=r"no training rows after classes .* of the classes emu"):
        read(f"folder:{path}", data_dir, classes=("cat", "dog", "emu"))


def test_modes_of_image_files(tmp_path):
    grey16 = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    Image.fromarray(grey16).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "a.png", "a")[..., 0], grey16 >> 8)
    rgba = rng().integers(0, 256, (3, 4, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "b.png", "b"), rgba[..., :3])
    Image.fromarray(rgba[..., 0] > 127).save(tmp_path / "c.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "c.png", "c")[..., 0], 255 * (rgba[..., 0] > 127))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned by 90°
    Image.fromarray(rgba[..., :3]).save(tmp_path / "d.png", exif=exif)
    np.testing.assert_array_equal(images.decode(tmp_path / "d.png", "d"), np.rot90(rgba[..., :3], -1))
    Image.fromarray(rng().normal(size=(3, 4)).astype(np.float32)).save(tmp_path / "e.tiff")
    with pytest.raises(ValueError, match=r"e is not an image that can be read: .* 32-bit"):
        images.decode(tmp_path / "e.tiff", "e")


# ---- one format


def test_to_format_agrees_with_pil():
    x = rng().integers(0, 256, (5, 9, 7, 3), np.uint8)
    grey = to_format(x, 9, 7, 1)
    np.testing.assert_array_equal(grey[..., 0], [np.asarray(Image.fromarray(i).convert("L")) for i in x])
    np.testing.assert_array_equal(to_format(grey, 9, 7, 3), np.repeat(grey, 3, axis=3))
    bilinear = Image.Resampling.BILINEAR
    wanted = [np.asarray(Image.fromarray(i).resize((12, 4), bilinear)) for i in x]
    np.testing.assert_array_equal(to_format(x, 4, 12, 3), wanted)
    five = rng().integers(0, 256, (2, 9, 7, 5), np.uint8)
    np.testing.assert_array_equal(to_format(five, 4, 12, 5)[..., 2:3], to_format(five[..., 2:3], 4, 12, 1))


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 11, 3)])
def test_to_format_is_a_fixed_map(shape):
    x = rng().integers(0, 256, (6, 8, 8, 1), np.uint8)
    whole = to_format(x, *shape)
    assert whole.shape == (6, *shape) and whole.dtype == np.uint8
    # An image's result does not depend on the others, a constant image stays constant, and the map is idempotent.
    np.testing.assert_array_equal(whole[2:3], to_format(x[2:3], *shape))
    np.testing.assert_array_equal(to_format(np.full_like(x, 77), *shape), np.full((6, *shape), 77))
    np.testing.assert_array_equal(to_format(whole, *shape), whole)


def test_to_format_errors():
    with pytest.raises(ValueError, match="4 channels can't become 3"):
        to_format(np.zeros((2, 4, 4, 4), np.uint8), 4, 4, 3)
    with pytest.raises(ValueError, match="uint8 array"):
        to_format(np.zeros((2, 4, 4, 3), np.float32), 4, 4, 3)


def test_common_format(tmp_path, data_dir):
    digits = read("digits", data_dir)
    x = rng().integers(0, 256, (20, 10, 12, 3), np.uint8)
    colour = read(save(tmp_path / "a.npz", x=x, y=np.arange(20) % 2), data_dir)
    source, target, note = common_format(digits, colour)
    assert source is not None and source.train_x is digits.train_x
    assert target.train_x.shape[1:] == target.test_x.shape[1:] == (8, 8, 1)
    assert "target's images from 10x12 RGB to 8x8 grey" in note and "source's" not in note and digits.note in note
    source, target, note = common_format(colour, digits)
    assert source is colour and target.train_x.shape[1:] == target.test_x.shape[1:] == (10, 12, 3)
    assert "target's images from 8x8 grey to 10x12 RGB" in note
    assert common_format(digits, digits)[2] == digits.note
    rows = read(save(tmp_path / "b.npz", x=X, y=Y), data_dir)
    longer = read(save(tmp_path / "c.npz", x=np.ones((8, 4)), y=Y), data_dir)
    assert common_format(rows, rows)[:2] == (rows, rows)
    for other in (digits, longer):
        with pytest.raises(ValueError, match=r"differ in feature size: rows \[3\] and"):
            common_format(rows, other)


# ---- TFDS


def prepare_tiny(data_dir, *, with_test=True, hidden_labels=False, shape=(4, 5, 3), sizes=False):
    """A small set of the user's own, as array_record: the image's pixels are the row's number."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        "writer": tfds.features.Text(),
        "vector": tfds.features.Tensor(shape=(3,), dtype=np.float32),
        "id": tfds.features.Tensor(shape=(), dtype=np.int64),
        "matrix": tfds.features.Tensor(shape=(2, 2), dtype=np.float32),
    }

    with tfds.core.registered.skip_registration():

        class Tiny(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                splits = {"train": self._generate_examples(30)}
                return {**splits, "test": self._generate_examples(9, test=True)} if with_test else splits

            def _generate_examples(self, n, test=False):
                for i in range(n):
                    size = (4 + i, 5) if sizes else (4, 5)
                    yield (
                        i,
                        {
                            "image": Image.fromarray(np.full((*size, 3), i, np.uint8)),
                            "label": -1 if test and hidden_labels else i % 3,
                            "writer": f"w{i // 3}",
                            "vector": np.full(3, i, np.float32),
                            "id": i,
                            "matrix": np.ones((2, 2), np.float32),
                        },
                    )

    tfds.disable_progress_bar()
    Tiny(data_dir=str(data_dir), file_format="array_record").download_and_prepare()


def test_tfds_set_of_the_user(data_dir, monkeypatch):
    prepare_tiny(data_dir)
    d = read("tfds:tiny", data_dir)
    assert d.class_names == ("ant", "bee", "cat") and d.train_x.shape == (30, 4, 5, 3) and d.test_x.shape[0] == 9
    number = d.train_x[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(number), np.arange(30))
    np.testing.assert_array_equal(number % 3, d.train_y)
    assert (d.train_x == number[:, None, None, None]).all()
    few = read("tfds:tiny:1.2.0", data_dir, classes=("cat", "ant"), limit=6, size=(2, 2), group_key="writer")
    np.testing.assert_array_equal(few.train_x[:, 0, 0, 0], number[few.train_rows])
    np.testing.assert_array_equal(np.array([2, 0])[few.train_y], number[few.train_rows] % 3)
    assert few.train_groups is not None and few.test_groups is not None
    writer = number // 3
    assert len({*zip(few.train_groups, writer[few.train_rows])}) == len(set(few.train_groups))
    assert "3 groups of tfds:tiny have rows both" in read("tfds:tiny", data_dir, group_key="writer").note
    # Halves of a split are not compared with each other or with the whole; the same expression is.
    halves = [("tfds:tiny", {"train_split": f"train[{half}]"}) for half in (":50%", "50%:")]
    assert shared(data_dir, *halves) == 9 and shared(data_dir, halves[0], ("tfds:tiny:1.2.0", halves[0][1])) == 24
    vectors = read("tfds:tiny", data_dir, image_key="vector", label_key="id", classes=("1", "2", "8"))
    assert not vectors.image and vectors.train_x.shape[1] == 3 and vectors.class_names == ("1", "2", "8")
    # A large set: only the rows that were chosen are decoded.
    decoded, decode = [], images.decode
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "_WHOLE_SPLIT_BYTES", 100)
        patch.setattr(images, "decode", lambda *a, **k: decoded.append(1) or decode(*a, **k))
        for _ in range(2):
            large = read("tfds:tiny", data_dir, limit=9, test_limit=3, seed=5)
            np.testing.assert_array_equal(large.train_x, d.train_x[large.train_rows])
            assert len(decoded) == 12  # and the second time, none
    # What was read once is at hand without TFDS.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    np.testing.assert_array_equal(read("tfds:tiny", data_dir).train_x, d.train_x)


def test_tfds_default_directory_and_missing_test_split(data_dir, monkeypatch):
    prepare_tiny(data_dir, with_test=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    d = read("tfds:tiny", data_dir.parent / "other", group_key="writer", test_fraction=0.2)
    assert "of its groups were split off" in d.note and len(d.test_y) == 6
    assert not set(d.train_groups) & set(d.test_groups)


def test_tfds_errors(data_dir):
    prepare_tiny(data_dir, hidden_labels=True)
    for settings, message in [
        ({}, "label -1, but 3 class names; TFDS marks rows without a label so"),
        ({"label_key": "labels"}, r"label_key = 'labels': .* no such feature; it has \['id', 'image', 'label'"),
        ({"group_key": "author"}, "group_key = 'author'"),
        ({"label_key": "vector"}, "label_key = 'vector': .* not integers"),
        ({"image_key": "matrix", "test_split": "-"}, "image_key = 'matrix': .* images and vectors"),
        ({"train_split": "training"}, "no split 'training'; it has .'test', 'train'"),
        ({"name": "tfds:tiny:3.0.0"}, "has not been prepared"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read(**{"name": "tfds:tiny", "data_dir": data_dir, **settings})


def test_tfds_images_of_several_sizes(data_dir):
    prepare_tiny(data_dir, shape=(None, None, 3), sizes=True)
    with pytest.raises(ValueError, match=r"the images differ in size: .* give `size`"):
        read("tfds:tiny", data_dir)
    assert read("tfds:tiny", data_dir, size=(4, 4)).train_x.shape == (30, 4, 4, 3)


def pretend(data_dir, name, file_format, version="1.0.0"):
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": file_format}))


def test_tfds_absent_or_in_another_format(data_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not been prepared .*file_format=.array_record.*download_and_prepare"):
        read("tfds:rock_you", data_dir)
    pretend(tmp_path / "elsewhere", "rock_you", "tfrecord")
    call = (
        r'tfds\.builder\("rock_you:1\.0\.0", data_dir=".*/data", file_format="array_record"\)\.download_and_prepare\(\)'
    )
    with pytest.raises(
        ValueError,
        match=f"was prepared as tfrecord .* again as array_record: import tensorflow_datasets as tfds; {call}",
    ):
        read("tfds:rock_you:1.0.0", data_dir)
    pretend(data_dir, "rock_you", "tfrecord")
    with pytest.raises(ValueError, match=r'data_dir=".*/data/array_record"'):  # TFDS does not overwrite another format
        read("tfds:rock_you", data_dir)
    pretend(data_dir, "many/one", "array_record")
    pretend(data_dir, "many/two", "array_record")
    with pytest.raises(ValueError, match=r"several configs: write tfds:many/CONFIG with one of \['one', 'two'\]"):
        read("tfds:many", data_dir)


def test_a_tfrecord_set_can_be_prepared_again_as_the_error_says(data_dir):
    prepare_tiny(data_dir)
    info = data_dir / "tiny/1.2.0/dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match="data/array_record"):
        read("tfds:tiny", data_dir)
    prepare_tiny(data_dir / "array_record")
    assert len(read("tfds:tiny", data_dir).train_y) == 30


def test_the_highest_version_is_taken(data_dir):
    for version in ("1.9.0", "1.10.0"):
        pretend(data_dir, "tiny", "array_record", version)
    pretend(data_dir, "tiny", "array_record", "incomplete.ABC_2.0.0")
    assert prepared._find("tiny", data_dir).name == "1.10.0"
    assert prepared._find("tiny:1.9.0", data_dir).name == "1.9.0"


# ---- MNIST, Fashion-MNIST and CIFAR-10


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_files(n_train=30, n_test=20):
    """{name: (array, content)} in the layout of MNIST."""
    random, files = rng(1), {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        pixels = random.integers(0, 256, (n, 28, 28), np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = pixels, idx(pixels)
        labels = (np.arange(n) % 10).astype(np.uint8)
        files[f"{prefix}-labels-idx1-ubyte"] = labels, idx(labels)
    return files


def by_content(x, y):
    return sorted((image.tobytes(), int(label)) for image, label in zip(x, y))


@pytest.mark.parametrize(("name", "gzipped"), [("mnist", False), ("fashion_mnist", True)])
def test_mnist_prepares_itself_from_the_files_of_make_data(data_dir, name, gzipped, monkeypatch):
    (data_dir / "raw" / name).mkdir(parents=True)
    files = idx_files()
    for file, (_, content) in files.items():
        path = data_dir / "raw" / name / (file + ".gz" * gzipped)
        path.write_bytes(gzip.compress(content) if gzipped else content)
    d = read(name, data_dir)
    assert d.train_x.shape == (30, 28, 28, 1) and len(d.class_names) == 10
    assert d.class_names[1] == ("Trouser" if name == "fashion_mnist" else "1")
    for prefix, x, y in (("train", d.train_x, d.train_y), ("t10k", d.test_x, d.test_y)):
        pixels, labels = files[f"{prefix}-images-idx3-ubyte"][0], files[f"{prefix}-labels-idx1-ubyte"][0]
        assert by_content(x, y) == by_content(pixels, labels)
    # TFDS reads it too, and tfds:NAME is the same data.
    import tensorflow_datasets as tfds

    assert len(tfds.data_source(name, split="test", data_dir=str(data_dir), download=False)) == 20
    with monkeypatch.context() as patch:
        patch.setattr(stock, "prepare", None)
        np.testing.assert_array_equal(read(f"tfds:{name}:3.0.1", data_dir).train_x, d.train_x)
        assert shared(data_dir, (name, {}), (f"tfds:{name}", {})) == 50
    with pytest.raises(ValueError, match=r"no version 1\.0\.0; TFDS now has \['3\.0\.1'\]"):
        read(f"tfds:{name}:1.0.0", data_dir)


def test_cifar10_prepares_itself_from_the_files_of_make_data(data_dir):
    raw = data_dir / "raw" / "cifar10"
    raw.mkdir(parents=True)
    x = rng().integers(0, 256, (60, 32, 32, 3), np.uint8)
    y = rng().permutation(60) % 10
    for i in range(5):
        Image.fromarray(x[10 * i : 10 * i + 10].reshape(10, 1024, 3)).save(raw / f"data_batch_{i + 1}.png")
    Image.fromarray(x[50:].reshape(10, 1024, 3)).save(raw / "test_batch.png")
    (raw / "train_lables.json").write_text(json.dumps(y[:50].tolist()))
    (raw / "test_lables.json").write_text(json.dumps(y[50:].tolist()))
    d = read("cifar10", data_dir, test_split="test")
    assert d.class_names == stock.CIFAR10_NAMES
    assert by_content(d.train_x, d.train_y) == by_content(x[:50], y[:50])
    assert by_content(d.test_x, d.test_y) == by_content(x[50:], y[50:])


def test_absent_and_no_network(data_dir, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in the tests")

    monkeypatch.setattr(stock.urllib.request, "getproxies", dict)
    monkeypatch.setattr(stock.socket, "create_connection", refuse)
    for name in stock.STOCK:
        with pytest.raises(FileNotFoundError, match=f"the data set '{name}' is not in .*data: run `make data`"):
            read(name, data_dir)
    assert not list(data_dir.glob("*/*"))


def test_mnist_by_tfds_own_download(data_dir, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    asked = []

    def download(self, urls):
        asked.extend(urls)
        paths = []
        for url in urls:
            file = url.rsplit("/")[-1]
            (tmp_path / file).write_bytes(gzip.compress(idx_files()[file.removesuffix(".gz")][1]))
            paths.append(tmp_path / file)
        return paths

    monkeypatch.setattr(stock, "_reachable", lambda builder: True)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    assert len(read("mnist", data_dir).train_y) == 30
    known = tfds.builder_cls("mnist").url_infos
    assert asked and all(url in known for url in asked)  # those of which TFDS knows the sha256


def test_damaged_files_of_make_data(data_dir):
    (data_dir / "raw" / "mnist").mkdir(parents=True)
    for file, (_, content) in idx_files().items():
        (data_dir / "raw" / "mnist" / file).write_bytes(content[:-5])
    with pytest.raises(ValueError, match=r"raw/mnist does not hold what `make data` puts there"):
        read("mnist", data_dir)
    assert not list((data_dir / "mnist").glob("3*"))


def test_idx_errors(tmp_path):
    for content, message in [(b"text", "not an idx file"), (idx(np.zeros((2, 3), np.uint8))[:-1], "should hold 6")]:
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            stock.read_idx(tmp_path / "a")


def test_digits_need_no_tfds():
    code = (
        "import sys; from experiments import sources, config; sources.load(config.Data(), seed=0, data_dir='none');"
        "sys.exit('tensorflow_datasets' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


RAW = Path(__file__).parents[2] / "data" / "raw"


@pytest.mark.skipif(not (RAW / "mnist").exists() or not (RAW / "cifar10").exists(), reason="make data was not run")
def test_the_real_files():
    x = stock.read_idx(RAW / "mnist" / "train-images-idx3-ubyte")
    assert x.shape == (60000, 28, 28)
    weights, levels = np.bincount(x.ravel(), minlength=256) / x.size, np.arange(256) / 255
    mean = weights @ levels
    assert abs(mean - 0.1307) < 5e-5 and abs(np.sqrt(weights @ levels**2 - mean**2) - 0.3081) < 5e-5
    labels = json.loads((RAW / "cifar10" / "train_lables.json").read_text())
    assert labels[:10] == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3] and len(labels) == 50000
    test = stock.read_cifar_png(RAW / "cifar10" / "test_batch.png")
    assert test.shape == (10000, 32, 32, 3) and to_format(test[:2], 8, 8, 1).shape == (2, 8, 8, 1)
