"""Names and paths → labelled arrays: read, split once, select, and bring source and target to one format.

The order is fixed: first the part is taken, so that parts are disjoint whatever else is chosen, then the test split is
split off inside it (where there is none), then come the classes, then the rows of each class, then the limit. All of it is
deterministic in the seed.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import config
from experiments.datasets.arrays import open_digits, open_npz
from experiments.datasets.folder import open_folder
from experiments.datasets.images import to_format
from experiments.datasets.prepared import Keys, open_prepared
from experiments.datasets.raw import Raw, Rows
from experiments.datasets.select import check_rows, of_each_class, part_of, split_rows, stratified
from experiments.datasets.stock import STOCK
from experiments.datasets.table import is_table, open_table
from experiments.datasets.table_map import TableMap, apply, fit, take, tally, unknown
from experiments.text.glove import read_glove
from experiments.text.sentences import read_rated


class Dataset(NamedTuple):
    """A labelled data set, ready for use.

    Attributes:
      train_x, test_x: uint8 images [N, H, W, C], or float32 rows [N, d].
      train_y, test_y: int32 labels [N], from 0 in the order of `class_names`.
      class_names: the classes.
      train_groups, test_groups: the group of each row, int [N], the same number for the same group in both; or None.
      train_rows, test_rows: which rows of the data as they were read these are, int [N]. Where the data have no test
        split, both count the rows of the one split there is.
      origins: what `train_rows` and `test_rows` count in: equal numbers of equal origins are the same row, in any Dataset.
      note: what was done to bring the data in shape, in sentences for the report; may be empty.
      image: whether the inputs are images.
      table: the map that made the rows, where the data are a table.
      group_names: of group 0, 1, …, where the data are a table with groups.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    class_names: tuple[str, ...]
    train_groups: np.ndarray | None
    test_groups: np.ndarray | None
    train_rows: np.ndarray
    test_rows: np.ndarray
    origins: tuple[str, str]
    note: str
    image: bool
    table: TableMap | None = None
    group_names: tuple[str, ...] | None = None


def load(data: config.Data, *, seed: int, data_dir: str, table: TableMap | None = None) -> Dataset:
    """Reads a data set and selects what the settings ask for.

    Args:
      data: which data, and which part of them.
      seed: of the split, the parts and the limits; two loads with the same seed take disjoint parts (i, k) ≠ (j, k).
      data_dir: where `make data` put its files; decoded images are kept there.
      table: the map of the table that the network was trained on; none: one is fitted to the training rows.

    Raises:
      FileNotFoundError: the data are not there; the message says how to get them.
      ValueError: an unknown name, a setting out of range, or data that can't be used; the message names the value.
    """
    _check_settings(data)
    raw = _open(data, Path(data_dir).expanduser(), table)
    notes = list(raw.notes)
    labels, names = _labels(raw, data.name)
    groups = [s.groups for s in (raw.train, raw.test) if s is not None]
    splits = [np.arange(len(y)) for y in labels]
    if data.part is not None:
        kinds = ["rows"] if raw.test is None else ["train", "test"]
        splits = [
            part_of(r, g, data.part, _random(seed, f"part of {kind}")) for r, g, kind in zip(splits, groups, kinds)
        ]
        notes.append(f"Part {data.part[0]} (from 0) of {data.part[1]} disjoint random parts of {data.name}.")
    if raw.test is None:
        [rows] = splits
        once = int(_random(seed, "split").integers(2**31))
        name = data.name if data.part is None else f"part {data.part} of {data.name}"
        of_rows = None if groups[0] is None else groups[0][rows]
        inside = split_rows(labels[0][rows], of_rows, fraction=data.test_fraction, seed=once, name=name)
        splits, labels, groups = [rows[i] for i in inside], labels * 2, groups * 2
        unit = "rows" if groups[0] is None else "groups"
        notes.append(f"{name} has no test split: {data.test_fraction:g} of its {unit} were split off, once.")
    elif shared := len({*_listed(groups[0])} & {*_listed(groups[1])}):
        notes.append(f"{shared} groups of {data.name} have rows both in its training and in its test split.")

    chosen = []
    limits, each = (data.limit, data.test_limit), (data.per_class, data.test_per_class)
    for kind, rows, y, limit, count in zip(("train", "test"), splits, labels, limits, each):
        if data.classes:
            rows = rows[np.isin(y[rows], _classes(data.classes, names))]
        if count is not None:
            what = f"{'' if kind == 'train' else 'test_'}per_class of {data.name}"
            rows = rows[of_each_class(y[rows], count, _random(seed, f"each class of {kind}"), what)]
        if limit is not None and limit < len(rows):
            rows = rows[stratified(y[rows], limit, _random(seed, f"limit of {kind}"), f"{kind} limit of {data.name}")]
        chosen.append(rows)
    return _assemble(data, raw, chosen, labels, groups, names, notes, table)


def common_format(source: Dataset, target: Dataset) -> tuple[Dataset, Dataset, str]:
    """Brings both to one format, by the map of `to_format`: the source's, for the network was trained on it.

    Args:
      source, target: what `load` returned.

    Returns:
      Both, and what was done to bring them in shape, in sentences: their own notes, then what was done here.

    Raises:
      ValueError: one has images, or is a table, and the other doesn't or isn't; or their rows differ in length.
    """
    notes = list(dict.fromkeys(d.note for d in (source, target) if d.note))
    if (source.table is None) != (target.table is None):
        raise ValueError(
            "one of source and target is a table (csv:, parquet:) and the other is not; no fixed map joins them"
        )
    if source.image != target.image or (not source.image and source.train_x.shape[1] != target.train_x.shape[1]):
        have = [f"{'images' if d.image else 'rows'} {list(d.train_x.shape[1:])}" for d in (source, target)]
        raise ValueError(f"source and target differ in feature size: {have[0]} and {have[1]}; no fixed map joins them")
    if not source.image:
        return source, target, " ".join(notes)
    old, new = target.train_x.shape[1:], source.train_x.shape[1:]
    if old != new:
        train, test = (to_format(x, *new) for x in (target.train_x, target.test_x))
        target = target._replace(train_x=train, test_x=test)
        notes.append(
            f"One fixed map brought the target's images from {_format_name(*old)} to {_format_name(*new)} "
            "(bilinear; grey to RGB by repeating, RGB to grey by luma); images in that format it leaves as they are."
        )
    return source, target, " ".join(notes)


def _listed(groups: np.ndarray | None) -> list[int]:
    return [] if groups is None else groups.tolist()


def _check_settings(data: config.Data) -> None:
    if data.part is not None:
        i, k = data.part
        if k < 1 or not 0 <= i < k:
            raise ValueError(f"part = ({i}, {k}) of {data.name}: (i, k) is part i = 0 … k−1 of k parts")
    for name in ("limit", "test_limit", "per_class", "test_per_class"):
        if (value := getattr(data, name)) is not None and value < 1:
            raise ValueError(f"{name} = {value} of {data.name} must be at least 1")
    if not 0 < data.test_fraction < 1:
        raise ValueError(f"test_fraction = {data.test_fraction} of {data.name} must lie between 0 and 1")
    if data.size is not None and min(data.size) < 1:
        raise ValueError(f"size = {data.size} of {data.name}: height and width must be at least 1")
    if len(set(data.classes)) < len(data.classes):
        raise ValueError(f"classes = {list(data.classes)} of {data.name} names a class twice")


def _open(data: config.Data, data_dir: Path, table: TableMap | None) -> Raw:
    kind, _, rest = data.name.partition(":")
    if is_table(data.name):
        return open_table(data, data_dir, table)
    for setting in ("where", "numeric", "categorical", "drop", "label_above"):
        if getattr(data, setting) not in ((), None):
            raise ValueError(f"{setting} = {getattr(data, setting)!r} is for tables (csv:, parquet:), not {data.name}")
    if data.name == "digits":
        return open_digits()
    if data.name in STOCK:
        kind, rest = "tfds", data.name
    if kind == "tfds" and rest:
        keys = Keys(data.train_split, data.test_split, data.image_key, data.label_key, data.group_key)
        return open_prepared(rest, keys, size=data.size, data_dir=data_dir)
    if data.group_key and kind == "folder":
        raise ValueError(f"group_key = {data.group_key!r}: {data.name} has no fields; groups need tfds or npz")
    if kind == "folder" and rest:
        path = Path(rest).expanduser()
        splits = {"train": data.train_split, "test": data.test_split}
        return open_folder(path, **splits, size=data.size, cache_dir=data_dir / "cache")
    if kind == "npz" and rest:
        return open_npz(Path(rest).expanduser(), data.group_key)
    if kind == "sentences" and rest:
        return _open_sentences(rest, data_dir)
    places = ("tfds:NAME[/config][:version]", "folder:PATH", "npz:PATH", "csv:PATH", "parquet:PATH", "sentences:NAME")
    known = ["digits", *STOCK, *places]
    raise ValueError(f"there is no data set {data.name!r}; there are {', '.join(known)}")


def _open_sentences(name: str, data_dir: Path) -> Raw:
    """Rated sentences as rows: the mean of the GloVe vectors of a sentence's words, 0 where GloVe knows none of them."""
    from experiments.text.tokens import tokens  # which needs jax; images and tables don't

    rated = read_rated(name, data_dir)
    labelled = np.flatnonzero(rated.labels >= 0)
    sentences = [tokens(rated.texts[i]) for i in labelled]
    words = tuple(sorted({word for sentence in sentences for word in sentence}))
    vectors, known = read_glove(data_dir, words)
    number = {word: i for i, word in enumerate(words) if known[i]}
    found = [[number[word] for word in sentence if word in number] for sentence in sentences]
    means = np.stack([vectors[rows].mean(0) if rows else np.zeros(vectors.shape[1], np.float32) for rows in found])
    groups = None if rated.documents is None else rated.documents[labelled]
    rows = Rows(f"sentences:{name}", rated.labels[labelled], lambda wanted: means[wanted], groups, labelled)
    return Raw(rows, None, rated.classes, notes=(f"Sentences of {name} as the mean GloVe vector of their words.",))


def _labels(raw: Raw, name: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """The labels of each split as indices into the names of the classes, and these."""
    labels = [split.labels for split in (raw.train, raw.test) if split is not None]
    if raw.class_names is None:
        values = np.unique(np.concatenate(labels))
        return [np.searchsorted(values, y) for y in labels], tuple(str(v) for v in values)
    for y in labels:
        if len(y) and (y.min() < 0 or y.max() >= len(raw.class_names)):
            wrong = y.min() if y.min() < 0 else y.max()
            hint = "; TFDS marks rows without a label so: choose another test_split" if wrong == -1 else ""
            raise ValueError(f"{name} has the label {wrong}, but {len(raw.class_names)} class names{hint}")
    return labels, raw.class_names


def _classes(wanted: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    """Names, or else indices, → indices, in the order in which they are wanted."""
    found = []
    for name in wanted:
        if name in names:
            found.append(names.index(name))
        elif name.isdecimal() and int(name) < len(names):
            found.append(int(name))
        else:
            raise ValueError(
                f"there is no class {name!r}; there are {', '.join(names)} (or indices 0 … {len(names) - 1})"
            )
    if len(set(found)) < len(found):
        raise ValueError(f"classes = {list(wanted)} names a class twice")
    return found


def _assemble(
    data: config.Data,
    raw: Raw,
    rows: list[np.ndarray],
    labels: list[np.ndarray],
    groups: list[np.ndarray | None],
    names: tuple[str, ...],
    notes: list[str],
    table: TableMap | None,
) -> Dataset:
    """Checks what was chosen, renumbers its labels, reads its inputs."""
    kept = _classes(data.classes, names) if data.classes else list(range(len(names)))
    new = np.full(len(names), -1, np.int32)
    new[kept] = np.arange(len(kept))
    class_names = tuple(names[c] for c in kept)
    ys = [new[y[r]] for y, r in zip(labels, rows)]
    check_rows(ys[0], ys[1], class_names, data)
    if absent := [n for c, n in enumerate(class_names) if c not in ys[0]]:
        notes.append(f"{data.name} has no rows of the classes {', '.join(absent)} here.")
    splits: list[Rows] = [raw.train, raw.test or raw.train]
    if raw.frame is None:
        xs = _one_size([split.read(r) for split, r in zip(splits, rows)], data)
    else:
        frames = [take(raw.frame, r) for r in rows]
        if table is None:
            table = fit(tally(frames[0]), max_categories=data.max_categories, where=data.name)
        notes += [f"{data.name}: {line}" for line in unknown(table, frames[0])]
        xs = [apply(table, frame) for frame in frames]
    if data.size is not None and xs[0].ndim != 4:
        raise ValueError(f"size = {data.size}: {data.name} holds rows of {xs[0].shape[1]} numbers, not images")
    if data.size is not None:
        notes.append(f"Images of {data.name} have the size {data.size[0]}x{data.size[1]} (bilinear).")
        xs = [to_format(x, data.size[0], data.size[1], x.shape[3]) for x in xs]
    for kind, x in zip(("training", "test"), xs):
        if x.ndim == 2 and not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0][:2]
            bad = np.count_nonzero(~np.isfinite(x).all(axis=1))
            raise ValueError(
                f"{bad} of {len(x)} {kind} rows of {data.name} hold NaN or infinite numbers (first: column {column} of "
                f"row {(rows[0] if kind == 'training' else rows[1])[row]}); remove or replace them"
            )
    group_rows = [None if g is None else g[r] for g, r in zip(groups, rows)]
    numbers = [r if split.numbers is None else split.numbers[r] for split, r in zip(splits, rows)]
    return Dataset(
        xs[0],
        ys[0],
        xs[1],
        ys[1],
        class_names,
        group_rows[0],
        group_rows[1],
        numbers[0],
        numbers[1],
        (splits[0].origin, splits[1].origin),
        " ".join(notes),
        xs[0].ndim == 4,
        None if raw.frame is None else table,
        raw.group_names,
    )


def _one_size(xs: list[np.ndarray], data: config.Data) -> list[np.ndarray]:
    """Training and test split of one data set must match; where one has grey images only, they become RGB."""
    train, test = xs
    if train.ndim == test.ndim == 4 and (data.size or train.shape[1:3] == test.shape[1:3]):
        channels = max(train.shape[3], test.shape[3])
        return [x if x.shape[3] == channels else to_format(x, x.shape[1], x.shape[2], channels) for x in xs]
    if train.shape[1:] != test.shape[1:]:
        hint = "; give `size`, such as --target.size 32 32" if train.ndim == test.ndim == 4 else ""
        raise ValueError(
            f"training and test inputs of {data.name} differ in shape: {list(train.shape[1:])} and "
            f"{list(test.shape[1:])}{hint}"
        )
    return xs


def _format_name(height: int, width: int, channels: int) -> str:
    colour = {1: "grey", 3: "RGB"}.get(channels, f"with {channels} channels")
    return f"{height}x{width} {colour}"


def _random(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that one selection never shifts another."""
    return np.random.default_rng([seed, *purpose.encode()])
