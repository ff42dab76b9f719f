"""What TFDS has prepared, read without TensorFlow; the second time from a cache, without TFDS either."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.cache import cached, fingerprint
from experiments.datasets import images, stock
from experiments.datasets.raw import Raw, Rows, codes
from experiments.progress import track

# A split that is smaller than this, decoded, is decoded and kept whole: any later choice of rows is then at hand.
_WHOLE_SPLIT_BYTES = 2**30
_BATCH = 1000  # rows read at once: one by one costs six times as much


class Keys(NamedTuple):
    """The names of splits and features; `group` is empty where there are no groups."""

    train: str = "train"
    test: str = "test"
    image: str = "image"
    label: str = "label"
    group: str = ""


def open_prepared(name: str, keys: Keys, *, size: tuple[int, int] | None, data_dir: Path) -> Raw:
    """Opens a data set that was prepared with TFDS as array_record; those in `stock.STOCK` prepare themselves.

    Args:
      name: NAME[/config][:version]; looked for in `data_dir`, then in TFDS's default directory.
      keys: names of the splits and features; where the split `keys.test` does not exist, the data have no test split.
      size: resize images to (height, width).
      data_dir: a TFDS data directory; decoded arrays are kept in its folder `cache`.

    Raises:
      FileNotFoundError: it has not been prepared.
      ValueError: it was prepared in another format, or there is no such split, feature, config or version.
    """
    folder = _find(name, data_dir)
    stamps = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir())]
    cache_dir = data_dir / "cache"
    index = cached(cache_dir, fingerprint("tfds index", stamps, keys), lambda: _read_index(folder, keys))

    def rows(part: str, split: str, groups: np.ndarray | None) -> Rows:
        labels = index[f"{part}_labels"]

        def read(chosen: np.ndarray) -> np.ndarray:
            height, width = size or index["image_shape"][:2]
            num_bytes = len(labels) * int(height) * int(width) * int(index["image_shape"][2])
            is_small = 0 < num_bytes <= _WHOLE_SPLIT_BYTES
            which = np.arange(len(labels)) if is_small else chosen
            key = fingerprint("tfds rows", stamps, split, keys.image, size, which)
            x = cached(cache_dir, key, lambda: {"x": _read(folder, split, keys.image, size, which)})["x"]
            return x[chosen] if is_small and len(chosen) < len(x) else x

        return Rows(f"{folder.resolve()}:{split}", labels, read, groups)

    groups = codes(index.get("train_groups"), index.get("test_groups"))
    names = tuple(str(n) for n in index["class_names"]) if "class_names" in index else None
    train = rows("train", keys.train, groups[0])
    return Raw(train, rows("test", keys.test, groups[1]) if "test_labels" in index else None, names)


def _find(name: str, data_dir: Path) -> Path:
    """The folder of the prepared data set; prepares it where that can be done here."""
    match = re.fullmatch(r"(\w+)(?:/([\w.\-+]+))?(?::(\d+\.\d+\.\d+))?", name)
    if match is None:
        raise ValueError(
            f"tfds:{name} should read tfds:NAME, tfds:NAME/config, tfds:NAME:1.2.3 or tfds:NAME/config:1.2.3"
        )
    dataset, config, version = match.groups()
    found = [f for root in _roots(data_dir) if (f := _newest(root / dataset, config, version)) is not None]
    formats = [json.loads((f / "dataset_info.json").read_text()).get("fileFormat") or "tfrecord" for f in found]
    if "array_record" in formats:
        return found[formats.index("array_record")]
    # TFDS does not overwrite a set in another format: it has to go beside it.
    taken = any(f.is_relative_to(data_dir) for f in found)
    target = data_dir / "array_record" if taken else data_dir
    if dataset in stock.STOCK and not config:
        stock.prepare(dataset, target, raw=data_dir / "raw" / dataset)
        if (prepared := _newest(target / dataset, None, version)) is None:
            raise ValueError(f"tfds:{name}: there is no version {version}; TFDS now has {_versions(target / dataset)}")
        return prepared
    call = (
        "import tensorflow_datasets as tfds; "
        f'tfds.builder("{name}", data_dir="{target}", file_format="array_record").download_and_prepare()'
        " (many builders of TFDS need TensorFlow for this step; reading does not)"
    )
    if found:
        raise ValueError(
            f"tfds:{name} was prepared as {formats[0]} ({found[0]}), which can't be read row by row; "
            f"prepare it again as array_record: {call}"
        )
    raise FileNotFoundError(
        f"tfds:{name} has not been prepared in {data_dir} or in TFDS's default directory; prepare it with {call}"
    )


def _roots(data_dir: Path) -> list[Path]:
    default = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    return [data_dir, data_dir / "array_record", default]


def _newest(dataset: Path, config: str | None, version: str | None) -> Path | None:
    """DATASET/[config/]VERSION with the highest version; None where there is none."""
    if config is None and not _versions(dataset) and dataset.is_dir():
        configs = sorted(d.name for d in dataset.iterdir() if _versions(d))
        if len(configs) > 1:
            raise ValueError(f"{dataset} has several configs: write tfds:{dataset.name}/CONFIG with one of {configs}")
        config = configs[0] if configs else None
    base = dataset / config if config else dataset
    versions = [v for v in _versions(base) if version in (None, v)]
    return base / versions[-1] if versions else None


def _versions(base: Path) -> list[str]:
    found = [d.parent.name for d in base.glob("*/dataset_info.json") if re.fullmatch(r"\d+\.\d+\.\d+", d.parent.name)]
    return sorted(found, key=lambda v: tuple(map(int, v.split("."))))


def _read_index(folder: Path, keys: Keys) -> dict[str, np.ndarray]:
    """Labels and groups of both splits, names of the classes, and the shape of an image where all have one (else 0)."""
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(str(folder)).info
    features, splits = info.features, info.splits
    for setting, key in (("image_key", keys.image), ("label_key", keys.label), ("group_key", keys.group)):
        if key and key not in features:
            raise ValueError(f"{setting} = {key!r}: {folder} has no such feature; it has {sorted(features)}")
    if (whole_name := re.split(r"[\[+]", keys.train)[0]) not in splits:
        raise ValueError(f"train_split = {keys.train!r}: {folder} has no split {whole_name!r}; it has {sorted(splits)}")
    shape = features[keys.image].shape
    fixed = isinstance(shape, tuple) and len(shape) == 3 and None not in shape
    index = {"image_shape": np.array(shape if fixed else (0, 0, 0))}
    if names := getattr(features[keys.label], "names", None):
        index["class_names"] = np.array(names)
    parts = {"train": keys.train, "test": keys.test}
    for part, split in parts.items():
        if re.split(r"[\[+]", split)[0] not in splits:
            continue
        rows = _read_rows(folder, split, lambda row: (row[keys.label], row[keys.group] if keys.group else 0))
        labels = np.array([label for label, _ in rows])
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"label_key = {keys.label!r}: {folder} holds {features[keys.label]} there, not integers")
        index[f"{part}_labels"] = labels.astype(np.int64)
        if keys.group:
            groups = np.array([group for _, group in rows])
            if groups.ndim != 1 or groups.dtype.kind == "O":
                raise ValueError(f"group_key = {keys.group!r}: {folder} holds {features[keys.group]} there, not names")
            index[f"{part}_groups"] = groups
    return index


def _read(folder: Path, split: str, key: str, size: tuple[int, int] | None, chosen: np.ndarray) -> np.ndarray:
    import tensorflow_datasets as tfds

    feature = tfds.builder_from_directory(str(folder)).info.features[key]
    if isinstance(feature, tfds.features.Image):
        if feature.np_dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"image_key = {key!r}: {folder} holds images as {np.dtype(feature.np_dtype)}, not as uint8"
            )
        names = [f"image {i} of the split {split} in {folder}" for i in chosen]
        where = iter(names)
        found = _read_rows(folder, split, lambda row: images.decode(row[key], next(where), size=size), chosen)
        x = images.stack(found, names)
        # As TFDS does: what the feature says counts, not what the file holds.
        return images.to_format(x, x.shape[1], x.shape[2], feature.shape[-1]) if feature.shape[-1] in (1, 3) else x
    found = _read_rows(folder, split, lambda row: np.asarray(row[key]), chosen)
    if found[0].ndim != 1 or not np.issubdtype(found[0].dtype, np.number):
        raise ValueError(
            f"image_key = {key!r}: {folder} holds {feature} there; images and vectors of numbers can be used"
        )
    if len({a.shape for a in found}) > 1:
        raise ValueError(f"image_key = {key!r}: the vectors in {folder} differ in length")
    return np.stack(found).astype(np.float32)


def _read_rows(
    folder: Path, split: str, pick: Callable[[dict[str, Any]], Any], chosen: np.ndarray | None = None
) -> list[Any]:
    """[pick(row)] for the chosen rows of a split, or for all; images come as they are encoded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    encoded = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    source = builder.as_data_source(split, decoders={key: tfds.decode.SkipDecoding() for key in encoded})
    order = [int(i) for i in (np.arange(len(source)) if chosen is None else chosen)]
    batches = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
    rows = (row for batch in batches for row in source.__getitems__(batch))
    return [pick(row) for row in track(rows, f"reading {folder.parent.name} {split}", total=len(order))]
