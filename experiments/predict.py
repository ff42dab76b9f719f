"""Predict with a fine-tuned network: one line of CSV a row, and the accuracy where the labels are known.

    python -m experiments.predict MODEL DATA [--split test|train] [--out predictions.csv] [--data.classes 5 6 7 …]

MODEL is the model/ folder of a run. DATA is a name as in `config.Data` (digits, tfds:NAME, folder:PATH, npz:PATH, csv:PATH,
parquet:PATH; a folder with images directly in it, an npz file without y and a table without the target column have no
labels), or the word `target`: the data that the network was fine-tuned for, split as they were then, so that its accuracy is
the one that the run reported. A table's target and group columns are those of that run, unless --data.FIELD says otherwise.
"""

import argparse
import csv
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from experiments import config as configs
from experiments import evaluation, networks, sources, workdir
from experiments.datasets import table_map
from experiments.datasets.table import is_table
from experiments.datasets.unlabelled import read_unlabelled, read_unlabelled_table
from experiments.errors import reported
from mmd_jax.transfer import inference

NEGATIVE_TRANSFER = (
    "warning: this is a reused network that was worse than the same network trained from scratch, beyond the interval, on the "
    "test rows of its own run (negative transfer); --decision.regime from_scratch makes that run keep the other"
)


class Inputs(NamedTuple):
    """Rows to predict.

    Attributes:
      x: in the network's format, [n, ...].
      names: of the rows: their number in the data as they were read, or their file's name.
      labels: the name of each row's class, or none.
      groups: of rows that depend on each other, [n], or none.
    """

    x: np.ndarray
    names: list[str]
    labels: list[str] | None
    groups: np.ndarray | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        parser = argparse.ArgumentParser(
            prog="python -m experiments.predict",
            description=__doc__,
            epilog="--data.FIELD: any field of experiments.config.Data",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("model", type=Path, metavar="MODEL", help="the model/ folder of a run")
        parser.add_argument("data", metavar="DATA", help="a data set, or the word target")
        parser.add_argument("--split", choices=("test", "train"), default="test", help="of labelled data")
        parser.add_argument("--out", type=Path, default=Path("predictions.csv"))
        parser.add_argument("--data-dir", default="data", help="where `make data` put the real data sets")
        parser.add_argument("--seed", type=int, help="of the split; none: the run's")
        known, fields = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
        network, variables, description = networks.load_network(known.model)
        data = data_settings(known.data, fields, description)
        seed = description["seed"] if known.seed is None else known.seed
        inputs = read(data, description, split=known.split, seed=seed, data_dir=known.data_dir)

        logs = inference.log_probabilities(network, variables, inputs.x, precision=description["precision"])
        classes = description["classes"]
        write(known.out, inputs, [classes[i] for i in logs.argmax(-1)], np.exp(logs.max(-1)))
        print(f"{len(inputs.x)} rows of {data.name}: {known.out}")
        if description.get("negative_transfer"):
            print(NEGATIVE_TRANSFER, file=sys.stderr)
        if inputs.labels is not None:
            print(accuracy(inputs.labels, logs.argmax(-1), classes, inputs.groups))


def data_settings(name: str, fields: Sequence[str], description: dict[str, Any]) -> configs.Data:
    """The settings of the data: from --data.FIELD and, for the word target, what the network was fine-tuned for."""
    trained_for = configs.Data(**configs.from_json(description["trained_for"]))
    default = trained_for if name == "target" else configs.Data(name=name)
    if is_table(name):
        same = ("label_key", "label_above", "group_key")
        default = dataclasses.replace(default, **{field: getattr(trained_for, field) for field in same})
    section = dataclasses.field(default_factory=configs.Data)
    wrapper = dataclasses.make_dataclass("Options", [("data", configs.Data, section)], frozen=True)
    configs.check_flags(fields, wrapper())
    options = tyro.cli(
        wrapper,
        args=fields,
        default=wrapper(default),
        prog="python -m experiments.predict MODEL DATA",
        config=(tyro.conf.FlagConversionOff,),
    )
    return options.data


def read(data: configs.Data, description: dict[str, Any], *, split: str, seed: int, data_dir: str) -> Inputs:
    """The rows of one split, in the format that the network takes.

    Args:
      data: which data.
      description: the network's: {"input": {"shape": of one row, "dtype"}, "table": its map or none}.
      split: "test" or "train"; data without labels are taken whole.
      seed: of the split, where the data have none.
      data_dir: where `make data` put its files.

    Raises:
      ValueError: rows that can't be brought to that format, and all that the readers refuse.
    """
    shape, dtype = tuple(description["input"]["shape"]), description["input"]["dtype"]
    table = table_map.from_json(description["table"]) if description.get("table") else None
    if (table is not None) != is_table(data.name):
        raise ValueError(
            f"the network was trained on {'a table' if table else 'other data than a table'}, and {data.name} is "
            f"{'none' if table else 'one'}; no fixed map joins them"
        )
    if table is not None and (rows_of_table := read_unlabelled_table(data, Path(data_dir).expanduser(), table)):
        x, names = rows_of_table
        labels, groups = None, None
    elif unlabelled := read_unlabelled(data.name, shape[:2]):
        x, names = unlabelled
        labels, groups = None, None
    else:
        dataset = sources.load(data, seed=seed, data_dir=data_dir, table=table)
        x, y, rows, groups = (
            (dataset.test_x, dataset.test_y, dataset.test_rows, dataset.test_groups)
            if split == "test"
            else (dataset.train_x, dataset.train_y, dataset.train_rows, dataset.train_groups)
        )
        names, labels = [str(row) for row in rows], [dataset.class_names[label] for label in y]
    if x.ndim == 4 and len(shape) == 3 and dtype == "uint8":
        x = sources.to_format(x, *shape)
    if x.shape[1:] != shape or str(x.dtype) != dtype:
        raise ValueError(
            f"the rows of {data.name} are {x.dtype} {list(x.shape[1:])}, but the network takes {dtype} {list(shape)}"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"row {names[int(np.argwhere(~np.isfinite(x))[0][0])]} of {data.name} holds NaN or infinite numbers"
        )
    return Inputs(x, names, labels, groups)


def write(path: Path, inputs: Inputs, predicted: list[str], probabilities: np.ndarray) -> None:
    """Writes the CSV file: row, class, probability and, where it is known, label."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "class", "probability", *(["label"] if inputs.labels is not None else [])])
    columns = [inputs.names, predicted, [f"{p:.6f}" for p in probabilities]]
    if inputs.labels is not None:
        columns.append(inputs.labels)
    lines.writerows(zip(*columns, strict=True))
    workdir.write_bytes(path, text.getvalue().encode())


def accuracy(labels: list[str], predicted: np.ndarray, classes: list[str], groups: np.ndarray | None = None) -> str:
    """One line: the accuracy on rows of classes that the network knows by name, and how many are of others.

    The interval is over groups where there are several, as in the report of a run.
    """
    index = np.array([classes.index(label) if label in classes else -1 for label in labels])
    known = index >= 0
    others = (
        f"; {np.sum(~known)} rows are of other classes than the network's ({', '.join(classes)})"
        if not known.all()
        else ""
    )
    if not known.any():
        return f"accuracy unknown{others}"
    right = predicted[known] == index[known]
    over = None if groups is None or len(np.unique(groups[known])) < 2 else groups[known]
    low, high = evaluation.binomial(right, 0.95, groups=over)
    return f"accuracy {right.mean():.6g} ({right.sum()} of {known.sum()} rows; 95% interval {low:.3f} … {high:.3f}){others}"


if __name__ == "__main__":
    main()
