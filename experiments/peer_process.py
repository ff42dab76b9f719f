"""A test in a process of its own, which answers calls one at a time.

So a test's imports, compiled programs and memory are its own, and it may even run in another interpreter, with the
versions that its library asks for (see peers.py). Lines of JSON go in and out.
"""

import argparse
import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.peers import PATH_VARIABLE, PeerResult, aggregated_peers, peers

ROOT = Path(__file__).resolve().parents[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    """--peer-path and --python: where the peers are."""
    parser.add_argument("--peer-path", metavar="DIR", help="a folder with the repositories of peers without a package")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        help="one more interpreter to try for peers that this one cannot import",
    )


def interpreters(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The interpreters to try, this one first; peers are then looked for in --peer-path too."""
    if unknown := [python for python in options.python if shutil.which(python) is None]:
        parser.error(f"--python: no such program: {', '.join(unknown)}")
    if options.peer_path:
        if not os.path.isdir(options.peer_path):
            parser.error(f"--peer-path: no such folder: {options.peer_path}")
        os.environ[PATH_VARIABLE] = options.peer_path
    return [sys.executable, *options.python]


class PeerProcess:
    """A test in a process of its own, which stays and answers one call at a time: its memory and its imports are its own.

    Attributes:
      python: the interpreter.
      missing: why the test cannot be imported there, or empty.
    """

    def __init__(self, name: str, *, num_bandwidths: int = 0, python: str = sys.executable) -> None:
        """Starts `python`, which needs numpy and what the peer needs, and imports the peer.

        Args:
          name: of one of `peers()`, or of `aggregated_peers(num_bandwidths)` where that is not 0.
          num_bandwidths: see there.
          python: the interpreter.
        """
        self.python = python
        self._process = subprocess.Popen(
            [python, "-m", "experiments.peer_process", name, str(num_bandwidths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
            text=True,
            start_new_session=True,  # so that what it starts itself ends with it
        )
        self._replies: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.missing = str(self._reply(None).get("missing", ""))
        except RuntimeError as error:
            self.missing = str(error)

    def prepare(self, n: int, d: int) -> None:
        """Makes two samples of n rows from N(0, I_d) there, and counts memory from now on."""
        self._ask({"prepare": [n, d]}, None)

    def timed(self, num: int, seed: int, alpha: float = 0.05, limit: float | None = None) -> dict[str, float]:
        """Tests the prepared samples: seconds, peak megabytes since then, reject. TimeoutError after `limit` seconds."""
        return self._ask({"num": num, "seed": seed, "alpha": alpha}, limit)

    def __call__(
        self, x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float, limit: float | None = None
    ) -> PeerResult:
        """Tests these samples: a `PeerTest`. RuntimeError where the test fails, TimeoutError after `limit` seconds."""
        samples = {
            name: [base64.b64encode(np.float32(a).tobytes()).decode(), *a.shape] for name, a in zip("xy", (x, y))
        }
        found = self._ask({**samples, "num": num, "seed": seed, "alpha": alpha}, limit)
        return PeerResult(found["pvalue"], found["reject"])

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put("")

    def _ask(self, request: dict[str, Any], limit: float | None) -> dict[str, Any]:
        assert self._process.stdin is not None
        line = json.dumps(request) + "\n"
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended or was closed: there will be no reply
            self._process.stdin.write(line)
            self._process.stdin.flush()
        return self._reply(limit)

    def _reply(self, limit: float | None) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise TimeoutError(f"stopped after {limit:g} s") from None
        if not line:
            raise RuntimeError(f"its process ended with exit status {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply


def start(name: str, num_bandwidths: int, pythons: Sequence[str]) -> PeerProcess:
    """The method in the first interpreter that can import it; with none, the first one's process, which says why not."""
    first, *others = pythons
    process = PeerProcess(name, num_bandwidths=num_bandwidths, python=first)
    for python in others if process.missing else ():
        other = PeerProcess(name, num_bandwidths=num_bandwidths, python=python)
        if not other.missing:
            process.close()
            return other
        other.close()
    return process


def serve(name: str, num_bandwidths: int) -> None:
    """The other end of `PeerProcess`: a line of JSON in, a line out."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints goes elsewhere
    _leave_memory_to_others()

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    peer = next(p for p in (aggregated_peers(num_bandwidths) if num_bandwidths else peers()) if p.name == name)
    try:
        test = peer.load()
    except Exception as error:  # an import may fail in any way, as under a numpy that is too new for it
        return reply(missing=f"{type(error).__name__}: {error}".splitlines()[0])
    if "jax" in sys.modules:
        import jax

        jax.block_until_ready(jax.jit(lambda a: a @ a)(np.ones((64, 64), np.float32)))  # starts the backend
    reply()
    x = y = np.empty((0, 0), np.float32)
    before = 0.0
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                rng = np.random.default_rng(0)
                x, y = (rng.standard_normal(request["prepare"], np.float32) for _ in range(2))
                before = peak_megabytes(reset=True)
                reply()
                continue
            if "x" in request:
                x, y = (_array(*request[name]) for name in "xy")
            began = time.perf_counter()
            result = test(x, y, request["num"], request["seed"], request["alpha"])
            seconds = time.perf_counter() - began
            reply(seconds=seconds, megabytes=peak_megabytes() - before, **result._asdict())
        except Exception as error:
            reply(error=f"{type(error).__name__}: {error}".splitlines()[0])


def _leave_memory_to_others() -> None:
    """Bounds this process by what is free now, so that a test which needs more fails, and nothing else is killed."""
    with contextlib.suppress(OSError, StopIteration, ImportError):
        import resource

        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        resource.setrlimit(resource.RLIMIT_AS, (free, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _array(data: str, rows: int, columns: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data), np.float32).reshape(rows, columns)


def peak_megabytes(*, reset: bool = False) -> float:
    """The largest resident size this process has had, counted anew from now on with `reset` where the system can."""
    if reset:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as switch:
            switch.write("5")
    try:
        # Not getrusage: its maximum is inherited from the process that started this one.
        with open("/proc/self/status", encoding="ascii") as status:
            return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
