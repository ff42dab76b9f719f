"""Images a second of `cnn8` in training: a Python loop over a jitted step, the scanned chunk, forward only, and torch.

    python -m experiments.benchmarks.training [--shapes 8x8x1 28x28x1 32x32x3] [--peer-path DIR] [--python PYTHON]

At 8×8×1 (width 16, batch 70), 28×28×1 (width 16, batch 128) and 32×32×3 (width 32, batch 128), in float32, AdamW with
gradients clipped by their global norm. "scanned" is the chunk that training runs; "loop" is a jitted step called from
Python. torch trains the same network in a process of its own, channels last, with its default number of threads and its
fused AdamW, and with --compile also what torch.compile makes of it; it is looked for in this interpreter, in --peer-path
(a folder that holds the package), and in the interpreters of --python. All take turns, `--repeats` rounds of them, so that
what else the machine does meets them alike. Printed are the best round of each, and, against torch, the median of the
rounds' own ratios; "a core" counts processor time instead, which says more on a busy machine: there, threads that wait for
each other wait for other programs too. On one core (`taskset -c 0 python -m …`) nothing waits.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from experiments.peer_process import ROOT, add_options, interpreters
from experiments.peers import PATH_VARIABLE

SECONDS = 0.7  # of one measurement, about
PAUSE = 0.25  # seconds between two: threads that wait for work keep a core busy for up to 0.2 s


class Shape(NamedTuple):
    """A problem.

    Attributes:
      size: height and width of the images, pixels.
      channels: of the images.
      width: of `cnn8`.
      batch: images a step.
    """

    size: int
    channels: int
    width: int
    batch: int


class Rates(NamedTuple):
    """What one way of running steps reached.

    Attributes:
      wall: images a second, in each round.
      core: images a second of processor time, in each round.
    """

    wall: list[float]
    core: list[float]


SHAPES = {"8x8x1": Shape(8, 1, 16, 70), "28x28x1": Shape(28, 1, 16, 128), "32x32x3": Shape(32, 3, 32, 128)}
CLASSES = 10
CHUNK = 8  # steps of a scanned chunk

# steps -> (seconds, processor seconds) that so many steps take.
Timed = Callable[[int], tuple[float, float]]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one measurement, about")
    parser.add_argument("--compile", action="store_true", help="torch.compile beside eager torch")
    add_options(parser)
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve_torch:
        return serve_torch()
    if arguments.repeats < 1 or arguments.seconds <= 0:
        parser.error("repeats must be at least 1 and seconds positive")
    peer, why = start_torch(interpreters(parser, arguments))
    import jax

    print(f"cnn8, adamw, {jax.devices()[0].device_kind}, jax {jax.__version__}, {peer.version if peer else 'no torch'}")
    print(
        f"{'input':<8} {'width':>5} {'batch':>5}  {'':<16} {'images/s':>9} {'× torch':>8} {'a core':>9} {'× torch':>8}"
    )
    for name in arguments.shapes:
        shape = SHAPES[name]
        rates = measure(shape, peer, arguments.repeats, arguments.seconds, arguments.compile)
        for way, found in rates.items():
            against = rates.get("torch forward" if "forward" in way else "torch")
            line = f"{name:<8} {shape.width:>5} {shape.batch:>5}  {way:<16}"
            for i, measured in enumerate(found):
                ratio = statistics.median(a / b for a, b in zip(measured, against[i])) if against else None
                line += f" {max(measured):>9.0f} {f'{ratio:.2f}' if ratio else '–':>8}"
            print(line, flush=True)
    if peer:
        peer.close()
    else:
        print(f"torch: not here: {why}")


def measure(shape: Shape, peer: "Torch | None", repeats: int, seconds: float, compiled: bool) -> dict[str, Rates]:
    """What each way of running steps reaches, by its name."""
    ways, parameters = ours(shape)
    if peer:
        there = peer.prepare(shape, compiled)
        if there["parameters"] != parameters:
            raise RuntimeError(f"torch's network has {there['parameters']} parameters, ours has {parameters}")
        ways |= {way: partial(peer.timed, way) for way in there["ways"]}
    # The first call compiles; the second says how many steps fill a measurement.
    first = {way: (timed(CHUNK), timed(CHUNK))[1][0] / CHUNK for way, timed in ways.items()}
    steps = {way: max(1, round(seconds / each / CHUNK)) * CHUNK for way, each in first.items()}
    rates = {way: Rates([], []) for way in ways}
    for _ in range(repeats):
        for way, timed in ways.items():
            time.sleep(PAUSE)
            for found, took in zip(rates[way], timed(steps[way])):
                found.append(shape.batch * steps[way] / took)
    return rates


def ours(shape: Shape) -> tuple[dict[str, Timed], int]:
    """Our ways to run steps, and the number of parameters."""
    import jax

    from mmd_jax.models.cnn8 import cnn8
    from mmd_jax.transfer.decision import stages_of
    from mmd_jax.transfer.finetune import begin_fit, make_step, prepare, run_chunk
    from mmd_jax.transfer.recipe import Recipe
    from mmd_jax.types import Rows

    x, y = data(shape)
    rows = Rows(x.reshape(-1, *x.shape[2:]), y.reshape(-1))
    network = cnn8(CLASSES, width=shape.width)
    variables = jax.jit(network.init)(jax.random.key(0), x[0, :1])
    [stage] = stages_of("finetune_all", network.layers)
    recipe = Recipe(batch_size=shape.batch)
    one = Rows(rows.x[:1], rows.y[:1])
    prepared = prepare(jax.random.key(0), network, variables, stage, rows, one, recipe=recipe)
    begun = begin_fit(network, prepared, learning_rate=1e-3, recipe=recipe).train
    step = jax.jit(make_step(network, stage, recipe, variables["params"]))
    forward = jax.jit(lambda variables, x: network.apply(variables, x)[0])
    x, y = jax.device_put((x, y))
    batches, factors = list(zip(x, y)), jax.numpy.ones(CHUNK)  # of the learning rate: it stays as it is

    def timed(run: Callable[[int], Any]) -> Timed:
        def seconds(steps: int) -> tuple[float, float]:
            start = clocks()
            jax.block_until_ready(run(steps))
            return since(start)

        return seconds

    def scanned(steps: int) -> Any:
        state = begun
        for _ in range(steps // CHUNK):
            state, _ = run_chunk(state, x, y, factors, prepared.step_key, network=network, stage=stage, recipe=recipe)
        return state

    def looped(steps: int) -> Any:
        state = begun
        for i in range(steps):
            state, _ = step(state, batches[i % CHUNK], prepared.step_key)
        return state

    def only_forward(steps: int) -> Any:
        return [forward(variables, batches[i % CHUNK][0]) for i in range(steps)][-1]

    ways = {"scanned": timed(scanned), "loop": timed(looped), "forward": timed(only_forward)}
    return ways, sum(leaf.size for leaf in jax.tree.leaves(variables))


def clocks() -> tuple[float, float]:
    """Seconds of the clock on the wall, and of this process on all its cores."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """What both clocks have moved on."""
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


def data(shape: Shape) -> tuple[Any, Any]:
    """Images [CHUNK, batch, size, size, channels] and labels [CHUNK, batch]."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.random((CHUNK, shape.batch, shape.size, shape.size, shape.channels), np.float32)
    return x, random.integers(0, CLASSES, x.shape[:2]).astype(np.int32)


class Torch:
    """torch in a process of its own, which answers one line of JSON with another.

    Attributes:
      version: of torch, with its threads.
    """

    def __init__(self, python: str) -> None:
        """Starts it; ImportError where that interpreter has no torch."""
        self._process = subprocess.Popen(
            [python, "-m", "experiments.benchmarks.training", "--serve-torch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
            text=True,
        )
        try:
            self.version = self._reply()["version"]
        except RuntimeError as error:
            self.close()
            raise ImportError(str(error)) from None

    def prepare(self, shape: Shape, compiled: bool) -> dict[str, Any]:
        """Makes the network there: {"parameters": their number, "ways": names for `timed`}."""
        return self._ask(prepare=list(shape), compiled=compiled)

    def timed(self, way: str, steps: int) -> tuple[float, float]:
        """A `Timed` for one of the ways."""
        wall, processor = self._ask(way=way, steps=steps)["seconds"]
        return wall, processor

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no reply
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended with exit status {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply


def start_torch(pythons: Sequence[str]) -> tuple[Torch | None, str]:
    """torch in the first interpreter that has it, or why the first has not."""
    reasons = []
    for python in pythons:
        try:
            return Torch(python), ""
        except ImportError as error:
            reasons.append(str(error))
    return None, reasons[0]


def serve_torch() -> None:
    """The other end of `Torch`."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what torch prints goes elsewhere

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    if folder := os.environ.get(PATH_VARIABLE):
        sys.path.append(folder)
    try:
        import torch
    except Exception as error:  # an import may fail in any way, as under a numpy that is too new for it
        return reply(error=f"{type(error).__name__}: {error}".splitlines()[0])
    reply(version=f"torch {torch.__version__} with {torch.get_num_threads()} threads")
    ways: dict[str, Timed] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                ways, parameters = torch_ways(Shape(*request["prepare"]), request["compiled"])
                reply(ways=list(ways), parameters=parameters)
            else:
                reply(seconds=ways[request["way"]](request["steps"]))
        except Exception as error:
            reply(error=f"{type(error).__name__}: {error}".splitlines()[0])


def torch_ways(shape: Shape, compiled: bool) -> tuple[dict[str, Timed], int]:
    """torch's ways to run steps of the same network, and the number of its parameters."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    multiples, pooled = (1, 2, 3, 3, 2), (16, 2, 0, 0, 2)  # as in mmd_jax.models.cnn8
    layers: list[nn.Module] = []
    channels, size = shape.channels, shape.size
    for multiple, least in zip(multiples, pooled):
        layers += [nn.Conv2d(channels, multiple * shape.width, 3, padding=1), nn.ReLU()]
        channels = multiple * shape.width
        if least and size >= least:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    units = 8 * shape.width
    layers += [nn.Flatten(), nn.Linear(channels * size**2, units), nn.ReLU()]
    layers += [nn.Linear(units, units), nn.ReLU(), nn.Linear(units, CLASSES)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    images, labels = data(shape)
    batches = [
        # A view of rows that lie channels last in memory.
        (
            torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(y).long(),
        )
        for x, y in zip(images, labels)
    ]

    def timed(run: Callable[[int], Any]) -> Timed:
        def seconds(steps: int) -> tuple[float, float]:
            start = clocks()
            for i in range(steps):
                run(i % CHUNK)
            return since(start)

        return seconds

    def training(network: Callable[[Any], Any]) -> Callable[[int], Any]:
        def step(i: int) -> None:
            x, y = batches[i]
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x), y).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        return step

    @torch.no_grad()
    def forward(i: int) -> None:
        network(batches[i][0])

    parameters = list(network.parameters())
    ways = {"torch": timed(training(network)), "torch forward": timed(forward)}
    if compiled:
        ways["torch compiled"] = timed(training(torch.compile(network)))
    return ways, sum(p.numel() for p in parameters)


if __name__ == "__main__":
    main()
