"""Permutation tests that take long: driven step by step, for progress and resuming, or ended early with a valid p."""

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite, check_knobs, check_precision
from mmd_jax.two_sample.gram import Problem, Progress, Spec, accumulate, count_tiles, finish, initial
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.pooled import Numbers, is_traced
from mmd_jax.two_sample.significance import (
    conclude_test,
    is_good,
    lay_out,
    monte_carlo_interval,
    permutation_test,
)
from mmd_jax.two_sample.splits import Scheme, begin, conclude, permute, reduction
from mmd_jax.types import TwoSampleResult


class Step(NamedTuple):
    """Where a stepwise test stands. `done` and `progress` are all that resuming needs: a few numbers a permutation.

    Attributes:
      done: tiles of the Gram matrix that were visited.
      total: tiles there are.
      progress: the sums so far, a tree of arrays.
      problem: a hash of rows, key, bandwidths and settings: a step goes on with the problem it began with alone.
      result: the test's, at the last step; else None.
    """

    done: int
    total: int
    progress: Progress
    problem: str
    result: TwoSampleResult | None = None


def permutation_test_in_steps(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    tiles_per_step: int | None = None,
    resume: Step | None = None,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    bins: int | None = None,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> Iterator[Step]:
    """`permutation_test`, a range of tiles at a time: for samples that take minutes, and machines that go away.

    The steps add up the same tiles in the same order, so an interrupted test that goes on from any of its steps, with
    the same arguments, ends bit for bit as an undisturbed one does.

    Args:
      key: consumed.
      x: sample of P, shape [m, d].
      y: sample of Q, shape [n, d].
      tiles_per_step: of 1,024 × 1,024 kernel values each on a CPU, for large samples; none: about a hundred steps.
      resume: a step of an earlier, interrupted test to go on from.
      bandwidth, alpha, num_permutations, groups_x, groups_y, bins, kernel, precision, mesh, return_null: as
        `permutation_test`.

    Yields:
      A `Step` after each range of tiles; the last has the result.

    Raises:
      ValueError: tiles_per_step < 1; a step of another problem; else as `permutation_test`. TypeError: traced arguments.

    Example:
      >>> import jax
      >>> x, y = jax.random.normal(jax.random.key(1), (2, 300, 2))
      >>> steps = list(permutation_test_in_steps(jax.random.key(0), x, y, tiles_per_step=10))
      >>> [(step.done, step.total) for step in steps]
      [(10, 15), (15, 15)]
      >>> bool(steps[-1].result.pvalue == permutation_test(jax.random.key(0), x, y).pvalue)
      True
    """
    if is_traced(key, x, y, bandwidth, alpha, groups_x, groups_y):
        raise TypeError("a stepwise test can't be traced: use permutation_test under jit, vmap and grad.")
    check_precision(precision)
    check_knobs(key, alpha, num_permutations)
    pooled, groups = lay_out(key, x, y, bandwidth, alpha, groups_x, groups_y, bins)
    widths = resolve_bandwidth(bandwidth, pooled, kernel)
    spec = Spec((kernel,), precision, mesh)
    scheme = Scheme(num_permutations, permute, bins, bins is not None and groups is not None)
    total = int(count_tiles(pooled.count, pooled.blocks.shape[1]))
    if tiles_per_step is None:
        tiles_per_step = -(-total // 100)
    if tiles_per_step < 1:
        raise ValueError(f"tiles_per_step is {tiles_per_step}; expected at least 1.")
    splits = _begin(key, pooled, groups, (widths[None],), spec=spec, scheme=scheme)
    done, progress = 0, _initial(splits.problem, spec=spec, scheme=scheme)
    problem = _hash(key, pooled, groups, widths, splits.problem.shifts, (num_permutations, bins, precision))
    if resume is not None:
        if resume.problem != problem:
            raise ValueError(
                "the step to resume from is of another problem; resume with the same key, samples, groups, permutations, "
                "bins, bandwidth, kernel and precision."
            )
        done, progress = resume.done, jax.tree.map(jnp.asarray, resume.progress)
    while done < total:
        end = min(done + tiles_per_step, total)
        progress = _advance(progress, done, end, splits.problem, spec=spec, scheme=scheme)
        done = end
        if done < total:
            # An answer is waited for, else the steps would only be put in a queue, and progress be a fiction.
            yield Step(done, total, jax.block_until_ready(progress), problem)
    alpha = np.asarray(alpha, pooled.blocks.dtype)
    result = _conclude(progress, splits, pooled, groups, alpha, widths, scheme=scheme, return_null=return_null)
    check_finite(result.statistic)
    yield Step(total, total, progress, problem, result)


def _hash(key: Array, *values: Any) -> str:
    # The shifts are means of kernel values, and so tell kernels apart.
    found = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves((jax.random.key_data(key), values)):
        found.update(leaf.encode() if isinstance(leaf, str) else np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


_begin = partial(jax.jit, static_argnames=("spec", "scheme"))(begin)


@partial(jax.jit, static_argnames=("spec", "scheme"))
def _initial(problem: Problem, *, spec: Spec, scheme: Scheme) -> Progress:
    return initial(problem, spec, reduction(scheme, problem))


@partial(jax.jit, static_argnames=("spec", "scheme"))
def _advance(progress: Progress, first: Any, last: Any, problem: Problem, *, spec: Spec, scheme: Scheme) -> Progress:
    return accumulate(progress, first, last, problem, spec, reduction(scheme, problem))


@partial(jax.jit, static_argnames=("scheme", "return_null"))
def _conclude(
    progress: Progress,
    splits: Any,
    pooled: Any,
    groups: Any,
    alpha: Any,
    bandwidth: Any,
    *,
    scheme: Scheme,
    return_null: bool,
) -> TwoSampleResult:
    sums = conclude(finish(progress), splits)
    return conclude_test(sums, splits, alpha, bandwidth, is_good(pooled, alpha, scheme.num, groups), return_null)


def sequential_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    alpha: float = 0.05,
    max_permutations: int = 9999,
    exceedances: int = 20,
    batch: int = 200,
    **settings: Any,
) -> TwoSampleResult:
    """A permutation test that stops as soon as the answer is clear, with a valid p.

        p = h / l                   where the h-th of the permuted statistics that reach the observed one is the l-th of all
        p = (1 + #) / (1 + B)       where fewer than h of all B reach it

    Where P = Q it takes about h / p permutations, and all B only where p is near h / B or below: a small p gets the
    digits it needs, and a large one costs nothing. P(p <= alpha) <= alpha for any h and B.

    Args:
      key: consumed.
      x: sample of P, shape [m, d].
      y: sample of Q, shape [n, d].
      alpha: level, in (0, 1).
      max_permutations: B.
      exceedances: h, at least 1. The relative error of p is about 1 / √h.
      batch: permutations drawn at a time, each batch by one pass over the Gram matrix; B is rounded up to whole batches.
      **settings: bandwidth, groups_x, groups_y, kernel, precision, mesh, as `permutation_test`. With `bins`, one pass of
        `permutation_test` with all B at once is cheaper.

    Returns:
      `TwoSampleResult` with the permutations that were used; `threshold` is that of the last batch.

    Raises:
      ValueError: h < 1, a batch < 1, B < batch; else as `permutation_test`. TypeError: traced arguments.

    Example:
      >>> import jax
      >>> x, y = jax.random.normal(jax.random.key(1), (2, 100, 2))
      >>> result = sequential_test(jax.random.key(0), x, y)
      >>> bool(result.reject), int(result.num_permutations) < 9999
      (False, True)

    Reference: Besag and Clifford, Sequential Monte Carlo p-values, Biometrika 1991.
    """
    if is_traced(key, x, y, alpha):
        raise TypeError("a sequential test looks at its numbers, so it can't be traced: use permutation_test instead.")
    if exceedances < 1 or batch < 1 or max_permutations < batch:
        raise ValueError(
            f"exceedances is {exceedances}, batch {batch} and max_permutations {max_permutations}; expected at least 1, and a "
            "batch that is no larger than max_permutations."
        )
    if unknown := set(settings) - {"bandwidth", "groups_x", "groups_y", "kernel", "precision", "mesh"}:
        raise TypeError(
            f"a sequential test has no {', '.join(sorted(unknown))}; see permutation_test for what it takes."
        )
    check_knobs(key, alpha, max_permutations)
    groups = settings.get("groups_x"), settings.get("groups_y")
    lay_out(key, x, y, settings.get("bandwidth"), alpha, *groups, None)  # for what it refuses
    # The level of a batch alone is of no account; 1/2 can always be met.
    inner = {"alpha": 0.5, "num_permutations": batch, "return_null": True, **settings}
    count = used = 0
    for number in range(-(-max_permutations // batch)):
        result = permutation_test(jax.random.fold_in(key, number), x, y, **inner)
        assert result.null is not None
        reached = np.cumsum(np.asarray(result.null) >= float(result.statistic))
        if count + reached[-1] >= exceedances:
            used += int(np.searchsorted(reached, exceedances - count)) + 1
            count = exceedances
            break
        count, used = count + int(reached[-1]), used + batch
    pvalue = count / used if count >= exceedances else (1 + count) / (1 + used)
    dtype = result.statistic.dtype
    return result._replace(
        pvalue=jnp.asarray(pvalue, dtype),
        # On the numbers themselves, not on p in float32; a level such as .05 is often meant to be a fraction.
        reject=jnp.asarray(pvalue <= float(alpha) * (1 + 1e-9)),
        num_permutations=jnp.asarray(used, jnp.int32),
        pvalue_interval=monte_carlo_interval(count, used).astype(dtype),
        null=None,
    )
