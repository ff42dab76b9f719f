"""How far is a target table from a source table, where the files may be larger than memory? MMD by sketches.

    python -m experiments.sketch --config configs/flights_ewr_to_jfk.py [--features 1024] [--bins 128] [--block-mb 16]

The config is one of the main job on tables (csv:, parquet:). The files are read in blocks, a few times over: the map is
fitted on all rows of the source, a pilot of both gives the bandwidth, then every row goes into a sketch of its own side.
Memory does not grow with the rows. Where both sides have groups, whole groups share a bin, which is what the test permutes.
"""

import argparse
import hashlib
import resource
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments import config as configs
from experiments import workdir
from experiments.config import Config, Data
from experiments.datasets import table_map
from experiments.datasets.columns import BLOCK_BYTES, BLOCK_ROWS, File, batches, looks, texts
from experiments.datasets.table import (
    Layout,
    frame_of,
    fulfilled,
    is_table,
    kind_from,
    layout_of,
    locate,
    numbers_asked,
)
from experiments.datasets.table_map import Frame, TableMap
from experiments.errors import reported
from experiments.measure import ONE_GROUPED_NOTE, input_vectors
from experiments.progress import track
from mmd_jax.two_sample.bandwidths import median_bandwidth
from mmd_jax.two_sample.feature_tests import sketch_test
from mmd_jax.two_sample.sketches import Sketch, accumulate, new_sketch
from mmd_jax.types import TwoSampleResult

MOST_VALUES = 100_000  # of a categorical column; their counts are in memory while the map is fitted


class Block(NamedTuple):
    """Rows of one block of a file.

    Attributes:
      frame: their features.
      groups: a number a row, equal where the group is, uint64 [n]; none where there are no groups.
    """

    frame: Frame
    groups: np.ndarray | None


class Measured(NamedTuple):
    """What was measured.

    Attributes:
      result: the test on both sketches; its statistic is MMD²ᵤ.
      rows: of the source and of the target.
      table: the map of the source.
      grouped: whether whole groups were permuted.
      note: what a reader must know of the rows; may be empty.
    """

    result: TwoSampleResult
    rows: tuple[int, int]
    table: TableMap
    grouped: bool
    note: str


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--features", type=int, default=1024)
        parser.add_argument("--bins", type=int, default=128)
        parser.add_argument("--pilot", type=int, default=1000)
        parser.add_argument("--block-mb", type=float, default=BLOCK_BYTES / 2**20)
        own, others = parser.parse_known_args(argv)
        config, directory = configs.load(others)
        if directory == Path("runs") / config.name:
            directory = directory.with_name(f"{config.name}_sketch")
        check(config)  # before there is a directory of settings that can't be meant
        workdir.open_workdir(directory, {"config": config, "own": vars(own)}, ignore=("config.data_dir",))
        start = time.monotonic()
        found = measure(
            config, features=own.features, bins=own.bins, pilot=own.pilot, block_bytes=int(own.block_mb * 2**20)
        )
        content = describe(config, found) | {
            "seconds": round(time.monotonic() - start, 1),
            "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "command": shlex.join(["python", "-m", "experiments.sketch", *argv]),
        }
        workdir.write_json(directory / "sketch.json", content)
        if found.note:
            print(f"warning: {found.note}", file=sys.stderr)
        print(sentence(content))


def measure(
    config: Config, *, features: int = 1024, bins: int = 128, pilot: int = 1000, block_bytes: int = BLOCK_BYTES
) -> Measured:
    """MMD between the whole source table and the whole target table, with a test, in memory that does not grow with them.

    Args:
      config: its source, target, seed, model (mean and std of numbers) and test (alpha, permutations, bandwidth).
      features: random features of the kernel, even.
      bins: of each sketch, which the test permutes.
      pilot: rows of each side that give the bandwidth, where the config gives none.
      block_bytes: of a file that are read at a time.

    Raises:
      ValueError: data that are no tables, and all that reading them refuses.
    """
    check(config)
    assert config.source is not None
    if pilot < 2 or block_bytes < 64:
        raise ValueError(f"pilot = {pilot}, block = {block_bytes} bytes; expected 2 rows or more, and 64 bytes or more")
    keys = jax.random.split(jax.random.key(config.seed), 4)
    data_dir = Path(config.data_dir).expanduser()
    source = opened(config.source, data_dir, None, block_bytes)
    table = fit(source)
    target = opened(config.target, data_dir, table, block_bytes)
    config = with_categories(config, table)

    def rows(side: Side) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for block in blocks(side):
            yield input_vectors(config, table_map.apply(table, block.frame)), block.groups

    bandwidth: Any = config.test.bandwidth
    if bandwidth is None:
        chosen = [_pilot(rows(side), pilot, config.seed + i) for i, side in enumerate((source, target))]
        bandwidth = median_bandwidth(np.concatenate(chosen))
    width = sum(table.sizes) + table.width - len(table.sizes)
    name = hashlib.sha256(repr((table, config.model.mean, config.model.std)).encode()).hexdigest()[:12]
    empty = new_sketch(
        keys[0], width, bandwidth=bandwidth, num_features=features, bins=bins, preprocessing=f"table map {name}"
    )
    grouped = bool(source.layout.groups and target.layout.groups)
    sketches = [sketch(keys[1 + i], empty, rows(side), grouped=grouped) for i, side in enumerate((source, target))]
    result = sketch_test(
        keys[3], *sketches, alpha=config.test.alpha, num_permutations=config.test.permutations, return_null=False
    )
    m, n = (int(np.asarray(one.counts, np.int64).sum()) for one in sketches)
    alone = bool(source.layout.groups) != bool(target.layout.groups)
    return Measured(result, (m, n), table, grouped, ONE_GROUPED_NOTE if alone else "")


def check(config: Config) -> None:
    """Refuses data that are no tables, files that are not there, and settings that name no column of theirs."""
    if config.source is None or not (is_table(config.source.name) and is_table(config.target.name)):
        raise ValueError("a sketch is of tables: source.name and target.name must be csv:PATH or parquet:PATH")
    for data in (config.source, config.target):
        file = locate(data, Path(config.data_dir).expanduser())
        layout_of(data, file, None, labelled=data.label_key in file.names, grouped=True)


def with_categories(config: Config, table: TableMap) -> Config:
    """The config with what the map says of the codes at the end of a row."""
    return replace(config, model=replace(config.model, categories=table.sizes))


class Side(NamedTuple):
    """A file that is read in blocks.

    Attributes:
      data: its settings.
      file: where it lies.
      layout: which column is what, all decided.
      ordered: the columns whose conditions compare numbers, which the whole file decides too.
      block_bytes: read at a time.
    """

    data: Data
    file: File
    layout: Layout
    ordered: frozenset[str]
    block_bytes: int


def opened(data: Data, data_dir: Path, table: TableMap | None, block_bytes: int) -> Side:
    """A side with the kind of every column decided; where neither the settings nor the map say it, the file is read once.

    A label column may be absent; the group columns may not, where `group_key` names them.
    """
    file = locate(data, data_dir)
    layout = layout_of(data, file, table, labelled=data.label_key in file.names, grouped=True)
    asked = numbers_asked(layout.conditions)
    seen: dict[str, tuple[str | None, str | None]] = dict.fromkeys((*layout.undecided, *asked), (None, None))
    if seen:
        for batch in track(_batches(file, tuple(seen), block_bytes), f"{file.path.name}: kinds of columns"):
            for name, (number, word) in seen.items():
                found = looks(batch.column(name))
                seen[name] = number or found[0], word or found[1]
    kinds = {name: kind_from(name, *seen[name], file) for name in layout.undecided}
    numeric, categorical = (
        (*known, *(name for name, kind in kinds.items() if kind == which))
        for which, known in (("numeric", layout.numeric), ("categorical", layout.categorical))
    )
    ordered = frozenset(name for name in asked if seen[name][1] is None)
    decided = layout._replace(undecided=(), numeric=numeric, categorical=categorical)
    return Side(data, file, decided, ordered, block_bytes)


def fit(side: Side) -> TableMap:
    """The map of the source, from counts and moments of all of its rows, block by block.

    Raises:
      ValueError: a column of more values than counts can be kept of, and as `table_map.fit`.
    """
    seen: table_map.Tally | None = None
    for block in track(blocks(side), f"{side.file.path.name}: fitting the map"):
        new = table_map.tally(block.frame)
        seen = new if seen is None else table_map.add(seen, new)
        for name, counts in seen.categorical.items():
            if len(counts) > MOST_VALUES:
                raise ValueError(
                    f"column {name!r} of {side.file.path} has more than {MOST_VALUES:,} different values: it names "
                    "rows; leave it out (source.drop)"
                )
    if seen is None:
        raise ValueError(f"no row of {side.file.path} is left; expected some that fulfil where = {side.data.where}")
    return table_map.fit(seen, max_categories=side.data.max_categories, where=side.data.name)


def blocks(side: Side) -> Iterator[Block]:
    """The rows that count of each block of a file: those that fulfil the conditions and, where there are labels, have one."""
    file, layout = side.file, side.layout
    for batch in _batches(file, layout.needed, side.block_bytes):
        whole = {name: batch.column(name) for name in layout.needed}
        kept = fulfilled(layout.conditions, whole, side.ordered, file)
        if layout.label is not None:
            kept &= ~pc.is_null(texts(whole[layout.label])).to_numpy(zero_copy_only=False)
        if not kept.any():
            continue
        chosen = {name: values.filter(pa.array(kept)) for name, values in whole.items()}
        frame = frame_of(chosen, int(kept.sum()), layout.numeric, layout.categorical, file)
        yield Block(frame, _hashed([texts(chosen[name]) for name in layout.groups]) if layout.groups else None)


def _batches(file: File, names: Sequence[str], block_bytes: int) -> Iterator[pa.RecordBatch]:
    return batches(file, names, block_bytes=block_bytes, block_rows=max(1, min(BLOCK_ROWS, block_bytes // 128)))


def _hashed(parts: Sequence[pa.Array]) -> np.ndarray:
    """A number for each group by its name, the same in every block and file, uint64 [n]."""
    rows = pc.binary_join_element_wise(*parts, "\x1f", null_handling="replace", null_replacement="").dictionary_encode()
    names = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in rows.dictionary.to_pylist()]
    return np.frombuffer(b"".join(names), np.uint64)[rows.indices.to_numpy(zero_copy_only=False)]


def sketch(
    key: jax.Array, empty: Sketch, rows: Iterator[tuple[np.ndarray, np.ndarray | None]], *, grouped: bool
) -> Sketch:
    """All rows in a sketch; where they are grouped, each group goes into one bin, which a hash of it and the key chooses.

    Args:
      key: consumed.
      empty: sketch of no rows.
      rows: vectors [n, d] and the number of each row's group, block by block.
      grouped: whether to keep groups together.
    """
    found, bins = empty, empty.counts.shape[0]
    salt = np.uint64(int(jax.random.bits(key, (), "uint32")))
    for number, (vectors, groups) in enumerate(track(rows, "sketching")):
        of_row = None
        if grouped and groups is not None:
            # Fibonacci hashing: the salt moves groups that share a bin on one side apart on the other.
            mixed = (groups ^ salt) * np.uint64(0x9E3779B97F4A7C15)
            of_row = (mixed >> np.uint64(33)).astype(np.int64) % bins
        found = accumulate(jax.random.fold_in(key, number), found, vectors, bins=of_row)
    return found


def _pilot(rows: Iterator[tuple[np.ndarray, np.ndarray | None]], count: int, seed: int) -> np.ndarray:
    """So many rows at random of all: those with the smallest of random numbers, so that only these are kept."""
    random = np.random.default_rng([seed, *b"pilot"])
    kept, draws = np.empty((0, 0)), np.empty(0)
    for vectors, _ in track(rows, "choosing a bandwidth"):
        draws = np.concatenate([draws, random.random(len(vectors))])
        kept = np.concatenate([kept, vectors]) if len(kept) else vectors
        smallest = np.sort(np.argsort(draws, kind="stable")[:count])
        kept, draws = kept[smallest], draws[smallest]
    return kept


def describe(config: Config, found: Measured) -> dict[str, Any]:
    """What sketch.json holds of the measurement."""
    result = found.result
    return {
        "name": config.name,
        "rows": found.rows,
        "mmd2_unbiased": float(result.statistic),
        "mmd_biased": float(result.mmd_biased),
        "pvalue": float(result.pvalue),
        "reject": bool(result.reject),
        "alpha": config.test.alpha,
        "permutations": config.test.permutations,
        "bandwidth": float(np.ravel(result.bandwidth)[0]),
        "grouped": found.grouped,
        "note": found.note,
        "table": found.table,
    }


def sentence(content: dict[str, Any]) -> str:
    """The answer in one sentence."""
    m, n = content["rows"]
    return (
        f"{m:,} source rows against {n:,} target rows: MMD² = {content['mmd2_unbiased']:.4g} (MMD {content['mmd_biased']:.3g}), "
        f"p = {content['pvalue']:.3g}{', whole groups permuted' if content['grouped'] else ''}; "
        f"{content['seconds']:g} s, at most {content['peak_megabytes']} MB of memory"
    )


if __name__ == "__main__":
    main()
