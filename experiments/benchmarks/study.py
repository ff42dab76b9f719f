"""What caching, compiling once, scanning, working side by side and batching save in a transferability study.

    python -m experiments.benchmarks.study [--config configs/figure2_digits.py] [--repeats 3] [--together 8]

The networks of one split, half and seed are trained in several forms, each of which adds one thing to the form above it; the
first is the loop one would write first: one jit a network, called step by step, without a cache. "Compiling" is what the first
round takes beyond a warm one. The last columns reckon the whole study of the config from these: its networks are as many of
these sets as it has splits × halves × seeds, and only the first form compiles anew for each.
"""

import argparse
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.study import treatments
from experiments.study.halves import Half, class_names, load_halves, split_classes
from experiments.study.settings import Study, check
from experiments.study.treatments import Bases, Task
from mmd_jax.models.layered import Network
from mmd_jax.transfer import finetune
from mmd_jax.transfer.finetune import Prepared
from mmd_jax.transfer.objectives import validate
from mmd_jax.transfer.recipe import Recipe, data_order, rate_factors, schedule
from mmd_jax.transfer.train import at_rate, rate_of
from mmd_jax.types import Variables

Step = Callable[..., Any]
Trained = tuple[list[Variables], float]  # and the seconds of compiling that every set of networks pays again


class Form(NamedTuple):
    """One way of training a set of networks.

    Attributes:
      name: what it adds to the form above it.
      cached: whether frozen prefixes are.
      run: (network, what is prepared, recipes, learning rate) -> Trained.
    """

    name: str
    cached: bool
    run: Callable[..., Trained]


class Timing(NamedTuple):
    """Seconds of one form for one set of networks.

    Attributes:
      first: with compiling.
      anew: of these, compiling that every set of networks pays again.
      warm: the least of the rounds after it, without any compiling.
      accuracies: of the networks, in order.
    """

    first: float
    anew: float
    warm: float
    accuracies: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/figure2_digits.py")
    parser.add_argument("--repeats", type=int, default=3, help="warm rounds")
    parser.add_argument("--together", type=int, default=8, help="networks a batch, in the last form")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    study: Study = runpy.run_path(options.config)["config"]
    check(study)
    splits = split_classes(study, class_names(study.data, study), class_names(study.other, study))
    pair = load_halves(study, splits[0])
    network = treatments.network_of(study, pair[0])
    sets = len(splits) * 2 * study.seeds
    with TemporaryDirectory() as folder:
        bases = train_bases(study, splits[0], pair, Path(folder))
        tasks = [Task(splits[0], "A", 0, "base")]
        tasks += [
            task
            for task in treatments.transfers(study, splits[:1], len(network.layers))
            if task.target == "A" and task.seed == 0 and task.treatment != "distance"
        ]
        print(
            f"{len(tasks)} networks of {options.config} at a time, {sets} such sets in the study; "
            f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
        )
        heads = f"{'form':<36}{'warm, s':>9}{'compiling, s':>14}{'×':>7}  |{'study, s':>10}{'×':>7}{'warm ×':>8}"
        print(f"{heads}  |{'accuracy':>10}{'rms diff.':>11}")
        first: Timing | None = None
        for form in forms(options.together):
            timing = measure(study, form, network, tasks, pair[0], bases, options.repeats)
            first = first or timing
            print(line(form, timing, first, sets), flush=True)


def train_bases(study: Study, split: Any, pair: tuple[Half, Half], folder: Path) -> Bases:
    """Both bases of the first seed."""
    bases = Bases(folder)
    tasks = [Task(split, half, 0, "base") for half in "AB"]
    rows = [treatments.rate_batch(study, [task], lambda _: pair, bases)[0] for task in tasks]
    treatments.retrain_lost(study, tasks, rows, lambda _: pair, bases)
    return bases


def forms(together: int) -> list[Form]:
    """From the first loop to the study's own form; the last is for accelerators."""
    workers = treatments.Devices(None).workers
    return [
        Form("one jit a network, step by step", False, one_by_one_anew),
        Form("+ compiled once", False, partial(step_by_step, jits={})),
        Form("+ scanned", False, scanned),
        Form("+ frozen prefix cached", True, scanned),
        Form(f"+ {workers} side by side (the study)", True, partial(side_by_side, workers=workers)),
        Form(f"batches of {together} instead", True, partial(in_batches, size=together)),
    ]


def measure(
    study: Study, form: Form, network: Network, tasks: Sequence[Task], half: Half, bases: Bases, repeats: int
) -> Timing:
    """One form, from empty caches: the preparing, training and testing of every network."""
    jax.clear_caches()
    recipes = [treatments.recipe_of(study, task.treatment) for task in tasks]
    rounds, accuracies = [], np.zeros(0)
    for _ in range(1 + repeats):
        start = time.perf_counter()
        limit = treatments.CACHE_BYTES if form.cached else 0.0
        prepared = [treatments.prepare(study, network, task, half, bases, cache_bytes=limit) for task in tasks]
        found, compiling = form.run(network, prepared, recipes, study.fit.learning_rate)
        accuracies = np.array([validate(network, variables, half.test)["accuracy"] for variables in found])
        rounds.append((time.perf_counter() - start, compiling))
    return Timing(*rounds[0], min(total - compiling for total, compiling in rounds[1:]), accuracies)


def one_by_one_anew(network: Network, prepared: Sequence[Prepared], recipes: Sequence[Recipe], rate: float) -> Trained:
    """A jit of its own for each network."""
    seconds = []

    def compiled(network: Network, one: Prepared, recipe: Recipe, example: Any) -> Step:
        start = time.perf_counter()
        step = jax.jit(step_of(network, one, recipe, example[0])).lower(*example).compile()
        seconds.append(time.perf_counter() - start)
        return step

    found = [_steps(network, one, recipe, rate, compiled) for one, recipe in zip(prepared, recipes, strict=True)]
    return found, sum(seconds)


def step_by_step(
    network: Network,
    prepared: Sequence[Prepared],
    recipes: Sequence[Recipe],
    rate: float,
    *,
    jits: dict[Any, Step],
) -> Trained:
    """The same loop, where networks that freeze and train the same layers share a jit, which `jits` keeps."""

    def shared(network: Network, one: Prepared, recipe: Recipe, example: Any) -> Step:
        kind = one.stage.frozen, one.stage.trained
        if kind not in jits:
            jits[kind] = jax.jit(step_of(network, one, recipe, example[0]))
        return jits[kind]

    return [_steps(network, one, recipe, rate, shared) for one, recipe in zip(prepared, recipes, strict=True)], 0.0


def step_of(network: Network, prepared: Prepared, recipe: Recipe, state: Any) -> Step:
    """(state, x, y, factor, key) -> (state, metrics): a training step at a share of the state's learning rate."""
    step = finetune.make_step(network, prepared.stage, recipe, state.variables["params"], start=prepared.start)

    def one(state: Any, x: Any, y: Any, factor: Any, key: Any) -> Any:
        rate = rate_of(state)
        after, metrics = step(at_rate(state, rate * factor), (x, y), key)
        return at_rate(after, rate), metrics

    return one


def _steps(
    network: Network, prepared: Prepared, recipe: Recipe, rate: float, compiled: Callable[..., Step]
) -> Variables:
    rows = prepared.train
    total, _, _ = schedule(len(rows.y), recipe, validated=False)
    size = min(recipe.batch_size, len(rows.y))
    order = data_order(prepared.order_key, len(rows.y), 0, total, size)
    factors = rate_factors(recipe, 0, total, total)
    state = finetune.begin_fit(network, prepared, learning_rate=rate, recipe=recipe).train
    example = (state, rows.x[order[0]], rows.y[order[0]], factors[0], prepared.step_key)
    step = compiled(network, prepared, recipe, example)
    for batch, factor in zip(order, factors, strict=True):
        state, _ = step(state, rows.x[batch], rows.y[batch], factor, prepared.step_key)
    return jax.block_until_ready(state.variables)


def scanned(network: Network, prepared: Sequence[Prepared], recipes: Sequence[Recipe], rate: float) -> Trained:
    """One network after another, by compiled chunks."""
    found = [treatments.train(network, [one], recipe, rate)[0] for one, recipe in zip(prepared, recipes, strict=True)]
    return [state.best for [state] in found], 0.0


def side_by_side(
    network: Network, prepared: Sequence[Prepared], recipes: Sequence[Recipe], rate: float, *, workers: int
) -> Trained:
    """As `scanned`, in threads."""
    with ThreadPoolExecutor(workers) as pool:
        work = [pool.submit(scanned, network, [one], [recipe], rate) for one, recipe in zip(prepared, recipes)]
        return [future.result()[0][0] for future in work], 0.0


def in_batches(
    network: Network, prepared: Sequence[Prepared], recipes: Sequence[Recipe], rate: float, *, size: int
) -> Trained:
    """Those of one program as batches under vmap."""
    kinds: dict[Any, list[int]] = {}
    for i, (one, recipe) in enumerate(zip(prepared, recipes, strict=True)):
        kinds.setdefault((one.stage.frozen, one.stage.trained, recipe), []).append(i)
    found: dict[int, Variables] = {}
    for members in kinds.values():
        for first in range(0, len(members), size):
            batch = members[first : first + size]
            states, _ = treatments.train(network, [prepared[i] for i in batch], recipes[batch[0]], rate)
            found |= {i: state.best for i, state in zip(batch, states, strict=True)}
    return [found[i] for i in range(len(prepared))], 0.0


def line(form: Form, timing: Timing, first: Timing, sets: int) -> str:
    """One row of the table."""
    compiling = timing.first - timing.warm

    def whole(timing: Timing) -> float:
        return sets * (timing.warm + timing.anew) + (timing.first - timing.warm - timing.anew)

    total, total_first = whole(timing), whole(first)
    rms = float(np.sqrt(np.mean((timing.accuracies - first.accuracies) ** 2)))
    return (
        f"{form.name:<36}{timing.warm:>9.2f}{compiling:>14.2f}{first.first / timing.first:>7.2f}  |{total:>10.0f}"
        f"{total_first / total:>7.2f}{first.warm / timing.warm:>8.2f}  |{timing.accuracies.mean():>10.4f}{rms:>11.4f}"
    )


if __name__ == "__main__":
    main()
