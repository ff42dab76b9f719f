"""What freezing saves: compiled FLOPs and measured time of a training step, with 0, 3, 5 and 7 of 8 layers frozen.

    python -m experiments.benchmarks.freezing [--size 32] [--channels 3] [--width 32] [--batch 32]

Each row is one stage of `cnn8`; "clip, norm" clips by a global norm and logs it, which must not bring the backward pass of
frozen layers back. "Cached" trains on the outputs of the frozen prefix. Times are the least of several chunks of
scanned steps, which all rows take in turns.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.costs import Program, compile_step
from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.layered import Network
from mmd_jax.transfer.decision import stages_of
from mmd_jax.transfer.finetune import prepare
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.types import Rows, Variables


@dataclass(frozen=True)
class Settings:
    """The size of the problem."""

    size: int = 32
    channels: int = 3
    width: int = 32
    batch: int = 32
    repeats: int = 20


def main(settings: Settings) -> None:
    """Prints the table."""
    random = np.random.default_rng(0)
    shape = (settings.batch * 4, settings.size, settings.size, settings.channels)
    rows = Rows(random.random(shape, np.float32), random.integers(0, 10, shape[0]).astype(np.int32))
    network = cnn8(10, width=settings.width)
    variables = network.init(jax.random.key(0), jnp.asarray(rows.x[:1]))
    print(
        f"cnn8, width {settings.width}, {settings.size}×{settings.size}×{settings.channels}, batch {settings.batch}, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    )
    print(f"{'frozen':>6}  {'form':<12}  {'MFLOP/step':>10}  {'share':>5}  {'ms/step':>8}  {'share':>5}")
    programs = {
        (frozen, form): program(network, variables, rows, frozen, form, settings)
        for frozen in (0, 3, 5, 7)
        for form in (("plain", "clip, norm", "cached") if frozen else ("plain", "clip, norm"))
    }
    rounds = [{row: one.seconds() for row, one in programs.items()} for _ in range(settings.repeats + 1)]
    seconds = {row: min(times[row] for times in rounds) for row in programs}
    for (frozen, form), one in programs.items():
        base = (0, "plain" if form == "plain" else "clip, norm")
        print(
            f"{frozen:>6}  {form:<12}  {one.flops / 1e6:>10.2f}  {one.flops / programs[base].flops:>5.3f}  "
            f"{seconds[frozen, form] * 1e3:>8.3f}  {seconds[frozen, form] / seconds[base]:>5.3f}"
        )


def program(network: Network, variables: Variables, rows: Rows, frozen: int, form: str, settings: Settings) -> Program:
    """What one row of the table measures."""
    regime = "finetune_top" if frozen else "finetune_all"
    [stage] = stages_of(regime, network.layers, num_frozen=frozen)
    recipe = Recipe(batch_size=settings.batch, clip_norm=0.0 if form == "plain" else 1.0)
    stage = stage._replace(cached=form == "cached")
    one = Rows(rows.x[:1], rows.y[:1])
    prepared = prepare(jax.random.key(0), network, variables, stage, rows, one, recipe=recipe)
    return compile_step(network, prepared, recipe, norm=form != "plain")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
