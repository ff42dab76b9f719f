"""Other libraries' two-sample tests, called like ours: for time, memory, and power on the same samples.

A peer is imported only where it is used, so one that is not installed costs nothing. Peers without a package are looked
for in a folder with one sub-folder a peer (mmdagg, mmdfuse, agginc, RFF-MMD, PermFreeMMD), named by --peer-path or the
environment variable MMD_PEERS; none of their code is in this repository. Where a peer lets us choose, it gets our
kernel exp(-‖a - b‖² / 2σ²) with our σ, the median distance of the pooled rows; its `note` says what differs.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

PATH_VARIABLE = "MMD_PEERS"
MEDIAN_ROWS = 1024  # as ours


class PeerResult(NamedTuple):
    """What a peer's test says.

    Attributes:
      pvalue: as the peer computes it, or none where it gives none.
      reject: whether it rejects P = Q at level alpha.
    """

    pvalue: float | None
    reject: bool


# (x [m, d], y [n, d], num_permutations, seed, alpha) -> PeerResult; x and y are numpy arrays, float32.
PeerTest = Callable[[np.ndarray, np.ndarray, int, int, float], PeerResult]


class Peer(NamedTuple):
    """A test that can be run beside ours.

    Attributes:
      name: as tables print it.
      exact: whether it permutes the full quadratic-time statistic. Else it approximates, or uses a part of the pairs.
      load: imports it; ImportError, with the reason, where it is missing. What it returns is cheap to call again.
      note: what differs from our test with a Gaussian kernel of median bandwidth.
    """

    name: str
    exact: bool
    load: Callable[[], PeerTest]
    note: str = ""


def peers() -> tuple[Peer, ...]:
    """The single-kernel tests, ours first."""
    return (
        Peer("mmd_jax", True, _ours),
        Peer("hyppo", True, _hyppo, "one process, its default"),
        Peer("frouros", True, _frouros, "all cores, its default; the memory of its child processes is not counted"),
        Peer("alibi-detect", True, partial(_alibi_detect, "pytorch"), "PyTorch backend; p is count / B, which can be 0"),
        Peer("alibi-detect KeOps", True, partial(_alibi_detect, "keops"), "KeOps backend; p is count / B"),
        Peer("rff-mmd exact", True, partial(_rff_mmd, "MMDtest"), "no p"),
        Peer("mmdagg", True, aggregated_mmdagg("gaussian", 2), "2 bandwidths, the fewest it takes; wild bootstrap; no p"),
        Peer("mmdfuse", True, aggregated_mmdfuse(("gaussian",), 2), "2 bandwidths, the fewest it takes"),
        Peer("rff-mmd", False, partial(_rff_mmd, "rMMDtest", R=1000), "1,000 random features; no p"),
        Peer("goodpoints CTT", False, _goodpoints, "bins compressed to 2^4 √(bin) rows; no p"),
        Peer("agginc", False, _agginc, "200 superdiagonals, its own bandwidth; its seed is fixed, as a new one compiles"),
        Peer("cross-MMD", False, _cross_mmd, "PermFreeMMD; no permutations"),
    )  # fmt: skip


def aggregated_peers(num_bandwidths: int = 10) -> tuple[Peer, ...]:
    """The tests over Laplace and Gaussian kernels with `num_bandwidths` each, ours first."""
    both = ("laplace", "gaussian")
    return (
        Peer("mmd_jax aggregated", True, partial(_ours_aggregated, "aggregated_test", num_bandwidths)),
        Peer("mmd_jax fuse", True, partial(_ours_aggregated, "fuse_test", num_bandwidths)),
        Peer("mmdagg", True, aggregated_mmdagg("laplace_gaussian", num_bandwidths), "wild bootstrap where m = n; B twice"),
        Peer(
            "mmdagg permuted", True, aggregated_mmdagg("laplace_gaussian", num_bandwidths, permute=True),
            "permutations where m = n, too; B twice",
        ),
        Peer("mmdfuse", True, aggregated_mmdfuse(both, num_bandwidths)),
    )  # fmt: skip


def aggregated_mmdagg(kernel: str, num_bandwidths: int, *, permute: bool = False) -> Callable[[], PeerTest]:
    """Loads MMDAgg; it draws B resamples for the quantiles and as many again for the correction of the level.

    Args:
      kernel: in its own words, as "laplace_gaussian".
      num_bandwidths: for each kernel, at least 2.
      permute: whether it permutes where m = n, too; by default it swaps pairs there.
    """

    def load() -> PeerTest:
        test = _foreign("mmdagg", "mmdagg.jax").mmdagg

        def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
            reject = test(
                x, y, alpha=alpha, kernel=kernel, number_bandwidths=num_bandwidths, B1=num, B2=num, seed=seed,
                permutations_same_sample_size=permute,
            )  # fmt: skip
            return PeerResult(None, bool(reject))

        return call

    return load


def aggregated_mmdfuse(kernels: tuple[str, ...], num_bandwidths: int) -> Callable[[], PeerTest]:
    """Loads MMD-FUSE with these kernels, in its own words, and at least 2 bandwidths for each."""

    def load() -> PeerTest:
        test = _foreign("mmdfuse", "mmdfuse").mmdfuse
        import jax

        def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
            key = jax.random.PRNGKey(seed)
            reject, pvalue = test(
                x, y, key, alpha=alpha, kernels=kernels, number_bandwidths=num_bandwidths, number_permutations=num,
                return_p_val=True,
            )  # fmt: skip
            return PeerResult(float(pvalue), bool(reject))

        return call

    return load


def _ours() -> PeerTest:
    import jax

    from mmd_jax.two_sample import permutation_test

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        result = permutation_test(jax.random.key(seed), x, y, num_permutations=num, alpha=alpha)
        return PeerResult(float(result.pvalue), bool(result.reject))

    return call


def _ours_aggregated(name: str, num_bandwidths: int) -> PeerTest:
    import jax

    from mmd_jax import two_sample

    try:
        test, kernels = getattr(two_sample, name), (two_sample.laplace_l1, two_sample.gaussian)
    except AttributeError as error:
        raise ImportError(f"mmd_jax.two_sample: {error}") from error

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        result = test(
            jax.random.key(seed), x, y,
            kernels=kernels, num_bandwidths=num_bandwidths, alpha=alpha, num_permutations=num,
        )  # fmt: skip
        pvalue = getattr(result, "pvalue", None)
        return PeerResult(None if pvalue is None else float(pvalue), bool(result.reject))

    return call


def _hyppo() -> PeerTest:
    from hyppo.ksample import MMD

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        test = MMD(compute_kernel="gaussian", gamma=0.5 / median_distance(x, y) ** 2)
        pvalue = float(test.test(x, y, reps=num, auto=False, random_state=seed)[1])
        return PeerResult(pvalue, pvalue <= alpha)

    return call


def _frouros() -> PeerTest:
    from frouros.callbacks import PermutationTestDistanceBased
    from frouros.detectors.data_drift import MMD
    from frouros.utils.kernels import rbf_kernel

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        permutations = PermutationTestDistanceBased(num_permutations=num, random_state=seed, name="permutations")
        detector = MMD(kernel=partial(rbf_kernel, sigma=median_distance(x, y)), callbacks=permutations)
        detector.fit(X=x)
        pvalue = float(detector.compare(X=y)[1]["permutations"]["p_value"])
        return PeerResult(pvalue, pvalue <= alpha)

    return call


def _alibi_detect(backend: str) -> PeerTest:
    if backend == "keops":
        importlib.import_module("pykeops")
    import torch
    from alibi_detect.cd import MMDDrift

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        torch.manual_seed(seed)
        sigma = np.array([median_distance(x, y)], np.float32)
        detector = MMDDrift(
            x, backend=backend, p_val=alpha, sigma=sigma, configure_kernel_from_x_ref=False, n_permutations=num
        )
        found = detector.predict(y)["data"]
        return PeerResult(float(found["p_val"]), bool(found["is_drift"]))

    return call


def _rff_mmd(name: str, **knobs: Any) -> PeerTest:
    test = getattr(_foreign("RFF-MMD", name), name)
    import jax

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        bandwidth = 2**0.5 * median_distance(x, y)  # its Gaussian kernel is exp(−‖a − b‖² / bandwidth²)
        # alpha, the kernel, the statistic and B are static there, so they go by position or by name as it allows.
        return PeerResult(None, bool(test(x, y, jax.random.PRNGKey(seed), 0, bandwidth, alpha, B=num, **knobs)))

    return call


def _goodpoints() -> PeerTest:
    from goodpoints.ctt import ctt

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        lam = 2**0.5 * median_distance(x, y)  # its kernel, too, is exp(−‖a − b‖² / lam²)
        seeds = {"null_seed": seed, "statistic_seed": seed + 1}
        result = ctt(x.astype(np.float64), y.astype(np.float64), 4, B=num, lam=lam, alpha=alpha, **seeds)
        # `rejects` is a probability, strictly between 0 and 1 where the statistic ties with the threshold.
        return PeerResult(None, bool(np.random.default_rng(seed + 2).random() < result.rejects))

    return call


def _agginc() -> PeerTest:
    test = _foreign("agginc", "agginc.jax").inc

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        superdiagonals = min(200, len(x) - 1, len(y) - 1)
        _, found = test("mmd", x, y, R=superdiagonals, alpha=alpha, B=num, batch_size=None, return_dictionary=True)
        return PeerResult(float(found["p-value"]), bool(found["MMDInc test reject"]))

    return call


def _cross_mmd() -> PeerTest:
    from matplotlib import style
    from scipy.stats import norm

    # It asks for a style, which it does not use here, by the name that this had until matplotlib 3.8.
    style.library.setdefault("seaborn-white", style.library["seaborn-v0_8-white"])
    module = _foreign("PermFreeMMD", "utils", inside="src", unused=("torch", "tqdm"))

    def call(x: np.ndarray, y: np.ndarray, num: int, seed: int, alpha: float) -> PeerResult:
        kernel = partial(module.RBFkernel1, bw=median_distance(x, y))
        pvalue = float(norm.sf(module.crossMMD2sampleUnpaired(x, y, kernel)))
        return PeerResult(pvalue, pvalue <= alpha)

    return call


def median_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The median distance of at most 1,024 pooled rows, spread over both samples."""
    rows = np.concatenate([x, y])
    rows = rows[np.linspace(0, len(rows) - 1, min(MEDIAN_ROWS, len(rows))).astype(int)]
    rows = rows - rows.mean(axis=0)  # ‖a‖² + ‖b‖² − 2ab loses what the rows have in common
    squares = np.sum(rows**2, axis=1)
    squared = squares[:, None] + squares - 2 * rows @ rows.T
    return float(np.sqrt(np.median(squared[np.triu_indices(len(rows), 1)])))


def _foreign(folder: str, name: str, *, inside: str = ".", unused: tuple[str, ...] = ()) -> ModuleType:
    """Module `name` of a peer without a package, from its sub-folder of the peers' folder.

    Some name their modules `utils`, so what was imported from there is taken out of sys.modules again; the functions
    keep what they need. Modules that a peer imports and that our calls never reach get an empty stand-in if missing.
    """
    where = os.environ.get(PATH_VARIABLE)
    if not where:
        raise ImportError(f"{folder} has no package; put its repository into a folder and name that by --peer-path")
    found = [path for path in Path(where).glob("*") if path.name.lower() == folder.lower()]
    if not found:
        raise ImportError(f"no folder {folder} in {where}")
    path = (found[0] / inside).resolve()
    with _only_for_now(path, name.split(".")[0], unused):
        return importlib.import_module(name)


@contextlib.contextmanager
def _only_for_now(path: Path, package: str, unused: tuple[str, ...]) -> Iterator[None]:
    """Only here `path` is on sys.path, `package` is what lies there, and missing modules of `unused` have stand-ins."""
    missing = [name for name in unused if importlib.util.find_spec(name) is None]
    others = {name: module for name, module in sys.modules.items() if name.split(".")[0] == package}
    for name in others:
        del sys.modules[name]
    for name in missing:
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], name, None)
    sys.path.insert(0, str(path))
    try:
        yield
    finally:
        sys.path.remove(str(path))
        for name, module in list(sys.modules.items()):
            if name in missing or path in Path(getattr(module, "__file__", None) or "/").resolve().parents:
                del sys.modules[name]
        sys.modules.update(others)
