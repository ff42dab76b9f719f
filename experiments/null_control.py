"""Does the test keep its level where P = Q? Random splits of one data set, with a network trained on a disjoint third.

    python -m experiments.null_control --config configs/mnist_halves.py [--splits 400] [--rows 500] [--workdir DIR]

The config's source data set is cut into three random parts: the network is trained on the first, and the rows of the other
two are split at random into two samples, over and over. Each split is tested on the inputs and on every layer, as a run would,
and on all of these together (`aggregated_test`), at one level. A small `--source.limit` makes a network that overfits.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import config as configs
from experiments import measure, phases, sources, workdir
from experiments.config import Config
from experiments.errors import reported
from experiments.progress import track
from mmd_jax.transfer.profile import mmd_profile
from mmd_jax.two_sample import aggregated_test

ALL = "all together"
BANDWIDTHS = 3  # of each kernel and layer, in the test of all together


class Row(NamedTuple):
    """One representation over all splits.

    Attributes:
      representation: inputs, a layer, or all of them together.
      rejections: splits in which P = Q was rejected at alpha.
      rate: rejections / splits.
      level: floor(alpha (B + 1)) / (B + 1), the exact level of a test with B permutations.
      standard_errors: (rate − level) in binomial standard errors.
    """

    representation: str
    rejections: int
    rate: float
    level: float
    standard_errors: float


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--splits", type=int, default=400)
        parser.add_argument("--rows", type=int, default=500)
        own, others = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
        config, directory = configs.load(others)
        if directory == Path("runs") / config.name:
            directory = directory.with_name(f"{config.name}_null_control")
        print(table(run(config, directory, splits=own.splits, rows=own.rows), own.splits))


def run(config: Config, directory: Path, *, splits: int, rows: int) -> list[Row]:
    """Trains the network, tests every split, and writes null_control.json."""
    if config.source is None or splits < 1 or rows < 2:
        raise ValueError(
            f"splits = {splits}, rows = {rows}; expected at least 1 split, 2 rows, and a config with a source"
        )
    thirds = [replace(config.source, part=(i, 3)) for i in range(3)]
    config = replace(config, source=thirds[0], target=replace(thirds[1], limit=None))
    data = phases.load(config)
    config = phases.with_table(config, data)
    rest = sources.load(thirds[2], seed=config.seed, data_dir=config.data_dir, table=data.target.table)
    pooled = np.concatenate([data.target.train_x, sources.common_format(data.target, rest)[1].train_x])
    if 2 * rows > len(pooled):
        most = len(pooled) // 2
        raise ValueError(f"rows = {rows}, but two thirds of the data have {len(pooled)} rows; expected at most {most}")
    networks = phases.build(config, data)
    phases.open_workdir(config, directory)
    keys = phases.make_keys(config.seed)
    variables = phases.pretrain(config, directory, keys.pretrain, networks, data)

    rejections: dict[str, int] = {}
    for number in track(range(splits), "splits"):
        split_key, test_key, all_key = jax.random.split(jax.random.fold_in(keys.measure, number), 3)
        order = np.asarray(jax.random.permutation(split_key, len(pooled)))
        x, y = (
            measure.representations(config, networks.source, variables, pooled[chosen])
            for chosen in (order[:rows], order[rows : 2 * rows])
        )
        results = dict(mmd_profile(test_key, x, y, **measure.settings_of(config, None)))
        alive = [name for name, result in results.items() if result is not None]
        together = ({name: sample[name] for name in alive} for sample in (x, y))
        results[ALL] = aggregated_test(
            all_key,
            *together,
            num_bandwidths=BANDWIDTHS,
            alpha=config.test.alpha,
            num_permutations=config.test.permutations,
        )
        for name, result in results.items():
            rejections[name] = rejections.get(name, 0) + (result is not None and bool(result.reject))
    permutations = config.test.permutations
    level = math.floor(config.test.alpha * (permutations + 1)) / (permutations + 1)
    error = math.sqrt(level * (1 - level) / splits)
    table = [Row(name, k, k / splits, level, (k / splits - level) / error) for name, k in rejections.items()]
    report: dict[str, Any] = {"splits": splits, "rows": rows, "permutations": permutations, "representations": table}
    workdir.write_json(directory / "null_control.json", report)
    return table


def table(rows: Sequence[Row], splits: int) -> str:
    """The rows as text."""
    lines = [f"{'representation':<16}{'rejected':>12}{'rate':>8}{'level':>8}{'standard errors':>17}"]
    for row in rows:
        share = f"{row.rejections}/{splits}"
        lines.append(
            f"{row.representation:<16}{share:>12}{row.rate:>8.3f}{row.level:>8.3f}{row.standard_errors:>+17.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
