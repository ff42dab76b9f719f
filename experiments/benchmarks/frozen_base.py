"""What keeping a frozen base's outputs saves: seconds of the first epoch and of the later ones, in one run and in the next.

    python -m experiments.benchmarks.frozen_base --config configs/efficientnet_to_cifar10.py --run.target.limit 2000

The network of a comparison of strategies, its base frozen, a new classifier. The first epoch passes every row through the base;
the outputs go to an empty folder on disk, where a second run finds them. The first epoch is measured with its compilation
and, from a warm start, without it.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np

from experiments import phases
from experiments.errors import reported
from experiments.features import KeepFor, on_disk
from experiments.fits import recipe
from experiments.phases import Loaded, Networks
from experiments.strategy.settings import Strategies, load
from mmd_jax.transfer import finetune


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    with reported():
        study, _ = load(sys.argv[1:] if argv is None else argv)
        study = replace(study, run=replace(study.run, train=study.probe))
        data = phases.load(study.run)
        nets = phases.build(study.run, data)
        print(
            f"{study.run.model.name}, {len(data.target.train_y)} labelled rows of {list(data.target.train_x.shape[1:])}, "
            f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
        )
        print(f"{'run':<34}  {'first epoch, s':>14}  {'later epochs, s':>15}  {'ratio':>7}")
        for name, folder in ((name, Path(tempfile.mkdtemp())) for name in ("cold", "warm")):
            for again in ("nothing on disk", "outputs on disk"):
                first, later = epochs(study, nets, data, folder)
                print(f"{f'{name} process, {again}':<34}  {first:>14.2f}  {later:>15.4f}  {first / later:>7.0f}")


def epochs(study: Strategies, nets: Networks, data: Loaded, folder: Path) -> tuple[float, float]:
    """Seconds of the first epoch, and of a later one (the median)."""
    config = study.run
    start, times = time.perf_counter(), []
    for _ in fit(study, nets, data, on_disk(folder, asdict(config.model), precision=config.train.precision)):
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    return times[0], float(np.median(times[1:]))


def fit(study: Strategies, nets: Networks, data: Loaded, keep_for: KeepFor):
    """The states of a linear probe, an epoch at a time."""
    config = study.run
    plan = phases.given_plan(config, nets.target, "linear_probe", "A benchmark.")
    [stage] = phases.cached(config, nets.target, plan, data.target).stages
    assert nets.restored is not None
    settings = recipe(config.train)._replace(patience=config.train.epochs)
    prepared = finetune.prepare(
        jax.random.key(config.seed),
        nets.target,
        nets.restored,
        stage,
        *phases.split(data.target, config.train, config.seed),
        recipe=settings,
        keep=keep_for(nets.target, nets.restored, stage),
    )
    rate = config.train.learning_rates[0]
    state = finetune.begin_fit(nets.target, prepared, learning_rate=rate, recipe=settings)
    yield from finetune.fit(nets.target, prepared, state, recipe=settings)


if __name__ == "__main__":
    main()
